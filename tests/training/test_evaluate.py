"""Evaluation counts each image once and says so."""

from typing import NamedTuple

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.data.synthetic import synthetic_index
from backbones.dataset.validation_sets import ValidationSet
from backbones.errors import UserError
from backbones.training.evaluate import Evaluation, evaluate, predict_black
from backbones.training.report import show_validation

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


class FakeBatch(NamedTuple):
    images: torch.Tensor
    labels: torch.Tensor


def split_of(n: int, sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor, list[FakeBatch]]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(n, 7, generator=generator)
    labels = torch.randint(0, 7, (n,), generator=generator)
    parts = zip(logits.split(sizes), labels.split(sizes), strict=True)
    return logits, labels, [FakeBatch(images, part) for images, part in parts]


@pytest.mark.parametrize("sizes", [[23], [16, 7], [1] * 23, [20, 3]])
def test_the_figures_are_those_of_the_whole_split_however_it_is_batched(sizes):
    logits, labels, batches = split_of(23, sizes)
    evaluation = evaluate(Accelerator(cpu=True), torch.nn.Identity(), batches, expected=23)
    top5 = (logits.topk(5).indices == labels[:, None]).any(1).double().mean().item()
    assert evaluation.top1 == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())
    assert evaluation.top5 == pytest.approx(100 * top5)
    assert evaluation.loss == round(torch.nn.functional.cross_entropy(logits.double(), labels).item(), 4)
    assert evaluation.n == 23


@pytest.mark.parametrize("expected", [22, 24])
def test_a_count_that_is_not_the_size_of_the_split_is_refused(expected):
    _, _, batches = split_of(23, [23])
    with pytest.raises(UserError, match=f"evaluated 23 images, but the split has {expected}"):
        evaluate(Accelerator(cpu=True), torch.nn.Identity(), batches, expected=expected)


def test_the_network_is_evaluated_in_eval_mode_and_left_as_it_was():
    model = torch.nn.Sequential(torch.nn.Dropout(0.9999), torch.nn.Identity()).train()
    logits, labels, batches = split_of(23, [23])
    evaluation = evaluate(Accelerator(cpu=True), model, batches, expected=23)
    assert evaluation.top1 == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())
    assert model.training


class HostReads(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: values that are read, and tensors made of the host's numbers."""

    WAITING = ("aten._local_scalar_dense.default", "aten.lift_fresh.default", "aten.nonzero.default")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += str(func) in self.WAITING
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("judge", ["own", "real"])
def test_no_batch_makes_the_host_wait_though_the_progress_is_shown(judge, monkeypatch):
    read: list[Tensor] = []
    to_list = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: read.append(tensor) or to_list(tensor))
    right = tuple((label, 0) for label in range(7)) if judge == "real" else None
    images = ValidationSet("the set", synthetic_index(7, 1), tuple(range(7)), right)
    counts = []
    for sizes in ([8], [1] * 8):
        read.clear()
        _, _, batches = split_of(8, sizes)
        accelerator, decide = Accelerator(cpu=True), images.judge(torch.device("cpu"))
        with HostReads() as counted, show_validation(accelerator, "val", 8) as show:
            evaluate(accelerator, torch.nn.Identity(), batches, expected=8, judge=decide, on_batch=show)
        counts.append((counted.count, len(read)))
    assert counts[0] == counts[1]
    assert counts[0][1] == 1  # the sums, at the end


def test_a_judge_says_which_logits_compete_and_which_is_right():
    logits, _, batches = split_of(23, [16, 7])
    own = logits[:, [1, 4]].argmax(dim=1)
    evaluation = evaluate(
        Accelerator(cpu=True),
        torch.nn.Identity(),
        batches,
        expected=23,
        judge=lambda found, labels: (found[:, [1, 4]], torch.zeros_like(labels)),
    )
    assert evaluation.top1 == pytest.approx(100 * (own == 0).double().mean().item())
    assert evaluation.top5 == 100


def test_figures_are_named_for_the_log():
    metrics = Evaluation(top1=50.0, top5=75.0, loss=1.5, n=4).metrics("val_ema")
    assert metrics == {"val_ema/top1": 50.0, "val_ema/top5": 75.0, "val_ema/loss": 1.5, "val_ema/n": 4}


class Sized(torch.nn.Identity):
    """The identity, which notes the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        return super().forward(x)


def test_padding_makes_all_batches_as_large_and_enters_no_figure():
    _, _, batches = split_of(23, [16, 7])
    model = Sized()
    plain = evaluate(Accelerator(cpu=True), model, batches, expected=23)
    padded = evaluate(Accelerator(cpu=True), model, batches, expected=23, pad_to=16)
    assert model.sizes == [16, 7, 16, 16]
    assert padded == plain


def test_a_batch_that_is_not_smaller_is_not_padded():
    _, _, batches = split_of(23, [16, 7])
    model = Sized()
    evaluate(Accelerator(cpu=True), model, batches, expected=23, pad_to=7)
    assert model.sizes == [16, 7]


def test_padding_keeps_the_memory_order_of_images():
    strides = []
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    model.register_forward_pre_hook(lambda _, inputs: strides.append(inputs[0].stride()))
    images = torch.rand(5, 7, 6, 6).contiguous(memory_format=torch.channels_last)
    batches = [FakeBatch(part, torch.zeros(len(part), dtype=torch.int64)) for part in images.split([3, 2])]
    evaluate(Accelerator(cpu=True), model, batches, expected=5, pad_to=3)
    predict_black(Accelerator(cpu=True), model, (3, 7, 6, 6))
    assert strides == [images.stride()] * 3
