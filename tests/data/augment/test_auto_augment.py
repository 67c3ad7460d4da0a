"""Tests of RandAugment and TrivialAugment against torchvision's own tables and transforms, and against PIL."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms.v2 import InterpolationMode, RandAugment, TrivialAugmentWide

from backbones.data.augment.auto_augment import OPERATIONS, STRENGTHS, amounts, apply, choose
from backbones.data.augment.draws import AUTO, DRAWS
from backbones.recipe import InceptionAugment
from tests.dataset.make_pictures import square_picture

RAND, TRIVIAL, NONE = (InceptionAugment(auto=auto) for auto in ("randaugment", "trivialaugment", "none"))
TORCHVISION = {"randaugment": RandAugment, "trivialaugment": TrivialAugmentWide}
NAMES = [operation.name for operation in OPERATIONS]
NUMBER, STRENGTH, SIGN = range(AUTO.start, AUTO.start + 3)
LAST = np.nextafter(1, 0)


def apply_by_name(pixels: np.ndarray, name: str, amount: float) -> np.ndarray:
    found = apply(torch.from_numpy(pixels).permute(2, 0, 1), NAMES.index(name), amount)
    assert found.dtype == torch.uint8
    return found.permute(1, 2, 0).numpy()


def uniform_draws(count: int = 40_000) -> np.ndarray:
    return np.random.default_rng(1).random((count, DRAWS))


def torchvision_amount(value: float, name: str) -> float:
    """Convert a number of torchvision's tables as its transforms do.

    Where torch's float32 numbers stop just short of a whole one, as at 15.999999 pixels, that is taken as whole.
    """
    units = {"TranslateX": lambda pixels: int(pixels + 1e-4), "Solarize": lambda share: 255 * share}
    return (units | {"TranslateY": units["TranslateX"]}).get(name, float)(value)


@pytest.mark.parametrize("size", [224, 256, 331])
@pytest.mark.parametrize("inception", [RAND, TRIVIAL], ids=["rand", "trivial"])
def test_amounts_of_every_strength_are_those_of_torchvision(inception: InceptionAugment, size: int) -> None:
    space = TORCHVISION[inception.auto]._AUGMENTATION_SPACE
    found = amounts(inception, size=size)
    assert found.shape == (len(space), STRENGTHS)
    for row, (name, (magnitudes, _)) in zip(found, space.items(), strict=True):
        values = magnitudes(STRENGTHS, size, size)
        expected = [0.0] * STRENGTHS if values is None else [torchvision_amount(float(v), name) for v in values]
        assert row.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6), name


def test_the_list_of_operations_is_that_of_torchvision() -> None:
    for transform in TORCHVISION.values():
        space = {name.lower(): signed for name, (_, signed) in transform._AUGMENTATION_SPACE.items()}
        assert {operation.name.replace("_", ""): operation.signed for operation in OPERATIONS} == space


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("number", range(len(OPERATIONS)), ids=NAMES)
def test_an_operation_does_what_it_does_in_torchvision(number: int, turn: int) -> None:
    name = list(RandAugment._AUGMENTATION_SPACE)[number]
    amount = amounts(TRIVIAL, size=96)[number, 20] * (turn if OPERATIONS[number].signed else 1)
    image = torch.from_numpy(square_picture()).permute(2, 0, 1)
    magnitude = amount / 255 if name == "Solarize" else amount
    fill: Any = {torch.Tensor: None}
    expected = RandAugment()._apply_image_or_video_transform(image, name, magnitude, InterpolationMode.BILINEAR, fill)
    torch.testing.assert_close(apply(image, number, float(amount)), expected, rtol=0, atol=0)


def pil_warp(image: Image.Image, *numbers: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR)


PIL = {
    "identity": lambda image, _: image,
    "shear_x": lambda image, amount: pil_warp(image, 1, amount, 0, 0, 1, 0),
    "shear_y": lambda image, amount: pil_warp(image, 1, 0, 0, amount, 1, 0),
    "translate_x": lambda image, amount: pil_warp(image, 1, 0, -amount, 0, 1, 0),
    "translate_y": lambda image, amount: pil_warp(image, 1, 0, 0, 0, 1, -amount),
    "rotate": lambda image, amount: image.rotate(amount, Image.Resampling.BILINEAR),
    "brightness": lambda image, amount: ImageEnhance.Brightness(image).enhance(1 + amount),
    "color": lambda image, amount: ImageEnhance.Color(image).enhance(1 + amount),
    "contrast": lambda image, amount: ImageEnhance.Contrast(image).enhance(1 + amount),
    "sharpness": lambda image, amount: ImageEnhance.Sharpness(image).enhance(1 + amount),
    "posterize": lambda image, amount: ImageOps.posterize(image, int(amount)),
    "solarize": lambda image, amount: ImageOps.solarize(image, int(amount)),
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
}
SHARES = {"translate_x": 9, "translate_y": 9, "rotate": 25, "posterize": 3, "solarize": 100}
SIGNED = {operation.name for operation in OPERATIONS if operation.signed}


@pytest.mark.parametrize(("name", "turn"), [(name, turn) for name in NAMES for turn in (1, -1)[: 1 + (name in SIGNED)]])
def test_an_operation_does_what_it_does_in_pil(name: str, turn: int) -> None:
    amount = turn * SHARES.get(name, 0.4)
    pixels = square_picture()
    expected = np.array(PIL[name](Image.fromarray(pixels), amount)).astype(int)
    assert np.abs(apply_by_name(pixels, name, amount) - expected).mean() < 1
    if name != "identity":
        assert np.abs(pixels - expected).mean() > 1


@pytest.mark.parametrize("name", ["shear_x", "shear_y", "rotate", "translate_x", "translate_y"])
def test_black_comes_from_beyond_the_image(name: str) -> None:
    found = apply_by_name(np.full((40, 40, 3), 200, np.uint8), name, SHARES.get(name, 0.4))
    assert (found == 0).mean() > 0.03


def test_randaugment_takes_two_operations_trivialaugment_one_and_none_none() -> None:
    draws = uniform_draws(5)
    shapes = [[part.shape for part in choose(draws, inception, size=224)] for inception in (RAND, TRIVIAL, NONE)]
    assert shapes == [[(5, 2)] * 2, [(5, 1)] * 2, [(5, 0)] * 2]
    assert choose(draws[:0], RAND, size=224).operation.shape == (0, 2)


@pytest.mark.parametrize("round_", [0, 1])
def test_operations_are_equally_likely_in_each_round(round_: int) -> None:
    operation = choose(uniform_draws(), RAND, size=224).operation[:, round_]
    shares = np.bincount(operation, minlength=14) / len(operation)
    assert shares == pytest.approx([1 / 14] * 14, abs=0.006)


def test_the_two_rounds_are_drawn_apart() -> None:
    first, second = choose(uniform_draws(), RAND, size=224).operation.T
    assert (first == second).mean() == pytest.approx(1 / 14, abs=0.006)


def test_half_of_the_signed_amounts_are_negative_and_no_other() -> None:
    operation, amount = choose(uniform_draws(), RAND, size=224)
    signed = np.isin(operation, [NAMES.index(name) for name in SIGNED])
    assert (amount[signed] < 0).mean() == pytest.approx(0.5, abs=0.01)
    assert (amount[~signed] >= 0).all()


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_randaugment_has_one_strength_its_magnitude(magnitude: int) -> None:
    inception = replace(RAND, magnitude=magnitude)
    operation, amount = choose(uniform_draws(2000), inception, size=256)
    strengths = np.abs(amount[operation == NAMES.index("rotate")])
    assert strengths == pytest.approx(magnitude, abs=1e-5)  # 30 degrees in 30 steps


def test_trivialaugment_has_every_strength_with_equal_chances() -> None:
    operation, amount = choose(uniform_draws(140_000), TRIVIAL, size=256)
    steps = np.rint(np.abs(amount[operation == NAMES.index("rotate")]) / 4.5).astype(int)  # 135 degrees in 30 steps
    assert np.bincount(steps) / len(steps) == pytest.approx([1 / 31] * 31, abs=0.008)


@pytest.mark.parametrize(
    ("column", "before", "after", "change"),
    [
        (NUMBER, 1.5 / 14, 2.5 / 14, {"operation"}),
        (STRENGTH, 5.5 / 31, 6.5 / 31, {"amount"}),
        (SIGN, 0.49, 0.51, {"amount"}),
    ],
    ids=["number", "strength", "sign"],
)
def test_each_draw_decides_one_thing(column: int, before: float, after: float, change: set[str]) -> None:
    draws = np.full((2, DRAWS), 0.2)
    draws[:, [NUMBER, STRENGTH]] = 1.5 / 14, 5.5 / 31
    draws[:, column] = before, after
    choice = choose(draws, TRIVIAL, size=224)
    assert {part for part, (one, other) in choice._asdict().items() if one != other} == change


def test_draws_of_other_columns_change_nothing() -> None:
    draws = uniform_draws(50)
    others = 1 - draws
    others[:, AUTO] = draws[:, AUTO]
    for one, other in zip(choose(draws, RAND, size=224), choose(others, RAND, size=224), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("u", [0.0, LAST], ids=["lowest", "highest"])
@pytest.mark.parametrize("inception", [RAND, TRIVIAL], ids=["rand", "trivial"])
def test_extreme_draws_stay_in_the_table(inception: InceptionAugment, u: float) -> None:
    operation, amount = choose(np.full((1, DRAWS), u), inception, size=224)
    assert set(operation.ravel().tolist()) == {0 if u == 0 else 13}
    assert np.isfinite(amount).all()


def test_amounts_lose_nothing_in_float32() -> None:
    amount = choose(uniform_draws(2000), TRIVIAL, size=224).amount
    np.testing.assert_array_equal(amount.astype(np.float32).astype(np.float64), amount)
