"""Show the fusion weights of a trained network.

Prints the raw weight, the effective weight and the share in the sum for each input of each shortcut, and draws the
effective weights as a heat map. Exits with status 2 where an input is dead, with 1 where it cannot tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from backbones.assembly.request import require_checkpoint
from backbones.command_line import parse
from backbones.files import require_output_file
from backbones.recipe import LayoutName, require_positive


@dataclass(frozen=True)
class Options:
    """Options of `inspect`."""

    ckpt: str = field(metadata={"positional": "CKPT"})
    """Run folder, checkpoint folder, weights file or darknet's .weights."""
    model: str | None = None
    """Name of the network or its .cfg, for a file that does not name it."""
    ema: bool = True
    """Use the averaged weights where there are any; --no-ema: the last weights."""
    heat_map: str = "fusion.png"
    """Picture to write."""
    data_dir: str | None = None
    """Data set whose first validation images are the batch; unset: noise."""
    layout: LayoutName | None = None
    """Layout of the data set, where data_dir holds more than one; unset: recognized by its files."""
    batch_size: int = 8
    """Images in the batch."""
    loader: Literal["dali", "reference"] = "reference"
    """Image decoder: NVIDIA DALI or torchvision."""

    def __post_init__(self) -> None:
        require_positive(self, "", "batch_size")


def read_options(arguments: Sequence[str]) -> Options:
    """Return the options of the command line. Raises UserError where there is no such checkpoint."""
    options = parse(Options, arguments, prog="python -m backbones inspect", description=__doc__ or "")
    require_output_file("--heat-map", options.heat_map)
    require_checkpoint(options.ckpt)
    return options
