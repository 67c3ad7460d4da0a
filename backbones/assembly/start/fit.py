"""Weights fitted to a network: tensors by their names, the classifier by the names of its classes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backbones.dataset.index import some
from backbones.errors import UserError
from backbones.terminal import table
from backbones.training.checkpoint import Weights

COUNTER = "num_batches_tracked"
"""Ending of BatchNorm's counters: old files have none, darknet's neither, and nothing is computed with them."""

MAX_NAMES_SHOWN = 20
"""Tensors of each kind that an error lists by name."""


@dataclass(frozen=True, eq=False)
class Source:
    """Weights of a network that may differ from the one to train."""

    name: str
    """The file, or the published weights, in words."""
    weights: Weights
    """Tensors under the names of the network to train, where it has them."""
    sha256: str
    classes: tuple[str, ...] | None = None
    """Class names in the order of the classifier's rows; None where they are unknown."""
    architecture: str | None = None
    """Network of the weights, where it is known."""
    layers: int | None = None
    """Number of first layers that a partial darknet file holds; None: the weights are those of a whole network."""
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and deviation of the input that the weights were trained with, where they are known."""


class Misfit(NamedTuple):
    """A tensor that the network and the weights do not have in common."""

    name: str
    needed: str
    """Shape in the network; "" where it has no such tensor."""
    found: str
    """Shape in the weights; "" where they have no such tensor."""

    @property
    def problem(self) -> str:
        """Return in words what is wrong."""
        return "another shape" if self.needed and self.found else "missing" if self.needed else "left over"


@dataclass(frozen=True, eq=False)
class Fit:
    """Weights that a network takes, and those that do not fit."""

    taken: Weights
    """Tensors for the network, in its shapes and its order of classes."""
    misfits: list[Misfit]
    classifier: str
    """Treatment of the classifier, in words; "" where it is taken as it is."""


class Classifier(NamedTuple):
    """Rows of the classifier for the classes of a data set."""

    rows: list[int] | None
    """Row of the weights for each class; None: the classifier is made anew."""
    remark: str
    """Reason, in words; "" where the rows are the same."""


def fit_weights(network: nn.Module, source: Source, classes: Sequence[str]) -> Fit:
    """Compare weights with a network for ``classes``, which is not changed.

    Raises:
        UserError: a tensor that fits holds values that are not finite.
    """
    own, head = network.state_dict(), list_classifier(network)
    choice = choose_rows(source, head, classes)
    given = dict(_arrange(source.weights, head, choice.rows))
    taken = {name: given[name].to(tensor.dtype) for name, tensor in own.items() if _fits(tensor, given.get(name))}
    expected = own if choice.rows is not None else {name: own[name] for name in own if name not in head}
    if source.layers is not None:
        expected = {name: tensor for name, tensor in expected.items() if name in given}
    _require_finite(source, taken)
    return Fit(taken, list(_list_misfits(expected, given)), choice.remark)


def list_classifier(network: nn.Module) -> list[str]:
    """Return the names of the tensors with a row for each class."""
    found: Any = network.get_classifier() if hasattr(network, "get_classifier") else ()  # type: ignore[operator]
    heads = [found] if isinstance(found, nn.Module) else list(found)
    names = [name for name, module in network.named_modules() if any(module is head for head in heads)]
    told: Any = getattr(network, "pretrained_cfg", {}).get("classifier") or ()  # also auxiliary ones
    names += [told] if isinstance(told, str) else told
    return [
        name
        for name, tensor in network.state_dict().items()
        if name.startswith(tuple(f"{part}." for part in names)) and tensor.shape[:1] == (network.num_classes,)
    ]


def choose_rows(source: Source, head: Sequence[str], classes: Sequence[str]) -> Classifier:
    """Return the rows of the classifier in ``source`` for each of ``classes``.

    They are taken as they are where the weights name no classes, unless numbers in the names of ``classes`` allow
    another order, and brought into the order of ``classes`` where the names are the same. A classifier of other classes
    has no row for them.

    Args:
        source: the weights.
        head: `list_classifier` of the network.
        classes: names in the order of the network's outputs.
    """
    widths = {len(source.weights[name]) for name in head if name in source.weights and source.weights[name].dim()}
    known = source.classes if source.classes and widths == {len(source.classes)} else None
    if not head or source.layers is not None:
        return Classifier(None, "made anew: the file ends before it" if head else "")
    if not widths:
        return Classifier(None, "made anew: the weights have none")
    if widths != {len(classes)}:
        return Classifier(None, f"made anew: it has {max(widths)} classes, the data set has {len(classes)}")
    return _match_unnamed(classes) if known is None else _match(known, classes)


def describe_misfits(misfits: Sequence[Misfit]) -> str:
    """Return the names of tensors that do not fit, by what is wrong with them."""
    kinds: dict[str, list[str]] = {}
    for misfit in misfits:
        shapes = f" ({misfit.found}, not {misfit.needed})" if misfit.needed and misfit.found else ""
        kinds.setdefault(misfit.problem, []).append(misfit.name + shapes)
    return "\n".join(f"{len(names)} {kind}: {some(names, most=MAX_NAMES_SHOWN)}" for kind, names in kinds.items())


def tabulate_misfits(misfits: Sequence[Misfit]) -> str:
    """Return a table of the tensors that do not fit."""
    rows = [(misfit.problem, misfit.name, misfit.needed or "-", misfit.found or "-") for misfit in misfits]
    return table([("", "tensor", "network", "weights"), *rows], "llll")


def _match_unnamed(classes: Sequence[str]) -> Classifier:
    """Return the rows of classes whose names are not known."""
    numbers = [re.sub(r"\D", "", name) for name in classes]
    if all(numbers) and sorted(numbers, key=int) != numbers:
        order = f"the data set's are in the order of text ({', '.join(classes[:4])}, ...), not of their numbers"
        return Classifier(None, f"made anew: the weights name no classes, and {order}")
    text = f"taken in the order of its rows, since the weights name no classes: row 0 is {classes[0]}, "
    return Classifier(list(range(len(classes))), f"{text}row {len(classes) - 1} is {classes[-1]}")


def _match(known: Sequence[str], classes: Sequence[str]) -> Classifier:
    """Return the rows of classes whose names are known."""
    if sorted(known) != sorted(classes):
        others = [name for name in known if name not in set(classes)]
        return Classifier(None, f"made anew: {len(others)} of its classes are others, as {some(others, most=3)}")
    row_of = {name: row for row, name in enumerate(known)}
    remark = "" if tuple(known) == tuple(classes) else "brought into the data set's order of classes"
    return Classifier([row_of[name] for name in classes], remark)


def _arrange(weights: Weights, head: Sequence[str], rows: list[int] | None) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors, of the classifier those with these rows."""
    for name, tensor in weights.items():
        if name not in head:
            yield name, tensor
        elif rows is not None:
            yield name, tensor[torch.tensor(rows)] if tensor.dim() else tensor


def _fits(own: Tensor, given: Tensor | None) -> bool:
    return given is not None and own.shape == given.shape


def _list_misfits(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Iterator[Misfit]:
    for name in (*expected, *(name for name in given if name not in expected)):
        needed, found = (list(part[name].shape) if name in part else None for part in (expected, given))
        if needed != found and not name.endswith(COUNTER):
            yield Misfit(name, *("" if shape is None else str(shape) for shape in (needed, found)))


def _require_finite(source: Source, taken: Weights) -> None:
    for name, tensor in taken.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise UserError(f"{source.name}: {name} holds values that are not finite.")
