"""Send the rows and pictures of a run to Weights & Biases, once.

W&B gets what it does not have yet: everything where the run could not reach it, the rest where the connection was lost.
The same command again says that all was sent, or sends the rows that came in the meantime. With WANDB_MODE=offline it
writes a folder for `wandb sync`.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from backbones.command_line import parse
from backbones.errors import UserError
from backbones.recipe import Recipe, require_positive
from backbones.terminal import say
from backbones.training.run_files import RECIPE
from backbones.training.wandb_mirror import Sender, create_order, find_id
from backbones.training.wandb_sender import METRICS, Mode, count_rows, read_ledger


@dataclass(frozen=True)
class Options:
    """Options of `replay`."""

    run: str = field(metadata={"positional": "RUN"})
    """Folder of the run."""
    minutes: float = 10.0
    """Minutes after which an upload is given up."""

    def __post_init__(self) -> None:
        require_positive(self, "--", "minutes")


def main(arguments: Sequence[str]) -> None:
    """Send what W&B does not have. Raises UserError where it is not all there in the end."""
    options = parse(Options, arguments, prog="python -m backbones replay", description=__doc__ or "")
    folder = Path(options.run)
    rows, mode = count_rows(folder), choose_mode()
    if rows == 0:
        raise UserError(
            f"{folder} has no rows to send: there is no {METRICS}, or it is empty. Name the folder of a run."
        )
    ledger = read_ledger(folder, mode)
    if ledger and ledger.complete and ledger.rows == rows:
        say("sent", f"all {rows} rows, already: {ledger.where}")
        return
    sent, where = send(folder, mode, seconds=60.0 * options.minutes)
    say("sent", f"{sent} rows: {where}")


def send(folder: Path, mode: Mode, *, seconds: float) -> tuple[int, str]:
    """Send the rows of ``folder`` and return their number, and where they are. Raises UserError."""
    recipe = read_recipe(folder)
    recipe = replace(recipe, log=replace(recipe.log, wandb_mode=mode))
    try:
        sender = Sender(create_order(folder, recipe, find_id(folder) or secrets.token_hex(4)))
        sender.close(seconds)
    except OSError as error:
        raise UserError(f"{folder} cannot be sent: {error}") from None
    if sender.failure or sender.rows is None:
        raise UserError(
            f"W&B failed ({sender.failure}). Nothing is lost: the same command goes on where this one ended."
        )
    return sender.rows, sender.where


def choose_mode() -> Mode:
    """Return online, unless the environment says offline. What the recipe says was for the machine of the run."""
    return "offline" if os.environ.get("WANDB_MODE") in ("offline", "dryrun") else "online"


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe of a run, or the defaults where the folder has none."""
    file = folder / RECIPE
    return parse(Recipe, [], config=file) if file.is_file() else Recipe()
