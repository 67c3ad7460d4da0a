"""Two real processes over gloo, as `accelerate launch` starts them: disjoint shards, equal weights, equal figures."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.probes import two_ranks

ROOT = Path(__file__).parents[1]
TWO = ["--config_file", "configs/accelerate/cpu2.yaml"]
TINY = ["--model", "test_resnet", "--img-size", "32", "--batch-size", "16", "--epochs", "2", "--workers", "1"]
TINY += ["--bn-momentum", "0.1", "--device", "cpu"]


def launch(*words: str | Path, launcher: list[str] = TWO) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "accelerate.commands.launch", *launcher, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def ranks(image_folder, tmp_path_factory) -> list[dict]:
    """What rank 0 and rank 1 report."""
    output = tmp_path_factory.mktemp("ranks")
    done = launch("tests/probes/two_ranks.py", image_folder, output)
    assert done.returncode == 0, done.stderr
    return [torch.load(output / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.fixture
def alone(image_folder, fresh_accelerate) -> dict:
    """What a single process reports."""
    return two_ranks.report(str(image_folder))


def by_place(images: list) -> dict[tuple[int, int], tuple]:
    return {(epoch, position): (label, pixels) for epoch, position, label, pixels in images}


def test_two_ranks_see_disjoint_shards_that_make_the_same_epoch(ranks, alone):
    shards = [by_place(rank["training"]) for rank in ranks]
    assert [rank["ranks"] for rank in ranks] == [2, 2]
    assert not shards[0].keys() & shards[1].keys()
    together, single = shards[0] | shards[1], by_place(alone["training"])
    assert together.keys() == single.keys() == {(3, position) for position in range(64)}
    for place, (label, pixels) in single.items():
        assert together[place][0] == label
        assert torch.equal(together[place][1], pixels)


def test_two_ranks_validate_each_image_once(ranks, alone):
    def images(report: dict) -> list[bytes]:
        return [pixels.numpy().tobytes() for _, _, _, pixels in report["validation"]]

    shards = [images(rank) for rank in ranks]
    assert len(set(shards[0]) | set(shards[1])) == len(shards[0]) + len(shards[1]) == 20
    assert sorted(shards[0] + shards[1]) == sorted(images(alone))


@pytest.mark.parametrize("kind", ["plain", "norm"])
def test_both_ranks_end_with_equal_weights_and_statistics(ranks, kind):
    (first, top1), (second, other_top1) = ranks[0][kind], ranks[1][kind]
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    assert top1 == other_top1


def test_two_ranks_make_the_steps_of_one(ranks, alone):
    """Without batch normalization (its statistics are per rank) only the order of summation differs."""
    for key, value in alone["plain"][0].items():
        assert torch.allclose(value, ranks[0]["plain"][0][key], atol=1e-5), key


def test_a_static_graph_changes_no_bit_of_losses_and_weights_also_with_recomputed_activations(ranks):
    for rank in ranks:
        without, static = rank["losses"][False], rank["losses"][True]
        assert len(static) == 6 + 6
        assert all(torch.equal(a, b) for a, b in zip(without, static, strict=True))
    first, second = (rank["losses"][True] for rank in ranks)
    assert not torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[6:], second[6:], strict=True))


def test_a_signal_to_one_rank_is_the_signal_of_all(ranks, alone):
    """A scheduler may tell one process of a job only; the other must not wait for it in the next step."""
    expected = [(False, 0), (True, signal.SIGTERM)]
    assert [rank["decisions"] for rank in ranks] == [expected, expected]
    assert alone["decisions"] == expected


def test_ranks_that_agree_raise_no_alarm(ranks, alone):
    assert [rank["healthy"] for rank in (*ranks, alone)] == [[], [], []]


def test_what_is_wrong_in_one_rank_only_is_known_to_all_and_named(ranks):
    """One is slow, has other statistics and, from step 9 on, one other bit in its weights, which ends the run."""
    first, second = (rank["broken"] for rank in ranks)
    assert first == second
    names = [event for _, event, _ in first]
    assert sorted(names) == ["alarm/batch_norm", "alarm/replicas", "alarm/straggler"]
    texts = {event: (step, text) for step, event, text in first}
    step, text = texts["alarm/batch_norm"]
    assert step == 2
    assert text.startswith("the mean running variance of 1.1 is ")
    assert " in process 1 and " in text
    assert texts["alarm/straggler"][1].startswith("process 1 takes ")
    step, text = texts["alarm/replicas"]
    assert step == 10
    assert text.startswith(
        "at step 10 the weights of process 1 are not those of process 0, first in 1.4.weight (1 of 6 parameters)"
    )


@pytest.fixture(scope="module")
def run_folder(image_folder, tmp_path_factory) -> Path:
    """A run of train_imagenet.py on two processes."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    done = launch("train_imagenet.py", *TINY, "--data-dir", image_folder, "--output", folder)
    assert done.returncode == 0, done.stderr
    assert "16 images per step = 2 processes x 8" in done.stdout
    assert "Warning" not in done.stderr
    return folder


def evaluate(run_folder: Path, file: Path, launcher: list[str] | None) -> dict:
    words = ["eval.py", "--ckpt", run_folder, "--json", file, "--device", "cpu", "--workers", "1"]
    if launcher is None:
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    else:
        done = launch(*words, launcher=launcher)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


@pytest.mark.slow
def test_one_and_two_processes_give_the_figures_of_the_last_validation(run_folder, tmp_path):
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    last = {key: rows[-1][f"val/{key}"] for key in ("top1", "top5", "loss", "n")}
    for name, launcher in (("one", None), ("two", TWO)):
        figures = evaluate(run_folder, tmp_path / f"{name}.json", launcher)
        assert {key: figures[key] for key in last} == last
        assert figures["model"] == "test_resnet"


def test_a_launch_that_would_quietly_start_one_process_is_refused(image_folder, tmp_path):
    words = ["train_imagenet.py", *TINY, "--data-dir", image_folder, "--output", tmp_path / "run"]
    done = launch(*words, launcher=["--cpu", "--num_processes", "2"])
    assert done.returncode != 0
    assert "accelerate launch was asked for 2 processes but started 1" in done.stderr
    assert not (tmp_path / "run").exists()
