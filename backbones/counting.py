"""Exact counts of a training step: bytes kept for backward, bytes moved, bytes alive at once, and kernel launches.

Nothing is timed, so the counts are the same on every machine. They describe eager execution.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BATCHES = (64, 128)
"""Two batch sizes. Their difference is free of weights, statistics and whatever else does not grow with the batch."""

WRITE_ONLY = {"copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_", "random_"}
"""Operators in place that do not read what they overwrite."""


@dataclass
class Operator:
    """Calls of one operator."""

    calls: int = 0
    launches: int = 0
    """Kernels that these calls launch."""
    moved: int = 0
    """Bytes that these calls read and write."""


@dataclass(frozen=True)
class ImageCounts:
    """Counts of a training step: forward, loss and backward, without the optimizer."""

    kept: float
    """Bytes per image that forward keeps for backward."""
    moved: float
    """Bytes per image that the operators read and write. An operator reads each input once, also BatchNorm."""
    peak: float
    """Most bytes per image that are alive at once, beside weights and input."""
    launches: int
    """Kernels that a step launches."""
    operators: Mapping[str, Operator]
    """Operator, such as ``aten::convolution`` -> its calls in the step with the larger batch."""


def count_per_image(
    create: Callable[[], nn.Module],
    size: int,
    *,
    dtype: torch.dtype = torch.bfloat16,
    channels_last: bool = True,
    batches: tuple[int, int] = BATCHES,
    launches_of: Mapping[str, int] | None = None,
) -> ImageCounts:
    """Count a training step of a network on tensors that have shapes but no numbers.

    A figure per image is the difference between two batches / the difference of their sizes. So large images cost
    neither memory nor much time. The network's operators need shape rules, as for torch.compile.

    Args:
        create: builds the network, a classifier of square RGB images.
        size: height and width of the images.
        dtype: of autocast; float32 switches it off.
        channels_last: memory order of the network and the images.
        batches: sizes of the two batches. The peak needs large ones, next to which the gradients of the weights,
            which grow while the maps are freed, do not count.
        launches_of: operator -> launches of one call, where that is not 1, e.g. ``{"backbones::batch_norm_act": 2}``.
    """
    order = torch.channels_last if channels_last else torch.contiguous_format
    network = create().to(memory_format=order).train()  # type: ignore[call-overload]
    with imagine(network):
        less, more = (_count_batch(network, n, size, dtype, order, launches_of) for n in batches)
    images = batches[1] - batches[0]
    kept, moved, peak = ((getattr(more, name) - getattr(less, name)) / images for name in ("kept", "moved", "peak"))
    return ImageCounts(kept, moved, peak, more.launches, more.operators)


def _count_batch(
    network: nn.Module,
    batch: int,
    size: int,
    dtype: torch.dtype,
    order: torch.memory_format,
    launches_of: Mapping[str, int] | None,
) -> "StepCounter":
    images = torch.empty(batch, 3, size, size).to(memory_format=order)
    labels = torch.zeros(batch, dtype=torch.long)
    network.zero_grad(set_to_none=True)

    def forward() -> Tensor:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return F.cross_entropy(network(images), labels)

    counter = StepCounter([*network.parameters(), *network.buffers(), images, labels], launches_of=launches_of)
    with counter:
        counter.forward(forward).backward()
    return counter


@contextmanager
def imagine(network: nn.Module) -> Iterator[None]:
    """Replace the tensors of ``network`` by ones without numbers; those created in the block have none either."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in network.modules():
            for tensors in (module._parameters, module._buffers):
                tensors |= {name: mode.from_tensor(each) for name, each in tensors.items() if each is not None}
        yield


def kept_bytes(forward: Callable[[], object], known: Iterable[Tensor]) -> int:
    """Run ``forward`` and return the bytes that autograd keeps for its backward, each storage once.

    What an autograd function keeps as a plain attribute, past ``save_for_backward``, is not seen.

    Args:
        forward: builds a graph.
        known: tensors that are alive anyway and do not count, such as parameters and the input.
    """
    return _run_and_keep(forward, {_storage_id(tensor) for tensor in known})[1]


