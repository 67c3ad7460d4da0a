"""``python -m backbones doctor``."""

from backbones.commands.doctor.command import main

__all__ = ["main"]
