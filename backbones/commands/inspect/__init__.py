"""``python -m backbones inspect``."""

from backbones.commands.inspect.command import main

__all__ = ["main"]
