"""Start-up: CPU time of our command lines until they answer, against `import timm` alone, in turns.

python benchmarks/startup.py [--json FILE]

Each command runs in an interpreter of its own. In a round it alternates with the peer (A B B A); the first round fills
the page cache and is dropped. A ratio is ours / peer in the same round, so below 1 is faster than `import timm`. The
CPU time is that of the process and its children, user and system.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "timm", "jsonargparse")
PEER = ("-c", "import timm")
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


def cpu_seconds(words: Sequence[str]) -> float:
    """Return the CPU time of ``python WORDS``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(words: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of ours and of the peer, means of two turns, in each round except the first."""
    found: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(rounds + 1):
        first, second, third, fourth = (cpu_seconds(each) for each in (words, PEER, PEER, words))
        found["ours"].append((first + fourth) / 2)
        found["peer"].append((second + third) / 2)
    return {name: values[1:] for name, values in found.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def report(rounds: int) -> dict[str, Any]:
    """Measure, print the table and return the content of the ``--json`` file."""
    results = {}
    print(f"{'command':36s} {'ratio':>6s} {'range':>13s} {'ours s':>7s} {'timm s':>7s}")
    for name, words in COMMANDS.items():
        found = compare(words, rounds)
        ratio = spread([ours / peer for ours, peer in zip(found["ours"], found["peer"], strict=True)])
        results[name] = {"ratio": ratio} | {who: spread(values) for who, values in found.items()}
        ours, peer = (results[name][who]["median"] for who in ("ours", "peer"))
        limits = f"{ratio['min']:.3f}-{ratio['max']:.3f}"
        print(f"{name:36s} {ratio['median']:6.3f} {limits:>13s} {ours:7.2f} {peer:7.2f}", flush=True)
    return {
        "peer": "python -c 'import timm'",
        "rounds": rounds,
        "cpu_seconds": results,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "date": date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    result = report(options.rounds)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
