"""The entry script from the command line to the run folder: what it writes, what it refuses."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from backbones.assembly import run as assembly
from backbones.assembly.checkpoint import restore_model
from backbones.errors import UserError
from backbones.layers import WeightedShortcut
from backbones.training.checkpoint import EMA, load_state, read_description
from backbones.training.run_files import MODEL
from tests.tiny_runs import TINY, copy_of, equal_weights
from train_imagenet import main

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
LAST_FILES = ("model.safetensors", "state.pt")


def test_a_run_leaves_recipe_metrics_summary_and_two_checkpoints(train, folder, capsys):
    evaluation = train()
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        ".lock", "recipe.yaml", "metrics.jsonl", "summary.csv", "status.json", "heartbeat.json",
        "best/model.safetensors", "best/manifest.json", "best/config.json",
        *(f"{last}/{file}" for last in ("last", "last-1") for file in (*LAST_FILES, "manifest.json", "config.json")),
    }  # fmt: skip
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 4, 6, 8, 8]
    assert rows[-1]["val/top1"] == evaluation.top1
    assert evaluation.n == 20
    shown = capsys.readouterr().out
    assert f"run folder  {folder}" in shown
    assert f"result      {evaluation}" in shown
    assert f"--resume {folder} --epochs 4" in shown


def test_the_checkpoint_describes_itself(train, folder, image_folder):
    train("--model-args", "{drop_rate: 0.1}", "--crop-pct", "0.9")
    about = read_description(folder / "last" / MODEL)
    assert about is not None
    assert about["architecture"] == "test_resnet"
    assert about["model_args"] == {"drop_rate": 0.1}
    assert about["classes"] == ["ant", "bee", "cow", "dog"]
    assert (about["img_size"], about["preprocess"]["crop_pct"], about["precision"]) == (32, 0.9, "fp32")
    assert about["data_dir"] == str(image_folder)
    assert about["step"] == 8


def test_the_written_recipe_repeats_the_run_bit_for_bit(train, folder, tmp_path):
    train("--mixing.prob", "0.7", "--lr", "0.03")
    again = tmp_path / "again"
    main(["--config", str(folder / "recipe.yaml"), "--output", str(again)])
    assert equal_weights(folder, again)
    written = [yaml.safe_load((path / "recipe.yaml").read_text()) for path in (folder, again)]
    assert written[0] == written[1]


def test_the_recipe_is_written_with_everything_decided(train, folder):
    train()
    written = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert (written["precision"], written["epochs"], written["optim"]["burn_in"]) == ("fp32", 2, 0)


def test_a_bad_image_leaves_a_folder_that_can_be_used_again(train, folder, image_folder, tmp_path):
    data = copy_of(image_folder, tmp_path)
    (data / "train" / "ant" / "003.jpg").write_bytes(b"<html>")
    for _ in range(2):
        with pytest.raises(UserError, match=r"train/ant/003.jpg"):
            train(data=data)
    assert not (folder / "last").exists()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(train, tmp_path):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        train("--seed", seed, "--epochs", "1", output=tmp_path / name)
    assert equal_weights(tmp_path / "a", tmp_path / "b")
    assert not equal_weights(tmp_path / "a", tmp_path / "c")


def test_dali_and_the_reference_loader_train_alike(train, tmp_path):
    """The pixels differ by less than a grey level, so the losses of the first steps nearly agree."""
    losses = {}
    for loader in ("dali", "reference"):
        words = ("--augmentation", "inception", "--loader", loader, "--epochs", "1", "--lr", "1e-4")
        train(*words, output=tmp_path / loader)
        row = json.loads((tmp_path / loader / "metrics.jsonl").read_text().splitlines()[0])
        losses[loader] = row["train/loss"]
    assert losses["dali"] == pytest.approx(losses["reference"], abs=2e-3)
    assert losses["dali"] != losses["reference"]


def test_synthetic_images_need_no_data_set(folder):
    size = ["--synthetic.classes", "3", "--train-per-class", "16", "--val-per-class", "4"]
    evaluation = main([*TINY, "--loader", "synthetic", *size, "--output", str(folder)])
    assert evaluation.n == 12


@pytest.mark.parametrize("words", [["--no-channels-last"], ["--clip-grad", "1"], ["--no-mosaic", "--no-cutmix"]])
def test_options_of_the_loop_run(train, words):
    assert train(*words, "--epochs", "1").n == 20


def test_darknets_rules_train_a_backbone_called_by_its_name_in_the_thread(train, folder):
    small = "{depths: [1, 1, 1, 1, 1], fusion_gradient: darknet, drop_block_size: 2}"
    words = ["--fusion-update", "darknet", "--burnin-update", "1", "--epochs", "1"]
    train("--model", "csdarknet53-omega-mi-db", "--model-args", small, *words)
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["model"] == "csdarknet53_omega_mi_db"
    assert read_description(folder / "last" / "model.safetensors")["architecture"] == "csdarknet53_omega_mi_db"
    restored = restore_model(str(folder), model="csdarknet53-mi-db")
    (fusion,) = [m for m in restored.model.stages[-1].modules() if isinstance(m, WeightedShortcut)]
    drop = restored.model.stages[-1].drop
    assert (fusion.fusion_gradient, drop.block_size) == ("darknet", 2)
    assert 0 < (fusion.weight - 1).abs().max().item() <= 4 * 0.1 / 16


def test_the_trainer_tells_drop_block_how_far_it_is(train):
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "follow_progress", lambda _model: seen.append)
        train("--epochs", "1")
    assert seen == [0, 0.25, 0.5, 0.75]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_learns_in_each_precision_and_says_which(folder, precision):
    size = ["--synthetic.classes", "4", "--train-per-class", "64", "--val-per-class", "8"]
    words = ["--device", "auto", "--precision", precision, "--loader", "synthetic", "--epochs", "4", "--model-ema"]
    evaluation = main([*TINY, *size, *words, "--output", str(folder)])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < losses[0]
    assert evaluation.n == 32
    assert (read_description(folder / "last" / MODEL) or {})["precision"] == precision


@pytest.mark.slow
def test_a_run_may_change_between_compiled_and_eager(train, tmp_path, graphs):
    """It ends with the weights of the same run that is never compiled, under the same names."""
    for name, choices in (("eager", [False, False, False]), ("mixed", [True, False, True])):
        for epochs, compiled in enumerate(choices, start=1):
            torch._dynamo.reset()
            before = graphs()
            begin = ["--resume", str(tmp_path / name)] if epochs > 1 else []
            words = ["--torchcompile" if compiled else "--no-torchcompile", "--epochs", str(epochs), "--model-ema"]
            train(*begin, *words, output=tmp_path / name)
            assert graphs() - before == (2 if compiled else 0)
    for file in (MODEL, EMA):
        eager, mixed = (load_file(tmp_path / name / "last" / file) for name in ("eager", "mixed"))
        torch.testing.assert_close(mixed, eager, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_resumed_compiled_run_ends_where_the_straight_one_does(train, tmp_path, graphs):
    """To the bit, together with checkpointing, accumulation, bf16, dropout, an average and deterministic operations."""
    small = "{depths: [1, 1, 1, 1], drop_rate: 0.2}"
    words = ["--model", "csresnext50_ws_mi2", "--model-args", small, "--grad-checkpointing", "--grad-accum-steps", "2"]
    words += ["--precision", "bf16", "--model-ema", "--deterministic", "--torchcompile", "--steps", "4"]
    try:
        train(*words, "--epochs", "null", "--ckpt-every", "2", output=tmp_path / "straight")
        assert graphs() == 3
        shutil.copytree(tmp_path / "straight" / "last-1", tmp_path / "cut" / "last")
        shutil.copy(tmp_path / "straight" / "recipe.yaml", tmp_path / "cut")
        assert load_state(tmp_path / "cut" / "last")["step"] == 2
        main(["--resume", str(tmp_path / "cut"), "--output", str(tmp_path / "resumed")])
    finally:
        torch.use_deterministic_algorithms(mode=False)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    assert equal_weights(tmp_path / "straight", tmp_path / "resumed")


def test_without_a_compiler_nothing_begins(train, folder, monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"--torchcompile: there is no C\+\+ compiler \S+, .* Install g\+\+"):
        train("--torchcompile")
    assert not folder.exists()


@pytest.mark.slow
def test_a_compiled_network_trains_to_the_same_figures_and_saves_plain_names(train, tmp_path):
    losses = {}
    for name, words in (("plain", []), ("compiled", ["--torchcompile"])):
        train(*words, "--model-ema", output=tmp_path / name)
        losses[name] = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])["train/loss"]
    assert losses["compiled"] == pytest.approx(losses["plain"], rel=1e-3)
    plain, compiled = (load_file(tmp_path / name / "last" / MODEL) for name in losses)
    assert plain.keys() == compiled.keys()


def test_accumulation_starts_from_the_same_images_and_network(train, tmp_path):
    """Before the first update, at a rate of next to nothing, only BatchNorm's batch differs."""
    losses = {}
    for steps in ("1", "2"):
        train("--grad-accum-steps", steps, "--lr", "1e-9", "--epochs", "1", output=tmp_path / steps)
        rows = (tmp_path / steps / "metrics.jsonl").read_text().splitlines()
        losses[steps] = json.loads(rows[0])["train/loss"]
    assert losses["2"] == pytest.approx(losses["1"], rel=0.05)
    assert load_state(tmp_path / "2" / "last")["step"] == 4


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(train, tmp_path):
    words = ["--model", "csresnext50_ws_mi2", "--epochs", "null", "--steps", "2"]
    for name, more in (("plain", []), ("recomputed", ["--grad-checkpointing"])):
        train(*words, *more, output=tmp_path / name)
    assert equal_weights(tmp_path / "plain", tmp_path / "recomputed")


