"""The .weights format: a header, then the float32 numbers of every layer in darknet's order."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbones.choices import ClassOrder
from backbones.darknet.endings import PARTIAL
from backbones.darknet.labels import CLASSES, to_darknet, to_sorted
from backbones.darknet.network import Connected, Convolution
from backbones.darknet.trace import Traced, trace
from backbones.errors import UserError, require_choice
from backbones.files import new_file
from backbones.layers.conv import ConvNormAct
from backbones.layers.shortcut import WeightedShortcut

EPSILON = 1e-5
"""Term that batch normalization adds to a variance, so one of -7e-44, as darknet has written, is harmless."""


@dataclass(frozen=True)
class WeightsHeader:
    """Header of a .weights file: darknet's version and the progress of the training."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0
    """Number of images that the network was trained on."""

    @property
    def wide(self) -> bool:
        """Return whether ``seen`` takes 64 bits: since version 0.2."""
        return self.major * 10 + self.minor >= 2

    @property
    def transposed(self) -> bool:
        """Return whether the matrices of connected layers are transposed, as in some very old files."""
        return self.major > 1000 or self.minor > 1000

    def to_bytes(self) -> bytes:
        """Return the header as bytes of a file."""
        return struct.pack("<iii" + ("Q" if self.wide else "I"), self.major, self.minor, self.revision, self.seen)


def load_weights(
    model: nn.Module, path: str | Path, class_order: ClassOrder = "darknet", cutoff: int | None = None
) -> WeightsHeader:
    """Fill a network from a .weights file and return the file's header.

    The header is also kept in ``model.darknet_header``, so that `save_weights` writes the same bytes again.

    Args:
        model: one of our backbones, or a network from a cfg.
        path: the file.
        class_order: order of a 1000-class classifier in the file; in the network it is sorted. Other classifiers
            are not reordered.
        cutoff: number of first layers to read; the other layers are not changed. The file may go on behind them,
            unless its name says ``.conv.N``. A backbone (a network that is cut, or ``features_only``) needs none.

    Raises:
        UserError: the file is missing, has another length than the network needs, or holds numbers that are not
            finite or variances that make batch normalization NaN. The network is not changed then.
    """
    require_choice("class_order", class_order, ("darknet", "sorted"))
    file = Path(path)
    header, start = read_weights_header(file)
    traced = trace(model)
    slots = list(_list_slots(traced, cutoff))
    _require_length(file, start, slots, traced, cutoff)
    for slot, part in _read_parts(file, start, slots):
        slot.fill(part, class_order, transposed=header.transposed)
    model.darknet_header = header  # type: ignore[assignment]
    return header


def read_weights(
    model: nn.Module, path: str | Path, class_order: ClassOrder = "darknet", cutoff: int | None = None
) -> dict[str, Tensor]:
    """Return the tensors of a .weights file under their names in ``model.state_dict()``; the network is not changed.

    Unlike for `load_weights`, the classifier of the file may have another number of classes than the network's.

    Args:
        model: one of our backbones, or a network from a cfg.
        path: the file.
        class_order: order of a 1000-class classifier in the file; in the result it is sorted.
        cutoff: number of first layers to read, as for `load_weights`; the other layers have no tensors then.

    Raises:
        UserError: as for `load_weights`.
    """
    require_choice("class_order", class_order, ("darknet", "sorted"))
    file = Path(path)
    header, start = read_weights_header(file)
    traced = trace(model)
    slots = list(_list_slots(traced, cutoff))
    if cutoff is None and not traced.cfg.is_backbone:
        slots = _fit_classifier(slots, (file.stat().st_size - start) // 4)
    _require_length(file, start, slots, traced, cutoff)
    names = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items()}
    places = {(slot.layer, slot.name): names[id(slot.tensor)] for slot in _list_slots(traced, cutoff)}
    return {
        places[slot.layer, slot.name]: slot.arrange(part, class_order, transposed=header.transposed)
        for slot, part in _read_parts(file, start, slots)
    }


def find_cutoff(model: nn.Module, path: str | Path) -> int | None:
    """Return the number of first layers of ``model`` whose numbers fill a .weights file; None: no part of them does.

    Raises:
        UserError: there is no such file, or darknet has no such network.
    """
    _, start = read_weights_header(Path(path))
    traced = trace(model)
    found = _find_cutoff(Path(path).stat().st_size - start, traced)
    is_whole = found is not None and not any(_list_tensors(module) for module in traced.modules[found:])
    return None if is_whole else found


