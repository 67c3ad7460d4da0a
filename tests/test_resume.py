"""A run goes on as the same run, or is refused: --resume from the command line to the run folder."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import train_imagenet
from backbones.command_line import parse
from backbones.errors import UserError
from backbones.recipe import Loading, Recipe
from backbones.training import snapshot
from backbones.training.checkpoint import load_state
from backbones.training.resume import FREE
from backbones.training.run_files import MODEL
from tests.tiny_runs import TINY, copy_of, equal_weights
from train_imagenet import main

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def rewrite_state(folder: Path, changes: dict) -> None:
    """Change the state of a checkpoint as version 0.1 would have written it: without a manifest."""
    state = load_state(folder / "last") | changes
    state.pop("schema")
    torch.save(state, folder / "last" / "state.pt")
    (folder / "last" / "manifest.json").unlink()


@pytest.mark.parametrize("validated", [False, True])
def test_a_resumed_run_ends_where_the_straight_one_does(train, folder, tmp_path, validated):
    """The same run, killed when its first epoch was saved: before its validation, and after."""
    straight = tmp_path / "straight"
    train("--model-ema", "--model-args", "{drop_rate: 0.2}", output=straight)
    cut_after_first_epoch(train, validated=validated)
    assert load_state(folder / "last")["step"] == 4
    main(["--resume", str(folder)])
    assert equal_weights(straight, folder)
    assert logged(folder) == logged(straight)
    assert (folder / "summary.csv").read_text() == (straight / "summary.csv").read_text()


def logged(folder: Path) -> list[dict]:
    """The rows of metrics.jsonl without the speed."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("perf/")} for row in rows]


def cut_after_first_epoch(train, *, validated: bool) -> None:
    """Train the same run, stopped by an error as soon as a checkpoint of its first epoch is written."""

    class StoppedError(Exception):
        pass

    original = snapshot.Snapshots.write_last

    def save_and_stop(self, run, evaluations, *, owes_validation):
        original(self, run, evaluations, owes_validation=owes_validation)
        if bool(evaluations) is validated:
            raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot.Snapshots, "write_last", save_and_stop)
        with pytest.raises(StoppedError):
            train("--model-ema", "--model-args", "{drop_rate: 0.2}")


def test_resume_takes_the_recipe_of_the_run_and_says_what_changed(train, folder, capsys):
    train("--lr", "0.03")
    main(["--resume", str(folder), "--epochs", "3"])
    shown = capsys.readouterr().out
    assert "changed     epochs: 2 -> 3" in shown
    assert "lr 0.03 after" in shown
    assert load_state(folder / "last")["step"] == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "test_vit"], "--resume: the checkpoint was made with model='test_resnet', not 'test_vit'"),
        (["--seed", "1"], "--resume: the checkpoint was made with seed=0, not 1"),
        (["--batch-size", "8"], "--resume: the checkpoint was made with batch_size=16, not 8"),
        (["--model-args", "{drop_rate: 0.5}"], r"--resume: the checkpoint was made with model_args.drop_rate=None"),
        (
            ["--fusion-update", "darknet"],
            r"--resume: the checkpoint was made with optim.fusion_update='sgd', not 'dark",
        ),
    ],
)
def test_a_run_cannot_become_another_run(train, folder, words, message):
    train()
    before = (folder / "metrics.jsonl").read_text()
    with pytest.raises(UserError, match=message):
        main(["--resume", str(folder), "--epochs", "3", *words])
    assert (folder / "metrics.jsonl").read_text() == before


def test_a_run_cannot_go_on_with_other_images(train, folder, image_folder, tmp_path):
    train()
    other = copy_of(image_folder, tmp_path)
    (other / "train" / "ant" / "000.jpg").rename(other / "train" / "ant" / "zzz.jpg")
    with pytest.raises(UserError, match=r"the training images .* are not those of the checkpoint"):
        main(["--resume", str(folder), "--epochs", "3", "--data-dir", str(other)])


def test_a_run_can_go_on_where_the_same_images_were_moved_to(train, folder, image_folder, tmp_path):
    train()
    main(["--resume", str(folder), "--epochs", "3", "--data-dir", str(copy_of(image_folder, tmp_path))])
    assert load_state(folder / "last")["step"] == 12


def test_a_finished_run_says_how_to_go_on_and_keeps_its_recipe(train, folder):
    train()
    before = (folder / "recipe.yaml").read_text()
    with pytest.raises(UserError, match="already has all its 4 steps: raise --epochs"):
        main(["--resume", str(folder), "--epochs", "1", "--lr", "0.9"])
    assert (folder / "recipe.yaml").read_text() == before


def test_a_run_with_wandb_goes_on_as_the_same_wandb_run(train, folder, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    words = ["--log-wandb", "--wandb-mode", "offline"]
    train(*words, "--epochs", "1")
    main(["--resume", str(folder), "--epochs", "2"])
    ids = {path.name.rpartition("-")[2] for path in folder.glob("wandb/offline-run-*")}
    assert ids == {load_state(folder / "last")["wandb_id"]}


def test_a_fork_finds_its_own_best(train, folder, tmp_path):
    train()
    main(["--resume", str(folder), "--output", str(tmp_path / "fork"), "--epochs", "3"])
    assert (tmp_path / "fork" / "best" / MODEL).is_file()


def test_a_change_of_surroundings_is_said(train, folder, image_folder, tmp_path, capsys):
    train()
    others = {"processes": 8, "hardware": "CPU (threads: 96)"}
    rewrite_state(folder, {"surroundings": load_state(folder / "last")["surroundings"] | others})
    data = copy_of(image_folder, tmp_path)
    (data / "val" / "ant" / "000.jpg").unlink()
    main(["--resume", str(folder), "--epochs", "3", "--data-dir", str(data)])
    shown = capsys.readouterr().out
    assert "changed     processes: 8 -> 1" in shown
    assert f"changed     hardware: 'CPU (threads: 96)' -> 'CPU (threads: {torch.get_num_threads()})'" in shown
    assert "changed     validation images:" in shown
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if "event" in line]
    assert [(row["event"], row["step"]) for row in events] == [("changed", 8)]
    assert "processes: 8 -> 1" in events[0]["text"]