# Bad input: the culprit and the remedy in one message, and nothing written.


def remove(path: str):
    return lambda data: shutil.rmtree(data / path)


def empty(path: str):
    return lambda data: [file.unlink() for file in (data / path).iterdir()]


def spoil(path: str, content: bytes):
    return lambda data: (data / path).write_bytes(content)


def cut(path: str):
    return lambda data: (data / path).write_bytes((data / path).read_bytes()[:-200])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("."), "data is not a folder"),
        (remove("val"), "has no folder 'val'"),
        (remove("train"), "has no folder 'train'"),
        (remove("val/bee"), "bee"),
        (remove("train/cow"), "cow"),
        (empty("train/dog"), "dog"),
        (spoil("train/ant/003.jpg", b"<html>"), "train/ant/003.jpg"),
        (spoil("train/ant/003.jpg", b""), "train/ant/003.jpg"),
        (cut("train/bee/005.jpg"), "train/bee/005.jpg"),
        (cut("val/bee/001.jpg"), "val/bee/001.jpg"),
    ],
    ids=["no-data", "no-val", "no-train", "class-not-in-val", "class-not-in-train", "empty-class", "html", "zero",
         "truncated", "truncated-val"],
)  # fmt: skip
def test_a_broken_data_set_is_named(train, image_folder, tmp_path, damage, message):
    data = copy_of(image_folder, tmp_path)
    damage(data)
    with pytest.raises(UserError, match=message):
        train("--epochs", "1", data=data)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-size", "65"], r"batch_size=65 is larger than the data set of 64 images"),
        (["--batch-size", "10", "--grad-accum-steps", "3"], "batch_size=10 must be a multiple of 3"),
        (["--model", "csresnext50_ws_mi3"], "unknown model 'csresnext50_ws_mi3'. Did you mean csresnext50_ws_mi2"),
        (["--model-args", "{dropp: 1}"], "test_resnet cannot be built with --model-args {'dropp': 1}: .*'dropp'"),
        (["--model", "csresnext50", "--model-args", "{act: mishh}"], "cannot be built .*mish"),
        (["--burn-in", "8"], "optim.burn_in=8 must be smaller than the run's 8 steps"),
        (["--resume", "no/such/run"], "there is no no/such/run"),
        (["--resume", ""], "resume='' must not be empty"),
        (["--model", "cspresnet50", "--grad-checkpointing"], "cannot be built .*gradient checkpointing"),
        (["--steps", "5"], "epochs=2 and steps=5 both say"),
    ],
)
def test_a_bad_option_is_named_and_nothing_is_written(train, folder, words, message):
    with pytest.raises(UserError, match=message):
        train(*words)
    assert not folder.exists()


