"""A picture of the effective fusion weights: a row for each shortcut, a column for each input."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from backbones.commands.inspect.fusion import Branch

CELL, ROW, LEFT, TOP = 64, 22, 64, 40
_DARK, _BRIGHT, _DEAD = (24, 28, 66), (252, 226, 92), (214, 39, 40)


def save_heat_map(report: Sequence[Branch], file: Path) -> None:
    """Draw ``report`` to a PNG: dark is 0, bright is 1, red is dead; the figures are percentages."""
    layers = sorted({branch.layer for branch in report})
    inputs = 1 + max(branch.input for branch in report)
    image = Image.new("RGB", (LEFT + CELL * inputs + 8, TOP + ROW * len(layers) + 8), "white")
    draw = ImageDraw.Draw(image)
    draw.text((8, 4), "effective weight of each input, %", fill="black")
    for column in range(inputs):
        draw.text((LEFT + CELL * column + 8, TOP - 16), f"input {column}", fill="black")
    for row, layer in enumerate(layers):
        draw.text((8, TOP + ROW * row + 5), f"layer {layer}", fill="black")
    for branch in report:
        _draw_cell(draw, branch, row=layers.index(branch.layer))
    image.save(file, format="PNG")


def _draw_cell(draw: ImageDraw.ImageDraw, branch: Branch, *, row: int) -> None:
    left, top = LEFT + CELL * branch.input, TOP + ROW * row
    level = min(max(branch.effective, 0.0), 1.0)
    draw.rectangle((left, top, left + CELL - 2, top + ROW - 2), fill=_DEAD if branch.dead else _color(level))
    ink = "black" if level > 0.5 and not branch.dead else "white"
    draw.text((left + 8, top + 5), f"{100 * branch.effective:.1f}", fill=ink)


def _color(level: float) -> tuple[int, int, int]:
    red, green, blue = (round(low + (high - low) * level) for low, high in zip(_DARK, _BRIGHT, strict=True))
    return red, green, blue
