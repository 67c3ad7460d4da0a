"""Recorded results as Markdown: one of them, or the page of all that lie in ``benchmarks/results``.

python -m benchmarks.tables
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

INTRODUCTION = """\
# Recorded results

`python -m benchmarks.tables` makes this page from the JSON files beside it; `make bench` measures them anew.

The contenders of a table took turns in one run (A B C ... C B A in each round, the first round dropped). A cell is the
median of the rounds with the least and the most. A ratio is of costs in the same round, so it means more than a time:
the times are those of one machine on one day, perhaps with other work beside them. A ratio is a claim where its whole
range, or seven rounds of nine, lie on one side of 1.
"""

COMMANDS = {
    "gpu": "make prove-gpu",
    "model-cpu": "python -m benchmarks.model --json benchmarks/results/model-cpu.json",
    "fusion-cpu": "python -m benchmarks.fusion --json benchmarks/results/fusion-cpu.json",
    "activations-cpu": "python -m benchmarks.activations --json benchmarks/results/activations-cpu.json",
    "loader-cpu": "python -m benchmarks.loader --json benchmarks/results/loader-cpu.json",
    "mixing-cpu": "python -m benchmarks.mixing --json benchmarks/results/mixing-cpu.json",
    "health-cpu": "python -m benchmarks.health --json benchmarks/results/health-cpu.json",
    "end_to_end-cpu": "python -m benchmarks.end_to_end --json benchmarks/results/end_to_end-cpu.json",
    "scaling-cpu": "python -m benchmarks.scaling --json benchmarks/results/scaling-cpu.json",
    "startup-cpu": "python -m benchmarks.startup --json benchmarks/results/startup-cpu.json",
    "step_overhead-cpu": "python -m benchmarks.step_overhead --json benchmarks/results/step_overhead-cpu.json",
    "optimizer-cpu": "python -m benchmarks.optimizer --json benchmarks/results/optimizer-cpu.json",
    "compile-cpu": "python -m benchmarks.compile --json benchmarks/results/compile-cpu.json",
    "darknet-cpu": "python -m benchmarks.darknet --darknet PATH --json benchmarks/results/darknet-cpu.json",
}
"""Result -> the command that measures it; one without a file is listed as not measured."""

OLD_ROWS = {"cpu_milliseconds_per_image": "CPU ms per image", "ms_per_step": "ms per step"}
"""Keys of the costs in files that were written before there was one harness, with their units."""


def to_markdown(content: Mapping[str, Any], *, name: str = "") -> str:
    """Return the tables of one result: ratios first, then costs, then what was counted."""
    unit, rows = costs_of(content)
    parts = [f"## {content.get('title') or name}", describe_run(content), *content.get("notes", ())]
    if paired := content.get("paired"):
        parts.append(
            table(("ratio, of the same round", "median", "least to most", "above 1"), map(ratio_row, paired.items()))
        )
    if rows:
        parts.append(table((unit, "median", "least to most"), map(cost_row, rows.items())))
    for caption, lines in content.get("tables", {}).items():
        parts += [f"**{caption}**", table(list(lines[0]), (list(line.values()) for line in lines))] if lines else []
    return "\n\n".join(part for part in parts if part) + "\n"


def costs_of(content: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the unit and the rows of costs, also of an old file."""
    old = next((key for key in OLD_ROWS if key in content), "")
    return (OLD_ROWS[old], content[old]) if old else (content.get("unit", "cost"), content.get("rows", {}))


def describe_run(content: Mapping[str, Any]) -> str:
    """Return a line with date, machine, versions and setting."""
    machine, versions = content.get("machine", {}), content.get("versions", {})
    where = f"{machine.get('gpu') or machine.get('processor', '?')}, {machine.get('cores', '?')} cores"
    installed = ", ".join(f"{name} {number}" for name, number in versions.items() if number != "not installed")
    setting = ", ".join(f"{name}={show(value)}" for name, value in content.get("setting", {}).items())
    commit = f", commit {content['commit']}" if "commit" in content else ""
    return f"{content.get('date', '?')}, {where}{commit}; {installed}; {setting}."


def ratio_row(item: tuple[str, Mapping[str, float]]) -> list[str]:
    name, found = item
    above = f"{found['rounds_above_1']} of {found['rounds']}" if "rounds" in found else ""
    return [name, f"{found['median']:.3f}", f"{found['min']:.3f} to {found['max']:.3f}", above]


def cost_row(item: tuple[str, Mapping[str, float]]) -> list[str]:
    name, found = item
    return [name, show(found["median"]), f"{show(found['min'])} to {show(found['max'])}"]


def show(value: object) -> str:
    """Return a number with four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(show, line)) + " |" for line in lines)


def page_of(folder: Path) -> str:
    """Return the page of all results in a folder, in the order of their names, and of those that are missing."""
    contents = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    pages = [f"* [{file.stem}]({file.name})" for file in sorted(folder.glob("*.md")) if file.stem in contents]
    timed = {name: found for name, found in contents.items() if isinstance(found, dict) and costs_of(found)[1]}
    sections = ["\n".join(["Results with pages of their own:\n", *pages]) + "\n"] if pages else []
    sections += [to_markdown(found, name=name) for name, found in timed.items()]
    missing = [(name, f"`{command}`") for name, command in COMMANDS.items() if name not in contents]
    if missing:
        sections.append("## Not measured\n\n" + table(("result", "command"), missing) + "\n")
    return "\n".join([INTRODUCTION, *sections])


def main() -> None:
    (RESULTS / "README.md").write_text(page_of(RESULTS))


if __name__ == "__main__":
    main()
