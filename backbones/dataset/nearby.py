"""Data sets near a folder that holds none: above it, below it, or with folders of other names; hints for messages."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from backbones.dataset.class_names import show_some
from backbones.dataset.index import SUFFIXES
from backbones.dataset.sources.clutter import is_clutter
from backbones.dataset.sources.split_folders import OTHER_NAMES, describe_similar, has_similar
from backbones.errors import did_you_mean

Fits = Callable[[Path], bool]

LEVELS_UP, LEVELS_DOWN = 2, 3
"""Levels that are searched above and below a folder."""

MAX_FOLDERS = 200
"""Folders that are searched below a folder."""

MAX_SHOWN = 5
"""Folders in one message."""

FORMATS = {
    "zip": "unpack it",
    "rar": "unpack it",
    "7z": "unpack it",
    "gz": "unpack it with `tar xzf`",
    "tgz": "unpack it with `tar xzf`",
    "parquet": "export its images as class folders or WebDataset shards",
    "arrow": "export its images as class folders or WebDataset shards",
    "tfrecord": "export its images as class folders or WebDataset shards",
    "mdb": "export its images as class folders or WebDataset shards",
    "h5": "export its images as class folders or WebDataset shards",
}
"""Endings of files that may hold a data set which is not read, and what to do with them."""


def describe_nearby(root: Path, fits: Fits) -> str:
    """Return lines about the data sets near ``root``, which holds none that ``fits``; empty where nothing is near."""
    with suppress(OSError):
        if similar := [text for split in OTHER_NAMES if (text := describe_similar(root, split))]:
            return "\n" + " ".join(text.strip() for text in similar)
    found = [*_search_above(root, fits), *_search_below(root, fits)]
    if found:
        return f"\nA data set is near. Give its folder: {' or '.join(map(str, found[:MAX_SHOWN]))}"
    with suppress(OSError):
        return "".join(f"\n{line}" for line in _describe_content(root))
    return ""


def describe_missing(path: Path) -> str:
    """Return a hint about a path that is no folder: the folder of a file, or a name that is similar."""
    if path.is_file():
        return f" It is a file; give the folder that holds it: {path.absolute().parent}"
    with suppress(OSError):
        return did_you_mean(path.name, [other.name for other in path.absolute().parent.iterdir() if other.is_dir()])
    return ""


def _search_above(root: Path, fits: Fits) -> Iterator[Path]:
    """Yield the nearest folder above that holds a data set, if any."""
    for folder in root.absolute().parents[:LEVELS_UP]:
        if _holds_data_set(folder, fits):
            yield folder
            return


def _search_below(root: Path, fits: Fits) -> list[Path]:
    """Return the folders that hold a data set, on the first level below ``root`` that has any."""
    level, searched = [root], 0
    for _ in range(LEVELS_DOWN):
        level = [below for folder in level for below in _list_folders(folder)][: MAX_FOLDERS - searched]
        searched += len(level)
        if found := [folder for folder in level if _holds_data_set(folder, fits)]:
            return found
    return []


def _holds_data_set(folder: Path, fits: Fits) -> bool:
    with suppress(OSError):
        return fits(folder) or has_similar(folder)
    return False


def _list_folders(folder: Path) -> Sequence[Path]:
    with suppress(OSError):
        folders = (path for path in folder.iterdir() if not path.name.startswith(".") and not is_clutter(path.name))
        return sorted(path for path in folders if path.is_dir())
    return ()


def _describe_content(root: Path) -> Iterator[str]:
    """Yield sentences about what is in ``root`` instead of a data set."""
    files = sorted(path.name for path in root.iterdir() if path.is_file() and not path.name.startswith("."))
    classes = [folder.name for folder in _list_folders(root)[:MAX_FOLDERS] if _has_images(folder)]
    if classes:
        yield (
            f"It has folders of images: {show_some(classes)}. If these are classes, they belong below "
            f"{root / 'train'}, and others of the same names below {root / 'val'}."
        )
    if any(_ending(name) in SUFFIXES for name in files):
        yield "It has images, but no class folders."
    for ending, remedy in FORMATS.items():
        if named := [name for name in files if _ending(name) == ending]:
            yield f"It has {show_some(named, most=2)}, which is not read: {remedy}."


def _has_images(folder: Path) -> bool:
    return any(_ending(path.name) in SUFFIXES for path in folder.iterdir())


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()
