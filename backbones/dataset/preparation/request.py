"""A request to prepare a data set: its source, the part of it to take, and the form of the result."""

from dataclasses import dataclass, field
from pathlib import Path

from backbones.dataset.sources.prepared import REQUEST
from backbones.dataset.sources.split_folders import VALIDATION_FOLDERS
from backbones.dataset.splits import data_folder
from backbones.dataset.workers import usable_cores
from backbones.errors import UserError
from backbones.files import LOCK, PARTIAL, require_output_folder
from backbones.recipe import LayoutName, require, require_positive, require_ranges


@dataclass(frozen=True)
class Request:
    """Data set to prepare, and form of the result."""

    source: str = field(metadata={"positional": "SRC"})
    """Folder of the data set."""
    out: str
    """Folder to write: train.npz, val.npz and, with --resize, the shards."""
    train: str | None = None
    """Training shards below SRC, as a list in braces: train-{000000..001281}.tar."""
    val: str | None = None
    """Validation shards below SRC, as a list in braces."""
    class_names: str | None = None
    """Names of the classes 0, 1, ... of shards: a text file with one name per line, or imagenet for its synsets."""
    resize: int | None = None
    """Largest short side in pixels: larger images are made smaller, and all are written as JPEG in shards."""
    quality: int = 90
    """JPEG quality of --resize, 1 to 100."""
    layout: LayoutName | None = None
    """Layout of SRC, where it holds more than one data set; unset: recognized by its files."""
    classes: int | None = None
    """Use only N classes, drawn at random."""
    per_class: int | None = None
    """Use only N training images of each class, drawn at random; all validation images are used."""
    seed: int = 0
    """Seed of --classes and --per-class."""
    workers: int = field(default_factory=usable_cores)
    """Number of processes; the result does not depend on it."""

    def __post_init__(self) -> None:
        require_ranges(self, "", quality="[1, 100]")
        require_positive(self, "", "resize", "per_class", "workers")
        require((self.train is None) == (self.val is None), "train", self.train, "and val need each other")
        are_shards = self.train is None and self.class_names is None
        require(are_shards or self.layout in (None, "shards"), "layout", self.layout, "contradicts names of shards")

    @property
    def source_folder(self) -> Path:
        """Folder of the data set; UserError where there is none."""
        return data_folder(self.source)

    @property
    def folder(self) -> Path:
        """Folder of the result."""
        return Path(self.out).expanduser()

    def require_own_folder(self) -> None:
        """Raise UserError where the folder of the result cannot be written or holds other files."""
        source, out = self.source_folder.resolve(), self.folder
        if out.resolve() == source:
            raise UserError(f"--out {out} is the data set itself.\nChoose a folder of its own for the index.")
        if any(out.resolve().is_relative_to(source / split) for split in ("train", *VALIDATION_FOLDERS)):
            raise UserError(
                f"--out {out} is among the class folders of the data set.\nChoose a folder outside of them."
            )
        if out.exists() and not out.is_dir():
            raise UserError(f"--out {out} is a file.\nChoose a folder.")
        names = [path.name for path in out.iterdir()] if out.exists() else []
        others = [name for name in names if name != LOCK and not name.endswith(PARTIAL)]
        if others and REQUEST not in others:
            raise UserError(f"--out {out} holds files that `prepare` did not write.\nChoose an empty or a new folder.")
        require_output_folder("--out", out)
