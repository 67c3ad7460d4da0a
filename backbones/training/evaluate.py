"""Exact top-1, top-5 and loss over a split: one function for training and for eval.py."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from backbones.errors import UserError
from backbones.training.arithmetic import steady_algorithms
from backbones.training.metrics import topk_correct

Judge = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Turns (logits, labels) of a batch into the logits that compete and the right one of each image."""


def as_labelled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Let all outputs compete; the label's own is right."""
    return logits, labels


@dataclass(frozen=True)
class Evaluation:
    """Figures over a whole split."""

    top1: float
    """Per cent of images whose label has the highest logit."""
    top5: float
    """Per cent of images whose label is among the five highest logits."""
    loss: float
    """Mean cross-entropy against the hard labels, to four decimals (rounding hides the order of summation)."""
    n: int
    """Images counted."""

    def __str__(self) -> str:
        return f"top-1 {self.top1:.3f} %  top-5 {self.top5:.3f} %  loss {self.loss:.4f}  n {self.n}"

    def metrics(self, prefix: str) -> dict[str, Any]:
        """Return the figures as ``{prefix/top1: ...}``."""
        return {f"{prefix}/{key}": value for key, value in asdict(self).items()}


def evaluate(
    accelerator: Accelerator,
    model: nn.Module,
    batches: Iterable[Any],
    *,
    expected: int,
    judge: Judge = as_labelled,
    on_batch: Callable[[Tensor], None] = lambda _sums: None,
    pad_to: int | None = None,
) -> Evaluation:
    """Evaluate ``model`` on this process's ``batches`` and add the counts of all processes.

    Args:
        accelerator: of this process.
        model: the network.
        batches: each has ``images`` (N, 3, H, W) and ``labels`` (N,).
        expected: images of the whole split.
        judge: chooses the outputs that compete and the right one.
        on_batch: called after each batch with (top-1 hits, top-5 hits, summed loss, images) of this process so far.
        pad_to: images of a full batch. A compiled network is not compiled again for a smaller one: it gets black images
            too, whose logits are dropped.

    Raises:
        UserError: the images counted are not ``expected``.
    """
    sums = torch.zeros(4, dtype=torch.float64, device=accelerator.device)
    with _evaluating(model), steady_algorithms():
        for batch in batches:
            logits = _predict(accelerator, model, batch.images, pad_to)
            sums += _counts(*judge(logits.float(), batch.labels))
            on_batch(sums)
    total = cast(Tensor, accelerator.reduce(sums, reduction="sum"))
    return _evaluation(total.tolist(), expected)


def predict_black(accelerator: Accelerator, model: nn.Module, shape: tuple[int, int, int, int]) -> Tensor:
    """Return the logits of black images, as `evaluate` computes them; a compiled network is compiled for it now.

    Shape:
        shape = (N, 3, H, W) -> (N, classes)
    """
    with _evaluating(model):
        images = torch.zeros(shape, device=accelerator.device).contiguous(memory_format=torch.channels_last)
        return _predict(accelerator, model, images, None)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into eval mode without gradients during the block."""
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        yield
    model.train(was_training)


def _predict(accelerator: Accelerator, model: nn.Module, images: Tensor, pad_to: int | None) -> Tensor:
    """Return the logits of the images alone, where they are padded too: (N, 3, H, W) -> (N, classes)."""
    rows = len(images)
    if pad_to is not None and rows < pad_to:
        # F.pad keeps the memory order, a change of which would compile the network again
        images = F.pad(images, [0, 0] * (images.ndim - 1) + [0, pad_to - rows])
    with accelerator.autocast():
        return model(images)[:rows]


def _counts(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (top-1 hits, top-5 hits, summed loss, images) of one batch as float64."""
    loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
    # new_full, since new_tensor would copy from the host, which waits for a GPU
    return torch.stack([*topk_correct(logits, labels).double(), loss, loss.new_full((), len(labels))])


def _evaluation(sums: list[float], expected: int) -> Evaluation:
    top1, top5, loss, n = sums
    if n != expected:
        raise UserError(f"evaluated {n:.0f} images, but the split has {expected}: the figures would be wrong.")
    return Evaluation(top1=100 * top1 / n, top5=100 * top5 / n, loss=round(loss / n, 4), n=int(n))
