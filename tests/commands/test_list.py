import json
import os
import subprocess
import sys

import pytest

from backbones.__main__ import main
from backbones.commands.list import match_names
from backbones.errors import UserError
from backbones.models import VARIANTS

MODELS = {
    "csresnext50": (None, 20_557_480, 7.933, 79.8, 95.2, "exact"),
    "csresnext50_ws_mi2": ("csresnext50_ws", 20_557_515, 7.941, 79.9, 95.3, "medium"),
    "csdarknet53": (None, 27_642_184, 13.071, 78.7, 94.8, "exact"),
}


def test_the_json_list_has_every_backbone_with_its_figures(capsys):
    main(["list", "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(VARIANTS)
    for name, (parent, parameters, bflops, top1, top5, certainty) in MODELS.items():
        assert set(rows[name]) == {"name", "parent", "parameters", "bflops", "top1", "top5", "certainty"}
        assert rows[name]["parent"] == parent
        assert rows[name]["parameters"] == parameters
        assert round(rows[name]["bflops"], 3) == bflops
        assert (rows[name]["top1"], rows[name]["top5"], rows[name]["certainty"]) == (top1, top5, certainty)


def test_the_table_has_one_line_for_each(capsys):
    main(["list", "csresnext50_ws*"])
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["name", "parent", "parameters"]
    assert [line.split()[0] for line in lines] == [name for name in VARIANTS if name.startswith("csresnext50_ws")]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("csdarknet53", ["csdarknet53"]),
        ("csresnext50-ws-mi2", ["csresnext50_ws_mi2"]),
        ("CSResNeXt50-ws-*", [name for name in VARIANTS if name.startswith("csresnext50_ws_")]),
        ("*53*", [name for name in VARIANTS if "53" in name]),
        ("csdarknet5[0-5]", ["csdarknet53"]),
    ],
)
def test_a_shell_pattern_or_a_spelling_of_the_thread_selects(pattern, names):
    assert match_names(pattern) == names
    assert names


def test_only_the_selected_backbones_are_listed(capsys):
    main(["list", "--json", "csdarknet53"])
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["csdarknet53"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("csresnet50", "no backbone is called 'csresnet50'. Did you mean csresnext50"), ("zz*", "list` shows all")],
)
def test_a_pattern_without_a_match_is_an_error_with_near_names(pattern, message):
    with pytest.raises(UserError, match=message):
        main(["list", pattern])


@pytest.mark.slow
def test_a_terminal_that_knows_ascii_alone_is_enough():
    command = [sys.executable, "-m", "backbones", "list", "\u00fc*"]
    ended = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(rb"error: no backbone is called '\xfc*'")
