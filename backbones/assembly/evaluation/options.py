"""Options of eval.py."""

from dataclasses import dataclass
from typing import Literal

from backbones.assembly.request import require_checkpoint
from backbones.choices import OutputOrder
from backbones.dataset.splits import data_folder
from backbones.files import require_output_file
from backbones.recipe import CompileMode, Interpolation, LayoutName, Protocol, require_positive


@dataclass(frozen=True)
class Options:
    """Checkpoint and images to evaluate. Everything about the network comes from the checkpoint."""

    ckpt: str
    """Run folder (its last checkpoint), checkpoint folder (RUN/best) or weights file."""
    data_dir: str | None = None
    """Data set with validation images, of any layout; unset: the data set of the training."""
    layout: LayoutName | None = None
    """Layout of the data set, where data_dir holds more than one; unset: recognized by its files."""
    real: bool = False
    """Evaluate with the labels of ImageNet-ReaL, too."""
    v2: str | None = None
    """Folder of ImageNet-V2, with class folders 0, 1, 2, ...: evaluate on it, too."""
    a: str | None = None
    """Folder of ImageNet-A, with class folders: evaluate on it, too."""
    r: str | None = None
    """Folder of ImageNet-R, with class folders: evaluate on it, too."""
    sketch: str | None = None
    """Folder of ImageNet-Sketch, with class folders or with sketch/ that holds them: evaluate on it, too."""
    eval_size: int | None = None
    """Height and width of the input in pixels; unset: as in the checkpoint."""
    protocol: Protocol | None = None
    """Resize and crop (see preprocess.protocol of the recipe); unset: as in the checkpoint."""
    crop_pct: float | None = None
    """Side of the centre crop / short side of the resized image; unset: as in the checkpoint."""
    interpolation: Interpolation | None = None
    """Filter of the resize; unset: as in the checkpoint."""
    json: str | None = None
    """File to write the figures to."""
    model: str | None = None
    """Name of the network, for a weights file that does not name it; any other must have this name."""
    class_order: OutputOrder | None = None
    """Order of the outputs of weights that do not name their classes. darknet (unset) or sorted: the 1000 classes of
    a darknet .weights file. numeric or text: the classes of the data set, by their numbers or as text."""
    fold: bool = True
    """Fold batch normalization into the convolutions where the training's own validation did; --no-fold: never."""
    ema: bool = True
    """Use the averaged weights where there are any; --no-ema: the last weights."""
    batch_size: int = 64
    """Images per batch of each process."""
    loader: Literal["dali", "reference"] | None = None
    """Image decoder: NVIDIA DALI, or torchvision as a slow reference; unset: as in training."""
    workers: int = 4
    """Decoding threads per process."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: a GPU where there is one."""
    torchcompile: bool | CompileMode = False
    """Compile the network with torch.compile, in a mode as in training: it pays off for many images."""

    def __post_init__(self) -> None:
        require_positive(self, "", "batch_size", "workers", "eval_size")


def require_evaluable(options: Options) -> None:
    """Raise UserError where torch is not needed to tell that a file or folder is missing, or cannot be written."""
    require_output_file("--json", options.json)
    require_checkpoint(options.ckpt)
    if options.data_dir is not None:
        data_folder(options.data_dir)
