"""Start-up: CPU time of our command lines until they answer, against `import timm` alone, in turns.

python -m benchmarks.startup [--json FILE]

Each command runs in an interpreter of its own. A ratio is ours / peer in the same round, so below 1 is faster than
`import timm`. The CPU time is that of the process and its children, user and system.
"""

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.harness import Result, compare, create_parser, measure, publish

ROOT = Path(__file__).parents[1]
PEER = "import timm"
COMMANDS: dict[str, tuple[str, ...]] = {
    "train_imagenet.py --help": ("train_imagenet.py", "--help"),
    "train_imagenet.py, unknown option": ("train_imagenet.py", "--batch-szie", "8"),
    "train_imagenet.py, unknown model": ("train_imagenet.py", "--loader", "synthetic", "--model", "resnet5O"),
    "eval.py --help": ("eval.py", "--help"),
    "python -m backbones list": ("-m", "backbones", "list"),
    "python -m backbones doctor --help": ("-m", "backbones", "doctor", "--help"),
    "import backbones": ("-c", "import backbones"),
}
"""Name -> words after ``python``."""


def run(words: Sequence[str]) -> None:
    """Run ``python WORDS`` to its end, whatever its exit status."""
    subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=False)


def main() -> None:
    options = create_parser(__doc__ or "").parse_args()
    contenders = {name: partial(run, words) for name, words in ({PEER: ("-c", PEER)} | COMMANDS).items()}
    costs = measure(contenders, rounds=options.rounds)
    ratios = compare(costs, {f"{name} / {PEER}": (name, PEER) for name in COMMANDS})
    publish(Result("Start-up", "CPU s", costs, ratios, setting=vars(options)), options.json)


if __name__ == "__main__":
    main()
