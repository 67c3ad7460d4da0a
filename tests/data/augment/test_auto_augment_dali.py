"""Tests of each operation in DALI against its torchvision reference, and of its repeatability."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from backbones.data.augment.auto_augment import OPERATIONS, Choice, amounts, apply, choose
from backbones.data.augment.draws import DRAWS
from backbones.recipe import InceptionAugment
from tests.dataset.make_pictures import square_picture

pytest.importorskip("nvidia.dali")
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def

from backbones.data.augment.auto_augment_dali import augment  # needs DALI

SIZE = 224
NAMES = [operation.name for operation in OPERATIONS]
RAND, TRIVIAL = InceptionAugment(auto="randaugment", magnitude=30), InceptionAugment(auto="trivialaugment")
COPIES = {"identity", "translate_x", "translate_y", "posterize", "solarize"}
CLOSE = {"shear_x", "shear_y", "rotate", "brightness"}


def in_dali(images: list[np.ndarray], choice: Choice, *, threads: int = 1) -> np.ndarray:
    """Return the images after the rounds of their choice."""

    @pipeline_def(enable_conditionals=True)
    def graph() -> Any:
        kinds = [types.DALIDataType.UINT8, types.DALIDataType.INT64, types.DALIDataType.FLOAT64]
        batches = iter([(images, *choice)])
        pixels, operations, values = fn.external_source(
            source=batches, num_outputs=3, batch=True, dtype=kinds, ndim=[3, 1, 1], layout=["HWC", "", ""]
        )
        for each in range(choice.operation.shape[1]):
            pixels = augment(pixels, operations[each], values[each], size=SIZE)
        return pixels

    (out,) = graph(batch_size=len(images), num_threads=threads, device_id=None).run()
    return np.stack([np.array(out.at(i)) for i in range(len(images))]).astype(int)


def in_torchvision(images: list[np.ndarray], choice: Choice) -> np.ndarray:
    found = []
    for pixels, operations, values in zip(images, *choice, strict=True):
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        for operation, amount in zip(operations.tolist(), values.tolist(), strict=True):
            image = apply(image, operation, amount)
        found.append(image.permute(1, 2, 0).numpy())
    return np.stack(found).astype(int)


def one_round(number: int, values: list[float]) -> Choice:
    return Choice(np.full((len(values), 1), number), np.array(values, dtype=np.float64)[:, None])


def values_of(number: int) -> list[float]:
    """Return amounts of no, some and full strength of both policies, to both sides."""
    tables = [amounts(policy, size=SIZE)[number] for policy in (RAND, TRIVIAL)]
    turns = (1, -1) if OPERATIONS[number].signed else (1,)
    return sorted({turn * float(table[step]) for turn in turns for table in tables for step in (0, 9, 17, 30)})


class Sweep(NamedTuple):
    """One photograph under every operation by all its amounts; those of an operation are sorted."""

    before: np.ndarray
    operation: np.ndarray
    amount: np.ndarray
    dali: np.ndarray
    torchvision: np.ndarray


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    choices = [one_round(number, values_of(number)) for number in range(len(OPERATIONS))]
    choice = Choice(*(np.concatenate(part) for part in zip(*choices, strict=True)))
    images = [square_picture(SIZE, seed=0)] * len(choice.operation)
    before, (operation, amount) = np.stack(images).astype(int), (part[:, 0] for part in choice)
    return Sweep(before, operation, amount, in_dali(images, choice), in_torchvision(images, choice))


def mean_difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one - other).mean(axis=(1, 2, 3))


@pytest.mark.parametrize("number", range(len(OPERATIONS)), ids=NAMES)
def test_an_operation_equals_torchvision_at_every_strength_and_sign(sweep: Sweep, number: int) -> None:
    rows = sweep.operation == number
    bound = 0 if NAMES[number] in COPIES else 0.05 if NAMES[number] in CLOSE else 1.1
    assert mean_difference(sweep.dali[rows], sweep.torchvision[rows]).max() <= bound


@pytest.mark.parametrize("number", range(1, len(OPERATIONS)), ids=NAMES[1:])
def test_an_operation_changes_the_image(sweep: Sweep, number: int) -> None:
    rows = sweep.operation == number
    assert mean_difference(sweep.dali[rows], sweep.before[rows]).max() > 1


def test_each_image_of_a_batch_has_its_own_operations_one_after_the_other() -> None:
    draws = np.random.default_rng(5).random((32, DRAWS))
    images = [square_picture(SIZE, seed=seed) for seed in range(len(draws))]
    choice = choose(draws, InceptionAugment(auto="randaugment"), size=SIZE)
    ours, theirs = in_dali(images, choice), in_torchvision(images, choice)
    turned = in_torchvision(images, Choice(choice.operation[:, ::-1], choice.amount[:, ::-1]))
    assert mean_difference(ours, theirs).max() <= 3
    assert mean_difference(ours, turned).max() > 10


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_choice_gives_the_same_pixels(threads: int) -> None:
    images = [square_picture(SIZE, seed=seed) for seed in range(16)]
    choice = choose(np.random.default_rng(6).random((16, DRAWS)), TRIVIAL, size=SIZE)
    np.testing.assert_array_equal(in_dali(images, choice), in_dali(images, choice, threads=threads))


@pytest.mark.parametrize("number", range(1, 12), ids=NAMES[1:12])
def test_every_amount_gives_another_image(sweep: Sweep, number: int) -> None:
    found = sweep.dali[sweep.operation == number]
    assert len(found) >= 4
    for one in range(len(found)):
        assert all(np.abs(found[one] - found[other]).mean() > 0.05 for other in range(one))


def test_every_operation_gives_another_image(sweep: Sweep) -> None:
    found = [sweep.dali[sweep.operation == number][0] for number in range(len(OPERATIONS))]
    for one in range(len(OPERATIONS)):
        assert all(np.abs(found[one] - found[other]).mean() > 0.2 for other in range(one)), NAMES[one]


def test_black_corners_of_a_rotation_do_not_mislead_the_next_operation() -> None:
    after = ["equalize", "autocontrast", "contrast", "sharpness"]
    images = [square_picture(SIZE, seed=seed) for seed in range(4)]
    operations = np.array([[NAMES.index("rotate"), NAMES.index(name)] for name in after])
    choice = Choice(operations, np.array([[30.0, 0.5]] * 4))
    difference = mean_difference(in_dali(images, choice), in_torchvision(images, choice))
    assert dict(zip(after, difference <= 1.1, strict=True)) == dict.fromkeys(after, True)


def test_an_image_of_one_colour_is_not_stretched() -> None:
    images = [np.full((SIZE, SIZE, 3), value, np.uint8) for value in (0, 90, 255) for _ in range(3)]
    numbers = [NAMES.index(name) for name in ("equalize", "autocontrast", "contrast")] * 3
    found = in_dali(images, Choice(np.array(numbers)[:, None], np.full((9, 1), 0.5)))
    np.testing.assert_array_equal(found, np.stack(images))
