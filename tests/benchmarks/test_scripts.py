import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SHORT = {
    "model": ["--networks", "csresnext50", "--train-size", "32", "--size", "32", "--no-counts"],
    "fusion": ["--train-size", "32", "--size", "32", "--no-counts"],
    "activations": ["--size", "8", "--batch", "2", "--repeats", "1"],
    "loader": ["--images", "64", "--batch-size", "32"],
    "mixing": ["--batch-size", "16", "--size", "32", "--turn", "1", "--devices", "cpu"],
    "health": ["--model", "csresnext50_ws", "--batch-size", "4", "--size", "32", "--turn", "2", "--looks", "1"],
    "end_to_end": ["--model", "csresnext50", "--batch-size", "4", "--size", "32", "--turn", "1"],
    "scaling": ["--batch", "2", "--size", "32"],
    "startup": [],
    "step_overhead": ["--turn", "2"],
    "optimizer": ["--model", "csresnext50", "--turn", "1"],
}
"""Script of `make bench` -> options with which it takes seconds."""


def test_make_bench_runs_every_script_that_is_tried_here():
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("BENCH := ")]
    assert line.removeprefix("BENCH := ").split() == list(SHORT)


@pytest.mark.parametrize("name", [*SHORT, "compile", "darknet"])
def test_a_script_says_how_it_is_called(name):
    module = importlib.import_module(f"benchmarks.{name}")
    assert f"\npython -m benchmarks.{name} " in (module.__doc__ or "")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_script_writes_ratios_with_their_ranges(name, tmp_path):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--rounds", "1", "--json", str(tmp_path / "found.json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *SHORT[name]], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["paired"]
    assert all(row["min"] <= row["median"] <= row["max"] for row in found["paired"].values())
