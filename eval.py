"""Evaluate a checkpoint: checkpoint -> model, validation data -> top-1, top-5, loss, n.

python eval.py --ckpt RUN [--data-dir DIR] [--eval-size 288] [--real] [--v2 DIR] [--json FILE]
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from backbones.assembly.evaluation.options import Options, require_evaluable
from backbones.command_line import parse
from backbones.errors import exit_on_user_error

if TYPE_CHECKING:
    from backbones.training.evaluate import Evaluation


def main(argv: Sequence[str]) -> "Evaluation":
    """Evaluate as the command line says, print the figures and return those of the checkpoint's own set."""
    options = parse(Options, argv, description=__doc__ or "")
    require_evaluable(options)
    from backbones.assembly.evaluation.evaluation import evaluate_checkpoint

    return evaluate_checkpoint(options)


if __name__ == "__main__":
    with exit_on_user_error(interrupted="nothing was written"):
        main(sys.argv[1:])
