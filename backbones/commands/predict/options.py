"""Predict the classes of images: a checkpoint and images, or folders of images, in; class names and probabilities out.

predict RUN cat.jpg
predict RUN/best photos/ --top 1 --csv > photos.csv
predict X.weights cat.jpg --model csdarknet53

Images are prepared as for the evaluation of the checkpoint. Those that cannot be read are named on stderr and passed
over, and the command ends with status 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from backbones.assembly.request import require_checkpoint
from backbones.choices import ClassOrder
from backbones.command_line import parse
from backbones.errors import UserError
from backbones.recipe import Interpolation, Protocol, require_positive


@dataclass(frozen=True)
class Options:
    """Options of `predict`."""

    ckpt: str = field(metadata={"positional": "CKPT"})
    """Run folder (its last checkpoint), checkpoint folder (RUN/best) or weights file."""
    images: tuple[str, ...] = field(default=(), metadata={"positional": "IMAGE|FOLDER...", "repeated": True})
    """Image files, and folders, which are searched at any depth."""
    top: int = 5
    """Classes of each image."""
    json: bool = False
    """Print a JSON list."""
    csv: bool = False
    """Print CSV, with a line for each class of each image."""
    model: str | None = None
    """Name of the network, for a weights file that does not name it; any other must have this name."""
    class_order: ClassOrder = "darknet"
    """Order of the 1000 classes in a darknet .weights file."""
    ema: bool = True
    """Use the averaged weights where there are any; --no-ema: the last weights."""
    eval_size: int | None = None
    """Height and width of the input in pixels; unset: as in the checkpoint."""
    protocol: Protocol | None = None
    """Resize and crop (see preprocess.protocol of the recipe); unset: as in the checkpoint."""
    crop_pct: float | None = None
    """Side of the centre crop / short side of the resized image; unset: as in the checkpoint."""
    interpolation: Interpolation | None = None
    """Filter of the resize; unset: as in the checkpoint."""
    batch_size: int = 32
    """Images per batch."""
    workers: int = 4
    """Decoding threads."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: a GPU where there is one."""

    def __post_init__(self) -> None:
        require_positive(self, "--", "top", "batch_size", "workers", "eval_size")
        if not self.images:
            raise UserError("IMAGE is missing: name images, or folders of images, after the checkpoint.")
        if self.json and self.csv:
            raise UserError("--json and --csv are two formats: choose one of them.")


def read_options(arguments: Sequence[str]) -> Options:
    """Return the options of the command line. Raises UserError where there is no such checkpoint."""
    options = parse(Options, arguments, prog="python -m backbones predict", description=__doc__ or "")
    require_checkpoint(options.ckpt)
    return options
