"""Print a file that starts a training run on several hosts, for a scheduler that is there already.

launch slurm --nodes 2 --gpus 8 --time 24:00:00 -- --data-dir /imagenet --output /runs/a
launch kubeflow --nodes 2 --gpus 8 --image IMAGE --storage CLAIM -- --data-dir /storage/a --output /storage/run
launch skypilot --nodes 2 --gpus 8 --accelerator H100 --storage VOLUME -- --data-dir /storage/a --output /storage/run

The options of train_imagenet.py follow after --. The job goes on from the newest checkpoint whenever it is started
again. See docs/clusters.md.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from backbones.command_line import parse
from backbones.commands.launch.kubeflow import write_train_job
from backbones.commands.launch.request import Engine, Request, require_fitting
from backbones.commands.launch.skypilot import write_task
from backbones.commands.launch.slurm import write_job
from backbones.commands.launch.training import Training, read_training
from backbones.errors import UserError
from backbones.files import require_output_file, write_text
from backbones.terminal import say, write

SEPARATOR = "--"
"""Word between the options of `launch` and those of train_imagenet.py."""

REMEDY = "end the command with -- --data-dir DATA --output RUN"

WRITERS: dict[Engine, Callable[[Request, Training], str]] = {
    "slurm": write_job,
    "kubeflow": write_train_job,
    "skypilot": write_task,
}
"""Engine -> function that returns the text of its file."""

SUBMIT: dict[Engine, str] = {"slurm": "sbatch", "kubeflow": "kubectl create -f", "skypilot": "sky jobs launch"}
"""Engine -> command that takes the file."""


def main(arguments: Sequence[str]) -> None:
    """Print the file that the command line asks for, or write it. Raises UserError."""
    own, words = split_words(arguments)
    request = read_request(own)
    if words is None:
        raise UserError(f"the training options are missing: {REMEDY}")
    training = read_training(words, request)
    require_fitting(request, training.run)
    text = WRITERS[request.engine](request, training)
    if request.output is None:
        write(text.removesuffix("\n"))
        return
    require_output_file("--output", request.output)
    write_text(Path(request.output), text)
    say("next", f"{SUBMIT[request.engine]} {request.output}")


def read_request(words: Sequence[str]) -> Request:
    """Return the options of `launch`; UserError says where those of the training belong."""
    try:
        return parse(Request, words, prog="python -m backbones launch", description=__doc__ or "")
    except UserError as error:
        is_unknown = str(error).startswith("unknown option")
        raise UserError(f"{error}\nFor a training option: {REMEDY}" if is_unknown else str(error)) from None


def split_words(arguments: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Return the words before and after the first ``--``; None where there is none."""
    words = list(arguments)
    if SEPARATOR not in words:
        return words, None
    place = words.index(SEPARATOR)
    return words[:place], words[place + 1 :]
