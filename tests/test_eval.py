"""eval.py repeats the run's figures, and refuses what would give wrong ones."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data.real_labels import RealLabelsImagenet

import backbones
import eval as eval_script
import train_imagenet
from backbones.assembly.checkpoint import restore_model
from backbones.assembly.evaluation import evaluation as evaluation_module
from backbones.data.loader import EvalLoader
from backbones.dataset.sources.folder import scan_folder
from backbones.dataset.validation_sets import real_set
from backbones.errors import UserError
from backbones.recipe import Preprocess
from backbones.training.checkpoint import save_checkpoint
from backbones.training.evaluate import Evaluation
from backbones.training.evaluate import evaluate as evaluate_batches
from tests import accelerate_state
from tests.dataset.make_sources import write

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
    assert "protocol    darknet, img_size 32, crop_pct 0.9, interpolation bilinear (as trained)" in shown
    assert f"result      {evaluation}" in shown


def test_the_plain_weights_give_their_own_figures(evaluate, trained):
    folder, _ = trained
    plain = evaluate("--ckpt", folder, "--no-ema")
    assert plain.metrics("val") == {key: value for key, value in last_row(folder).items() if key.startswith("val/")}


def test_it_folds_as_the_training_did_unless_asked_otherwise(evaluate, trained, monkeypatch):
    folder, evaluation = trained
    folded: list[torch.nn.Module] = []
    fuse = evaluation_module.fuse
    monkeypatch.setattr(evaluation_module, "fuse", lambda model: folded.append(model) or fuse(model))
    assert evaluate("--ckpt", folder) == evaluation
    assert len(folded) == 1
    plain = evaluate("--ckpt", folder, "--no-fold")
    assert len(folded) == 1
    assert (plain.top1, plain.top5) == (evaluation.top1, evaluation.top5)
    assert plain.loss == pytest.approx(evaluation.loss, abs=2e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 20, 64])
def test_the_batch_size_changes_nothing(evaluate, trained, batch_size):
    folder, evaluation = trained
    assert evaluate("--ckpt", folder, "--batch-size", batch_size) == evaluation


def test_a_compiled_network_has_the_same_figures_and_one_graph(evaluate, trained, graphs):
    """The last of three batches has 4 of 8 images."""
    folder, evaluation = trained
    assert evaluate("--ckpt", folder, "--torchcompile", "--batch-size", "8") == evaluation
    assert graphs() == 1


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
        "protocol": "darknet",
        "img_size": 32,
        "crop_pct": 0.9,
        "interpolation": "bilinear",
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


def test_a_layout_that_was_chosen_for_training_is_that_of_its_evaluation(evaluate, image_folder, tmp_path):
    data = Path(shutil.copytree(image_folder, tmp_path / "data"))
    write(data / "ILSVRC2012_img_val.tar", b"")
    words = ["--model", "test_resnet", "--img-size", "32", "--batch-size", "16", "--epochs", "1", "--workers", "1"]
    words += ["--data-dir", str(data), "--output", str(tmp_path / "run"), "--device", "cpu"]
    accelerate_state.reset()
    with pytest.raises(UserError, match="more than one data set"):
        train_imagenet.main(words)
    assert not (tmp_path / "run").exists()
    accelerate_state.reset()
    trained = train_imagenet.main([*words, "--layout", "folders"])
    assert evaluate("--ckpt", tmp_path / "run") == trained
    with pytest.raises(UserError, match="--layout archives"):
        evaluate("--ckpt", tmp_path / "run", "--data-dir", data)
    assert evaluate("--ckpt", tmp_path / "run", "--data-dir", data, "--layout", "folders") == trained


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


def write_numbered_set(root: Path) -> Path:
    """Write a thousand folders 0 ... 999 with one image each, and three more in folder 2."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "JPEG")
    for number in range(1000):
        for copy in range(4 if number == 2 else 1):
            write(root / "val" / str(number) / f"{copy}.jpg", picture.getvalue())
    return root


def test_folders_of_numbers_are_not_guessed_for_weights_without_names(evaluate, tmp_path, capsys):
    """The network always says output 2: right for the 4 images of folder 2, and as text for the one of folder 10."""
    network: Any = backbones.create_model("test_resnet")
    network.fc.weight.data.zero_()
    network.fc.bias.data = torch.nn.functional.one_hot(torch.tensor(2), 1000).float()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    words = ["--ckpt", tmp_path / "w.safetensors", "--model", "test_resnet", "--data-dir", write_numbered_set(tmp_path)]
    words += ["--eval-size", 32, "--crop-pct", 1]
    with pytest.raises(UserError, match="two orders") as caught:
        evaluate(*words)
    assert "numeric  0, 1, 2, 3, ..." in str(caught.value)
    assert "text     0, 1, 10, 100, ..." in str(caught.value)
    assert evaluate(*words, "--class-order", "numeric").top1 == pytest.approx(100 * 4 / 1003)
    assert evaluate(*words, "--class-order", "text").top1 == pytest.approx(100 * 1 / 1003)
    assert "does not name its 1000 classes" in capsys.readouterr().out