def _run_and_keep(forward: Callable[[], Any], known: set[int]) -> tuple[Any, int]:
    storages: dict[int, torch.UntypedStorage] = {}  # held, so that no number is given to another storage

    def pack(tensor: Tensor) -> Tensor:
        if _storage_id(tensor) not in known:
            storages[_storage_id(tensor)] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    return result, sum(storage.nbytes() for storage in storages.values())


class StepCounter(TorchDispatchMode):
    """Context that counts the operators in it.

    Views and allocations move nothing and launch nothing. An operator of another library than aten counts as one, with
    its tensor arguments and results, however it is computed here.

    Args:
        known: tensors that are alive anyway, such as parameters and the input; they do not count as kept or alive.
        launches_of: operator -> launches of one call, where that is not 1.
    """

    def __init__(self, known: Iterable[Tensor] = (), *, launches_of: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.operators: dict[str, Operator] = {}
        self.kept = 0
        """Bytes that `forward` kept for backward."""
        self.peak = 0
        """Most bytes that were alive at once."""
        self._launches_of = launches_of or {}
        self._known = tuple(known)
        self._known_ids = {_storage_id(tensor) for tensor in self._known}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return sum(operator.moved for operator in self.operators.values())

    @property
    def launches(self) -> int:
        """Kernels launched."""
        return sum(operator.launches for operator in self.operators.values())

    def forward(self, function: Callable[[], Any]) -> Any:
        """Return the result of ``function``, and count what autograd keeps for its backward."""
        result, kept = _run_and_keep(function, self._known_ids)
        self.kept += kept
        return result

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        arguments = _tensors((args, kwargs))
        ids = {_storage_id(tensor) for tensor in arguments}
        fresh = [tensor for tensor in _tensors(result) if _storage_id(tensor) not in ids]
        self._track(fresh)
        mutated = _mutated(func, args, kwargs or {})
        if (fresh and not _is_allocation(func)) or mutated:
            self._count(func, arguments, fresh, mutated)
        return result

    def _count(self, func: OpOverload, arguments: list[Tensor], fresh: list[Tensor], mutated: list[Tensor]) -> None:
        operator = self.operators.setdefault(func._schema.name, Operator())
        operator.calls += 1
        operator.launches += self._launches_of.get(func._schema.name, 1)
        operator.moved += sum(map(_bytes_of, [*_read(func, arguments, mutated), *fresh, *mutated]))

    def _track(self, fresh: list[Tensor]) -> None:
        """Add new storages to those alive, and forget the dead ones where the peak depends on it."""
        for tensor in fresh:
            if (key := _storage_id(tensor)) not in self._known_ids:
                storage = tensor.untyped_storage()
                self._alive[key] = StorageWeakRef(storage), storage.nbytes()
        if fresh and self._sum_alive() > self.peak:
            self._alive = {key: found for key, found in self._alive.items() if not found[0].expired()}
            self.peak = max(self.peak, self._sum_alive())

    def _sum_alive(self) -> int:
        return sum(size for _, size in self._alive.values())


def _storage_id(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes_of(tensor: Tensor) -> int:
    """Return the bytes of the elements, those of an expanded axis once."""
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or not size)
    return prod(sizes) * tensor.element_size()


def _is_allocation(func: OpOverload) -> bool:
    return "empty" in func._schema.name


def _mutated(func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Return the arguments whose numbers the operator changes."""
    if not func._schema.is_mutable or torch.Tag.inplace_view in func.tags:
        return []
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | dict(kwargs)
    changed = [each.name for each in func._schema.arguments if each.alias_info and each.alias_info.is_write]
    return _tensors([given.get(name) for name in changed])


def _read(func: OpOverload, arguments: list[Tensor], mutated: list[Tensor]) -> list[Tensor]:
    """Return the arguments whose numbers the operator reads."""
    name = func._schema.name.partition("::")[2]
    if name.endswith("_like") or name.startswith("new_"):
        return []
    unread = {id(tensor) for tensor in mutated} if name in WRITE_ONLY or func._overloadname == "out" else set()
    return [tensor for tensor in arguments if id(tensor) not in unread]
