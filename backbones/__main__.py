"""``python -m backbones COMMAND``: a table of commands. A command is imported when it runs."""

import importlib
import sys
from collections.abc import Sequence

from backbones.errors import UserError, did_you_mean, exit_on_user_error
from backbones.terminal import write

COMMANDS = {
    "list": "list the backbones with size, cost and published accuracy",
    "summary": "print darknet's table of layers of a backbone or a .cfg",
    "convert": "turn .weights into a checkpoint and back, a .cfg into a recipe, a backbone into a .cfg",
    "predict": "name the classes of images, with their probabilities",
    "inspect": "show the fusion weights of a trained network, and which inputs are dead",
    "prepare": "turn a data set of any layout into an index, or into shards of smaller images",
    "verify": "decode every image once, and list the bad ones so that training leaves them out",
    "doctor": "tell whether the loader or the network is the limit, and which setting to change",
    "bench": "measure the speed, memory and limits of a network, or of two in turns",
    "launch": "print a file that starts a run on several hosts: a SLURM job, a Kubeflow TrainJob, a SkyPilot task",
    "replay": "send the rows and pictures of a run to Weights & Biases, where it could not be reached",
    "digits": "write scikit-learn's digits as an image folder for the demo",
}
"""Command -> purpose; ``main(arguments)`` of backbones/commands/NAME.py runs it."""


def main(arguments: Sequence[str]) -> None:
    """Run the command that ``arguments`` begin with, or list the commands. Raises UserError."""
    if not arguments or arguments[0] in ("-h", "--help"):
        write(usage())
        return
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}.{did_you_mean(name, COMMANDS)}\n{usage()}")
    importlib.import_module(f"backbones.commands.{name}").main(rest)


def usage() -> str:
    """Return the list of commands."""
    rows = [f"\n  {name:<10} {purpose}" for name, purpose in COMMANDS.items()]
    return "usage: python -m backbones COMMAND [--help]\n" + "".join(rows)


if __name__ == "__main__":
    with exit_on_user_error(interrupted="give the same command again"):
        main(sys.argv[1:])
