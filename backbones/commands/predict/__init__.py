"""``python -m backbones predict``."""

from backbones.commands.predict.command import main

__all__ = ["main"]
