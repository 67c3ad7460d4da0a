"""Training on the device as the trainer does it: its speed, and that it does what it says."""

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from backbones.recipe import Ema, Log, Optim, Recipe, Saving, Synthetic
from benchmarks.end_to_end import bare_step
from benchmarks.gpu.plan import Left, Plan, Row, rate_rows, ratio_rows, row
from benchmarks.harness import compare
from benchmarks.machine import ROOT
from benchmarks.trainer import Trainer, build

SMALL = "test_resnet"
"""Network of timm for tests."""


def recipe_of(plan: Plan, model: str, **options: object) -> Recipe:
    """Return the recipe of a run on images that cost nothing."""
    given = {
        "model": model,
        "img_size": plan.size,
        "batch_size": plan.batch,
        "lr": 0.01,
        "steps": 100_000,
        "loader": "synthetic",
        "device": "cpu" if plan.device == "cpu" else "auto",
        "precision": "bf16",
        "synthetic": Synthetic(classes=1000, train_per_class=1, val_per_class=1),
        "optim": Optim(burn_in=1),
        "log": Log(interval=50),
        "saving": Saving(ckpt_minutes=None, ckpt_every=100),
    }
    return Recipe(**(given | options))  # type: ignore[arg-type]


def small(plan: Plan, **options: object) -> Recipe:
    """Return the recipe of a run that shows what happens, not how fast."""
    shape = {"img_size": 32, "batch_size": 16, "synthetic": Synthetic(classes=4, train_per_class=64, val_per_class=4)}
    return recipe_of(plan, SMALL, **(shape | options))


def measure_trainer(plan: Plan) -> Iterator[Row]:
    """Yield the speed of the trainer with mixing, average, log and checkpoints, and its ratio to the network alone."""
    recipe = recipe_of(plan, SMALL if plan.quick else "csresnext50_ws_mi2", model_ema=True)
    with tempfile.TemporaryDirectory() as folder:
        run = build(recipe, Path(folder) / "run", saves=True)
        actions = {"network alone": bare_step(recipe, plan.setting()), "trainer": Trainer(run)}
        costs = plan.measure(actions, repeats=25, scale=1 / plan.batch)
        run.checkpoints.finish()
    ratios = compare(costs, {"trainer / network alone": ("network alone", "trainer")})
    yield from ratio_rows(ratios, {"trainer / network alone": ">= 0.97"})
    yield from rate_rows(costs)


def check_half_precision(plan: Plan) -> Iterator[Row]:
    """Train in float16 with gradient scaling: the loss falls, and weights and scale are finite."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = small(plan, precision="fp16", log=Log(interval=10**6))
        run = build(recipe, Path(folder) / "run")
        losses, scale = learn(Trainer(run), 30), run.accelerator.scaler.get_scale()
    yield row("loss of the first and the last five steps", f"{mean(losses[:5]):.3f}, {mean(losses[-5:]):.3f}")
    yield row("scale of the gradients", scale)
    require(mean(losses[-5:]) < mean(losses[:5]), "the loss did not fall")
    require(all_finite(run.plain_model) and math.isfinite(scale) and scale > 0, "weights or scale are not finite")


def learn(trainer: Trainer, steps: int) -> list[float]:
    """Make steps and return their losses."""
    for _ in range(steps):
        trainer()
    return torch.stack(trainer.run.report.losses[-steps:]).tolist()


def check_average(plan: Plan) -> Iterator[Row]:
    """Compare the average of a compiled network with its formula: ``decay * average + (1 - decay) * weights``."""
    decay, steps = 0.9, 5
    with tempfile.TemporaryDirectory() as folder:
        run = build(small(plan, model_ema=True, ema=Ema(decay=decay, warmup=False)), Path(folder) / "run")
        run.plain_model.compile(backend="eager" if plan.quick else "inductor")
        trainer, expected = Trainer(run), parameters(run.plain_model)
        for share in (0.0, *[decay] * (steps - 1)):  # timm's average is a copy after the first step
            trainer()
            moved = zip(expected, parameters(run.plain_model), strict=True)
            expected = [share * old + (1 - share) * new for old, new in moved]
        found = parameters(run.networks["val_ema"])
    difference = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))
    distance = max(float((a - b).abs().max()) for a, b in zip(found, parameters(run.plain_model), strict=True))
    yield row(f"largest difference from the formula after {steps} steps", difference)
    yield row("largest difference from the weights themselves", distance)
    require(difference < 1e-5 < distance, "the average is not that of the formula")


def check_nan(plan: Plan) -> Iterator[Row]:
    """Train on images of NaN: the step is not taken, and the error names them."""
    from backbones.training.guard import NotFiniteError  # noqa: PLC0415  (needs accelerate)

    with tempfile.TemporaryDirectory() as folder:
        run = build(small(plan, log=Log(interval=1)), Path(folder) / "run")
        run.checkpoints.folder = Path(folder)
        trainer = Trainer(run)
        trainer()
        before = parameters(run.plain_model)
        batch = next(trainer.batches)
        batch.images.fill_(math.nan)
        trainer.batches = iter([batch])
        try:
            trainer()
        except NotFiniteError as error:
            step = error.step
        else:
            raise AssertionError("a step on an image of NaN raised no error")
        lists = [file.name for file in Path(folder).glob("not-finite*")]
    same = all(torch.equal(a, b) for a, b in zip(before, parameters(run.plain_model), strict=True))
    yield row("step that the error names", str(step))
    yield row("list of its images", ", ".join(lists))
    require(step == 2 and len(lists) == 1, "the error names another step, or no images")
    require(same, "the step on an image of NaN changed the weights")


def check_resume(plan: Plan) -> Iterator[Row]:
    """Resume a run with --deterministic in a process of its own, which must set this before anything else."""
    words = [plan.device, *["--quick"] * plan.quick]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.resumed", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    require(done.returncode == 0, (done.stderr.strip().splitlines() or ["no output"])[-1])
    found = json.loads(done.stdout.strip().splitlines()[-1])
    yield row("resumed with --deterministic", found["found"])
    require(found["passed"], "a resumed run differs from a straight one")


def run_gpu_tests(_plan: Plan) -> Iterator[Row]:
    """Run the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if "No module named pytest" in done.stderr:
        raise Left("the package pytest is not installed")
    for line in (line for line in lines if line.startswith(("FAILED", "ERROR"))):
        yield row(line[:200], "failed")
    yield row("tests that need a GPU", lines[-1] if lines else "no output")
    require(done.returncode == 0, f"pytest ended with status {done.returncode}")


def require(condition: bool, message: str) -> None:  # noqa: FBT001
    """Raise AssertionError unless ``condition`` holds."""
    if not condition:
        raise AssertionError(message)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def parameters(network: torch.nn.Module) -> list[Tensor]:
    """Return copies of the parameters."""
    return [parameter.detach().clone() for parameter in network.parameters()]


def all_finite(network: torch.nn.Module) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in network.parameters())
