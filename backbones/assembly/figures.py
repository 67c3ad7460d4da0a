"""The figures of one or several validation sets, as eval.py prints and writes them."""

from dataclasses import asdict
from typing import Any

from backbones.assembly.checkpoint import Restored
from backbones.dataset.validation_sets import ValidationSet
from backbones.training.evaluate import Evaluation

Sets = dict[str, ValidationSet]
"""By name; "val" is the checkpoint's own."""

Figures = dict[str, Evaluation]
"""By the name of the set."""


def report(trained: Restored, restored: Restored, sets: Sets, figures: Figures) -> str:
    """Return what is printed: checkpoint, protocol and the figures, as a table where there are several sets."""
    before, used = trained.input_options, restored.input_options
    changed = [f"{key} {value}" for key, value in before.items() if used[key] != value]
    origin = f"overridden; as trained: {', '.join(changed)}" if changed else "as trained"
    protocol = ", ".join(f"{key} {value}" for key, value in used.items()).removeprefix("protocol ")
    lines = [f"checkpoint  {restored.file}", f"protocol    {protocol} ({origin})"]
    return "\n".join([*lines, *(table(sets, figures) if len(sets) > 1 else [f"result      {figures['val']}"])])


def table(sets: Sets, figures: Figures) -> list[str]:
    """Return a line for each set; a subset's classes are given as "200 of 1000"."""
    lines = [f"{'set':<16}{'classes':>12}{'n':>8}{'top-1 %':>9}{'top-5 %':>9}{'loss':>9}"]
    total = len(sets["val"].outputs)
    for name, each in sets.items():
        found, count = figures[name], len(each.outputs)
        classes = str(count) if count == total else f"{count} of {total}"
        loss = f"{found.loss:.4f}" if each.has_loss else "-"
        lines.append(f"{each.title:<16}{classes:>12}{found.n:>8}{found.top1:>9.3f}{found.top5:>9.3f}{loss:>9}")
    return lines


def as_json(restored: Restored, sets: Sets, figures: Figures) -> dict[str, Any]:
    """Return the figures (percentages 0-100) and what they belong to; ``sets`` where there is more than one."""
    content: dict[str, Any] = {
        **asdict(figures["val"]),
        "model": restored.name,
        "checkpoint": str(restored.file),
        **restored.input_options,
    }
    if len(sets) > 1:
        content["sets"] = {
            name: {"classes": len(each.outputs), **asdict(figures[name]), **({} if each.has_loss else {"loss": None})}
            for name, each in sets.items()
        }
    return content
