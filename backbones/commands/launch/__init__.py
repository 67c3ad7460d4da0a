"""``python -m backbones launch``."""

from backbones.commands.launch.command import main

__all__ = ["main"]
