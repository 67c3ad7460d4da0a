"""Check and measure all that needs a GPU, in under ten minutes, and write one JSON file and one page.

python -m benchmarks.prove_gpu [--only PART ...]

A part that fails does not hide the others; the exit status is then 1. Without a GPU it is 2. With --only, the other
parts of the file stay as they are. ``--device cpu --quick`` tries the parts themselves: its figures mean nothing.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.decoding import check_decoded, measure_decoding
from benchmarks.gpu.limits import measure_ceilings, measure_grouped
from benchmarks.gpu.plan import Part, Plan, run_part
from benchmarks.gpu.speed import measure_compiled, measure_eager, measure_inference
from benchmarks.gpu.trained import (
    check_average,
    check_half_precision,
    check_nan,
    check_resume,
    measure_trainer,
    run_gpu_tests,
)
from benchmarks.machine import commit, date_of_today, describe_machine, describe_versions
from benchmarks.tables import RESULTS, describe_run, table

PARTS = {
    part.name: part
    for part in (
        Part("tests", run_gpu_tests, 120, needs_gpu=True),
        Part("ceilings", measure_ceilings, 30),
        Part("grouped", measure_grouped, 40),
        Part("eager", measure_eager, 120),
        Part("inference", measure_inference, 40),
        Part("trainer", measure_trainer, 60),
        Part("decoding", measure_decoding, 40),
        Part("decoded", check_decoded, 30),
        Part("float16", check_half_precision, 30, needs_gpu=True),
        Part("average", check_average, 60),
        Part("nan", check_nan, 30),
        Part("resume", check_resume, 60),
        Part("compiled", measure_compiled, 200),
    )
}
"""Parts by their names. The longest is the last, so that it costs no other its time."""

BATCHES = ((60, 256), (30, 128), (14, 64), (0, 32))
"""Least memory of the GPU in GiB -> images of a batch."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the parts and return the exit status."""
    options = parse(words)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("prove-gpu needs a GPU, and torch sees none here: nothing was measured.", file=sys.stderr)
        return 2
    plan = make_plan(options)
    content = read(options.json) if options.only else {}
    content["setting"] = {"device": plan.device, "batch": plan.batch, "size": plan.size, "quick": plan.quick}
    parts = content.setdefault("parts", {})
    torch.backends.cudnn.benchmark = plan.device == "cuda"  # as in the trainer
    end = time.monotonic() + options.seconds
    for name in options.only or PARTS:
        outcome = run_part(PARTS[name], plan, seconds_left=end - time.monotonic())
        parts[name] = outcome.to_json()
        print(f"{name:10s} {outcome.status:8s} {outcome.seconds:6.1f} s  {outcome.reason}", flush=True)
        write(options.json, content)  # after each part: the next may end the process
    return int(any(parts[name]["status"] == "failed" for name in options.only or PARTS))


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="use tiny sizes, to try the parts themselves")
    parser.add_argument("--batch", type=int, help="images of a batch; unset: what the memory of the GPU allows")
    parser.add_argument("--seconds", type=int, default=590, help="time of all parts; the rest is left out")
    parser.add_argument("--json", type=Path, help="file to write; the page lies beside it")
    options = parser.parse_args(words)
    if options.json is None and (options.quick or options.device == "cpu"):
        parser.error("--json is missing: figures of a quick try or of a CPU do not belong among the results")
    options.json = options.json or RESULTS / "gpu.json"
    return options


def make_plan(options: argparse.Namespace) -> Plan:
    """Return the sizes for the device."""
    if options.quick:
        return Plan(options.device, quick=True, batch=2, size=32)
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30 if options.device == "cuda" else 0
    return Plan(options.device, batch=options.batch or next(batch for least, batch in BATCHES if memory >= least))


def read(file: Path) -> dict[str, Any]:
    """Return what the file holds; nothing where there is none."""
    return json.loads(file.read_text()) if file.is_file() else {}


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Write the file and the page beside it."""
    about = {"machine": describe_machine(), "versions": describe_versions(), "date": date_of_today()}
    found = {**content, **about, "commit": commit()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=2, default=str) + "\n")
    file.with_suffix(".md").write_text(page_of(found))


def page_of(content: Mapping[str, Any]) -> str:
    """Return the page: what became of each part, then the rows of each."""
    parts = content["parts"]
    heads = ("part", "status", "seconds", "reason", "commit", "date")
    lines = [[name, *(clean(part[head]) for head in heads[1:])] for name, part in parts.items()]
    about = [f"{name}: {clean(value)}" for name, value in content["machine"].items()]
    sections = ["# Proof on a GPU", "`make prove-gpu` makes this page.", describe_run(content), "; ".join(about) + "."]
    sections.append(table(heads, lines))
    for name, part in parts.items():
        if rows := part["rows"]:
            sections += [f"## {name}", table(list(rows[0]), (list(found.values()) for found in rows))]
    return "\n\n".join(sections) + "\n"


def clean(value: object) -> str:
    """Return a text that fits into a cell."""
    return " ".join(str(value).replace("|", "/").split())


if __name__ == "__main__":
    sys.exit(main())
