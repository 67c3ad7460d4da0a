"""The doctor names the side and the stage that is made slow on purpose, and advises options that exist."""

import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backbones.command_line import parse
from backbones.commands import doctor, measure, prepare
from backbones.commands.assembly import build_model, build_run, splits, train_loader, val_loader
from backbones.commands.doctor import Machine, advice, diagnose, estimates, quota, verdict
from backbones.commands.measure import Measurements, Rate
from backbones.data import reference
from backbones.data.bad_images import BadImages
from backbones.data.draws import DRAWS
from backbones.data.feed import Feed
from backbones.data.finish import Finish
from backbones.data.order import Shares, training_plans
from backbones.data.reader import Reader
from backbones.data.sources.folder import scan_folder
from backbones.data.view import View
from backbones.errors import UserError
from backbones.recipe import Augment, DarknetAugment, InceptionAugment, Loading, Mixing, Preprocess, Recipe, Synthetic
from backbones.training.launch import create_accelerator

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

SECONDS = 0.15
SLOW = 0.04
"""Seconds that a throttled stage takes for each batch: many times what 8 images of 32 pixels need."""

WORDS = ["--model", "test_resnet", "--img-size", "32", "--batch-size", "8", "--epochs", "2", "--device", "cpu"]
MADE_UP = ["--synthetic.classes", "3", "--train-per-class", "9", "--val-per-class", "4"]
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


def report(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    doctor.main([*WORDS, *words], seconds=SECONDS)
    return capsys.readouterr().out


def line(text: str, title: str) -> str:
    return next(each for each in text.splitlines() if each.startswith(title))


def slowed(function: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(SLOW)
        return function(*arguments, **options)

    return slow


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
    parse(prepare.Options, ["--source", *commands[0][4:]])


def test_an_epoch_and_the_run_last_as_long_as_their_images():
    lines = estimates(Rate(images=500, seconds=10), Recipe(batch_size=10, epochs=90), 1009, 100)
    assert "one epoch   takes 0:00:20 at 50.0 images/s (1009 images" in lines[0]
    assert "whole run   takes 0:30:00 (9000 steps)" in lines[1]


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("", None), ("250000 100000", 3), ("50000 100000", 1)]
)
def test_a_container_allows_the_cores_of_its_quota(text, cores):
    assert quota(text) == cores


