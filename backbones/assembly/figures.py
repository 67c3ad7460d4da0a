"""Figures of validation sets, as eval.py prints and writes them."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from backbones.assembly.checkpoint import Restored
from backbones.dataset.validation_sets import ValidationSet
from backbones.terminal import table
from backbones.training.evaluate import Evaluation

Sets = dict[str, ValidationSet]
"""Name -> set; "val" is the checkpoint's own."""

Figures = dict[str, Evaluation]
"""Name of the set -> figures."""

HEADING = ("set", "classes", "n", "top-1 %", "top-5 %", "loss")


def report(trained: Restored, restored: Restored, sets: Sets, figures: Figures) -> str:
    """Return checkpoint, protocol and figures as lines, with a table where there are several sets."""
    before, used = trained.input_options, restored.input_options
    changed = [f"{key} {value}" for key, value in before.items() if used[key] != value]
    origin = f"overridden; as trained: {', '.join(changed)}" if changed else "as trained"
    protocol = ", ".join(f"{key} {value}" for key, value in used.items()).removeprefix("protocol ")
    lines = [f"checkpoint  {restored.file}", f"protocol    {protocol} ({origin})"]
    if len(sets) == 1:
        return "\n".join([*lines, f"result      {figures['val']}"])
    return "\n".join([*lines, table([HEADING, *_list_rows(sets, figures)], "lrrrrr")])


def _list_rows(sets: Sets, figures: Figures) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each set; a subset's classes are given as "200 of 1000"."""
    total = len(sets["val"].outputs)
    for name, each in sets.items():
        found, count = figures[name], len(each.outputs)
        classes = str(count) if count == total else f"{count} of {total}"
        loss = f"{found.loss:.4f}" if each.has_loss else "-"
        yield each.title, classes, str(found.n), f"{found.top1:.3f}", f"{found.top5:.3f}", loss


def as_json(restored: Restored, sets: Sets, figures: Figures) -> dict[str, Any]:
    """Return the figures (percentages 0-100) with model, checkpoint and protocol; several sets are under "sets"."""
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
