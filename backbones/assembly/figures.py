"""Figures of validation sets, as eval.py prints and writes them."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from backbones.assembly.checkpoint import Restored
from backbones.dataset.validation_sets import ValidationSet
from backbones.terminal import table
from backbones.training.evaluate import Evaluation

Results = Mapping[str, tuple[ValidationSet, Evaluation]]
"""Name of a set -> the set and its figures; "val" is the checkpoint's own."""

HEADING = ("set", "classes", "n", "top-1 %", "top-5 %", "loss")


def report(trained: Restored, restored: Restored, results: Results) -> str:
    """Return checkpoint, protocol and figures as lines, with a table where there are several sets."""
    before, used = trained.input_options, restored.input_options
    changed = [f"{key} {value}" for key, value in before.items() if used[key] != value]
    origin = f"overridden; as trained: {', '.join(changed)}" if changed else "as trained"
    protocol = ", ".join(f"{key} {value}" for key, value in used.items()).removeprefix("protocol ")
    lines = [f"checkpoint  {restored.file}", f"protocol    {protocol} ({origin})"]
    if len(results) == 1:
        return "\n".join([*lines, f"result      {results['val'][1]}"])
    return "\n".join([*lines, table([HEADING, *_list_rows(results)], "lrrrrr")])


def _list_rows(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each set; a subset's classes are given as "200 of 1000"."""
    total = len(results["val"][0].outputs)
    for each, found in results.values():
        count = len(each.outputs)
        classes = str(count) if count == total else f"{count} of {total}"
        loss = f"{found.loss:.4f}" if each.has_loss else "-"
        yield each.title, classes, str(found.n), f"{found.top1:.3f}", f"{found.top5:.3f}", loss


def as_json(restored: Restored, results: Results) -> dict[str, Any]:
    """Return the figures (percentages 0-100) with model, checkpoint and protocol; several sets are under "sets"."""
    content: dict[str, Any] = {
        **asdict(results["val"][1]),
        "model": restored.name,
        "checkpoint": str(restored.file),
        **restored.input_options,
    }
    if len(results) > 1:
        content["sets"] = {
            name: {"classes": len(each.outputs), **asdict(found), **({} if each.has_loss else {"loss": None})}
            for name, (each, found) in results.items()
        }
    return content
