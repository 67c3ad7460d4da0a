"""Tests of the table of draws: no number decides two things about one image."""

import numpy as np

from backbones.data.augment import draws


def columns(*names: str) -> list[int]:
    return [int(i) for name in names for i in np.atleast_1d(np.arange(draws.DRAWS)[getattr(draws, name)])]


def test_no_column_is_used_twice_by_one_augmentation() -> None:
    inception = columns("AREA", "RATIO", "TOP", "LEFT", "FLIP", "BRIGHTNESS", "CONTRAST", "SATURATION", "AUTO", "ERASE")
    warp = columns("ASPECT", "ASPECT_COIN", "SCALE", "ANGLE", "FLIP", "SHIFT_X", "SHIFT_Y")
    colours = columns("HUE", "SATURATE", "SATURATE_COIN", "EXPOSE", "EXPOSE_COIN")
    for used in (inception, warp + colours):
        assert len(set(used)) == len(used)
        assert max(used) < draws.DRAWS
