"""eval.py repeats the run's figures, and refuses what would give wrong ones."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import backbones
import eval as eval_script
import train_imagenet
from backbones.data.loader import EvalLoader
from backbones.errors import UserError
from backbones.training.evaluate import Evaluation
from tests import accelerate_state

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture(scope="module")
def trained(image_folder, tmp_path_factory) -> tuple[Path, Evaluation]:
    """A run folder with an average, and the figures that training printed."""
    folder = tmp_path_factory.mktemp("eval") / "run"
    words = ["--model", "test_resnet", "--img-size", "32", "--batch-size", "16", "--epochs", "3", "--workers", "1"]
    words += ["--bn-momentum", "0.1", "--model-ema", "--ema.decay", "0.5", "--crop-pct", "0.9", "--device", "cpu"]
    evaluation = train_imagenet.main([*words, "--data-dir", str(image_folder), "--output", str(folder)])
    return folder, evaluation


@pytest.fixture
def evaluate():
    """Run eval.py in this process."""

    def run(*words: str | Path) -> Evaluation:
        accelerate_state.reset()
        return eval_script.main([*map(str, words), "--device", "cpu", "--workers", "1"])

    return run


def last_row(folder: Path) -> dict:
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def test_a_run_folder_gives_the_last_figures_of_the_average(evaluate, trained, capsys):
    folder, evaluation = trained
    assert evaluate("--ckpt", folder) == evaluation
    shown = capsys.readouterr().out
    assert f"checkpoint  {folder}/last/ema.safetensors" in shown
    assert f"result      {evaluation}" in shown


def test_the_plain_weights_give_their_own_figures(evaluate, trained):
    folder, _ = trained
    plain = evaluate("--ckpt", folder, "--no-ema")
    assert plain.metrics("val") == {key: value for key, value in last_row(folder).items() if key.startswith("val/")}


@pytest.mark.parametrize("batch_size", [1, 7, 20, 64])
def test_the_batch_size_changes_nothing(evaluate, trained, batch_size):
    folder, evaluation = trained
    assert evaluate("--ckpt", folder, "--batch-size", batch_size) == evaluation


def test_a_single_file_is_enough(evaluate, trained, tmp_path):
    folder, evaluation = trained
    shutil.copy(folder / "last" / "ema.safetensors", tmp_path / "weights.safetensors")
    assert evaluate("--ckpt", tmp_path / "weights.safetensors") == evaluation


def test_the_json_file_has_the_figures_as_percentages(evaluate, trained, tmp_path):
    folder, evaluation = trained
    evaluate("--ckpt", folder, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures == {
        "top1": evaluation.top1,
        "top5": evaluation.top5,
        "loss": evaluation.loss,
        "n": 20,
        "model": "test_resnet",
        "checkpoint": str(folder / "last" / "ema.safetensors"),
    }


def test_the_reference_loader_agrees(evaluate, trained):
    folder, evaluation = trained
    reference = evaluate("--ckpt", folder, "--loader", "reference")
    assert reference.top1 == evaluation.top1
    assert reference.loss == pytest.approx(evaluation.loss, abs=0.02)


def test_other_images_give_other_figures(evaluate, trained, image_folder, tmp_path):
    """Classes are matched by name: swapping two folders must cost their images."""
    folder, evaluation = trained
    data = Path(shutil.copytree(image_folder, tmp_path / "data"))
    (data / "val" / "ant").rename(data / "val" / "x")
    (data / "val" / "dog").rename(data / "val" / "ant")
    (data / "val" / "x").rename(data / "val" / "dog")
    assert evaluate("--ckpt", folder, "--data-dir", data).loss != evaluation.loss


def test_classes_that_are_not_the_checkpoints_are_refused(evaluate, trained, image_folder, tmp_path):
    folder, _ = trained
    data = Path(shutil.copytree(image_folder, tmp_path / "data"))
    (data / "val" / "cow").rename(data / "val" / "cat")
    with pytest.raises(UserError, match="has 4 classes, the checkpoint has 4; not in both: cat, cow"):
        evaluate("--ckpt", folder, "--data-dir", data)


def test_another_architecture_is_refused(evaluate, trained):
    with pytest.raises(UserError, match=r"--model resnet18, but .* holds another architecture: test_resnet"):
        evaluate("--ckpt", trained[0], "--model", "resnet18")


def test_a_count_that_is_not_the_split_is_refused(evaluate, trained, monkeypatch):
    everything = EvalLoader.__iter__
    monkeypatch.setattr(EvalLoader, "__iter__", lambda self: list(everything(self))[:-1].__iter__())
    with pytest.raises(UserError, match=r"evaluated 15 images, but the split has 20"):
        evaluate("--ckpt", trained[0], "--batch-size", 5)


def test_a_validation_set_that_changed_is_refused_unless_it_is_named(evaluate, image_folder, tmp_path, capsys):
    data = Path(shutil.copytree(image_folder, tmp_path / "data"))
    words = ["--model", "test_resnet", "--img-size", "32", "--batch-size", "16", "--epochs", "1", "--workers", "1"]
    accelerate_state.reset()
    train_imagenet.main([*words, "--data-dir", str(data), "--output", str(tmp_path / "run"), "--device", "cpu"])
    (data / "val" / "ant" / "000.jpg").unlink()
    with pytest.raises(UserError, match="no longer holds the validation images"):
        evaluate("--ckpt", tmp_path / "run")
    assert evaluate("--ckpt", tmp_path / "run", "--data-dir", data).n == 19
    assert "these are not the validation images" in capsys.readouterr().out


def test_a_network_with_other_outputs_is_refused(evaluate, image_folder, tmp_path):
    save_file(backbones.create_model("test_resnet").state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(UserError, match=r"test_resnet has 1000 outputs, .* has 4 classes"):
        evaluate("--ckpt", tmp_path / "bare.safetensors", "--model", "test_resnet", "--data-dir", image_folder)


def test_a_place_for_the_figures_is_checked_first(evaluate, trained):
    with pytest.raises(UserError, match="there is no folder /no/dir"):
        evaluate("--ckpt", trained[0], "--json", "/no/dir/x.json")


def test_a_checkpoint_that_does_not_exist_is_named(evaluate):
    with pytest.raises(UserError, match="there is no no/such/run"):
        evaluate("--ckpt", "no/such/run")


def test_a_data_folder_that_is_gone_is_named(evaluate, trained, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/gone"):
        evaluate("--ckpt", trained[0], "--data-dir", tmp_path / "gone")


def test_weights_that_say_nothing_need_a_name(evaluate, trained, image_folder, tmp_path):
    folder, _ = trained
    save_file(load_file(folder / "last" / "model.safetensors"), tmp_path / "bare.safetensors")
    with pytest.raises(UserError, match="does not say what network it holds: add --model NAME"):
        evaluate("--ckpt", tmp_path / "bare.safetensors", "--data-dir", image_folder)


def test_the_checkpoint_is_asked_for(evaluate):
    with pytest.raises(UserError, match="ckpt"):
        evaluate()
