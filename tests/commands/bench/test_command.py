"""The whole command on a tiny network; what it counts and times is tested beside its parts."""

import json

import pytest

from backbones.__main__ import main
from backbones.errors import UserError

SMALL = ["--model", "test_resnet", "--batch-size", "2", "--img-size", "32", "--rounds", "1", "--seconds", "1e-9"]


def test_one_network_is_measured(capsys, tmp_path):
    main(["bench", *SMALL, "--profile", str(tmp_path / "trace.json"), "--device", "cpu"])
    shown = capsys.readouterr().out
    assert shown.startswith("A           test_resnet, fp32, 2 images of 32x32, channels_last")
    assert "A / B" not in shown
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_two_networks_are_compared(capsys, tmp_path):
    words = ["--against", "test_resnet", "--against-batch-size", "3", "--json", str(tmp_path / "a.json")]
    main(["bench", *SMALL, *words, "--device", "cpu"])
    assert capsys.readouterr().out.startswith("A / B       training by CPU time: ")
    written = json.loads((tmp_path / "a.json").read_text())
    assert set(written["ratio"]) == {"training", "inference"}
    assert [subject["setting"]["batch_size"] for subject in written["subjects"]] == [2, 3]
    a, b = (subject["per_image"] for subject in written["subjects"])
    assert a == b


def test_two_files_need_two_names(tmp_path):
    file = str(tmp_path / "a.json")
    with pytest.raises(UserError, match="two files are written"):
        main(["bench", *SMALL, "--json", file, "--profile", file])