def test_weights_that_say_nothing_need_a_name(evaluate, trained, image_folder, tmp_path):
    folder, _ = trained
    save_file(load_file(folder / "last" / "model.safetensors"), tmp_path / "bare.safetensors")
    with pytest.raises(UserError, match="does not say what network it holds: add --model NAME"):
        evaluate("--ckpt", tmp_path / "bare.safetensors", "--data-dir", image_folder)


def test_the_checkpoint_is_asked_for(evaluate):
    with pytest.raises(UserError, match="ckpt"):
        evaluate()


SYNSETS = {230: "n02105855", 231: "n02106030", 795: "n04228054", 970: "n09193705"}
"""ImageNet classes that share images in ImageNet-ReaL: two sheepdogs; a ski and a mountain."""
REAL = [set(labels) for labels in RealLabelsImagenet([""] * 50_000).real_labels.values()]


class Beside(NamedTuple):
    """A checkpoint whose classes are four synsets, and the sets beside its own in ``folder``."""

    run: Path
    folder: Path

    @property
    def words(self) -> list[str | Path]:
        options = ["--data-dir", self.folder / "data", "--real"]
        for name in ("v2", "a", "r", "sketch"):
            options += [f"--{name}", self.folder / name]
        return ["--ckpt", self.run, *options]

    def logits(self, root: Path) -> dict[str, np.ndarray]:
        """Return the logits of each image below ``root`` by CLASS/NAME, computed one by one."""
        restored, index = restore_model(str(self.run)), scan_folder(root)
        batches = EvalLoader(index, img_size=32, preprocess=restored.preprocess, batch_size=1, workers=1)
        with torch.inference_mode():
            rows = [restored.model.eval()(batch.images)[0].numpy() for batch in batches]
        return dict(zip(index.names, rows, strict=True))


def copy_images(source: Path, target: Path, names: dict[str, str]) -> None:
    for old, new in names.items():
        shutil.copytree(source / old, target / new)


def name_as_imagenet(val: Path) -> None:
    """Rename 20 images: 16 that have one or two of the four classes in ReaL, and 4 that have no label there."""
    own = [len(SYNSETS.keys() & labels) for labels in REAL]
    one, two = ([row for row, count in enumerate(own, 1) if count == wanted][:8] for wanted in (1, 2))
    none = [row for row, labels in enumerate(REAL, 1) if not labels][:4]
    numbers = np.random.default_rng(0).permutation([*one, *two, *none])
    for number, file in zip(numbers, sorted(val.rglob("*.jpg")), strict=True):
        file.rename(file.with_name(f"ILSVRC2012_val_{number:08d}.JPEG"))


def balanced_network(folder: Path) -> torch.nn.Module:
    """Return a random network whose outputs have equal means and spreads over the images of ``folder``."""
    torch.manual_seed(0)
    model: Any = backbones.create_model("test_resnet", num_classes=4).eval()
    batches = EvalLoader(scan_folder(folder), img_size=32, preprocess=Preprocess(), batch_size=20, workers=1)
    with torch.inference_mode():
        logits = torch.cat([model(batch.images) for batch in batches])
        model.fc.bias -= logits.mean(dim=0)
        model.fc.weight /= logits.std(dim=0)[:, None]
        model.fc.bias /= logits.std(dim=0)
    return model


@pytest.fixture(scope="module")
def beside(image_folder, tmp_path_factory) -> Beside:
    folder = tmp_path_factory.mktemp("beside")
    names: dict[str, str] = dict(zip(("ant", "bee", "cow", "dog"), SYNSETS.values(), strict=True))
    copy_images(image_folder / "val", folder / "data" / "val", names)
    name_as_imagenet(folder / "data" / "val")
    copy_images(image_folder / "train", folder / "v2", {name: str(k) for k, name in enumerate(names)})
    copy_images(image_folder / "train", folder / "sketch" / "sketch", names)
    copy_images(image_folder / "train", folder / "a", {name: names[name] for name in ("ant", "bee")})
    copy_images(image_folder / "train", folder / "r", {name: names[name] for name in ("ant", "bee", "cow")})
    about = {
        "architecture": "test_resnet",
        "cfg": None,
        "model_args": {},
        "classes": list(names.values()),
        "img_size": 32,
        "preprocess": asdict(Preprocess()),
        "channels_last": True,
        "loader": "dali",
        "val_fingerprint": None,
        "precision": "fp32",
        "data_dir": None,
    }
    save_checkpoint(folder / "run" / "last", balanced_network(folder / "data" / "val").state_dict(), about)
    return Beside(folder / "run", folder)


