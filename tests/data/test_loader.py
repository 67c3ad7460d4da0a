"""Tests of the loaders: the content of batches, streams from any step, and exact counts."""

import sys
import threading
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones.data.batch import Batch
from backbones.data.decode_check import DecodeCheck
from backbones.data.loader import EvalLoader, TrainLoader
from backbones.data.synthetic import synthetic_index
from backbones.dataset.index import Index
from backbones.dataset.random_numbers import permutation
from backbones.dataset.sources.folder import scan_folder
from backbones.errors import UserError
from backbones.recipe import Augment, Loading, Preprocess

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)
LOADERS = ["dali", "reference", "synthetic"]


def train_loader(index: Index, **options) -> TrainLoader:
    view = {
        "img_size": 32,
        "preprocess": Preprocess(mean=MEAN, std=STD),
        "augment": Augment("inception"),
        "workers": 2,
    }
    return TrainLoader(index, **({"batch_size": 8, "loader": "synthetic", "workers": 2} | view | options))


def eval_loader(index: Index, **options) -> EvalLoader:
    defaults = {"img_size": 32, "preprocess": Preprocess(mean=MEAN, std=STD), "workers": 2}
    return EvalLoader(index, **({"batch_size": 8, "loader": "synthetic"} | defaults | options))


def take(loader: TrainLoader, count: int, *, step: int = 0) -> list[Batch]:
    """Return the first micro-batches from a step on, and end their stream."""
    with closing(loader.from_step(step)) as batches:
        return list(islice(batches, count))


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert [batch[2:] for batch in found] == [batch[2:] for batch in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.images, other.images, rtol=0, atol=0)
        torch.testing.assert_close(one.labels, other.labels, rtol=0, atol=0)