def test_dali_is_measured_stage_by_stage_and_nothing_is_written(image_folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("nvidia.dali")
    monkeypatch.chdir(tmp_path)
    files = sorted(image_folder.rglob("*"))
    text = report(capsys, "--data-dir", str(image_folder), "--log-wandb", "--grad-accum-steps", "2")
    for title in ("read ", "+ decode ", "+ augment ", "+ copy ", "model alone ", "together "):
        assert float(line(text, title).removeprefix(title).split()[0]) > 0
    assert re.search(r"^verdict +(INPUT|COMPUTE)-BOUND \d+%", text, re.MULTILINE)
    assert "8 images per step, 4 at a time, precision fp32" in text
    assert list(tmp_path.iterdir()) == []
    assert sorted(image_folder.rglob("*")) == files


THROTTLES = {
    "read": [(Reader, "read")],
    "decode": [(reference, "decode"), (measure, "decode")],
    "augment": [(reference, "transform")],
    "copy": [(Finish, "__call__")],
}


@pytest.mark.parametrize("stage", THROTTLES)
def test_a_slow_stage_of_the_loader_is_found(stage, image_folder, monkeypatch, capsys):
    for owner, name in THROTTLES[stage]:
        monkeypatch.setattr(owner, name, slowed(getattr(owner, name)))
    words = ["--batch-size", "2"] if stage == "decode" else []  # the decoder sleeps for each image
    text = report(capsys, "--data-dir", str(image_folder), "--loader", "reference", *words)
    said = re.search(r"INPUT-BOUND (\d+)%.* The limit is (\w+)", text)
    assert said is not None
    assert said[2] == stage
    assert 30 < int(said[1]) <= 100


def test_a_slow_network_is_found_and_the_loader_is_left_alone(monkeypatch, capsys):
    monkeypatch.setattr(F, "cross_entropy", slowed(F.cross_entropy))
    text = report(capsys, "--loader", "synthetic", *MADE_UP)
    said = re.search(r"COMPUTE-BOUND (\d+)%: the limit is model. There is nothing to gain from the loader", text)
    assert said is not None
    assert 80 < int(said[1]) <= 100
    assert "change      --torchcompile (now off)" in text
    assert float(line(text, "make ").split()[1]) > float(line(text, "model alone").split()[2])


def test_the_versions_are_listed_but_no_secret_and_no_folder(image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "very-secret")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setattr(doctor, "measure", lambda *_, **__: made_up(1, 2, 3, 4, model=1, joint=4, waited=0.5))
    text = report(capsys, "--data-dir", str(image_folder), "--output", str(tmp_path / "run"), "--hsv", "exact")
    for package in ("torch", "torchvision", "timm", "accelerate", "wandb", "numpy", "pillow"):
        found = doctor._version(package) if package != "torch" else torch.__version__
        assert f"{package} {found}" in text
    assert re.search(r"nvidia-dali-cuda1[23]0 \d|DALI not installed", text)
    assert f"python {sys.version.split()[0]}" in text
    assert "augment.darknet.hsv=exact batch_size=8" in text
    assert "output" not in text
    assert not any(private in text for private in ("very-secret", "somebody", str(tmp_path), sys.prefix))
    assert f"data        {image_folder}: 64 training images in 4 classes" in text


def test_a_package_that_is_not_there_is_said_to_be_missing():
    assert doctor._version("no-such-package") == "not installed"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data-dir", "/nowhere"], "'/nowhere' is not a folder"),
        ([], "--data-dir is missing"),
        (["--loader", "synthetic", *MADE_UP, "--batch-size", "28"], "batch_size=28 is larger than the data set of 27"),
        (["--loader", "synthetic", "--resume", "runs/a"], "doctor resumes nothing"),
        (["--loader", "synthetic", *MADE_UP, "--model", "test_resnot"], "unknown model 'test_resnot'"),
    ],
)
def test_what_would_stop_the_training_stops_the_doctor(words, message):
    with pytest.raises(UserError, match=message):
        doctor.main([*WORDS, *words], seconds=SECONDS)


@pytest.mark.parametrize("loader", ["dali", "reference"])
def test_a_bad_image_is_named(loader, image_folder, tmp_path):
    pytest.importorskip("nvidia.dali")
    shutil.copytree(image_folder, tmp_path / "data")
    for file in sorted((tmp_path / "data" / "train").rglob("*.jpg")):
        data = bytearray(file.read_bytes())
        data[2:20] = bytes(18)
        file.write_bytes(data)
    with pytest.raises(UserError, match=r"train/.*\.jpg cannot be decoded"):
        doctor.main([*WORDS, "--data-dir", str(tmp_path / "data"), "--loader", loader], seconds=SECONDS)


def test_one_process_is_enough(monkeypatch):
    monkeypatch.setattr(doctor, "create_accelerator", lambda **_: SimpleNamespace(num_processes=2))
    with pytest.raises(UserError, match="doctor measures one process"):
        doctor.main(WORDS, seconds=SECONDS)


def run_of(recipe: Recipe):
    accelerator = create_accelerator(device="cpu", grad_accum_steps=recipe.grad_accum_steps)
    train, val = splits(recipe)
    batches = train_loader(recipe, train, accelerator), val_loader(recipe, val, accelerator)
    return build_run(recipe, accelerator, build_model(recipe, len(train.classes)), batches, save=None)  # type: ignore


SMALL = Recipe(model="test_resnet", img_size=32, batch_size=2, loader="reference", epochs=1, device="cpu")


