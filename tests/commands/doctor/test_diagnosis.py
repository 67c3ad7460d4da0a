"""The words follow from the figures: side, stage and share from made-up rates, and advice that names real options."""

from dataclasses import replace
from itertools import product

import pytest

from backbones.command_line import parse
from backbones.commands.doctor.diagnosis import Machine, advice, diagnose, verdict
from backbones.commands.doctor.measure import Measurements, Rate
from backbones.dataset.preparation.request import Request
from backbones.recipe import Augment, DarknetAugment, InceptionAugment, Mixing, Recipe

IDLE = Machine(cores=16, idle=10.0, on_gpu=False, has_gpu=False)
BUSY = replace(IDLE, idle=0.0)
GPU = replace(IDLE, on_gpu=True, has_gpu=True)


def rates(*per_image: float) -> dict[str, Rate]:
    """Rates of a loader from the seconds per image of each stage and those before it."""
    names = ("read", "decode", "augment", "copy")[-len(per_image) :]
    return {name: Rate(1000, 1000 * time) for name, time in zip(names, per_image, strict=True)}


def made_up(*per_image: float, model: float, joint: float, waited: float) -> Measurements:
    joined = Rate(1000, 1000 * joint, waited=1000 * joint * waited)
    return Measurements(rates(*per_image), Rate(1000, 1000 * model), joined, steps=10)


def test_each_stage_costs_what_it_adds_to_those_before_it():
    found = diagnose(made_up(0.001, 0.005, 0.007, 0.008, model=0.002, joint=0.008, waited=0.8))
    expected = {"read": 0.001, "decode": 0.004, "augment": 0.002, "copy": 0.001, "model": 0.002}
    assert found.added == pytest.approx(expected)
    assert (found.input_bound, found.limit) == (True, "decode")
    assert found.share == pytest.approx(0.8)


def test_waiting_and_computing_make_up_the_whole_step():
    found = diagnose(made_up(0.001, 0.005, 0.007, 0.008, model=0.002, joint=0.01, waited=0.8))
    assert sum(found.step.values()) == pytest.approx(0.01)
    assert found.step["decode"] == pytest.approx(0.008 * 0.004 / 0.008)
    assert found.step["model"] == pytest.approx(0.002)


def test_no_stage_is_faster_than_nothing_when_a_later_measurement_is_faster():
    found = diagnose(made_up(0.009, 0.004, 0.007, 0.006, model=0.002, joint=0.01, waited=0.5))
    assert found.added == pytest.approx({"read": 0.004, "decode": 0, "augment": 0.002, "copy": 0, "model": 0.002})


@pytest.mark.parametrize(("waited", "input_bound"), [(0.0, False), (0.049, False), (0.051, True), (0.9, True)])
def test_a_twentieth_of_a_step_may_be_waited_for(waited, input_bound):
    found = diagnose(made_up(0.001, 0.005, 0.007, 0.02, model=0.01, joint=0.02, waited=waited))
    assert found.input_bound is input_bound
    assert found.limit == ("copy" if input_bound else "model")
    assert found.share == pytest.approx(waited if input_bound else 1 - waited)


def test_loader_and_network_compete_only_where_they_share_cores_and_lose():
    measured = made_up(0.01, 0.01, 0.01, 0.01, model=0.008, joint=0.015, waited=0.2)
    said = verdict(measured, diagnose(measured), Recipe(), IDLE)
    assert "compete for 16 cores: together they reach 67%" in said[-1]
    assert not any("compete" in text for text in verdict(measured, diagnose(measured), Recipe(), GPU))
    better = replace(measured, joint=Rate(1000, 10.5, waited=2.0))
    assert not any("compete" in text for text in verdict(better, diagnose(better), Recipe(), IDLE))


AUTO = Recipe(augment=Augment("inception", inception=InceptionAugment(auto="randaugment")))
EXACT = Recipe(augment=Augment(darknet=DarknetAugment(hsv="exact")))


@pytest.mark.parametrize(
    ("limit", "recipe", "machine", "first"),
    [
        ("read", Recipe(), IDLE, "--read-threads 8 (now 4)"),
        ("read", Recipe(data_dir="/images"), BUSY, "python -m backbones prepare /images --resize 384 --out INDEX"),
        ("decode", Recipe(workers=3), IDLE, "--workers 16 (now 3)"),
        ("decode", Recipe(workers=16), GPU, "--hw-decoder-load 0.9 (now 0.65)"),
        ("decode", Recipe(img_size=512), BUSY, "python -m backbones prepare DIR --resize 768 --out INDEX"),
        ("decode", Recipe(loader="reference"), IDLE, "--loader dali (now reference)"),
        ("augment", AUTO, IDLE, "--auto none (now randaugment)"),
        ("augment", Recipe(), IDLE, "--workers 16 (now 4)"),
        ("augment", Recipe(), BUSY, "more cores: this process may use 16 cores"),
        ("make", Recipe(loader="synthetic"), IDLE, "--loader dali --data-dir DIR (now synthetic)"),
        ("copy", EXACT, IDLE, "--hsv matrix (now exact)"),
        ("copy", Recipe(mixing=Mixing(blur=15)), IDLE, "--blur 0 (now 15)"),
        ("copy", Recipe(), GPU, "--prefetch 4 (now 2)"),
        ("copy", Recipe(device="cpu"), replace(IDLE, has_gpu=True), "--device auto (now cpu)"),
        ("copy", Recipe(), IDLE, "a GPU"),
        ("model", Recipe(precision="fp32"), GPU, "--precision bf16 (now fp32)"),
        ("model", Recipe(device="cpu"), replace(IDLE, has_gpu=True), "--device auto (now cpu)"),
        ("model", Recipe(precision="bf16"), GPU, "--torchcompile (now off)"),
        ("model", Recipe(channels_last=False), IDLE, "--channels-last (now off)"),
        ("model", Recipe(grad_checkpointing=True), IDLE, "--no-grad-checkpointing (now on)"),
        ("model", Recipe(torchcompile=True, grad_accum_steps=4), IDLE, "--grad-accum-steps 1 (now 4)"),
        ("model", Recipe(torchcompile=True, precision="bf16"), GPU, "--batch-size 256 (now 128)"),
    ],
)
def test_the_first_advice_is_the_cheapest_that_applies(limit, recipe, machine, first):
    assert advice(limit, recipe, machine)[0].startswith(first)


def test_every_option_that_is_advised_exists():
    recipes = [Recipe(precision="fp32"), Recipe(loader="reference", grad_accum_steps=2), AUTO, EXACT]
    recipes.append(Recipe(mixing=Mixing(blur=15), channels_last=False, grad_checkpointing=True))
    machines = [IDLE, BUSY, GPU, replace(IDLE, has_gpu=True)]
    limits = ("read", "decode", "augment", "make", "copy", "model")
    texts = {text for each in product(limits, recipes, machines) for text in advice(*each)}
    options = [text.partition(" (now")[0].split() for text in texts if text.startswith("--")]
    assert len({words[0] for words in options}) == 15
    parse(Recipe, [word for words in options for word in words])
    commands = [text.partition(",")[0].split() for text in texts if text.startswith("python -m backbones prepare ")]
    assert len(commands) == 1
    parse(Request, commands[0][4:])
