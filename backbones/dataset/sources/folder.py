"""Class folders of image files (torchvision's ImageFolder): ROOT/{train,val}/CLASS/**/*.jpg."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from backbones.dataset.index import SUFFIXES, Index, Row, Split, make_index, some
from backbones.dataset.place import is_archive
from backbones.dataset.sources.clutter import is_clutter
from backbones.dataset.sources.split_folders import VALIDATION_FOLDERS, split_folder
from backbones.dataset.workers import spread
from backbones.errors import UserError

SHAPE = "train/CLASS/*.jpg and val/CLASS/*.jpg (ImageFolder)"

ORIGIN = "ILSVRC2012_img_train.tar"
"""Official archive that holds one archive for each class."""

TABLE = "val_annotations.txt"
"""Table with the classes of Tiny-ImageNet's validation images."""

COMPANIONS = frozenset({"csv", "json", "txt", "xml"})
"""Endings of files that are normal beside images; a note names other files first."""


class Image(NamedTuple):
    """An image file in a listing."""

    path: str
    """Path below the folder of the split."""
    length: int
    """In bytes."""
    file_id: tuple[int, int]
    """Device and inode: the same for a link and its target."""
    linked: bool
    """The file is a symbolic link, or was reached through one."""


class Listing(NamedTuple):
    """Content of one folder and the folders below it, as paths below the folder of the split."""

    images: list[Image]
    broken: list[str]
    """Symbolic links that point nowhere."""
    unfollowed: list[str]
    """Symbolic links to folders."""
    others: list[str]
    """Files without the ending of an image."""
    clutter: list[str]
    """Folders that systems make."""

    def extend(self, other: "Listing") -> None:
        """Add the content of a folder below."""
        for own, more in zip(self, other, strict=True):
            own.extend(more)  # pyright: ignore[reportArgumentType]  # each list has its own kind


class Top(NamedTuple):
    """Content of the folder of a split itself, by name."""

    classes: list[str]
    loose: list[str]
    """Images outside of class folders."""
    broken: list[str]
    """Symbolic links that point nowhere."""
    unfollowed: list[str]
    """Symbolic links to the folder itself or above it."""
    clutter: list[str]
    """Folders that systems make."""


def fits(root: Path) -> bool:
    """Return whether one of the split folders exists, and the validation images are in class folders."""
    exists = any((root / name).is_dir() for name in ("train", *VALIDATION_FOLDERS))
    return exists and not is_flat(root) and not is_annotated(root)


def is_flat(root: Path) -> bool:
    """Return whether the validation images are in one folder without classes."""
    tops = [list_top(root / name) for name in VALIDATION_FOLDERS if (root / name).is_dir()]
    return any(top.loose and not top.classes for top in tops)


def is_annotated(root: Path) -> bool:
    """Return whether the validation images are in one folder beside the table of Tiny-ImageNet."""
    folders = [root / name for name in VALIDATION_FOLDERS if (root / name / TABLE).is_file()]
    return any(list_top(folder).classes in ([], ["images"]) for folder in folders)


def scan(root: Path, split: Split, executor: Executor | None = None) -> Index:
    """Return the images of one split of ``root``. Raises UserError where the classes are one level too deep."""
    index = scan_folder(split_folder(root, split), executor)
    if len(index.classes) == 1:
        _refuse_deeper_classes(index)
    return index


def scan_folder(root: str | Path, executor: Executor | None = None) -> Index:
    """Return the images of ``root``/CLASS/**; every folder directly below ``root`` is a class.

    A class folder may be a symbolic link, but not to ``root`` or above it. Links to folders further down are not
    followed. An image that is reached several times through links is kept once. Names that begin with a dot are
    ignored, and folders that systems make (@eaDir) left out. Raises UserError where a link is broken or a class has no
    images.
    """
    root = Path(root)
    top = list_top(root)
    if not top.classes:
        raise UserError(
            f"{root} has no class folders.{_describe_archives(root)}\nExpected images as {root}/CLASS/*.jpg."
        )
    listings = spread(partial(_list_class, str(root)), top.classes, executor)
    require_links(root, top.broken + [path for listing in listings for path in listing.broken])
    repeated = _find_repeated(root, [image for listing in listings for image in listing.images])
    kept = [[image for image in listing.images if image.path not in repeated] for listing in listings]
    _require_images(root, top.classes, [len(images) for images in kept])
    rows = (Row(label, image.path, image.path, 0, image.length) for label, each in enumerate(kept) for image in each)
    rest = Listing([], [], top.unfollowed, [], top.clutter)
    for listing in listings:
        rest.extend(listing._replace(images=[]))
    notes = tuple(_write_notes(root, top.loose, sorted(repeated), rest))
    return make_index(root, tuple(top.classes), rows, notes)


