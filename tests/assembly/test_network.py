"""A cfg file wherever a name of a network is taken: training, evaluation, darknet's weights."""

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

import eval as eval_script
from backbones.assembly.checkpoint import restore_model
from backbones.assembly.network import create_network, layers_of, notes_on
from backbones.darknet.labels import synsets
from backbones.darknet.network import DarknetNetwork, load_cfg
from backbones.darknet.weights import save_weights
from backbones.errors import UserError
from train_imagenet import main as train

CFG = """[net]
height=32
width=32
channels=3
[conv]
batch_normalize=1
filters=8
size=3
stride=4
pad=1
activation=mish
[conv]
filters=8
activation=linear
[shortcut]
from=-2
weights_type=per_feature
weights_normalizion=relu
[avgpool]
[conv]
filters={classes}
activation=linear
[softmax]
"""
CPU = ["--device", "cpu", "--loader", "reference", "--workers", "1"]


@pytest.fixture
def cfg(tmp_path):
    def write(classes: int):
        file = tmp_path / "tiny.cfg"
        file.write_text(CFG.format(classes=classes))
        return file

    return write


@pytest.fixture
def fresh(fresh_accelerate):
    def reset():
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    return reset


def test_a_name_and_a_cfg_make_networks(cfg):
    assert create_network("csresnext50", num_classes=3).num_classes == 3
    assert isinstance(create_network(str(cfg(5))), DarknetNetwork)
    assert len(layers_of(str(cfg(5)))) == 6
    with pytest.raises(UserError, match="has 5 outputs, but 7 classes"):
        create_network(str(cfg(5)), num_classes=7)


def test_a_cfg_is_trained_resumed_and_evaluated(cfg, image_folder, tmp_path, fresh):
    run = tmp_path / "run"
    words = ["--model", str(cfg(4)), "--img-size", "32", "--batch-size", "16", "--bn-momentum", "0.1", *CPU]
    train([*words, "--epochs", "1", "--data-dir", str(image_folder), "--output", str(run)])
    fresh()
    trained = train(["--resume", str(run), "--epochs", "2"])
    fresh()
    evaluated = eval_script.main(["--ckpt", str(run), *CPU])
    assert evaluated == trained


def test_a_cfg_with_other_classes_than_the_data_is_refused(cfg, image_folder, tmp_path, fresh):
    words = ["--model", str(cfg(9)), "--img-size", "32", "--batch-size", "16", *CPU]
    with pytest.raises(UserError, match=r"tiny.cfg:20: the network has 9 outputs, but 4 classes are wanted"):
        train([*words, "--epochs", "1", "--data-dir", str(image_folder), "--output", str(tmp_path / "run")])


def test_darknets_weights_are_evaluated_directly(cfg, image_folder, tmp_path, fresh):
    file = cfg(4)
    save_weights(load_cfg(file), tmp_path / "a.weights")
    evaluation = eval_script.main(
        ["--ckpt", str(tmp_path / "a.weights"), "--model", str(file), "--data-dir", str(image_folder), *CPU]
    )
    assert evaluation.n == 20


def test_a_thousand_classes_are_the_synsets_and_must_be_those_of_the_data(cfg, image_folder, tmp_path, fresh):
    file = cfg(1000)
    save_weights(load_cfg(file), tmp_path / "a.weights")
    restored = restore_model(str(tmp_path / "a.weights"), model=str(file))
    assert restored.classes == synsets()
    assert (restored.img_size, restored.preprocess.mean) == (32, (0, 0, 0))
    words = ["--ckpt", str(tmp_path / "a.weights"), "--model", str(file), "--data-dir", str(image_folder)]
    with pytest.raises(UserError, match="has 4 classes, the checkpoint has 1000"):
        eval_script.main([*words, *CPU])


@torch.no_grad()
def test_weights_are_restored_into_sorted_order(cfg, tmp_path):
    network = load_cfg(cfg(1000)).eval()
    save_weights(network, tmp_path / "a.weights")
    restored = restore_model(str(tmp_path / "a.weights"), model=str(cfg(1000)))
    images = torch.rand(1, 3, 32, 32)
    assert torch.allclose(restored.model.eval()(images), network(images), atol=1e-6)


def test_weights_need_the_name_of_their_network(tmp_path):
    (tmp_path / "a.weights").touch()
    with pytest.raises(UserError, match="does not say what network it holds: add --model NAME"):
        restore_model(str(tmp_path / "a.weights"))


def test_a_detector_is_no_network_to_train(tmp_path):
    (tmp_path / "a.cfg").write_text("[net]\nheight=8\nwidth=8\nchannels=3\n[conv]\nfilters=18\n[region]\n")
    with pytest.raises(UserError, match=r"a.cfg:7: \[region\] makes this a detector.* the 1 layers before it"):
        create_network(str(tmp_path / "a.cfg"))


def test_the_name_of_a_model_has_no_notes():
    assert notes_on("csdarknet53") == ()