def holds_all_layers(model: nn.Module, cutoff: int) -> bool:
    """Return whether the first ``cutoff`` layers are all that have numbers. Errors as for `find_cutoff`."""
    return not any(_list_tensors(module) for module in trace(model).modules[cutoff:])


def save_weights(
    model: nn.Module,
    path: str | Path,
    class_order: ClassOrder = "darknet",
    cutoff: int | None = None,
    *,
    header: WeightsHeader | None = None,
) -> None:
    """Write a network to a .weights file that darknet reads.

    Args:
        model: one of our backbones, or a network from a cfg.
        path: the file to write.
        class_order: order of a 1000-class classifier in the file.
        cutoff: write the first ``cutoff`` layers only.
        header: None takes the header that the network was loaded with, or else version 0.2.5 with no images seen.

    Raises:
        UserError: darknet has no such network, or a number is not finite.
    """
    require_choice("class_order", class_order, ("darknet", "sorted"))
    first = header or getattr(model, "darknet_header", None) or WeightsHeader()
    slots = list(_list_slots(trace(model), cutoff))
    parts = [slot.numbers(class_order, transposed=first.transposed) for slot in slots]
    _require_sound(Path(path), slots, parts)
    with new_file(Path(path)) as file:
        file.write(first.to_bytes())
        for part in parts:
            file.write(part.numpy().astype("<f4").tobytes())


def read_weights_header(file: Path) -> tuple[WeightsHeader, int]:
    """Return the header of a .weights file and the offset of its numbers.

    Raises:
        UserError: there is no such file, or it is too short for a header.
    """
    if not file.is_file():
        raise UserError(f"there is no weights file {file}")
    with file.open("rb") as stream:
        start = stream.read(20)
    if len(start) < 16:
        raise UserError(f"{file} has {len(start)} bytes: that is no .weights file")
    major, minor, revision = struct.unpack("<iii", start[:12])
    wide = WeightsHeader(major, minor, revision).wide
    if wide and len(start) < 20:
        raise UserError(f"{file} has {len(start)} bytes: that is no .weights file")
    (seen,) = struct.unpack("<Q" if wide else "<I", start[12 : 20 if wide else 16])
    return WeightsHeader(major, minor, revision, seen), 20 if wide else 16


@dataclass(frozen=True, eq=False)
class _Slot:
    """Tensor of the network and its place in the file."""

    layer: int
    name: str
    """Darknet's name of the tensor."""
    tensor: Tensor
    classes: bool = False
    """The rows are the 1000 classes."""
    matrix: bool = False
    """The tensor is the matrix of a connected layer."""

    @torch.no_grad()
    def fill(self, numbers: Tensor, class_order: ClassOrder, *, transposed: bool) -> None:
        self.tensor.copy_(self.arrange(numbers, class_order, transposed=transposed))

    def arrange(self, numbers: Tensor, class_order: ClassOrder, *, transposed: bool) -> Tensor:
        """Return numbers of the file in the shape and the order of classes of the network."""
        shape = self.tensor.shape
        values = numbers.view(shape[1], shape[0]).T if transposed and self.matrix else numbers.view(shape)
        return to_sorted(values) if self.classes and class_order == "darknet" else values

    @torch.no_grad()
    def numbers(self, class_order: ClassOrder, *, transposed: bool) -> Tensor:
        values = self.tensor.detach().cpu().float()
        values = to_darknet(values) if self.classes and class_order == "darknet" else values
        return (values.T if transposed and self.matrix else values).contiguous()


def _list_slots(traced: Traced, cutoff: int | None) -> Iterator[_Slot]:
    """Yield every tensor in the order of the file."""
    many = cutoff is not None and cutoff > len(traced.modules) and not traced.cfg.is_backbone
    if cutoff is not None and (cutoff < 1 or many):
        raise UserError(f"cutoff={cutoff} must lie in [1, {len(traced.modules)}], the layers of the network")
    last = max((index for index, module in enumerate(traced.modules) if _list_tensors(module)), default=0)
    for index, module in enumerate(traced.modules[:cutoff]):
        for name, tensor in _list_tensors(module):
            classes = index == last and tensor.shape[0] == CLASSES
            yield _Slot(index, name, tensor, classes, matrix=isinstance(module, Connected) and name == "weights")


def _read_parts(file: Path, start: int, slots: list[_Slot]) -> list[tuple[_Slot, Tensor]]:
    """Return each slot with its numbers in the file. Raises `UserError` for numbers that no network has."""
    sizes = [slot.tensor.numel() for slot in slots]
    parts = torch.from_numpy(np.fromfile(file, "<f4", count=sum(sizes), offset=start)).split(sizes)
    _require_sound(file, slots, parts)
    return list(zip(slots, parts, strict=True))