def test_without_a_data_folder_the_option_is_named(folder):
    with pytest.raises(UserError, match="--data-dir is missing"):
        main([*TINY, "--output", str(folder)])


def test_a_folder_in_use_is_not_touched(train, folder):
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"--output .*run is already in use. Go on with that run by --resume"):
        train()
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


CFG = """[net]
height=32
width=32
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=mish
[avgpool]
[convolutional]
filters=4
activation=linear
[softmax]
"""


def test_a_checkpoint_of_a_cfg_holds_its_network(train, folder, tmp_path):
    """Whatever becomes of the file, the checkpoint stays what it was; and a run does not go on as another network."""
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(CFG)
    train("--model", str(cfg))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = restore_model(str(folder)).model.eval()(images)
        cfg.write_text(CFG.replace("mish", "leaky"))
        assert torch.equal(restore_model(str(folder)).model.eval()(images), before)
    with pytest.raises(UserError, match="is not the network any more"):
        main(["--resume", str(folder), "--epochs", "3"])


@pytest.mark.parametrize("length", [["--epochs", "2"], ["--steps", "8"]])
def test_a_burn_in_of_a_file_gives_way_to_a_shorter_run_of_the_command_line(image_folder, folder, tmp_path, length):
    file = tmp_path / "long.yaml"
    file.write_text("steps: 1200000\noptim:\n  burn_in: 1000\n")
    epochs = TINY.index("--epochs")
    words = [*TINY[:epochs], *TINY[epochs + 2 :]]
    main([*words, "--config", str(file), *length, "--data-dir", str(image_folder), "--output", str(folder)])
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["optim"]["burn_in"] == 0


def test_a_name_that_is_too_long_for_a_folder_is_one_line(train, tmp_path):
    with pytest.raises(UserError, match=r"--output \S+: File name too long\.$"):
        train(output=tmp_path / ("a" * 300))
