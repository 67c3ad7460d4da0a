"""Images of a request: the whole data set, or a part of it."""

from concurrent.futures import Executor
from pathlib import Path

from backbones.dataset.index import Index, Split
from backbones.dataset.preparation.request import Request
from backbones.dataset.preparation.subset import choose_classes, limit_images, take_classes
from backbones.dataset.sources.braces import expand
from backbones.dataset.sources.webdataset import class_names, find_shards, read_class_names, scan_shards
from backbones.dataset.splits import apply_quarantine, explain_file_errors, require_same_classes, train_and_val
from backbones.errors import UserError


def read_images(request: Request, executor: Executor | None = None) -> tuple[Index, Index]:
    """Return the training and validation images of a request. Raises UserError as `train_and_val` does."""
    train, val = _read_all(request, executor)
    if request.per_class is not None:
        train = limit_images(train, request.per_class, request.seed)
    if request.classes is not None:
        classes = choose_classes(train.classes, request.classes, request.seed)
        train, val = take_classes(train, classes), take_classes(val, classes)
    return train, val


def _read_all(request: Request, executor: Executor | None) -> tuple[Index, Index]:
    """Read the data set by its layout, or the shards that the request names."""
    source = request.source_folder
    if request.train is None and request.class_names is None:
        return train_and_val(source, layout=request.layout, executor=executor)
    names = _read_class_names(request)
    with explain_file_errors():
        train = scan_shards(source, _find_shards(source, "train", request.train), names, executor, split="train")
        val = scan_shards(source, _find_shards(source, "val", request.val), names, executor, split="val")
    require_same_classes(train, val)
    return apply_quarantine(source, train, val)


def _read_class_names(request: Request) -> list[str] | None:
    if request.class_names is None:
        return class_names(request.source_folder)
    if request.class_names == "imagenet":
        from timm.data.imagenet_info import ImageNetInfo  # noqa: PLC0415  (timm takes seconds)

        return ImageNetInfo("imagenet-1k").label_names()
    return read_class_names(Path(request.class_names))


def _find_shards(source: Path, split: Split, braces: str | None) -> list[Path]:
    shards = find_shards(source, split) if braces is None else [source / name for name in expand(braces)]
    if not shards:
        raise UserError(f"--class-names is for shards, and {source} has none of {split}.")
    return shards
