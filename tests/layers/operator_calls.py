"""Calls of torch's operations below autograd."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Calls(TorchDispatchMode):
    """Names of the operations that run inside, ``namespace.name``."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(f"{func.namespace}.{func._opname}")
        return func(*args, **(kwargs or {}))

    @property
    def own(self) -> list[str]:
        """Names of our own operators."""
        return [name.removeprefix("backbones.") for name in self.names if name.startswith("backbones.")]
