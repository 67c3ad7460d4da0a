import json

from backbones.__main__ import main
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
    main(["list"])
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["name", "parent", "parameters"]
    assert [line.split()[0] for line in lines] == list(VARIANTS)
