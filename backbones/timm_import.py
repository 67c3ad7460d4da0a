"""The import of timm: it gets our backbones, and leaves wandb alone until that is used.

Importing torch and timm takes seconds, so this package does not do it only to register names. timm itself imports wandb
wherever that is installed (``timm.utils.summary``), which takes half a second more. A finder in ``sys.meta_path`` acts
when these modules of timm are executed, whoever imports them; other modules it leaves to the next finder.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

WANDB = "wandb"


def prepare_timm() -> None:
    """Register our backbones with timm where it is imported already; otherwise let its import do so."""
    if "timm.models" in sys.modules:
        importlib.import_module("backbones.models.registry")
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


@contextmanager
def registering_backbones() -> Iterator[None]:
    """Register our backbones after the block, which executes ``timm.models``."""
    yield
    importlib.import_module("backbones.models.registry")


@contextmanager
def deferring_wandb() -> Iterator[None]:
    """Let ``import wandb`` return a stand-in during the block, if wandb is installed and not imported yet."""
    if WANDB in sys.modules or find_spec(WANDB) is None:
        yield
        return
    sys.modules[WANDB] = stand_in = DeferredModule(WANDB)
    try:
        yield
    finally:
        stand_in.make_way()


class DeferredModule(ModuleType):
    """Module that imports the real one of its name when an attribute is asked for."""

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the real module."""
        self.make_way()
        return getattr(importlib.import_module(self.__name__), name)

    def make_way(self) -> None:
        """Let the next import find the real module."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


CHANGES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "timm.models": registering_backbones,
    "timm.utils.summary": deferring_wandb,
}
"""Module of timm -> what is done around its execution."""


class _Finder(MetaPathFinder):
    """Finder of the modules in `CHANGES`; the other finders say where they are."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module to change; None for any other."""
        if fullname not in CHANGES:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, CHANGES[fullname])
        return spec


class _Loader(Loader):
    """Loader that acts around the execution of a module, and leaves the module with its own loader."""

    def __init__(self, loader: Loader, change: Callable[[], AbstractContextManager[None]]) -> None:
        self.loader, self.change = loader, change

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what the module's own loader creates."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        with self.change():
            self.loader.exec_module(module)
