"""Figures are shown as one line or one table, and written with the network that they belong to."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from backbones.assembly.checkpoint import Restored
from backbones.assembly.figures import as_json, report
from backbones.recipe import Preprocess
from backbones.training.evaluate import Evaluation

RESTORED = Restored(nn.Identity(), "net", Path("run/last"), 64, Preprocess(), "fp32", None)
VAL = Evaluation(top1=50.0, top5=87.5, loss=1.25, n=8)


def make_set(title: str, classes: int, *, has_loss: bool = True) -> Any:
    return SimpleNamespace(title=title, outputs=np.arange(classes), has_loss=has_loss)


ONE = {"val": (make_set("validation", 1000), VAL)}
TWO = ONE | {
    "a": (make_set("ImageNet-A", 200, has_loss=False), Evaluation(top1=12.5, top5=25.0, loss=0.0, n=16)),
}


def test_one_set_is_one_line() -> None:
    lines = report(RESTORED, RESTORED, ONE).splitlines()
    assert lines[0] == "checkpoint  run/last"
    assert lines[1].startswith("protocol    darknet, img_size 64")
    assert lines[1].endswith("(as trained)")
    assert lines[2] == f"result      {VAL}"


def test_an_option_that_changes_the_protocol_is_shown_with_its_old_value() -> None:
    line = report(RESTORED, replace(RESTORED, img_size=96), ONE).splitlines()[1]
    assert line.endswith("(overridden; as trained: img_size 64)")


def test_several_sets_are_a_table_that_tells_a_part_of_the_classes() -> None:
    lines = [line.split() for line in report(RESTORED, RESTORED, TWO).splitlines()[2:]]
    assert lines[1] == ["validation", "1000", "8", "50.000", "87.500", "1.2500"]
    assert lines[2] == ["ImageNet-A", "200", "of", "1000", "16", "12.500", "25.000", "-"]


def test_json_has_the_figures_of_each_set() -> None:
    content = as_json(RESTORED, TWO)
    assert (content["top1"], content["n"], content["model"], content["img_size"]) == (50.0, 8, "net", 64)
    assert content["sets"]["a"]["loss"] is None
    assert (content["sets"]["a"]["classes"], content["sets"]["a"]["top5"]) == (200, 25.0)


def test_json_of_one_set_names_no_sets() -> None:
    assert "sets" not in as_json(RESTORED, ONE)