@pytest.fixture(scope="module")
def sets(beside, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """What the JSON file says about each set."""
    file = tmp_path_factory.mktemp("json") / "figures.json"
    accelerate_state.reset()
    eval_script.main([*map(str, beside.words), "--json", str(file), "--device", "cpu", "--workers", "1"])
    return json.loads(file.read_text())["sets"]


def test_a_checkpoint_that_does_not_record_folding_is_evaluated_as_it_is(beside, monkeypatch):
    monkeypatch.setattr(evaluation_module, "fuse", None)
    accelerate_state.reset()
    words = ["--ckpt", str(beside.run), "--data-dir", str(beside.folder / "data"), "--device", "cpu", "--workers", "1"]
    assert eval_script.main(words).n > 0


def top1(logits: dict[str, np.ndarray], *, names: list[str]) -> float:
    """Per cent of images whose folder is the best of ``names``; nothing else competes."""
    outputs = [list(SYNSETS.values()).index(name) for name in names]
    hits = [names[row[outputs].argmax()] == image.split("/")[0] for image, row in logits.items()]
    return 100 * sum(hits) / len(hits)


def test_the_own_set_is_in_the_table_with_the_figures_it_has_alone(evaluate, beside, sets):
    alone = evaluate("--ckpt", beside.run, "--data-dir", beside.folder / "data")
    assert sets["val"] == {"classes": 4, **asdict(alone)}
    assert alone.top1 == pytest.approx(
        top1(beside.logits(beside.folder / "data" / "val"), names=list(SYNSETS.values()))
    )


@pytest.mark.parametrize(("name", "chosen"), [("sketch", (0, 1, 2, 3)), ("a", (0, 1)), ("r", (0, 1, 2))])
def test_the_classes_of_a_set_compete_among_themselves(beside, sets, name, chosen):
    names = [list(SYNSETS.values())[k] for k in chosen]
    logits = beside.logits(beside.folder / name / ("sketch" if name == "sketch" else ""))
    assert (sets[name]["classes"], sets[name]["n"]) == (len(names), 16 * len(names))
    assert sets[name]["top1"] == pytest.approx(top1(logits, names=names))
    assert (sets[name]["top1"] > top1(logits, names=list(SYNSETS.values()))) == (len(names) < 4)


def test_a_subset_has_the_loss_of_its_own_softmax(beside, sets):
    logits = torch.from_numpy(np.stack(list(beside.logits(beside.folder / "a").values())))[:, [0, 1]]
    labels = torch.arange(2).repeat_interleave(16)
    expected = torch.nn.functional.cross_entropy(logits.double(), labels).item()
    assert sets["a"]["loss"] == pytest.approx(expected, abs=1e-4)


def test_numbered_folders_give_the_figures_of_named_ones(sets):
    assert sets["v2"] == sets["sketch"]


def test_real_counts_an_image_as_right_for_any_of_its_labels(beside, sets):
    numbers = list(SYNSETS)
    hits = []
    for name, row in beside.logits(beside.folder / "data" / "val").items():
        labels = REAL[int(name[-13:-5]) - 1]
        hits += [numbers[row.argmax()] in labels] if labels else []
    expected = {"classes": 4, "n": 16, "top1": pytest.approx(100 * np.mean(hits)), "top5": 100.0, "loss": None}
    assert sets["real"] == expected
    assert sets["real"]["top1"] != sets["val"]["top1"]


def test_the_table_has_a_line_for_each_set(evaluate, beside, sets, capsys):
    evaluate(*beside.words)
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines[lines.index(next(line for line in lines if line.startswith("set "))) :]]
    assert [row[0] for row in table[1:]] == [
        "validation",
        "ImageNet-ReaL",
        "ImageNet-V2",
        "ImageNet-A",
        "ImageNet-R",
        "ImageNet-Sketch",
    ]
    assert [" ".join(row[1:-4]) for row in table[1:]] == ["4", "4", "4", "2 of 4", "3 of 4", "4"]
    assert [row[-4] for row in table[1:]] == ["20", "16", "64", "32", "48", "64"]
    assert table[2][-1] == "-"
    assert [float(cell) for cell in table[4][-3:]] == pytest.approx(
        [sets["a"][key] for key in ("top1", "top5", "loss")], abs=5e-4
    )


