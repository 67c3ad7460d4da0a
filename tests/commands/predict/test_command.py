"""From a checkpoint and images to names and probabilities."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import backbones
from backbones.__main__ import main
from backbones.assembly.checkpoint import restore_model
from backbones.commands.predict.command import describe_classes
from backbones.darknet.labels import synsets
from backbones.darknet.network import load_cfg
from backbones.darknet.weights import save_weights
from backbones.data.loader import EvalLoader
from backbones.dataset.sources.folder import scan_folder
from backbones.errors import UserError
from backbones.training.checkpoint import save_checkpoint
from tests import accelerate_state
from tests.assembly.test_checkpoint import ABOUT
from tests.darknet.tiny_cfg import write_tiny_cfg

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder whose average differs from its last weights."""
    torch.manual_seed(0)
    network = backbones.create_model("test_resnet", num_classes=3)
    average = {name: value * 1.5 for name, value in network.state_dict().items()}
    about = ABOUT | {"precision": "fp32", "model_args": {}}
    save_checkpoint(tmp_path / "run" / "last", network.state_dict(), about, ema=average)
    return tmp_path / "run"


@pytest.fixture
def predict(capsys):
    """The function that predicts on a CPU: predict(*words) -> (exit status, stdout, stderr)."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        accelerate_state.reset()
        status = 0
        try:
            main(["predict", *map(str, words), "--device", "cpu"])
        except SystemExit as end:
            status = int(end.code or 0)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def evaluated(run: Path, images: Path) -> dict[str, torch.Tensor]:
    """Return the probabilities that the pipeline of evaluation gives, by path."""
    restored, index = restore_model(str(run)), scan_folder(images)
    batches = EvalLoader(
        index, img_size=restored.img_size, preprocess=restored.preprocess, batch_size=5, loader="reference"
    )
    with torch.inference_mode():
        rows = torch.cat([restored.model.eval()(batch.images).softmax(1) for batch in batches])
    return {index.place(row).path: rows[row] for row in range(len(index))}


def test_probabilities_are_those_of_the_evaluation(predict, run, small):
    status, out, _ = predict(run, small, "--json")
    found, expected = {each["image"]: each["predictions"] for each in json.loads(out)}, evaluated(run, small)
    assert (status, found.keys()) == (0, expected.keys())
    for path, guesses in found.items():
        values = [each["probability"] for each in guesses]
        assert values == sorted(values, reverse=True)
        by_class = torch.tensor([next(g["probability"] for g in guesses if g["class"] == name) for name in "abc"])
        assert torch.allclose(by_class, expected[path], atol=1e-6)
        assert all("abc"[each["index"]] == each["class"] for each in guesses)


def test_csv_and_json_agree_and_top_limits_them(predict, run, small):
    _, out, _ = predict(run, small, "--csv", "--top", "2", "--batch-size", "3")
    rows = list(csv.DictReader(io.StringIO(out)))
    _, out, _ = predict(run, small, "--json", "--top", "2")
    flat = [(each["image"], guess) for each in json.loads(out) for guess in each["predictions"]]
    assert len(rows) == 16
    for row, (image, guess) in zip(rows, flat, strict=True):
        assert (row["image"], row["class"]) == (image, guess["class"])
        assert float(row["probability"]) == pytest.approx(guess["probability"], abs=1e-6)


def test_odd_images_are_named_passed_over_and_counted(predict, run, small):
    first, second, *_ = sorted(small.rglob("*.jpg"))
    first.write_bytes(b"")
    second.write_bytes(b"<html>")
    status, out, err = predict(run, small, "--csv")
    assert status == 1
    assert len({row["image"] for row in csv.DictReader(io.StringIO(out))}) == 6
    assert f"passed over {first}: it is empty" in err
    assert f"passed over {second}: it is not an image of a known format" in err
    assert "6 of 8 images predicted, 2 passed over" in err


def test_one_image_is_three_lines(predict, run, small):
    image = sorted(small.rglob("*.jpg"))[0]
    status, out, err = predict(run, image)
    assert (status, err) == (0, "")
    first, *lines = out.splitlines()
    assert first == str(image)
    assert sorted(line.split()[2] for line in lines) == ["a", "b", "c"]
    assert sum(float(line.split()[0]) for line in lines) == pytest.approx(100, abs=0.02)


def test_the_average_is_used_unless_the_last_weights_are_asked_for(predict, run, small):
    outputs = [predict(run, small, "--json", *words)[1] for words in ([], ["--no-ema"], ["--protocol", "timm"])]
    assert len(set(outputs)) == 3


def test_weights_that_name_no_classes_give_numbers(predict, small, tmp_path):
    torch.manual_seed(0)
    save_file(backbones.create_model("test_resnet").state_dict(), tmp_path / "a.safetensors")
    _, out, _ = predict(tmp_path / "a.safetensors", small, "--model", "test_resnet", "--json", "--top", "1")
    assert all(each["predictions"][0]["class"] == str(each["predictions"][0]["index"]) for each in json.loads(out))


def test_darknets_weights_name_imagenets_classes_in_words(predict, small, tmp_path):
    cfg = write_tiny_cfg(tmp_path / "tiny.cfg", classes=1000)
    save_weights(load_cfg(cfg), tmp_path / "a.weights")
    _, out, _ = predict(tmp_path / "a.weights", small, "--model", cfg, "--json", "--top", "1")
    guess = json.loads(out)[0]["predictions"][0]
    assert guess["class"] == synsets()[guess["index"]]
    assert guess["description"]
    assert describe_classes(synsets())["n02099601"] == "golden retriever"
    assert describe_classes(("n02099601", "ant")) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "IMAGE is missing: name images, or folders of images, after the checkpoint"),
        (["-"], "not from standard input"),
        (["none.jpg"], "there is no none.jpg"),
        (["{small}", "--json", "--csv"], "--json and --csv are two formats"),
        (["{small}", "--top", "0"], "--top=0 must be positive"),
        (["{small}", "--model", "resnet50"], "--model resnet50, but .* holds another architecture: test_resnet"),
    ],
)
def test_what_cannot_be_predicted_is_refused(run, small, words, message):
    with pytest.raises(UserError, match=message):
        main(["predict", str(run), *(word.format(small=small) for word in words)])


def test_a_network_that_is_no_classifier_is_refused(small, tmp_path):
    (tmp_path / "a.cfg").write_text("[net]\nheight=32\nwidth=32\nchannels=3\n[conv]\nfilters=4\nsize=3\npad=1\n")
    save_weights(load_cfg(tmp_path / "a.cfg"), tmp_path / "a.weights")
    words = [str(tmp_path / "a.weights"), str(small), "--model", str(tmp_path / "a.cfg"), "--device", "cpu"]
    with pytest.raises(UserError, match="is no classifier: its output has the shape"):
        main(["predict", *words])


@pytest.mark.slow
def test_a_reader_that_closes_the_output_ends_the_command_quietly_and_dali_is_not_loaded(run, small):
    program = (
        "import sys; sys.modules['nvidia'] = None\n"
        "from backbones.__main__ import main\n"
        f"main(['predict', {str(run)!r}, *[{str(small)!r}] * 40, '--device', 'cpu', '--batch-size', '4'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, "")
