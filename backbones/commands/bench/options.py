"""Measure a network in training and inference, or two of them in turns: speed, memory, and how near the limits are.

bench --model csresnext50_ws_mi2
bench --model csresnext50_ws --against csresnext50
bench --model csresnext50 --against-args '{act: leaky}'
bench --model csresnext50 --against-precision bf16 --against-torchcompile true

Two subjects take turns (A B B A in each round), and their ratio comes first. Nothing is trained or written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backbones import canonical_name
from backbones.assembly.request import require_network_name
from backbones.command_line import parse
from backbones.errors import UserError
from backbones.files import require_output_file
from backbones.recipe import require, require_positive

BenchPrecision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Options:
    """Options of `bench`. A size that is unset is small on a CPU, and that of a training run on a GPU."""

    model: str = "csresnext50_ws_mi2"
    """Name of the network, ours or timm's, or a .cfg."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network, as {act: leaky}."""
    precision: BenchPrecision | None = None
    """Precision of autocast; unset: fp32 on a CPU, bf16 on a GPU."""
    torchcompile: bool = False
    """Compile the network. Counts are those of the eager network."""
    batch_size: int | None = None
    """Images at a time; unset: 4 on a CPU, 256 on a GPU."""
    img_size: int | None = None
    """Height and width of the images in pixels; unset: 128 on a CPU, 256 on a GPU."""
    channels_last: bool = True
    """Memory order of weights and images."""
    against: str | None = None
    """Second network; unset: the same one, if another option of `against` is given."""
    against_args: dict[str, Any] | None = None
    """Keyword arguments of the second network; unset: none for another network, the same ones for the same."""
    against_precision: BenchPrecision | None = None
    """Precision of the second; unset: the same."""
    against_torchcompile: bool | None = None
    """Compile the second; unset: as the first."""
    against_batch_size: int | None = None
    """Images at a time for the second; unset: the same."""
    rounds: int = 9
    """Rounds of turns. One more comes before them and is not counted."""
    seconds: float = 0.5
    """Shortest length of a turn."""
    peak_tflops: float | None = None
    """Peak of the device in TFLOP/s at this precision, for the model FLOPs utilization; unset: the published one of
    some GPUs, otherwise it is unknown."""
    profile: str | None = None
    """File for a Chrome trace of a training step of the first network."""
    json: str | None = None
    """File to write the figures to."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: a GPU where there is one."""

    def __post_init__(self) -> None:
        require_positive(self, "", "batch_size", "against_batch_size", "img_size", "rounds")
        require(self.seconds > 0, "seconds", self.seconds, "must be positive")
        require(self.peak_tflops is None or self.peak_tflops > 0, "peak_tflops", self.peak_tflops, "must be positive")

    @property
    def compares(self) -> bool:
        """True where there is a second subject."""
        names = ("against", "against_args", "against_precision", "against_torchcompile", "against_batch_size")
        return any(getattr(self, name) is not None for name in names)


def read_options(arguments: Sequence[str]) -> Options:
    """Return the options of the command line. Raises UserError for an unknown network, or a file out of reach."""
    options = parse(Options, arguments, prog="python -m backbones bench", description=__doc__ or "")
    require_output_file("--json", options.json)
    require_output_file("--profile", options.profile)
    if options.json is not None and options.json == options.profile:
        raise UserError(f"--json and --profile both name {Path(options.json)}: two files are written.")
    for name in (options.model, options.against):
        if name is not None:
            require_network_name(canonical_name(name))
    return options
