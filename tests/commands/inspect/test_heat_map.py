"""The picture has a cell for each input, in the colour of its effective weight."""

from pathlib import Path

import pytest
from PIL import Image

from backbones.commands.inspect.fusion import Branch
from backbones.commands.inspect.heat_map import save_heat_map


def make_branch(layer: int, number: int, effective: float, *, dead: bool = False) -> Branch:
    return Branch(layer, f"layer{layer}", number, None, effective, effective, 0.5, dead)


@pytest.fixture
def picture(tmp_path: Path) -> Image.Image:
    """Layer 4 with two inputs, layer 9 with three."""
    report = [make_branch(4, 0, 1.0), make_branch(4, 1, 0.0)]
    report += [make_branch(9, 0, 0.5), make_branch(9, 1, 1.5), make_branch(9, 2, 0.005, dead=True)]
    save_heat_map(report, tmp_path / "map.png")
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]
    with Image.open(tmp_path / "map.png") as image:
        return image.convert("RGB")


def test_the_picture_has_room_for_all_layers_and_inputs(picture: Image.Image) -> None:
    assert picture.size == (64 + 3 * 64 + 8, 40 + 2 * 22 + 8)


@pytest.mark.parametrize(
    ("row", "column", "color"),
    [
        (0, 0, (252, 226, 92)),
        (0, 1, (24, 28, 66)),
        (0, 2, (255, 255, 255)),
        (1, 0, (138, 127, 79)),
        (1, 1, (252, 226, 92)),
        (1, 2, (214, 39, 40)),
    ],
    ids=["one is bright", "zero is dark", "no input is white", "half", "more than one is bright", "dead is red"],
)
def test_a_cell_has_the_colour_of_its_weight(picture: Image.Image, row: int, column: int, color) -> None:
    assert picture.getpixel((64 + 64 * column + 2, 40 + 22 * row + 2)) == color
