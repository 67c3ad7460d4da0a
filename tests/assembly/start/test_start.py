"""A run starts from weights once, tells which, and goes on without them."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

import backbones
from backbones.assembly.preflight import preflight
from backbones.assembly.preflight.trial import CHECKS
from backbones.assembly.run import build_model
from backbones.assembly.start import start as module
from backbones.assembly.start.start import initialize, record_start
from backbones.darknet.weights import save_weights
from backbones.dataset.digits import write_digits
from backbones.errors import UserError
from backbones.recipe import Recipe
from backbones.training.checkpoint import load_state, read_description
from tests.tiny_runs import TINY, equal_weights
from train_imagenet import main, read_recipe

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
CLASSES = ("ant", "bee", "cow", "dog")


@pytest.fixture
def file(tmp_path) -> Path:
    """Weights of another network of the same kind, with 7 classes."""
    torch.manual_seed(9)
    network = backbones.create_model("test_resnet", num_classes=7)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def recipe_of(file: Path, **options) -> Recipe:
    return record_start(Recipe(model="test_resnet", init_weights=str(file), **options))


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last" / "model.safetensors")


def test_everything_but_the_classifier_comes_from_the_file_and_that_from_the_seed(file):
    recipe = recipe_of(file)
    random = build_model(recipe, 4)
    state = torch.random.get_rng_state()
    network = build_model(recipe, 4)
    lines = initialize(network, recipe, CLASSES)
    given, drawn = load_file(file), random.state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, drawn[name] if name.startswith("fc.") else given[name]), name
    assert torch.equal(torch.random.get_rng_state(), state)
    assert lines[0] == f"{len(given) - 2} tensors from {file}, sha256 {recipe.init_sha256[:12]}"
    assert lines[1] == "the classifier is made anew: it has 7 classes, the data set has 4"


def test_the_recipe_gets_the_sha256_of_the_file(file):
    assert recipe_of(file).init_sha256 == sha256(file.read_bytes()).hexdigest()


def test_a_run_from_random_weights_has_none(file):
    assert record_start(Recipe()) == Recipe()
    network = build_model(Recipe(model="test_resnet"), 4)
    assert initialize(network, Recipe(model="test_resnet"), CLASSES) == []


def test_a_file_that_has_changed_is_refused(file):
    recipe = recipe_of(file)
    weights = load_file(file)
    save_file({name: value + 1 for name, value in weights.items()}, file)
    with pytest.raises(UserError, match=r"has changed: its sha256 is \w{12}, that of the recipe .*\n.*--init-sha256"):
        record_start(recipe)
    with pytest.raises(UserError, match="has changed"):
        initialize(build_model(recipe, 4), recipe, CLASSES)


def test_processes_with_different_files_are_refused(file, monkeypatch):
    monkeypatch.setattr(module, "gather_object", lambda own: [*own, "f" * 64])
    with pytest.raises(
        UserError, match=r"is not the same for all processes. sha256: process 0 \w{12}, process 1 f{12}"
    ):
        recipe_of(file)


def test_a_file_that_another_process_cannot_read_is_an_error_of_all(file, monkeypatch):
    monkeypatch.setattr(module, "gather_object", lambda own: [*own, UserError("there is no b.pth")])
    with pytest.raises(UserError, match=r"there is no b.pth"):
        recipe_of(file)


def test_weights_of_another_network_are_listed_and_taken_in_part_if_asked(file):
    weights = load_file(file)
    given = weights.pop("conv1.0.weight")
    save_file(weights | {"stem.weight": given}, file)
    recipe = recipe_of(file)
    with pytest.raises(UserError) as caught:
        initialize(build_model(recipe, 4), recipe, CLASSES)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{file} does not fit test_resnet."
    assert set(lines[1:3]) == {"1 missing: conv1.0.weight", "1 left over: stem.weight"}
    assert lines[3] == f"--init-partial takes the {len(weights) - 2} tensors that fit."
    partial = replace(recipe, init_partial=True)
    network = build_model(partial, 4)
    lines = initialize(network, partial, CLASSES)
    assert torch.equal(network.conv1[3].weight, weights["conv1.3.weight"])
    assert lines[-1].splitlines()[0] == "2 tensors do not fit:"
    assert [line.split()[:3] for line in lines[-1].splitlines()[2:]] == [
        ["missing", "conv1.0.weight", str(list(given.shape)).split()[0]],
        ["left", "over", "stem.weight"],
    ]


def test_weights_of_which_nothing_fits_are_refused_in_any_case(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    recipe = recipe_of(tmp_path / "a.safetensors", init_partial=True)
    with pytest.raises(UserError, match="No tensor fits"):
        initialize(build_model(recipe, 4), recipe, CLASSES)


def test_a_run_starts_from_weights_once_and_goes_on_without_them(train, folder, file, tmp_path, capsys):
    """At a rate of next to nothing the weights after a step are those of the file."""
    words = ["--lr", "1e-12", "--model-ema", "--ema.decay", "0", "--init-weights", str(file)]
    train("--epochs", "1", *words)
    given, digest = load_file(file), sha256(file.read_bytes()).hexdigest()
    for name in ("model", "ema"):
        saved = load_file(folder / "last" / f"{name}.safetensors")
        assert torch.allclose(saved["layer1.0.conv1.weight"], given["layer1.0.conv1.weight"], atol=1e-6)
    assert "start       the classifier is made anew: it has 7 classes" in capsys.readouterr().out
    written = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert (written["init_weights"], written["init_sha256"]) == (str(file), digest)
    start = {"init_weights": str(file), "pretrained": False, "init_sha256": digest}
    assert (read_description(folder / "best" / "model.safetensors") or {})["init"] == start
    assert load_state(folder / "last")["recipe"]["init_sha256"] == digest
    file.unlink()
    main(["--resume", str(folder), "--epochs", "2"])
    assert "start  " not in capsys.readouterr().out
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["init_sha256"] == digest
    main(["--resume", "auto", "--output", str(folder), "--epochs", "3", "--init-weights", str(file)])
    assert load_state(folder / "last")["recipe"]["init_sha256"] == digest
    with pytest.raises(UserError, match=r"--resume: the checkpoint was made with init_weights='.*', not 'b.pth'"):
        main(["--resume", "auto", "--output", str(folder), "--epochs", "4", "--init-weights", "b.pth"])
    with pytest.raises(UserError, match="goes on with the weights of that run"):
        main(["--resume", str(folder), "--epochs", "4", "--init-weights", "b.pth"])


def test_a_repeated_run_notices_other_weights(train, folder, file, tmp_path):
    train("--epochs", "1", "--init-weights", str(file))
    main(["--config", str(folder / "recipe.yaml"), "--output", str(tmp_path / "again")])
    assert equal_weights(folder, tmp_path / "again")
    save_file({name: value * 2 for name, value in load_file(file).items()}, file)
    with pytest.raises(UserError, match="has changed"):
        main(["--config", str(folder / "recipe.yaml"), "--output", str(tmp_path / "third")])
    assert not (tmp_path / "third").exists()
    words = ["--config", str(folder / "recipe.yaml"), "--init-weights", str(file)]
    assert read_recipe(words).init_sha256 is None


def test_weights_that_do_not_fit_leave_no_folder(train, folder, tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="does not fit test_resnet"):
        train("--init-weights", str(tmp_path / "a.safetensors"))
    assert not folder.exists()


def test_a_run_starts_from_published_weights(train, folder, monkeypatch, capsys):
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    calls = []
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: calls.append(1) or dict(state))
    train("--epochs", "1", "--lr", "1e-12", "--pretrained")
    assert torch.allclose(state_of(folder)["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"], atol=1e-6)
    out = capsys.readouterr().out
    assert "tensors from timm's weights of test_resnet" in out
    assert "trained with --mean [0.5, 0.5, 0.5] --std [0.5, 0.5, 0.5], this run has [0.0, 0.0, 0.0]" in out
    calls.clear()
    main(["--resume", str(folder), "--epochs", "2"])
    assert not calls


def test_pretrained_in_the_arguments_of_the_network_still_loads_and_is_not_asked_for_again(train, folder, monkeypatch):
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    calls = []
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: calls.append(1) or dict(state))
    train("--epochs", "1", "--lr", "1e-12", "--model-args", "{pretrained: true}")
    assert torch.allclose(state_of(folder)["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"], atol=1e-6)
    calls.clear()
    main(["--resume", str(folder), "--epochs", "2"])
    assert not calls


@pytest.mark.slow
def test_a_dry_run_tries_the_weights_also_in_the_run_that_it_kills(train, file, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "CHECKS", {name: CHECKS[name] for name in ("start", "resume")})
    assert train("--dry-run", "--loader", "reference", "--init-weights", str(file)) is None
    out = capsys.readouterr().out
    assert "PASS  start" in out
    assert "FAIL" not in out


def test_a_dry_run_tells_what_becomes_of_the_weights(train, file, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "CHECKS", {"start": CHECKS["start"]})
    with pytest.raises(UserError, match="the dry run failed in disk;"):  # no run tells the disk its size
        train("--dry-run", "--loader", "reference", "--init-weights", str(file))
    assert "PASS  start          the classifier is made anew" in capsys.readouterr().out


def test_a_dry_run_of_a_run_that_goes_on_needs_no_weights_any_more(train, folder, file, monkeypatch, capsys):
    train("--epochs", "1", "--init-weights", str(file))
    file.unlink()
    monkeypatch.setattr(preflight, "CHECKS", {name: CHECKS[name] for name in ("start", "learning")})
    with pytest.raises(UserError, match="the dry run failed in disk;"):  # no run tells the disk its size
        main(["--resume", str(folder), "--epochs", "2", "--dry-run"])
    assert "PASS  learning" in capsys.readouterr().out


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    return Path(write_digits(tmp_path_factory.mktemp("data") / "digits"))


def test_darknets_weights_are_fine_tuned_to_ten_classes(digits, tmp_path, capsys):
    """The documented command, with a network of one block in each stage."""
    options = "{depths: [1, 1, 1, 1, 1]}"
    torch.manual_seed(5)
    other = backbones.create_model("csdarknet53", num_classes=1000, depths=[1] * 5)
    save_weights(other, tmp_path / "csdarknet53.weights")
    words = ["--model", "csdarknet53", "--model-args", options, "--init-weights", str(tmp_path / "csdarknet53.weights")]
    words += ["--data-dir", str(digits), "--output", str(tmp_path / "run"), "--epochs", "null", "--steps", "2"]
    main([*TINY, *words, "--lr", "1e-12", "--loader", "reference"])
    saved = state_of(tmp_path / "run")
    name = "stages.0.downsample.conv.weight"
    assert torch.allclose(saved[name], other.state_dict()[name], atol=1e-6)
    assert saved["head.fc.weight"].shape == (10, 1024)
    assert "the classifier is made anew: it has 1000 classes, the data set has 10" in capsys.readouterr().out
