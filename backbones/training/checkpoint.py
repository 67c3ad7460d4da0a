"""Checkpoint files: safetensors for weights, plain types for the rest, replaced as a whole or not at all.

    RUN/last/     model.safetensors  [ema.safetensors]  manifest.json  state.pt
    RUN/last-1/   the one before, and so on
    RUN/best/     model.safetensors  [ema.safetensors]  manifest.json

Each weights file carries its own description (architecture, classes, preprocessing, figures) in its header, so
that it can be evaluated alone. ``state.pt`` holds what only training needs, loaded with ``weights_only=True``. The
manifest has size and sha256 of every file.
"""

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backbones.errors import UserError
from backbones.files import OLD, earlier, json_text, new_folder

FORMAT = 1
MODEL, EMA, STATE, MANIFEST = "model.safetensors", "ema.safetensors", "state.pt", "manifest.json"
LAST = "last"
_HEADER = "backbones"

SCHEMA = 2
"""Version of the checkpoint folder; from 2 on it has a manifest."""

_OTHERS = " --resume auto takes the newest sound checkpoint."

Weights = Mapping[str, Tensor]


def save_checkpoint(
    folder: Path,
    model: Weights,
    description: dict[str, Any],
    *,
    ema: Weights | None = None,
    state: Any = None,
    about: Mapping[str, Any] | None = None,
    kept: int = 0,
) -> None:
    """Write a checkpoint folder; until it is complete, the one that was there stays the valid one.

    Args:
        folder: the folder.
        model: the weights.
        description: goes into the header of each weights file.
        ema: averaged weights.
        state: training state of plain types and tensors.
        about: goes into the manifest, beside the files.
        kept: checkpoints before this one that are kept as ``folder``-1 and so on.
    """
    with new_folder(folder, kept=kept) as new:
        write_weights(new / MODEL, model, description)
        if ema is not None:
            write_weights(new / EMA, ema, description)
        if state is not None:
            torch.save(state, new / STATE)
        files = {path.name: _measure(path) for path in sorted(new.iterdir())}
        (new / MANIFEST).write_text(json_text({"schema": SCHEMA, "files": files, **(about or {})}, indent=1) + "\n")


def verify_checkpoint(folder: Path) -> None:
    """Raise UserError unless every file of a checkpoint is as its manifest says; version 0.1 wrote no manifest."""
    if not (folder / MANIFEST).is_file():
        return
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
    except (ValueError, KeyError):
        raise UserError(f"{folder} is damaged: {MANIFEST} cannot be read.{_OTHERS}") from None
    for name, recorded in files.items():
        found = _measure(folder / name) if (folder / name).is_file() else None
        if found != recorded:
            what = f"has {found['bytes']} bytes instead of {recorded['bytes']}" if found else "is missing"
            if found and found["bytes"] == recorded["bytes"]:
                what = "has other content than was written (its sha256 differs)"
            raise UserError(f"{folder} is damaged: {name} {what}.{_OTHERS}")


def find_resumable(run: Path) -> tuple[Path | None, list[UserError]]:
    """Return the newest sound checkpoint of a run folder that can be resumed, and the faults of newer ones.

    Raises UserError where there are checkpoints but none is sound.
    """
    faults: list[UserError] = []
    older = sorted(run.glob(f"{LAST}-*"), key=lambda path: int(path.name.partition("-")[2] or 0))
    for folder in (run / LAST, run / f"{LAST}{OLD}", *older):
        if folder.is_dir():
            try:
                load_sound_state(folder)
                return folder, faults
            except UserError as error:
                faults.append(error)
    if faults:
        raise UserError(
            "\n".join([f"no checkpoint of {run} is sound, and nothing was overwritten:", *map(str, faults)])
        )
    return None, []


def write_weights(file: Path, weights: Weights, description: dict[str, Any]) -> None:
    """Write one weights file with its description in the header."""
    header = {_HEADER: json_text({"format": FORMAT, **description})}
    save_file({key: value.detach().contiguous() for key, value in weights.items()}, file, metadata=header)


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint folder or weights file at ``path``; for a run folder its ``last``.

    Raises ``UserError`` when nothing is there.
    """
    if path.is_file():
        return path.parent if path.name == STATE else path
    for folder in (path, path.with_name(path.name + OLD), path / LAST, path / f"{LAST}{OLD}", earlier(path / LAST, 1)):
        if (folder / MODEL).is_file():
            return folder
    if path.exists():
        raise UserError(f"{path} holds no checkpoint: expected {MODEL} in it or in {path / LAST}.")
    near = [str(other) for other in path.parent.glob(f"{path.name[:3]}*")][:3] if path.parent.is_dir() else []
    raise UserError(f"there is no {path}." + (f" Did you mean {', '.join(near)}?" if near else ""))


def weights_file(checkpoint: Path, *, ema: bool = True) -> Path:
    """Return the weights file of a checkpoint: the averaged weights where there are any and ``ema`` is set."""
    if checkpoint.is_file():
        return checkpoint
    return checkpoint / (EMA if ema and (checkpoint / EMA).is_file() else MODEL)


def read_description(file: Path) -> dict[str, Any] | None:
    """Return the description in a weights file, or None for a file that is not from this project."""
    try:
        with safe_open(file, framework="pt") as weights:
            header = (weights.metadata() or {}).get(_HEADER)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not a readable safetensors file: {error}") from None
    description = json.loads(header) if header else None
    if description is not None and description["format"] != FORMAT:
        raise UserError(f"{file} has format {description['format']}; this version of backbones reads {FORMAT}.")
    return description


def load_weights(
    model: nn.Module, file: Path, *, name: str = "the network", current_names: Callable[[Weights], Weights] = dict
) -> None:
    """Load a weights file; every tensor must be there, fit, and have a place.

    Args:
        model: the network to fill.
        file: a safetensors file.
        name: what to call the network in messages.
        current_names: renames the tensors of a file that an earlier version wrote.

    Raises:
        UserError: the file cannot be read, or it belongs to another network, which is then unchanged.
    """
    try:
        weights = current_names(load_file(file))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not a readable safetensors file: {error}") from None
    own = model.state_dict()
    missing = sorted(own.keys() - weights.keys())
    extra = sorted(weights.keys() - own.keys())
    misfits = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    if missing or extra or misfits:
        raise UserError(f"{file} holds another architecture than {name}: {_mismatch(missing, extra, misfits)}.")
    model.load_state_dict(weights)


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Return the training state of a checkpoint folder, read without running any code from it."""
    file = checkpoint / STATE
    if not file.is_file():
        raise UserError(f"{checkpoint} cannot be resumed: it has no {STATE} (only RUN/last has one).")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file} cannot be read: {reason}") from error


def load_sound_state(checkpoint: Path) -> dict[str, Any]:
    """Return the training state of a checkpoint folder. Raises UserError where any of its files is damaged."""
    verify_checkpoint(checkpoint)
    state = load_state(checkpoint)
    if state.get("schema", 1) >= SCHEMA and not (checkpoint / MANIFEST).is_file():
        raise UserError(f"{checkpoint} is damaged: {MANIFEST} is missing.{_OTHERS}")
    return state


def _measure(file: Path) -> dict[str, Any]:
    """Return size and sha256 of a file."""
    with file.open("rb") as opened:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _mismatch(missing: list[str], extra: list[str], misfits: list[str]) -> str:
    parts = {"missing": missing, "unknown": extra, "of another shape": misfits}
    return "; ".join(f"{len(keys)} tensors {what}, first {keys[0]}" for what, keys in parts.items() if keys)