def test_a_surrounding_that_an_earlier_version_did_not_record_is_no_change(train, folder, capsys):
    train()
    surroundings = load_state(folder / "last")["surroundings"]
    rewrite_state(folder, {"surroundings": {key: surroundings[key] for key in ("processes", "torch")}})
    main(["--resume", str(folder), "--epochs", "3"])
    assert "hardware" not in capsys.readouterr().out


def test_a_summary_cut_off_by_a_kill_does_not_stop_a_resume(train, folder):
    train()
    with (folder / "summary.csv").open("a") as file:
        file.write("3")
    main(["--resume", str(folder), "--epochs", "3"])
    assert (folder / "summary.csv").read_text().count("\n") == 4


def test_a_checkpoint_of_another_architecture_is_refused(train, folder, tmp_path):
    """Even where the recorded option was edited to agree."""
    train()
    recipe = parse(Recipe, [], config=folder / "recipe.yaml").to_dict() | {"model": "test_vit"}
    rewrite_state(folder, {"recipe": recipe})
    with pytest.raises(UserError, match="holds another architecture than test_vit"):
        main(["--resume", str(folder), "--epochs", "3", "--model", "test_vit", "--img-size", "160"])


def test_the_options_of_the_loader_may_change_without_a_word():
    """All but what a bad image does."""
    theirs = {f"loading.{field.name}" for field in fields(Loading)}
    assert theirs - set(FREE) == {"loading.bad_images", "loading.bad_images_limit"}


def test_options_that_a_checkpoint_does_not_know_had_their_defaults(train, folder, capsys):
    train()
    recipe = load_state(folder / "last")["recipe"]
    recipe.pop("deterministic")
    recipe["loading"].pop("bad_images_limit")
    rewrite_state(folder, {"recipe": recipe})
    main(["--resume", str(folder), "--epochs", "3", "--bad-images", "skip", "--bad-images-limit", "0.5"])
    changed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("changed")]
    assert changed == [
        "changed     epochs: 2 -> 3",
        "changed     loading.bad_images: 'stop' -> 'skip'",
        "changed     loading.bad_images_limit: 0.0001 -> 0.5",
    ]


def test_a_run_from_before_the_monitors_goes_on_with_them_without_a_word(train, folder, capsys):
    train()
    recipe = load_state(folder / "last")["recipe"]
    recipe.pop("health")
    rewrite_state(folder, {"recipe": recipe})
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.partition("health:")[0] + "log:" + text.partition("\nlog:")[2])
    main(["--resume", str(folder), "--epochs", "3", "--fusion-interval", "7"])
    changed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("changed")]
    assert changed == ["changed     epochs: 2 -> 3"]


def test_a_resumed_run_has_its_recipe_below_the_command_line(tmp_path, monkeypatch):
    file = tmp_path / "recipe.yaml"
    file.write_text("epochs: 8\nlr: 0.3\naugment: {augmentation: inception}")
    monkeypatch.setattr(train_imagenet, "recipe_of", lambda _: file)
    recipe = train_imagenet.read_recipe(["--resume", "RUN", "--steps", "60", "--erasing", "0.2"])
    assert (recipe.epochs, recipe.steps, recipe.lr) == (None, 60, 0.3)
    assert recipe.augment.inception.erasing == 0.2


def test_resume_auto_begins_a_run_and_goes_on_with_it(train, folder):
    """One command for a scheduler. A damaged checkpoint is skipped and named, and never a reason to begin anew."""
    train("--resume", "auto", "--epochs", "1")
    train("--resume", "auto", "--epochs", "2")
    assert load_state(folder / "last")["step"] == 8
    (folder / "last" / "state.pt").write_bytes(b"")
    train("--resume", "auto", "--epochs", "3")
    assert load_state(folder / "last")["step"] == 12


@pytest.mark.parametrize("lost", ["model.safetensors", "manifest.json"])
def test_resume_auto_names_what_it_skips(train, folder, capsys, lost):
    train("--epochs", "2")
    (folder / "last" / lost).unlink()
    train("--resume", "auto", "--epochs", "3")
    assert f"skipped     {folder}/last is damaged: {lost} is missing" in capsys.readouterr().out
    assert load_state(folder / "last")["step"] == 12


def test_resume_auto_needs_a_folder(image_folder):
    with pytest.raises(UserError, match="--resume auto needs --output RUN"):
        main([*TINY, "--data-dir", str(image_folder), "--resume", "auto"])


def test_an_explicit_checkpoint_that_is_damaged_is_refused(train, folder):
    train()
    (folder / "last" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"last is damaged: model.safetensors has 0 bytes instead of"):
        main(["--resume", str(folder), "--epochs", "3"])
