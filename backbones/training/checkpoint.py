"""Checkpoint files: safetensors for weights, plain types for the rest, replaced as a whole or not at all.

    RUN/last/     model.safetensors  [ema.safetensors]  [config.json]  manifest.json  state.pt
    RUN/last-1/   the one before, and so on
    RUN/best/     model.safetensors  [ema.safetensors]  [config.json]  manifest.json

Each weights file carries its own description (architecture, classes, preprocessing, figures) in its header, so
that it can be evaluated alone; ``config.json`` tells timm what it needs of that. ``state.pt`` holds what only training
needs, loaded with ``weights_only=True``. The manifest has size and sha256 of every file.
"""

import io
import json
import pickle  # noqa: TID251 (the name of an error, nothing is read with it)
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from backbones.errors import UserError
from backbones.files import OLD, earlier, json_text, new_folder
from backbones.training.manifest import (
    MANIFEST,
    damaged,
    describe_tensors,
    named_tensors,
    verify_checkpoint,
    verify_tensors,
    write_content,
    write_manifest,
)
from backbones.training.run_files import CONFIG, EMA, LAST, MODEL, STATE

FORMAT = 1
DAMAGED = "damaged-"
"""Beginning of the name of a damaged checkpoint that was set aside."""
_HEADER = "backbones"

Weights = Mapping[str, Tensor]


def save_checkpoint(
    folder: Path,
    model: Weights,
    description: dict[str, Any],
    *,
    ema: Weights | None = None,
    state: Any = None,
    config: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    kept: int = 0,
) -> list[UserError]:
    """Write a checkpoint folder; until it is complete and read back, the one that was there stays the valid one.

    Args:
        folder: the folder.
        model: the weights.
        description: goes into the header of each weights file.
        ema: averaged weights.
        state: training state of plain types and tensors.
        config: description of the network for timm, if timm has it.
        about: goes into the manifest, beside the files.
        kept: sound checkpoints before this one that are kept as ``folder``-1 and so on.

    Returns:
        Faults of earlier checkpoints, which were set aside so that only sound ones count as kept.
    """
    contents = {MODEL: model, EMA: ema, STATE: state, CONFIG: config}
    contents = {name: content for name, content in contents.items() if content is not None}
    with new_folder(folder, kept=kept) as new:
        files = {}
        for name, content in contents.items():
            files[name] = write_content(new / name, _pack(name, content, description))
        tensors = {name: describe_tensors(content) for name, content in contents.items()}
        write_manifest(new, files, tensors, about or {})
        return set_aside_damaged(folder, kept) if kept else []


def set_aside_damaged(folder: Path, kept: int) -> list[UserError]:
    """Rename each damaged one of the checkpoints ``folder``, ``folder``-1 and so on; return their faults."""
    faults = []
    for path in (folder, *(earlier(folder, number) for number in range(1, kept + 1))):
        if path.is_dir():
            try:
                verify_checkpoint(path)
            except UserError as fault:
                path.rename(_free_name(path.with_name(DAMAGED + path.name)))
                faults.append(fault)
    return faults


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
    file.write_bytes(_pack_weights(weights, description))


def pack_config(config: Mapping[str, Any]) -> bytes:
    """Return the content of ``config.json``."""
    return (json_text(dict(config), indent=1) + "\n").encode()


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
    """Return the training state of a checkpoint folder, read without running any code from it.

    Raises UserError where it has none, where it cannot be read, or where it claims more data than it has.
    """
    file = checkpoint / STATE
    if not file.is_file():
        raise UserError(f"{checkpoint} cannot be resumed: it has no {STATE} (only RUN/last has one).")
    try:
        require_honest_size(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file} cannot be read: {reason}") from error
    for name, tensor in named_tensors(state):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            size = tensor.untyped_storage().nbytes()
            raise UserError(f"{file}: {name} claims the shape {list(tensor.shape)} but holds {size} bytes.")
    return state


def load_sound_state(checkpoint: Path) -> dict[str, Any]:
    """Return the training state of a checkpoint folder. Raises UserError where any of its files is damaged."""
    verify_checkpoint(checkpoint)
    state = load_state(checkpoint)
    if state.get("schema", 1) > 1 and not (checkpoint / MANIFEST).is_file():
        raise damaged(checkpoint, f"{MANIFEST} is missing")
    verify_tensors(checkpoint, STATE, state)
    return state


def require_honest_size(file: Path) -> None:
    """Raise BadZipFile where a small file would unpack to a large one; torch packs nothing."""
    with zipfile.ZipFile(file) as packed:
        if sum(entry.file_size for entry in packed.infolist()) > file.stat().st_size:
            raise zipfile.BadZipFile("it would unpack to more bytes than it has")


def _pack(name: str, content: Any, description: dict[str, Any]) -> bytes | memoryview:
    """Return a file's content as bytes."""
    if name == CONFIG:
        return pack_config(content)
    return _pack_state(content) if name == STATE else _pack_weights(content, description)


def _pack_weights(weights: Weights, description: dict[str, Any]) -> bytes:
    header = {"format": "pt", _HEADER: json_text({"format": FORMAT, **description})}
    return save({key: value.detach().contiguous() for key, value in weights.items()}, metadata=header)


def _pack_state(state: Any) -> memoryview:
    packed = io.BytesIO()
    torch.save(state, packed)
    return packed.getbuffer()


def _free_name(path: Path) -> Path:
    """Return ``path``, or the first of ``path``.1, ``path``.2 and so on that does not exist."""
    candidates = (path, *(path.with_name(f"{path.name}.{number}") for number in range(1, 1000)))
    return next(candidate for candidate in candidates if not candidate.exists())


def _mismatch(missing: list[str], extra: list[str], misfits: list[str]) -> str:
    parts = {"missing": missing, "unknown": extra, "of another shape": misfits}
    return "; ".join(f"{len(keys)} tensors {what}, first {keys[0]}" for what, keys in parts.items() if keys)