def list_top(root: Path) -> Top:
    """Return the content of ``root`` itself, sorted."""
    top, real = Top([], [], [], [], []), root.resolve()
    with os.scandir(root) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if _is_broken(entry):
                top.broken.append(entry.name)
            elif entry.is_dir():
                if is_clutter(entry.name):
                    top.clutter.append(entry.name)
                    continue
                leads_back = entry.is_symlink() and real.is_relative_to(Path(entry.path).resolve())
                (top.unfollowed if leads_back else top.classes).append(entry.name)
            elif _is_image(entry.name):
                top.loose.append(entry.name)
    return top


def list_images(folder: str, prefix: str = "", *, linked: bool = False) -> Listing:
    """Return the images in and below ``folder``; each path begins with ``prefix``."""
    listing = Listing([], [], [], [], [])
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if is_clutter(entry.name):
                    listing.clutter.append(path)
                else:
                    listing.extend(list_images(entry.path, f"{path}/", linked=linked))
            elif _is_broken(entry):
                listing.broken.append(path)
            elif entry.is_dir():
                listing.unfollowed.append(path)
            elif _is_image(entry.name):
                listing.images.extend(_list_image(entry, path, linked=linked))
            else:
                listing.others.append(path)
    return listing


def require_links(root: Path, broken: Sequence[str]) -> None:
    """Raise UserError where there are broken symbolic links; the message names them."""
    if broken:
        links = some([f"{root}/{path}" for path in sorted(broken)])
        raise UserError(f"Symbolic links that point nowhere: {links}.\nRestore what they point to, or remove them.")


def _list_class(root: str, name: str) -> Listing:
    folder = os.path.join(root, name)  # noqa: PTH118  # keeps the bytes of names that are not UTF-8
    return list_images(folder, f"{name}/", linked=os.path.islink(folder))  # noqa: PTH114


def _is_broken(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110  # for every image


def _is_image(name: str) -> bool:
    return _ending(name) in SUFFIXES


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _list_image(entry: os.DirEntry[str], path: str, *, linked: bool) -> Iterator[Image]:
    """Yield the image. Pipes and devices are left out: they cannot be read twice."""
    status = entry.stat()
    if stat.S_ISREG(status.st_mode):
        yield Image(path, status.st_size, (status.st_dev, status.st_ino), linked or entry.is_symlink())


def _find_repeated(root: Path, images: list[Image]) -> set[str]:
    """Return the paths of the images that are reached again through a link.

    Hard links share an inode as well, but count as different files. Only a resolved path tells them from symbolic
    links; paths are resolved only where an inode is repeated.
    """
    if not any(image.linked for image in images):
        return set()
    counts = Counter(image.file_id for image in images)
    seen: set[str] = set()
    repeated: set[str] = set()
    for image in sorted(images, key=lambda image: (image.linked, image.path)):
        if counts[image.file_id] == 1:
            continue
        real = os.path.realpath(root / image.path)
        if real in seen:
            repeated.add(image.path)
        seen.add(real)
    return repeated


def _refuse_deeper_classes(index: Index) -> None:
    """Raise UserError where the only class has several folders and no image outside of them."""
    folders = sorted({name.split("/")[1] if name.count("/") > 1 else "" for name in index.names})
    if len(folders) > 1 and folders[0] != "":
        only = index.root / index.classes[0]
        raise UserError(
            f"{only} is the only class of {index.root}; its images are in {len(folders)} folders: {some(folders)}.\n"
            f"These seem to be the classes, one level too deep: `mv {quote(str(only))}/* {quote(str(index.root))}` and "
            f"`rmdir {quote(str(only))}`."
        )


def _describe_archives(root: Path) -> str:
    """Return a sentence about archives of classes, which an unpacked ILSVRC2012_img_train.tar holds."""
    archives = sorted(path.name for path in root.iterdir() if is_archive(path.name))
    if not archives:
        return ""
    return f" It has {some(archives, most=3)}: unpack each into a folder of its name, or give {ORIGIN} as it was."


def _require_images(root: Path, classes: Sequence[str], counts: list[int]) -> None:
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if len(empty) == len(classes):
        raise UserError(f"{root} holds no images in its {len(classes)} class folders.\nExpected {root}/CLASS/*.jpg.")
    if empty:
        raise UserError(f"{root} has classes without images: {some(empty)}.\nAdd their images or remove the folders.")


def _write_notes(root: Path, loose: list[str], repeated: list[str], rest: Listing) -> Iterator[str]:
    unfollowed, others, clutter = rest.unfollowed, rest.others, rest.clutter
    if loose:
        yield f"{root}: {len(loose)} images outside of class folders are left out: {some(loose)}"
    if unfollowed:
        yield f"{root}: {len(unfollowed)} symbolic links to folders are not followed: {some(sorted(unfollowed))}"
    if repeated:
        yield f"{root}: {len(repeated)} symbolic links reach an image again, which is used once: {some(repeated)}"
    if others:
        names = some(sorted(others, key=lambda path: (_ending(path) in COMPANIONS, path)))
        yield f"{root}: {len(others)} files in class folders do not end as images do and are left out: {names}"
    if clutter:
        yield f"{root}: {len(clutter)} folders that systems make are left out: {some(sorted(clutter))}"
