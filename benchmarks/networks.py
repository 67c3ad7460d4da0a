"""Networks of the benchmarks, ours and timm's, as actions to measure: one training step, or one inference."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import create_model
from backbones.counting import count_per_image
from benchmarks.harness import Action, Costs, clock_for, create_parser, measure

Task = Literal["training", "inference"]

PEERS = {"csresnext50": "cspresnext50", "csdarknet53": "cspdarknet53"}
"""Network of ours -> the same architecture in timm, with its own small differences."""

TIMM_ACTIVATIONS = {"leaky": "leaky_relu", "mish": "mish"}


@dataclass(frozen=True)
class Setting:
    """Batch and number format of a measurement."""

    batch: int
    size: int
    """Height and width of the images."""
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    """Number format of autocast; float32: no autocast."""

    @property
    def milliseconds_per_image(self) -> float:
        """Factor from seconds per action to milliseconds per image."""
        return 1000 / self.batch

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        return torch.autocast(torch.device(self.device).type, self.dtype, enabled=self.dtype != torch.float32)


def create_ours(name: str, **options: Any) -> nn.Module:
    """Build a network of ours with 1000 classes."""
    torch.manual_seed(0)
    return create_model(name, **options)


def create_peer(name: str, act: str) -> nn.Module:
    """Build timm's network that is like ours, with the same activation."""
    torch.manual_seed(0)
    return timm.create_model(PEERS[name], act_layer=TIMM_ACTIVATIONS[act])


def make_batch(setting: Setting) -> tuple[Tensor, Tensor]:
    """Return noise as a loader delivers it, and labels.

    Shape: uint8 (N, H, W, 3), int64 (N,).
    """
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (setting.batch, setting.size, setting.size, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(1000, (setting.batch,), generator=generator)
    return pixels.to(setting.device), labels.to(setting.device)


def to_floats(pixels: Tensor) -> Tensor:
    """Return images as the network takes them, in channels_last order.

    Shape: uint8 (N, H, W, 3) -> (N, 3, H, W).
    """
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def place(network: nn.Module, setting: Setting) -> nn.Module:
    """Move a network to the device, in channels_last order."""
    return network.to(setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def training(network: nn.Module, setting: Setting, *, optimizer: bool = False, compiled: str | None = None) -> Action:
    """Return a training step: forward, loss, backward, and SGD where it is asked for.

    Args:
        network: changed by the steps.
        setting: batch and number format.
        optimizer: make an update. At a small batch it would hide differences, since it does not depend on the batch.
        compiled: mode of torch.compile; None: eager; "no compiler": traced, but not compiled.
    """
    network = place(network, setting).train()
    (pixels, labels), forward = make_batch(setting), _compile(network, compiled)
    update = _update(network) if optimizer else lambda: network.zero_grad(set_to_none=True)

    def step() -> None:
        with setting.autocast():
            loss = F.cross_entropy(forward(to_floats(pixels)).float(), labels)
        loss.backward()
        update()

    return step


def _update(network: nn.Module) -> Action:
    sgd = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, nesterov=True)

    def update() -> None:
        sgd.step()
        sgd.zero_grad(set_to_none=True)

    return update


def inference(network: nn.Module, setting: Setting, *, compiled: str | None = None) -> Action:
    """Return the classification of a batch."""
    network = place(network, setting).eval()
    (pixels, _), forward = make_batch(setting), _compile(network, compiled)

    def classify() -> None:
        with torch.inference_mode(), setting.autocast():
            forward(to_floats(pixels))

    return classify


def _compile(network: nn.Module, mode: str | None) -> Callable[[Tensor], Tensor]:
    if mode is None:
        return network
    return torch.compile(network, backend="eager") if mode == "no compiler" else torch.compile(network, mode=mode)


def count_networks(creators: Mapping[str, Callable[[], nn.Module]], size: int = 256) -> list[dict[str, Any]]:
    """Return a table of exact counts in bfloat16, with the ratios to the first network."""
    if not creators:
        return []
    found = {name: count_per_image(create, size) for name, create in creators.items()}
    first = next(iter(found.values()))
    return [
        {
            "network": name,
            "kept MB": round(counts.kept / 1e6, 1),
            "kept / first": round(counts.kept / first.kept, 3),
            "moved MB": round(counts.moved / 1e6, 1),
            "moved / first": round(counts.moved / first.moved, 3),
            "most alive MB": round(counts.peak / 1e6, 1),
            "launches": counts.launches,
            "launches / first": round(counts.launches / first.launches, 3),
        }
        for name, counts in found.items()
    ]


def measure_task(actions: Mapping[str, Action], setting: Setting, *, rounds: int, repeats: int) -> Costs:
    """Return the milliseconds per image of each action, in turns; the warm-up round also allocates and compiles."""
    scale = setting.milliseconds_per_image
    return measure(actions, rounds=rounds, repeats=repeats, scale=scale, clock=clock_for(setting.device))


def create_network_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of scripts that measure networks on a CPU."""
    parser = create_parser(description)
    parser.add_argument("--train-size", type=int, default=64, help="height and width of the images in training")
    parser.add_argument("--train-batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=128, help="height and width of the image in inference")
    parser.add_argument("--repeats", type=int, default=1, help="steps of a turn; inference makes three times as many")
    parser.add_argument("--no-counts", dest="counts", action="store_false", help="leave out the exact counts")
    return parser
