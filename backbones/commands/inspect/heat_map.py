"""A picture of the effective fusion weights: a row for each shortcut, a column for each input."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from backbones.commands.inspect.fusion import Branch
from backbones.files import new_file

CELL_WIDTH, ROW_HEIGHT, LEFT, TOP = 64, 22, 64, 40
"""Measures in pixels; the cells begin at (LEFT, TOP)."""
DARK, BRIGHT, DEAD = (24, 28, 66), (252, 226, 92), (214, 39, 40)
"""Colours of an effective weight of 0, of 1, and of a dead input."""


def save_heat_map(report: Sequence[Branch], file: Path) -> None:
    """Draw ``report`` to a PNG: dark is 0, bright is 1, red is dead; the figures are percentages."""
    layers = sorted({branch.layer for branch in report})
    inputs = 1 + max(branch.input for branch in report)
    image = Image.new("RGB", (LEFT + CELL_WIDTH * inputs + 8, TOP + ROW_HEIGHT * len(layers) + 8), "white")
    draw = ImageDraw.Draw(image)
    draw.text((8, 4), "effective weight of each input, %", fill="black")
    for column in range(inputs):
        draw.text((LEFT + CELL_WIDTH * column + 8, TOP - 16), f"input {column}", fill="black")
    for row, layer in enumerate(layers):
        draw.text((8, TOP + ROW_HEIGHT * row + 5), f"layer {layer}", fill="black")
    for branch in report:
        _draw_cell(draw, branch, row=layers.index(branch.layer))
    with new_file(file) as opened:
        image.save(opened, format="PNG")


def _draw_cell(draw: ImageDraw.ImageDraw, branch: Branch, *, row: int) -> None:
    left, top = LEFT + CELL_WIDTH * branch.input, TOP + ROW_HEIGHT * row
    level = min(max(branch.effective, 0.0), 1.0)
    color = DEAD if branch.dead else _blend(level)
    draw.rectangle((left, top, left + CELL_WIDTH - 2, top + ROW_HEIGHT - 2), fill=color)
    ink = "black" if level > 0.5 and not branch.dead else "white"
    draw.text((left + 8, top + 5), f"{100 * branch.effective:.1f}", fill=ink)


def _blend(level: float) -> tuple[int, int, int]:
    red, green, blue = (round(low + (high - low) * level) for low, high in zip(DARK, BRIGHT, strict=True))
    return red, green, blue
