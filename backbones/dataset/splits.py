"""Data set in ``data_dir``: find its source, read its splits, and check them against each other."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from backbones.dataset.class_names import describe_look_alikes, show_some
from backbones.dataset.index import Index, Split
from backbones.dataset.nearby import describe_missing, describe_nearby
from backbones.dataset.quarantine import read_quarantine, refuse_quarantined, remove_quarantined
from backbones.dataset.sources import folder, ilsvrc, kaggle, prepared, tiny_imagenet, webdataset
from backbones.errors import UserError
from backbones.recipe import LayoutName


class Source(NamedTuple):
    """Layout of a data set, and the functions that read it."""

    layout: LayoutName
    shape: str
    """Description of the layout, for messages."""
    fits: Callable[[Path], bool]
    """Return whether a folder has this layout."""
    scan: Callable[[Path, Split, Executor | None], Index]
    """Return the images of one split of a folder."""


MODULES: tuple[tuple[LayoutName, ModuleType], ...] = (
    ("index", prepared),
    ("folders", folder),
    ("tiny-imagenet", tiny_imagenet),
    ("kaggle", kaggle),
    ("archives", ilsvrc),
    ("shards", webdataset),
)
SOURCES = tuple(Source(layout, each.SHAPE, each.fits, each.scan) for layout, each in MODULES)


def train_and_val(
    data_dir: str | Path,
    *,
    layout: LayoutName | None = None,
    obey_quarantine: bool = True,
    executor: Executor | None = None,
) -> tuple[Index, Index]:
    """Return the training and validation images, checked against each other.

    ``layout`` chooses one of several data sets in a folder; ``executor`` reads folders and archives in parallel. Raises
    UserError where the layout is unknown, a split is missing or empty, the two have different classes, or a validation
    image is quarantined.
    """
    root, source = _choose_source(data_dir, layout)
    with explain_file_errors():
        train, val = source.scan(root, "train", executor), source.scan(root, "val", executor)
    require_same_classes(train, val)
    return apply_quarantine(root, train, val) if obey_quarantine else (train, val)


def validation(
    data_dir: str | Path,
    *,
    layout: LayoutName | None = None,
    obey_quarantine: bool = True,
    executor: Executor | None = None,
) -> Index:
    """Return the validation images; the training images may be missing. Options are those of `train_and_val`."""
    root, source = _choose_source(data_dir, layout)
    with explain_file_errors():
        val = source.scan(root, "val", executor)
    return refuse_quarantined(val, read_quarantine(root)["val"]) if obey_quarantine else val


def apply_quarantine(root: Path, train: Index, val: Index) -> tuple[Index, Index]:
    """Leave out the training images in ``root``/quarantine.tsv. Raises UserError for validation images in it."""
    entries = read_quarantine(root)
    return remove_quarantined(train, entries["train"]), refuse_quarantined(val, entries["val"])


def require_same_classes(train: Index, val: Index) -> None:
    """Raise UserError where a class is in only one of the splits; the message names it."""
    train_only, val_only = set(train.classes) - set(val.classes), set(val.classes) - set(train.classes)
    if not (train_only or val_only):
        return
    sides = [(train_only, "training", train.root), (val_only, "validation", val.root)]
    parts = [f"only for {split} in {root}: {show_some(sorted(names))}" for names, split, root in sides if names]
    alike = describe_look_alikes(train_only | val_only)
    raise UserError(f"Training and validation classes differ: {'; '.join(parts)}.{alike}\nBoth need the same classes.")


@contextmanager
def explain_file_errors() -> Iterator[None]:
    """Turn an error of the file system into a UserError with the file and the reason."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or 'A file of the data set'} cannot be read: {error.strerror}.") from error


def data_folder(data_dir: str | Path) -> Path:
    """Return ``data_dir`` as a path. Raises UserError where it is not a folder."""
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise UserError(
            f"{data_dir} is not a folder.{describe_missing(root)}\n"
            "Name the folder of a data set: class folders, the official archives, shards or an index."
        )
    return root


def _choose_source(data_dir: str | Path, layout: LayoutName | None) -> tuple[Path, Source]:
    """Return the folder, and its source: that of ``layout``, or the only one that fits."""
    root = data_folder(data_dir)
    if layout is not None:
        return root, next(source for source in SOURCES if source.layout == layout)
    with explain_file_errors():
        fitting = _find_fitting(root)
    if not fitting:
        shapes = "".join(f"\n  {source.shape}" for source in SOURCES)
        near = describe_nearby(root, lambda folder: bool(_find_fitting(folder)))
        raise UserError(f"{root} holds no data set of a known layout.{near}\nOne of these is expected:{shapes}")
    if len(fitting) > 1:
        choices = "".join(f"\n  --layout {source.layout:<13}  {source.shape}" for source in fitting)
        raise UserError(f"{root} holds more than one data set. Choose one of them:{choices}")
    return root, fitting[0]


def _find_fitting(root: Path) -> list[Source]:
    return [source for source in SOURCES if source.fits(root)]
