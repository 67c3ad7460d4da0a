"""A run writes into its own folder, never into another's."""

import pytest
import torch
from accelerate import Accelerator

from backbones.command_line import parse
from backbones.errors import UserError
from backbones.recipe import Recipe
from backbones.training.checkpoint import save_checkpoint
from backbones.training.run_files import recipe_of
from backbones.training.run_folder import choose_run_folder, claim

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def choose(**fields):
    return choose_run_folder(Recipe(**{key: str(value) for key, value in fields.items()}), Accelerator(cpu=True))


@pytest.fixture
def old_run(tmp_path):
    folder = tmp_path / "old"
    with claim(folder, Recipe(lr=0.5)):
        pass
    save_checkpoint(folder / "last", {"w": torch.zeros(1)}, {}, state={"step": 1})
    return folder


def test_a_new_folder_is_chosen_but_not_made(tmp_path):
    assert choose(output=tmp_path / "new") == tmp_path / "new"
    assert not (tmp_path / "new").exists()


def test_an_empty_folder_may_be_used(tmp_path):
    assert choose(output=tmp_path) == tmp_path


def test_without_a_name_the_folder_is_called_after_time_and_model():
    assert choose(model="resnet18").match("runs/[0-9]*-[0-9]*-resnet18")


def test_a_folder_in_use_is_refused(old_run):
    with pytest.raises(UserError, match=f"{old_run} is already in use.*--resume {old_run}.*nothing was overwritten"):
        choose(output=old_run)


def test_a_run_that_never_reached_a_checkpoint_frees_its_folder(tmp_path):
    with claim(tmp_path / "run", Recipe()):
        (tmp_path / "run" / "metrics.jsonl").write_text("{}")
    assert choose(output=tmp_path / "run") == tmp_path / "run"
    with claim(tmp_path / "run", Recipe()):
        assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_what_wandb_and_pictures_leave_does_not_hold_the_folder_of_such_a_run(tmp_path):
    with claim(tmp_path / "run", Recipe()):
        for name in ("wandb", "pictures"):
            (tmp_path / "run" / name).mkdir()
        for name in (".wandb.lock", "wandb-online.json", "wandb-offline.json"):
            (tmp_path / "run" / name).touch()
    assert choose(output=tmp_path / "run") == tmp_path / "run"
    with claim(tmp_path / "run", Recipe()):
        assert not list((tmp_path / "run").glob("wandb-*.json"))


def test_a_folder_has_one_owner_at_a_time(old_run):
    recipe = Recipe(resume=str(old_run))
    with (
        claim(old_run, recipe),
        pytest.raises(UserError, match=r"belongs to a run that is still going \(process \d+ on \S+\)"),
        claim(old_run, recipe),
    ):
        pass
    with claim(old_run, recipe):
        pass


def test_a_folder_that_was_taken_in_the_meantime_is_refused(old_run):
    with pytest.raises(UserError, match="already in use"), claim(old_run, Recipe()):
        pass
    assert parse(Recipe, [], config=old_run / "recipe.yaml").lr == 0.5


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        choose(output=tmp_path / "file")


@pytest.mark.parametrize("part", ["", "last"])
def test_a_resumed_run_stays_in_its_folder(old_run, part):
    assert choose(resume=old_run / part) == old_run
    assert choose(resume=old_run / part, output=old_run) == old_run


def test_a_resumed_run_can_go_on_in_another_folder(old_run, tmp_path):
    assert choose(resume=old_run, output=tmp_path / "fork") == tmp_path / "fork"


def test_the_recipe_of_a_run_is_found_and_has_no_folders_in_it(old_run):
    file = recipe_of(str(old_run))
    assert file == old_run / "recipe.yaml"
    assert parse(Recipe, [], config=file) == Recipe(lr=0.5)


def test_the_folder_to_resume_must_exist(tmp_path):
    with pytest.raises(UserError, match="there is no"):
        choose(resume=tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"--output /proc/run: /proc cannot be written: [^\n]+$"):
        choose(output="/proc/run")


def test_what_a_killed_save_left_does_not_keep_a_folder_and_is_removed(tmp_path):
    (tmp_path / "last.0a1b2c3d.partial").mkdir()
    assert choose(output=tmp_path) == tmp_path
    with claim(tmp_path, Recipe()):
        assert not list(tmp_path.glob("*.partial"))