def test_a_sample_of_the_images_is_compared_with_pil(split: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seventeen images are three batches of eight. The other loaders have nothing to compare."""
    compared: list[int] = []
    monkeypatch.setattr(DecodeCheck, "_compare", lambda _, each: compared.append(each.number) or 0.0)
    assert [train_loader(split, loader=name).check_decoding(17) for name in LOADERS] == [24, 0, 0]
    assert len(compared) == 24


@pytest.mark.parametrize("loader", LOADERS)
def test_a_batch_is_channels_last_floats_with_the_labels_of_its_rows(split: Index, loader: str) -> None:
    batches = take(train_loader(split, loader=loader, seed=4), 5, step=5)
    assert [batch.position for batch in batches] == [0, 8, 16, 24, 32]
    order = permutation(4, 1, len(split))
    for number, batch in enumerate(batches):
        assert batch.images.shape == (8, 3, 32, 32)
        assert batch.images.dtype == torch.float32
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == split.labels[order[number * 8 : number * 8 + 8]].tolist()


def test_pixels_are_normalized_channel_by_channel(split: Index) -> None:
    plain = next(iter(eval_loader(split, loader="reference", preprocess=Preprocess()))).images
    found = next(iter(eval_loader(split, loader="reference"))).images
    assert 0 <= plain.min() < 0.2
    assert 0.8 < plain.max() <= 1
    for channel in range(3):
        expected = (plain[:, channel] - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(found[:, channel], expected, rtol=1e-5, atol=1e-5)


def test_dali_and_the_reference_give_the_same_epoch(split: Index) -> None:
    batches = [take(train_loader(split, loader=name, preprocess=Preprocess()), 5) for name in ("dali", "reference")]
    for ours, theirs in zip(*batches, strict=True):
        assert (ours.images - theirs.images).abs().mean() < 0.5 / 255
        assert ours.labels.tolist() == theirs.labels.tolist()


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_global_batches_do_not_depend_on_processes_or_accumulation(split: Index, ranks: int, accumulation: int) -> None:
    whole = take(train_loader(split, batch_size=16), 2, step=2)
    parts = []
    for rank in range(ranks):
        options = {"batch_size": 16, "grad_accum_steps": accumulation, "rank": rank, "world_size": ranks}
        parts += take(train_loader(split, **options), 2 * accumulation, step=2)
    parts.sort(key=lambda batch: batch.position)
    torch.testing.assert_close(torch.cat([b.images for b in parts]), torch.cat([b.images for b in whole]))
    torch.testing.assert_close(torch.cat([b.labels for b in parts]), torch.cat([b.labels for b in whole]))


def test_steps_and_the_dropped_tail_are_reported(split: Index) -> None:
    loader = train_loader(split, batch_size=8, grad_accum_steps=2)
    assert (loader.steps_per_epoch, loader.dropped) == (5, 3)
    places = [(batch.epoch, batch.position) for batch in take(loader, 5, step=9)]
    assert places == [(1, 32), (1, 36), (2, 0), (2, 4), (2, 8)]


@pytest.mark.parametrize("loader", ["dali", "synthetic"])
@pytest.mark.parametrize("step", [0, 1, 4, 5, 7])
def test_a_run_resumed_at_any_step_is_the_uninterrupted_one(split: Index, loader: str, step: int) -> None:
    full = take(train_loader(split, loader=loader), 10)
    assert_same(take(train_loader(split, loader=loader), 10 - step, step=step), full[step:])


@pytest.mark.parametrize("loader", ["dali", "reference"])
def test_replaced_images_are_counted_when_their_batch_is_taken(small, loader: str) -> None:
    index = scan_folder(small)
    Path(index.place(5).path).write_bytes(b"")
    loading = Loading(bad_images="skip", bad_images_limit=1.0)
    train = train_loader(index, loader=loader, batch_size=2, loading=loading)
    place = int(np.flatnonzero(permutation(0, 0, 8) == 5)[0]) // 2
    assert train.counters() == {"data/replaced": 0}
    with closing(train.from_step(0)) as batches:
        counted = [train.counters()["data/replaced"] for _ in islice(batches, 4)]
    assert counted == [int(number >= place) for number in range(4)]


@pytest.mark.parametrize("loader", LOADERS)
def test_two_streams_of_one_loader_do_not_disturb_each_other(split: Index, loader: str) -> None:
    train = train_loader(split, loader=loader)
    expected = take(train, 4)
    with closing(train.from_step(0)) as first, closing(train.from_step(2)) as second:
        pairs = [(next(first), next(second)) for _ in range(2)]
        first.close()
        later = next(second)
    assert_same([one for one, _ in pairs], expected[:2])
    assert_same([other for _, other in pairs], expected[2:])
    assert later.position == 32


@pytest.mark.parametrize("loader", ["dali", "reference"])
def test_closing_a_stream_ends_its_threads_and_the_loader_can_be_used_again(split: Index, loader: str) -> None:
    train = train_loader(split, loader=loader)
    before = take(train, 2)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("ahead", "read", "resize"))]
    assert_same(take(train, 2), before)


def test_a_closed_stream_is_at_its_end(split: Index) -> None:
    batches = train_loader(split).from_step(0)
    batches.close()
    assert list(batches) == []


@pytest.mark.parametrize("loader", LOADERS)
def test_every_stage_goes_through_the_images_of_the_run(split: Index, loader: str) -> None:
    stages = train_loader(split, loader=loader, batch_size=8, grad_accum_steps=2).stages()
    assert list(stages) == (["make"] if loader == "synthetic" else ["read", "decode", "augment"])
    for stage in stages.values():
        with closing(stage(4)) as counts:
            assert list(islice(counts, 3)) == [4, 4, 4]


def test_a_negative_step_is_refused_at_once(split: Index) -> None:
    with pytest.raises(ValueError, match="step=-1 must not be negative"):
        train_loader(split).from_step(-1)


def test_a_batch_larger_than_the_data_set_is_refused_at_once(split: Index) -> None:
    with pytest.raises(UserError, match="larger than the data set"):
        train_loader(split, batch_size=64)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 7, 43, 64])
def test_validation_counts_every_image_once(split: Index, ranks: int, batch_size: int) -> None:
    labels, count = [], 0
    for rank in range(ranks):
        loader = eval_loader(split, batch_size=batch_size, rank=rank, world_size=ranks)
        batches = list(loader)
        assert len(batches) == len(loader)
        assert loader.n == 43
        count += sum(len(batch.images) for batch in batches)
        labels += [label for batch in batches for label in batch.labels.tolist()]
    assert count == 43
    assert np.bincount(labels).tolist() == np.bincount(split.labels).tolist()


@pytest.mark.parametrize("loader", LOADERS)
def test_validation_can_be_repeated_and_be_empty_on_a_process(split: Index, loader: str) -> None:
    val = eval_loader(split, loader=loader)
    assert_same(list(val), list(val))
    assert list(eval_loader(split, loader=loader, rank=43, world_size=44)) == []


def test_an_unknown_loader_is_refused_with_the_nearest_name(split: Index) -> None:
    with pytest.raises(UserError, match=r"loader='dalli'.*Did you mean dali\?"):
        train_loader(split, loader="dalli")


def test_a_missing_dali_is_explained(split: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("nvidia.dali")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.delitem(sys.modules, "backbones.data.pipeline", raising=False)
    with pytest.raises(UserError, match="loader=reference"):
        train_loader(split, loader="dali")


def test_synthetic_images_need_no_disk() -> None:
    batches = take(train_loader(synthetic_index(3, 8)), 3)
    assert sorted(torch.cat([batch.labels for batch in batches]).tolist()) == [0] * 8 + [1] * 8 + [2] * 8
