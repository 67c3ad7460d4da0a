"""The table, the picture, and the exit status for a dead input."""

import pytest
import torch
from PIL import Image

import backbones
from backbones.__main__ import main
from backbones.commands.inspect.command import table
from backbones.commands.inspect.fusion import Branch, fusion_report
from backbones.darknet.network import load_cfg
from backbones.darknet.weights import save_weights
from backbones.errors import UserError, exit_on_user_error
from tests.commands.inspect.make_networks import IMAGES, shortcut, with_weights


def test_the_dead_layer_27_of_the_thread_is_named(tmp_path, capsys):
    """Both weights fell below zero, so with the old hard relu the layer added nothing."""
    with torch.no_grad():
        model = backbones.create_model("csresnext50_ws")
        shortcut(model, 27).weight.fill_(-0.1)
    save_weights(model, tmp_path / "a.weights")
    picture = tmp_path / "map.png"
    words = ["--model", "csresnext50_ws", "--heat-map", str(picture), "--batch-size", "1"]
    with pytest.raises(SystemExit) as stopped:
        main(["inspect", str(tmp_path / "a.weights"), *words])
    assert stopped.value.code == 2
    dead = [line for line in capsys.readouterr().out.splitlines() if line.startswith("dead")]
    assert len(dead) == 2
    assert all("layer 27 (stages.1.blocks.0.shortcut)" in line and "raw -0.1000" in line for line in dead)
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert (214, 39, 40) in {color for _, color in image.convert("RGB").getcolors(1 << 20)}


def test_the_table_has_a_line_for_each_input():
    report = fusion_report(with_weights(27, 1.0, -1.0), IMAGES)
    lines = table(report).splitlines()
    assert len(lines) == 1 + 26
    assert lines[8].split() == [
        "27",
        "stages.1.blocks.0.shortcut",
        "1:",
        "23",
        "-1.0000",
        "0.0010",
        lines[8].split()[6],
        "dead",
    ]


def test_a_healthy_network_ends_well(tmp_path, capsys):
    save_weights(backbones.create_model("csresnext50_ws"), tmp_path / "a.weights")
    words = ["--model", "csresnext50_ws", "--heat-map", str(tmp_path / "map.png"), "--batch-size", "1"]
    main(["inspect", str(tmp_path / "a.weights"), *words])
    assert "dead" not in capsys.readouterr().out


def test_a_network_without_shortcuts_is_refused(tmp_path):
    file = tmp_path / "a.cfg"
    file.write_text("[net]\nheight=8\nwidth=8\nchannels=3\n[avgpool]\n[conv]\nfilters=4\nactivation=linear\n")
    save_weights(load_cfg(file), tmp_path / "a.weights")
    with pytest.raises(UserError, match="has no shortcut"):
        main(["inspect", str(tmp_path / "a.weights"), "--model", str(file)])


def test_the_batch_can_come_from_images(tmp_path, image_folder, capsys):
    save_weights(backbones.create_model("csresnext50_ws"), tmp_path / "a.weights")
    words = ["--heat-map", str(tmp_path / "map.png"), "--batch-size", "2", "--data-dir", str(image_folder)]
    main(["inspect", str(tmp_path / "a.weights"), "--model", "csresnext50_ws", *words])
    assert "27  stages.1.blocks.0.shortcut" in capsys.readouterr().out


def test_where_it_cannot_tell_it_ends_with_status_1(capsys):
    for words in (["nowhere"], [], ["a", "--no-such-option"], ["a", "--heat-map", "no/such/folder/a.png"]):
        with pytest.raises(SystemExit) as stopped, exit_on_user_error():
            main(["inspect", *words])
        assert stopped.value.code == 1
        assert capsys.readouterr().err.startswith("error: ")


def test_the_source_of_an_input_that_is_not_known_is_a_question_mark():
    branch = Branch(layer=3, module="a.b", input=1, source=None, raw=None, effective=1.0, share=0.25, dead=False)
    assert table([branch]).splitlines()[1].split() == ["3", "a.b", "1:", "?", "-", "1.0000", "25.0%"]
