import json
from pathlib import Path

import pytest

from backbones.__main__ import main
from backbones.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "darknet"


def test_a_name_of_the_thread_and_its_cfg_have_one_table(capsys):
    main(["summary", "csresnext50-ws-mi2"])
    named = capsys.readouterr().out
    main(["summary", str(FIXTURES / "csresnext50-ws-mi2.cfg")])
    assert capsys.readouterr().out == named
    assert "Total BFLOPS 7.940899\n" in named
    assert "Parameters 20,557,515 (35 of them fusion weights), running statistics 57,344" in named
    assert "C5: stride 32, 2048 channels, layer 80" in named


def test_the_size_of_the_image_can_be_chosen(capsys):
    main(["summary", "csdarknet53", "--size", "512", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["output"] == [512, 512, 32]
    assert sum(row["bflops"] for row in rows) == pytest.approx(4 * 13.070582, rel=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["csresnet50"], r"unknown model 'csresnet50'.*path/to/network.cfg"),
        (["none.cfg"], "there is no cfg none.cfg"),
        (["csdarknet53", "--size", "0"], r"--size=0 must lie in \[1, 8192\]"),
        (["resnet18"], "no such network as ResNet"),
    ],
)
def test_what_has_no_table_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        main(["summary", *words])


def test_what_a_cfg_says_without_effect_is_noted_below_its_table(tmp_path, capsys):
    text = "[net]\nheight=8\nwidth=8\nchannels=3\n[conv]\nfilters=4\nfilters=5\n[conv]\nfilters=18\n[yolo]\n"
    (tmp_path / "a.cfg").write_text(text)
    main(["summary", str(tmp_path / "a.cfg")])
    *_, twice, head = capsys.readouterr().out.splitlines()
    assert twice.endswith("a.cfg:7: [convolutional] filters=5 has no effect: the first one counts, on line 6")
    assert head.endswith("a.cfg:10: a detector is read up to its first head, [yolo]")
    main(["summary", str(tmp_path / "a.cfg"), "--json"])
    assert len(json.loads(capsys.readouterr().out)) == 2
