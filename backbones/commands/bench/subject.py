"""Subject of a measurement: a network with its batch, for a training step or an inference."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import canonical_name
from backbones.assembly.network import create_network
from backbones.commands.bench.options import BenchPrecision, Options
from backbones.errors import UserError
from backbones.recipe import Optim
from backbones.training.optim import create_optimizer

DTYPES: dict[BenchPrecision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEARNING_RATE = 1e-4
"""Small, so that noise as images does not drive the weights to infinity."""


@dataclass(frozen=True)
class Setting:
    """Network and batch of a subject, and how it is computed."""

    model: str
    model_args: Mapping[str, Any]
    precision: BenchPrecision
    torchcompile: bool
    batch_size: int
    img_size: int
    channels_last: bool

    @property
    def dtype(self) -> torch.dtype:
        """Type of convolutions and matrix products."""
        return DTYPES[self.precision]


def choose_settings(options: Options, device: torch.device) -> list[Setting]:
    """Return the setting of each subject: of the first, and of the second where the options name one."""
    on_gpu = device.type == "cuda"
    first = Setting(
        model=canonical_name(options.model),
        model_args=options.model_args,
        precision=options.precision or ("bf16" if on_gpu else "fp32"),
        torchcompile=options.torchcompile,
        batch_size=options.batch_size or (256 if on_gpu else 4),
        img_size=options.img_size or (256 if on_gpu else 128),
        channels_last=options.channels_last,
    )
    return [first, _choose_second(options, first)] if options.compares else [first]


def _choose_second(options: Options, first: Setting) -> Setting:
    own_args = first.model_args if options.against is None else {}
    changes = {
        "model": options.against and canonical_name(options.against),
        "model_args": own_args if options.against_args is None else options.against_args,
        "precision": options.against_precision,
        "torchcompile": options.against_torchcompile,
        "batch_size": options.against_batch_size,
    }
    second = replace(first, **{name: value for name, value in changes.items() if value is not None})
    if second == first:
        raise UserError("both subjects are the same: name another network or another option with --against-...")
    return second


class Subject:
    """Network of a setting with a batch of noise, ready to train and to infer.

    The weights are those of seed 0. Both modes use one network, so that its memory counts once.
    """

    def __init__(self, setting: Setting, device: torch.device) -> None:
        self.setting, self.device = setting, device
        torch.manual_seed(0)
        self.network = _create(setting).to(device)
        self.images, self.targets = self.batch(setting.batch_size)
        self.batches: dict[int, tuple[Tensor, Tensor]] = {}
        if setting.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = create_optimizer(self.network, Optim(), lr=LEARNING_RATE)
        self.compute: nn.Module = self.network
        if setting.torchcompile:
            self.compute = torch.compile(self.network)  # type: ignore[assignment]

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Return noise as images, and zeros as targets.

        Shape: images (N, 3, H, W), targets (N,)
        """
        size, source = self.setting.img_size, torch.Generator().manual_seed(0)
        images = torch.rand((count, 3, size, size), generator=source).to(self.device)
        order = torch.channels_last if self.setting.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=order), torch.zeros(count, dtype=torch.long, device=self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of the precision."""
        dtype = self.setting.dtype
        return nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype)

    def loss(self, network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch, with the graph for backward."""
        with self.autocast():
            return F.cross_entropy(network(images), targets)

    def train(self) -> None:
        """Make one training step: forward, backward, SGD."""
        self._step(self.loss(self.compute, self.images, self.targets))

    def eager_loss(self, count: int) -> Tensor:
        """Return the loss of ``count`` images, computed without the compiler."""
        if count not in self.batches:
            self.batches[count] = self.batch(count)
        return self.loss(self.network, *self.batches[count])

    def eager_step(self, count: int) -> None:
        """Make one training step of ``count`` images without the compiler."""
        self._step(self.eager_loss(count))

    def _step(self, loss: Tensor) -> None:
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.inference_mode()
    def infer(self) -> None:
        """Compute the logits of the batch."""
        with self.autocast():
            self.compute(self.images)


def _create(setting: Setting) -> nn.Module:
    try:
        return create_network(setting.model, **setting.model_args)
    except (TypeError, ValueError) as error:
        raise UserError(f"{setting.model} cannot be built with {dict(setting.model_args)}: {error}") from None
