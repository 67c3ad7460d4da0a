"""Class of each output of a network: named by its weights, recognized, told by the user, or asked for.

Weights of timm, torchvision and darknet hold numbers only. The order of the folders of a data set is not always that
of the outputs: as text, 10 comes before 2.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from backbones.assembly.checkpoint import Restored
from backbones.choices import OutputOrder
from backbones.darknet.endings import is_weights_file
from backbones.dataset.class_names import describe_look_alikes, show_some
from backbones.dataset.class_order import begin_of, numeric_order
from backbones.errors import UserError
from backbones.terminal import say

Names = tuple[str, ...]

FOLDER_ORDERS = ("numeric", "text")


def name_outputs(restored: Restored, folders: Names, *, order: OutputOrder | None, where: object) -> Names:
    """Return the class of each output, by its name in a data set.

    Prints a note where the weights do not name their classes, or name others.

    Args:
        restored: a network.
        folders: the classes of the data set, sorted.
        order: given by the user.
        where: the data set, for messages.

    Raises:
        UserError: the classes are not those of the weights, ``order`` does not fit, or the order cannot be known.
    """
    known = restored.classes
    _require_fitting_order(restored, folders, order)
    if known is not None and order != "numeric":
        _require_same(known, folders, where)
        return known
    count = restored.model.num_classes
    if count != len(folders):
        raise UserError(f"{restored.name} has {count} outputs, {where} has {len(folders)} classes.")
    fact = "does not name its" if known is None else "has other names for its"
    say("note", f"{restored.file} {fact} {count} classes")
    names, reason = _choose_order(restored, folders, order=order, where=where)
    say("note", f"its outputs are taken to be {reason}: {begin_of(names)}")
    return names


def published_orders(network: nn.Module, file: Path) -> list[Names]:
    """Return the possible classes of weights in the order of the outputs, the most certain first.

    They come from a config.json beside the file, from timm's configuration of the network, and from timm's lists of
    the subsets of ImageNet, which are told apart by their number of classes.
    """
    subset = None if is_weights_file(file.name) else infer_imagenet_subset(network)
    lists = [
        _read_label_names(file.parent / "config.json"),
        (getattr(network, "pretrained_cfg", None) or {}).get("label_names"),
        _read_subset(subset) if subset else None,
    ]
    return [tuple(names) for names in lists if names and len(names) == getattr(network, "num_classes", None)]


def _require_fitting_order(restored: Restored, folders: Names, order: OutputOrder | None) -> None:
    """Raise UserError where ``order`` is for another kind of weights.

    Numbers of outputs may stand for known classes, too.
    """
    if order is None:
        return
    known = restored.classes
    if known is not None and (order == "text" or (order == "numeric" and set(known) == set(folders))):
        raise UserError(
            f"--class-order {order}: {restored.file} has {len(known)} classes of known names.\n"
            "Leave it out; it is for weights that do not name their classes."
        )
    if order not in FOLDER_ORDERS and not is_weights_file(restored.file.name):
        raise UserError(
            f"--class-order {order} is for darknet's .weights, and {restored.file} is none.\n"
            "Give numeric or text for other weights that do not name their classes."
        )


def _require_same(known: Names, folders: Names, where: object) -> None:
    """Raise UserError where a data set has other classes than a checkpoint."""
    if differing := sorted(set(folders) ^ set(known)):
        raise UserError(
            f"--data-dir {where} has {len(folders)} classes, the checkpoint has {len(known)}; "
            f"not in both: {show_some(differing)}.{describe_look_alikes(differing)}{_advise_numbers(known, folders)}"
        )


def _advise_numbers(known: Names, folders: Names) -> str:
    """Return a line about folders that are named by the numbers of known classes; otherwise nothing."""
    if len(known) != len(folders) or not _are_counted(folders):
        return ""
    return f"\nGive --class-order numeric where folder k is class k of {begin_of(known)}"


def _choose_order(restored: Restored, folders: Names, *, order: OutputOrder | None, where: object) -> tuple[Names, str]:
    """Return the classes in the order of the outputs, and a description of that order."""
    by_number, by_text = numeric_order(folders), tuple(sorted(folders))
    if order == "text":
        return by_text, "the classes of the data set in the order of text, as asked"
    if order == "numeric":
        return _require_numbers(by_number, folders, where), "the classes of the data set by their numbers, as asked"
    published = published_orders(restored.model, restored.file)
    if match := next((names for names in published if set(names) == set(folders)), None):
        return match, "the published order of these classes"
    if by_number not in (None, by_text):
        raise _order_error(restored, by_text, by_number or (), where)
    if published and not _are_counted(folders):
        raise _unknown_error(restored, published[-1], folders, where)
    return by_text, "the classes of the data set in sorted order, as in torchvision's ImageFolder"


def _are_counted(folders: Names) -> bool:
    """Return whether the names are numbers without a gap: 000, 001 and so on, from 0 or from 1."""
    if not all(name.isascii() and name.isdigit() for name in folders):
        return False
    numbers = sorted(map(int, folders))
    return numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _require_numbers(by_number: Names | None, folders: Names, where: object) -> Names:
    if by_number is None:
        raise UserError(
            f"--class-order numeric: the classes of {where} are not different numbers: {show_some(folders)}.\n"
            "Give --class-order text for their order as text."
        )
    return by_number


def _order_error(restored: Restored, by_text: Names, by_number: Names, where: object) -> UserError:
    """Return the error for names whose orders as text and as numbers differ."""
    return UserError(
        f"{restored.file} does not name its classes, and those of {where} have two orders:\n"
        f"  numeric  {begin_of(by_number)}\n"
        f"  text     {begin_of(by_text)}\n"
        "Give --class-order numeric where the folders are named by the numbers of the outputs, "
        "or --class-order text for weights that were trained on folders in the order of text (ImageFolder)."
    )


def _unknown_error(restored: Restored, published: Names, folders: Names, where: object) -> UserError:
    """Return the error for classes whose place in a published order is unknown."""
    strange = sorted(set(folders) - set(published))
    return UserError(
        f"{restored.file} does not name its classes. {len(published)} outputs are published in the order of "
        f"{begin_of(published)}; {where} has other classes: {show_some(strange)}.\n"
        "Name its classes like these, or give --class-order text for weights that were trained on the classes of "
        "the data set in sorted order (ImageFolder)."
    )


@cache
def _read_subset(name: str) -> Names:
    """Return the classes of a subset of ImageNet in timm's order."""
    return tuple(ImageNetInfo(name).label_names())


def _read_label_names(file: Path) -> Sequence[str] | None:
    """Return the ``label_names`` of a config.json in timm's form; None where there is none."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    names = config.get("label_names") if isinstance(config, dict) else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