def _fit_classifier(slots: list[_Slot], count: int) -> list[_Slot]:
    """Return the slots with as many classes as ``count`` numbers hold; unchanged where that is no whole number."""
    head = [slot for slot in slots if slot.layer == slots[-1].layer]
    classes = len(head[0].tensor)
    each = sum(slot.tensor.numel() for slot in head) // classes
    found, rest = divmod(count - sum(slot.tensor.numel() for slot in slots) + each * classes, each)
    if rest or found < 1 or found == classes:
        return slots
    others = [slot for slot in slots if slot.layer != slots[-1].layer]
    return others + [
        replace(slot, tensor=torch.empty(found, *slot.tensor.shape[1:], device="meta"), classes=found == CLASSES)
        for slot in head
    ]


_Tensors = list[tuple[str, Tensor]]


def _list_tensors(module: nn.Module | None) -> _Tensors:
    """Return (darknet's name, tensor) for one layer, in the order of the file."""
    return next((order(module) for kinds, order in _ORDERS if isinstance(module, kinds)), [])


def _order_convolution(module: ConvNormAct | Convolution) -> _Tensors:
    return [*_order_shift(module.conv, module.bn), ("weights", module.conv.weight)]


def _order_connected(module: Connected) -> _Tensors:
    shift, *others = _order_shift(module.fc, module.bn)
    return [shift, ("weights", module.fc.weight), *others]


def _order_shift(module: nn.Module, norm: nn.Module | None) -> _Tensors:
    return [("biases", _require_bias(module))] if norm is None else _order_norm(norm)


def _order_norm(norm: nn.Module) -> _Tensors:
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
        raise UserError("a fused network has no .weights form: load and save it before fuse()")
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    return [("biases", norm.bias), ("scales", norm.weight), ("rolling_mean", mean), ("rolling_variance", variance)]


_ORDERS: tuple[tuple[Any, Callable[[Any], _Tensors]], ...] = (
    ((ConvNormAct, Convolution), _order_convolution),
    (Connected, _order_connected),
    (WeightedShortcut, lambda module: [] if module.weight is None else [("weights", module.weight)]),
    (nn.Linear, lambda module: [("biases", _require_bias(module)), ("weights", module.weight)]),
    (nn.BatchNorm2d, _order_norm),
)


def _require_bias(module: Any) -> Tensor:
    if module.bias is None:
        raise UserError("a classifier without a bias has no .weights form")
    return module.bias


def _require_length(file: Path, start: int, slots: list[_Slot], traced: Traced, cutoff: int | None) -> None:
    """Raise `UserError` unless the file has the length that the network needs, or is longer where it may be."""
    found, expected = file.stat().st_size, start + 4 * sum(slot.tensor.numel() for slot in slots)
    may_go_on = traced.cfg.is_backbone or (cutoff is not None and not PARTIAL.search(file.name))
    if found == expected or (may_go_on and found > expected and (found - start) % 4 == 0):
        return
    message = f"{file} has {found:,} bytes, but this network needs exactly {expected:,}"
    if (layers := _find_cutoff(found - start, traced)) is not None:
        message += (
            f"; it ends after layer {layers - 1}: if it is a partial file, load_weights(..., cutoff={layers}) takes it"
        )
    elif found > expected and cutoff is None:
        message += "; if it goes on with other layers, load_weights(..., cutoff=N) reads the first N"
    raise UserError(f"{message}.")


def _find_cutoff(size: int, traced: Traced) -> int | None:
    """Return the number of layers that exactly fill ``size`` bytes."""
    total = 0
    for index, module in enumerate(traced.modules, 1):
        total += 4 * sum(tensor.numel() for _, tensor in _list_tensors(module))
        if total == size and _list_tensors(module):
            return index
    return None


def _require_sound(file: Path, slots: list[_Slot], parts: Any) -> None:
    """Raise `UserError` for numbers that no network has.

    Variances below 0 show that they belong to other layers. Darknet computes with those above -`EPSILON`, and so do we.
    """
    for slot, part in zip(slots, parts, strict=True):
        if not bool(part.isfinite().all()):
            raise UserError(f"{file}: layer {slot.layer} has {slot.name} that are not finite numbers.")
        if slot.name == "rolling_variance" and bool((part <= -EPSILON).any()):
            raise UserError(f"{file}: layer {slot.layer} has negative variances: these are weights of another network.")
