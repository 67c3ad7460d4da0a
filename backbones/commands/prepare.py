"""Turn a data set of any layout into an index, train.npz and val.npz.

Reads once where each image is, so that a run starts at once. With --resize the images are also written in smaller
sizes, as WebDataset shards. Train on the result with --data-dir INDEX. A killed command goes on where it was when it is
given again.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from backbones.command_line import parse
from backbones.dataset.index import Split, read_index
from backbones.dataset.preparation.images import read_images
from backbones.dataset.preparation.request import Request
from backbones.dataset.preparation.work import Work, begin, finish
from backbones.dataset.sources.prepared import index_file
from backbones.dataset.workers import processes
from backbones.errors import UserError
from backbones.files import lock
from backbones.terminal import STDOUT, say, write

SPLITS: tuple[Split, ...] = ("train", "val")


def main(arguments: Sequence[str]) -> None:
    """Prepare as the command line says; a killed run goes on when the same command is given again."""
    request = parse(Request, arguments, prog="python -m backbones prepare", description=__doc__ or "")
    request.require_own_folder()
    with _explain_errors(request), processes(request.workers) as executor:
        say("reading", request.source_folder)
        splits = read_images(request, executor)
        for note in (note for index in splits for note in index.notes):
            say("note", note)
        request.folder.mkdir(parents=True, exist_ok=True)
        with lock(request.folder, "is being written by another `prepare`"):
            _finish(begin(request, splits), executor)
    _summarize(request.folder)


@contextmanager
def _explain_errors(request: Request) -> Iterator[None]:
    """Turn errors of the disk and of workers into a UserError with the remedy."""
    try:
        yield
    except OSError as error:
        remedy = "Correct that, and give the same command again to go on."
        raise UserError(f"{error.filename or request.folder}: {error.strerror}.\n{remedy}") from error
    except BrokenProcessPool:
        raise UserError("A worker was killed, perhaps for lack of memory.\nGo on with fewer --workers.") from None


def _finish(work: Work, executor: Executor | None) -> None:
    out = work.request.folder
    if work.is_done:
        write(f"{out} is complete already: nothing was done.")
        return
    if work.removed:
        write(f"shards of {out} that are gone or have changed, and are written again: {work.removed}")
    with STDOUT.task("writing", work.images, unit="images") as task:
        finish(work, executor=executor, written=task.update)
    if work.has_moved:
        write("the images are in other places now: the index was written again.")


def _summarize(out: Path) -> None:
    for split in SPLITS:
        index = read_index(index_file(out, split))
        say(split, f"{len(index):,} images of {len(index.classes):,} classes, fingerprint {index.fingerprint}")
    say("next", f"accelerate launch train_imagenet.py --data-dir {quote(str(out))}")
