"""Files of a run and of its checkpoints: their names, and how they are found. It needs no torch."""

from pathlib import Path

from backbones.errors import UserError
from backbones.files import OLD, earlier

RECIPE = "recipe.yaml"
MODEL, EMA, STATE, CONFIG = "model.safetensors", "ema.safetensors", "state.pt", "config.json"
LAST = "last"
AUTO = "auto"
"""Value of --resume: go on from the newest sound checkpoint of --output, or begin a new run there."""


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


def recipe_of(resume: str) -> Path | None:
    """Return the recipe file of the run that a ``--resume`` path belongs to, if it has one."""
    checkpoint = find_checkpoint(Path(resume))
    file = checkpoint.parent / RECIPE
    return file if file.is_file() else None