def test_the_shares_of_three_processes_add_up(beside, sets):
    index = scan_folder(beside.folder / "data" / "val")
    images, restored = real_set(index, index.classes), restore_model(str(beside.run))
    accelerator, judge = Accelerator(cpu=True), images.judge(torch.device("cpu"))
    shares = []
    for rank in (0, 1, 2):
        view: Any = {"img_size": 32, "preprocess": restored.preprocess, "batch_size": 4, "workers": 1}
        batches = EvalLoader(images.index, rank=rank, world_size=3, **view)
        size = len(range(rank, 16, 3))
        shares.append(evaluate_batches(accelerator, restored.model, batches, expected=size, judge=judge))
    assert sum(share.n * share.top1 for share in shares) / 16 == pytest.approx(sets["real"]["top1"])


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(beside, sets, tmp_path):
    launcher = ["-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu2.yaml", "eval.py"]
    words = [*beside.words, "--json", tmp_path / "two.json", "--device", "cpu", "--workers", "1", "--batch-size", "3"]
    root = Path(eval_script.__file__).parent
    command = [sys.executable, *launcher, *map(str, words)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two.json").read_text())["sets"] == sets


def test_a_set_that_is_not_counted_whole_is_refused(evaluate, beside, monkeypatch):
    everything = EvalLoader.__iter__

    def shortened(self):
        return list(everything(self))[: None if len(self.index) == 20 else -1].__iter__()

    monkeypatch.setattr(EvalLoader, "__iter__", shortened)
    with pytest.raises(UserError, match="evaluated 15 images, but the split has 16"):
        evaluate("--ckpt", beside.run, "--data-dir", beside.folder / "data", "--real", "--batch-size", 5)


def test_real_needs_classes_and_files_of_imagenet(evaluate, trained):
    with pytest.raises(UserError, match="--real needs"):
        evaluate("--ckpt", trained[0], "--real")


def test_a_set_of_other_classes_is_refused_before_anything_is_evaluated(evaluate, trained, beside, monkeypatch):
    monkeypatch.setattr(EvalLoader, "__iter__", lambda _: pytest.fail("it was evaluated"))
    with pytest.raises(UserError, match=f"--a .* has classes that the checkpoint lacks: {SYNSETS[230]}"):
        evaluate("--ckpt", trained[0], "--a", beside.folder / "a")


def test_what_is_overridden_is_said_next_to_what_was_trained(evaluate, trained, tmp_path, capsys):
    words = ["--protocol", "timm", "--interpolation", "bicubic", "--eval-size", "40", "--json", tmp_path / "f.json"]
    evaluate("--ckpt", trained[0], *words)
    used = "protocol    timm, img_size 40, crop_pct 0.9, interpolation bicubic"
    before = "(overridden; as trained: protocol darknet, img_size 32, interpolation bilinear)"
    assert f"{used} {before}\n" in capsys.readouterr().out
    figures = json.loads((tmp_path / "f.json").read_text())
    recorded = [figures[key] for key in ("protocol", "img_size", "crop_pct", "interpolation")]
    assert recorded == ["timm", 40, 0.9, "bicubic"]


@pytest.mark.parametrize(
    "words",
    [
        ["--eval-size", "40"],
        ["--protocol", "timm"],
        ["--protocol", "full", "--crop-pct", "1"],
        ["--crop-pct", "0.5"],
        ["--protocol", "timm", "--interpolation", "bicubic"],
    ],
)
def test_each_override_changes_what_the_network_sees(evaluate, trained, words):
    assert evaluate("--ckpt", trained[0], *words).loss != trained[1].loss


def test_an_override_with_the_trained_value_is_as_trained(evaluate, trained, capsys):
    assert evaluate("--ckpt", trained[0], "--protocol", "darknet", "--eval-size", 32, "--crop-pct", 0.9) == trained[1]
    assert "(as trained)" in capsys.readouterr().out


def test_bicubic_leads_a_darknet_checkpoint_to_timms_protocol(evaluate, trained):
    with pytest.raises(UserError, match="--interpolation='bicubic' needs --protocol=timm or full"):
        evaluate("--ckpt", trained[0], "--interpolation", "bicubic")


@pytest.mark.parametrize("size", [0, -32])
def test_a_size_without_pixels_is_refused(evaluate, trained, size):
    with pytest.raises(UserError, match=f"eval_size={size} must be positive"):
        evaluate("--ckpt", trained[0], "--eval-size", size)
