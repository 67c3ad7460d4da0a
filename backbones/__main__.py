"""``python -m backbones COMMAND``: a table of commands, each imported when it is asked for."""

import importlib
import sys
from collections.abc import Sequence

from backbones.errors import UserError, did_you_mean, exit_on_user_error

COMMANDS = {
    "list": "list the backbones with size, cost and published accuracy",
    "summary": "print darknet's table of layers of a backbone or a .cfg",
    "convert": "turn .weights into a checkpoint and back, a .cfg into a recipe, a backbone into a .cfg",
    "inspect": "show what the fusion weights of a checkpoint have become",
    "prepare": "turn any layout of a data set into an index, or into shards of smaller images",
    "verify": "look at every image once, and list the bad ones so that training leaves them out",
    "doctor": "tell whether the loader or the network is the limit, and which setting to change",
    "digits": "write scikit-learn's digits as an image folder for the demo",
}
"""What each command does; ``main(arguments)`` of backbones/commands/NAME.py does it."""


def main(arguments: Sequence[str]) -> None:
    """Run the command that ``arguments`` begin with, or list the commands.

    Raises ``UserError`` where the user can mend something.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}.{did_you_mean(name, COMMANDS)}\n{usage()}".rstrip())
    importlib.import_module(f"backbones.commands.{name}").main(rest)


def usage() -> str:
    """Return the list of commands."""
    rows = [f"  {name:<10} {purpose}\n" for name, purpose in COMMANDS.items()]
    return "usage: python -m backbones COMMAND [--help]\n\n" + "".join(rows)


if __name__ == "__main__":
    with exit_on_user_error(status=1 if sys.argv[1:2] == ["inspect"] else 2):  # 2 of `inspect`: a branch is dead
        main(sys.argv[1:])
