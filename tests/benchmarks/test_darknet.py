import argparse

import pytest

from backbones.darknet.cfg import parse_cfg
from benchmarks.darknet import cfg_text, program, run, subtract_start


def fake_darknet(folder, body):
    file = folder / "darknet"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return str(file)


def test_the_cfg_is_ours_for_one_image_of_the_size(tmp_path):
    cfg = parse_cfg(cfg_text("csresnext50", "leaky", 64, tmp_path))
    assert (cfg.net["batch"], cfg.net["height"], cfg.net["width"]) == (1, 64, 64)
    assert "leaky" in {layer["activation"] for layer in cfg.layers if layer.kind == "convolutional"}


def test_the_start_of_darknet_is_subtracted_in_the_same_round():
    costs = {"darknet": [5.0, 7.0], "darknet, start": [1.0, 2.0], "ours": [3.0, 3.0]}
    assert subtract_start(costs) == {"darknet": [4.0, 5.0], "ours": [3.0, 3.0]}


def test_darknet_gets_the_cfg_the_number_of_images_and_one_thread(tmp_path):
    log = tmp_path / "log"
    darknet = fake_darknet(tmp_path, f'echo "$@ $OMP_NUM_THREADS" > {log}; echo "3 evals, 1.0 Seconds"')
    run(darknet, tmp_path / "a.cfg", 3)()
    assert log.read_text() == f"speed {tmp_path / 'a.cfg'} 3 1\n"


def test_a_darknet_that_does_not_evaluate_ends_the_measurement_with_what_it_said(tmp_path):
    darknet = fake_darknet(tmp_path, "echo Couldn\\'t open file")
    with pytest.raises(SystemExit, match="Couldn't open file"):
        run(darknet, tmp_path / "a.cfg", 3)()


def test_a_program_that_is_missing_is_refused():
    with pytest.raises(argparse.ArgumentTypeError, match="is no program: build darknet"):
        program("/nowhere/darknet")
