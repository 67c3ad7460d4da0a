"""Run the tests of the 40 faults and print the table: `make faults`, or `python -m tests.faults.table --markdown`."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from backbones.terminal import table
from tests.faults.conftest import OUTCOMES
from tests.faults.rows import FAULTS

WORST_FIRST = ("silent", "wrong", "not run", "right")
"""Outcomes of a test. A row is as good as its worst test, and wrong without a word is the worst."""


def run_tests() -> dict[int, list[str]]:
    """Run the tests and return the outcomes of each row."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["-q", "--no-header", "-n", "2", "--dist", "loadfile", "-m", "fault and not gpu and not hosts"]
        command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), *words]
        subprocess.run(command, env=os.environ | {OUTCOMES: folder}, check=False, stdout=sys.stderr)
        outcomes: dict[int, list[str]] = defaultdict(list)
        for file in Path(folder).iterdir():
            for row, found in json.loads(file.read_text()).items():
                outcomes[int(row)] += found
    return outcomes


def judge(outcomes: list[str]) -> str:
    """Return the outcome of a row. A test that was skipped counts only where no other was run."""
    ran = [outcome for outcome in outcomes if outcome != "not run"] or ["not run"]
    return next(outcome for outcome in WORST_FIRST if outcome in ran)


def cells(outcomes: dict[int, list[str]]) -> list[tuple[str, ...]]:
    """Return the lines of the table. Wrong without a word has a column of its own."""
    lines = [("", "fault", "expected", "ours", "wrong silently", "tests", "timm")]
    for row, fault in FAULTS.items():
        outcome = judge(outcomes.get(row, []))
        silent = "YES" if outcome == "silent" else "no"
        lines.append(
            (str(row), fault.name, fault.expected, outcome, silent, str(len(outcomes.get(row, []))), fault.peer)
        )
    return lines


def main() -> int:
    """Print the table and return 0 where every row is right."""
    start = time.monotonic()
    outcomes = run_tests()
    lines = cells(outcomes)
    if "--markdown" in sys.argv:
        text = "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], ("---",) * len(lines[0]), *lines[1:]))
    else:
        text = table(lines, "rllllrl")
    counts = Counter(judge(outcomes.get(row, [])) for row in FAULTS)
    peers_silent = sum("silent" in fault.peer for fault in FAULTS.values())
    sys.stdout.write(f"{text}\n\n{counts['right']} of {len(FAULTS)} right, {counts['silent']} wrong silently; ")
    sys.stdout.write(f"wrong silently elsewhere: {peers_silent}; {time.monotonic() - start:.0f} s\n")
    return 0 if counts["right"] == len(FAULTS) else 1


if __name__ == "__main__":
    sys.exit(main())
