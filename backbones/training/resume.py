"""A checkpoint back to a run, which goes on as the same run or is refused."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from backbones.errors import UserError
from backbones.recipe import Recipe, differences, name_compile_mode
from backbones.training.checkpoint import Weights, load_sound_state, load_weights
from backbones.training.guard import require_finite_weights
from backbones.training.loop import Run
from backbones.training.manifest import damaged
from backbones.training.optim import load_optimizer
from backbones.training.run_files import EMA, find_checkpoint, weights_file
from backbones.training.statistics import load_statistics

FIXED = (
    "model", "model_args", "init_weights", "pretrained", "batch_size", "seed",
    "optim.fusion_update", "optim.burnin_update",
)  # fmt: skip
"""Options that a resumed run must keep: the network and its start, the images of each step, and what the optimizer
carries."""
FREE = (
    "output", "resume", "init_partial", "init_sha256", "data_dir", "layout", "workers", "device", "on_nan", "dry_run",
    "price",
    "loading.read_threads", "loading.prefetch", "loading.hw_decoder_load", "loading.preallocate",
    "loading.decode_check",
    "saving.ckpt_minutes", "saving.ckpt_every", "saving.checkpoint_hist",
    "waiting.timeout", "waiting.first_timeout",
    "health", "health.monitors", "health.fusion_interval", "health.replica_interval",
)  # fmt: skip
"""Options that change nothing of what is computed."""

State = dict[str, Any]
"""Everything in a checkpoint but weights, as plain types and tensors."""

NEW_RUN: State = {"step": 0, "owes_validation": False, "best_top1": -math.inf, "wandb_id": None}
"""The state that a run begins with."""

LATER_FIELDS: State = {"batch_norm": [], "skipped": 0, "rollbacks": 0}
"""Fields of the state that earlier versions did not write, and their values."""

FIELDS = (*NEW_RUN, "report", "optimizer", "scaler", "recipe", "fingerprint", "cfg", "surroundings", *LATER_FIELDS)
"""Fields that every state has."""


def read_state(
    recipe: Recipe, folder: Path, accelerator: Accelerator, *, train: str, val: str
) -> tuple[State, dict[str, tuple[Any, Any]]]:
    """Return the state that a run goes on from, and the options and surroundings that changed since.

    In another ``folder`` than the checkpoint's, the run has yet to find its best and has a W&B run of its own.

    Args:
        recipe: the recipe; without ``resume`` the run begins at step 0.
        folder: the run folder.
        accelerator: of this process.
        train: fingerprint of the training images.
        val: fingerprint of the validation images.

    Raises:
        UserError: there is no such checkpoint, or it is of another network or data set.
    """
    if recipe.resume is None:
        return NEW_RUN, {}
    checkpoint = find_checkpoint(Path(recipe.resume))
    state = load_run_state(checkpoint)
    changed = differences(_with_defaults(state["recipe"], Recipe().to_dict()), recipe.to_dict())
    _require_same_run(state, changed, train)
    now = surroundings(accelerator, val)
    changed |= differences(now | state["surroundings"], now)  # earlier versions wrote fewer of them
    if checkpoint.parent.resolve() != folder.resolve():
        state |= {key: NEW_RUN[key] for key in ("best_top1", "wandb_id")}
    return state, {key: values for key, values in changed.items() if key not in FREE}


def _with_defaults(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a recipe with the defaults of those that its version did not have yet."""
    filled = {**defaults, **options}
    for name, default in defaults.items():
        if isinstance(default, dict):
            filled[name] = _with_defaults(filled[name], default)
    return filled


def load_run_state(checkpoint: Path) -> State:
    """Return the state in a checkpoint folder as this version writes it.

    Raises UserError where a file is damaged or a field is missing.
    """
    state = _current_form(load_sound_state(checkpoint))
    if missing := [field for field in FIELDS if field not in state]:
        raise damaged(checkpoint, f"its state has no {missing[0]}")
    return state


