"""`train_imagenet.py --dry-run`: try everything that a run of weeks needs, in minutes, and leave nothing behind."""

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from backbones import terminal
from backbones.assembly.preflight.data import check_classes, check_largest, check_shards
from backbones.assembly.preflight.plan import check_schedule, estimate_hours
from backbones.assembly.preflight.row import Row, attempt, format_rows
from backbones.assembly.preflight.trial import CHECKS, Trial
from backbones.dataset.index import Index
from backbones.errors import UserError
from backbones.recipe import Recipe, without_start
from backbones.training.snapshot import SPARE_BYTES, free_space


def preflight(
    recipe: Recipe, accelerator: Accelerator, folder: Path, train: Index, val: Index, command: Sequence[str]
) -> list[Row]:
    """Make all checks, print them as a table on the first process, and return them, with what failed on the others.

    Args:
        recipe: the resolved recipe.
        accelerator: of this process; every process calls this.
        folder: the run folder, which is not made.
        train: training images.
        val: validation images.
        command: command that trains with this recipe in another process.

    Raises:
        UserError: a check failed.
    """
    recipe = without_start(recipe) if recipe.resume else recipe
    existing = next(path for path in folder.absolute().parents if path.exists())
    with tempfile.TemporaryDirectory(dir=existing, prefix=".dry-run-") as own:
        shared = broadcast_object_list([own])[0]
        is_alone = accelerator.num_processes == 1
        trial = Trial(recipe, accelerator, train, val, Path(shared), command if is_alone else ())
        rows = list(_check(trial, folder))
        rows += gather_object(_failures_of_another(accelerator, rows))
        accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        terminal.write(format_rows(rows))
    failed = [row.check for row in rows if not row.passed]
    if failed:
        raise UserError(f"the dry run failed in {', '.join(failed)}; nothing was trained or written.")
    return rows


def _failures_of_another(accelerator: Accelerator, rows: list[Row]) -> list[Row]:
    """Return the failed rows of a process that prints none, with its number."""
    number = accelerator.process_index
    return [row._replace(check=f"{row.check} ({number})") for row in rows if number and not row.passed]


def _check(trial: Trial, folder: Path) -> Iterator[Row]:
    recipe, processes = trial.recipe, trial.accelerator.num_processes
    steps_per_epoch = len(trial.train) // recipe.batch_size
    yield from attempt("classes", partial(check_classes, trial.train, trial.val))
    yield from attempt("shards", partial(check_shards, recipe, trial.train, trial.val, processes))
    if recipe.loader != "synthetic":
        yield from attempt("largest", partial(check_largest, trial.train, trial.val))
    yield from attempt("lr", partial(check_schedule, recipe, steps_per_epoch))
    for name, check in CHECKS.items():
        yield from attempt(name, partial(check, trial))
    yield from attempt("disk", partial(_check_disk, trial, folder))
    yield from estimate_hours(recipe, steps_per_epoch, trial.speeds, devices=processes, price=recipe.price)


def _check_disk(trial: Trial, folder: Path) -> Iterator[Row]:
    """Compare the free space with the checkpoints that the run keeps; the one of the dry run tells their size."""
    written = list((trial.folder / "run").glob("last/*"))
    one, free = sum(path.stat().st_size for path in written), free_space(folder)
    kept = trial.recipe.saving.checkpoint_hist + 2
    text = f"{free / 1e9:.1f} GB free; {kept} checkpoints of {one / 1e6:.0f} MB (with best and the one being written)"
    yield Row("disk", one > 0 and free > kept * one + SPARE_BYTES, text)