def test_no_image_is_read_twice_while_there_are_others(image_folder, monkeypatch):
    rows: list[int] = []
    read = Reader.read
    monkeypatch.setattr(Reader, "read", lambda self, plan: rows.extend(plan.rows.tolist()) or read(self, plan))
    run = run_of(replace(SMALL, data_dir=str(image_folder)))
    measured = measure.measure(run, replace(SMALL, data_dir=str(image_folder)), seconds=0, tell=lambda _: None)
    assert len(rows) == len(set(rows)) == 2 * measured.steps == 5 * 2 * measure.LEAST * 2


def test_measuring_goes_on_beyond_the_end_of_a_small_data_set(image_folder):
    recipe = replace(SMALL, data_dir=str(image_folder), batch_size=64, grad_accum_steps=4)
    measured = measure.measure(run_of(recipe), recipe, seconds=0, tell=lambda _: None)
    assert measured.steps == 3 + 1 + 2 * measure.LEAST  # 4 micro-batches of each stage are one step; then 4 steps
    assert measured.joint.images == measure.LEAST * 64


def test_dali_augments_nothing_while_decoding_is_measured(image_folder, monkeypatch):
    pipeline = pytest.importorskip("backbones.data.pipeline")
    images, asked = pipeline.images, []
    monkeypatch.setattr(
        pipeline, "images", lambda *plans, **options: asked.append(options) or images(*plans, **options)
    )
    recipe = replace(SMALL, data_dir=str(image_folder), loader="dali")
    measure.measure(run_of(recipe), recipe, seconds=0, tell=lambda _: None)
    assert asked == [{"decode_only": True}, {}, {}, {}]  # decode, augment, the whole loader twice


def test_a_measurement_ends_with_a_whole_step(monkeypatch):
    monkeypatch.setattr(F, "cross_entropy", slowed(F.cross_entropy))
    monkeypatch.setattr(measure, "LEAST", 0)
    recipe = replace(SMALL, loader="synthetic", synthetic=Synthetic(3, 9, 4), batch_size=8, grad_accum_steps=4)
    rate = measure.train_rate(measure._quiet(run_of(recipe)), seconds=SLOW / 2)
    assert rate.images == 8


def test_nothing_is_learned_while_measuring():
    recipe = replace(SMALL, loader="synthetic", synthetic=Synthetic(3, 9, 4))
    run = run_of(recipe)
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    measure.measure(run, recipe, seconds=0, tell=lambda _: None)
    assert all(torch.equal(old, new) for old, new in zip(before, run.model.parameters(), strict=True))


def test_waiting_is_what_the_batches_take_and_not_what_the_step_takes(monkeypatch):
    monkeypatch.setattr(F, "cross_entropy", slowed(F.cross_entropy))
    run = measure._quiet(run_of(replace(SMALL, loader="synthetic", synthetic=Synthetic(3, 9, 4))))
    monkeypatch.setattr(run.train_batches, "epoch", slowly(run.train_batches.epoch))
    rate = measure.train_rate(run, seconds=SECONDS)
    batches = rate.images // 2
    assert batches * SLOW <= rate.waited <= rate.seconds - batches * SLOW


def slowly(epoch: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*place: int) -> Any:
        for batch in epoch(*place):
            time.sleep(SLOW)
            yield batch

    return slow


@pytest.mark.parametrize(
    "augment",
    [Augment("darknet"), Augment("inception"), AUTO.augment],
    ids=["warp", "crop", "auto"],
)
def test_decoding_alone_decodes_the_windows_that_are_augmented(augment, image_folder):
    pipeline = pytest.importorskip("backbones.data.pipeline")
    index = scan_folder(image_folder / "train")
    view, loading = View(32, Preprocess(), augment), Loading()
    feed = Feed(index, view, 8, torch.device("cpu"), 1, loading, BadImages(index, loading))
    plans = list(islice(training_plans(len(index), Shares(8), seed=0), 3))
    assert plans[0].draws.shape == (8, DRAWS)
    sizes = np.tile([36, 44], (8, 1))
    for plan, shapes in pipeline.images(iter(plans), feed, decode_only=True):
        windows = (view.warps if view.is_warp else view.crops)(sizes, plan.draws).windows
        assert np.array_equal(shapes.numpy(), np.column_stack([windows[:, 2:], np.full(8, 3)]))