def restore_run(
    run: Run, checkpoint: Path, state: State, *, name: str, current_names: Callable[[Weights], Weights] = dict
) -> None:
    """Put weights, average, optimizer, scaler, report and step of the run where the checkpoint was written.

    Args:
        run: the run, which keeps its options.
        checkpoint: the checkpoint folder.
        state: `load_run_state` of it.
        name: the network's name, for messages.
        current_names: renames the tensors of checkpoints of earlier versions.

    Raises:
        UserError: a part is missing, of another network, or not finite.
    """
    _require_parts(run, checkpoint, state)
    for network, is_average in ((run.plain_model, False), *([(run.ema.module, True)] if run.ema else [])):
        file = weights_file(checkpoint, ema=is_average)
        load_weights(network, file, name=name, current_names=current_names)
        require_finite_weights(network.state_dict(), f"{file} cannot be resumed")
    load_statistics(run, state["batch_norm"])
    run.optimizer.optimizer.zero_grad(set_to_none=not run.keeps_gradients)
    load_optimizer(run.optimizer.optimizer, state["optimizer"])
    if run.accelerator.scaler and state["scaler"]:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    run.step, run.skipped = state["step"], state["skipped"]
    run.report.load_state_dict(state["report"])


def surroundings(accelerator: Accelerator, val_fingerprint: str) -> dict[str, Any]:
    """Return what is not in the recipe but makes a difference: to the last bits, or to the figures."""
    return {
        "processes": accelerator.num_processes,
        "torch": str(torch.__version__),
        "hardware": _describe_hardware(accelerator.device),
        "validation images": val_fingerprint[:12],
    }


def _describe_hardware(device: torch.device) -> str:
    """Return the name of a GPU, or the number of threads on a CPU: with another one, sums are rounded otherwise."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU (threads: {torch.get_num_threads()})"


def _require_parts(run: Run, checkpoint: Path, state: State) -> None:
    """Raise UserError where a part is missing that the checkpoint's own recipe asks for."""
    recipe, optimizer = state["recipe"], state["optimizer"]
    if run.ema and recipe["model_ema"] and not (checkpoint / EMA).is_file():
        raise damaged(checkpoint, f"{EMA} is missing, but the run has a moving average")
    if run.accelerator.scaler and recipe["precision"] == "fp16" and not state["scaler"]:
        raise damaged(checkpoint, "the state of the gradient scaler is missing, but the run has precision fp16")
    if state["step"] > 0 and recipe["optim"]["momentum"] > 0 and not optimizer["state"]:
        raise damaged(checkpoint, "the momenta of the optimizer are missing")


def _require_same_run(state: State, changed: Mapping[str, tuple[Any, Any]], train: str) -> None:
    for option, (before, after) in changed.items():
        if option in FIXED or option.partition(".")[0] in FIXED:
            raise UserError(
                f"--resume: the checkpoint was made with {option}={before!r}, not {after!r}; a run cannot "
                "change that half-way. Drop the option, or start a new run."
            )
    if state["fingerprint"] != train:
        raise UserError(
            "--resume: the training images (names, sizes, classes or labels) are not those of the checkpoint; a "
            "file that was replaced and a new quarantine.tsv change them, too.\n"
            "Point --data-dir to the same data set (without a new quarantine.tsv: --bad-images skip goes past bad "
            "images), or start a new run."
        )


def _current_form(state: State) -> State:
    """Return a state as this version writes it.

    Version 0.1 kept two numbers of the report by themselves, and torchcompile was true or false.
    """
    recipe = state.get("recipe", {})
    if "torchcompile" in recipe:
        state = state | {"recipe": recipe | {"torchcompile": name_compile_mode(recipe["torchcompile"])}}
    if state.get("schema", 1) < 3:
        state = LATER_FIELDS | state
    if "report" not in state and "replaced" in state:
        rows = state["reported"] if state["owes_validation"] else []
        counters = {"data/replaced": state["replaced"]}
        state = state | {"report": {"losses": [], "norms": {}, "rows": rows, "counters": counters}}
    report = state.get("report", {"losses": [[]]})
    if not report["losses"] or isinstance(report["losses"][0], float):  # those of the first process alone
        state = state | {"report": report | {"losses": [report["losses"]]}}
    return state
