"""``python -m backbones replay RUN``: W&B gets the rows of a run later, and once."""

import json
from pathlib import Path

import psutil
import pytest
from PIL import Image

from backbones.__main__ import main
from backbones.errors import UserError
from backbones.recipe import Log, Recipe
from backbones.training.run_folder import claim
from backbones.training.tracking import Tracker
from backbones.training.wandb_sender import Ledger, read_ledger, write_ledger
from tests.training.wandb_files import read_rows

EVENT = {"step": 2, "event": "rollback", "text": "back to step 1", "loss": 9.5}


@pytest.fixture
def run(tmp_path) -> Path:
    """A run of two steps and an event that knew no W&B, but its project."""
    with claim(tmp_path / "run", Recipe(lr=0.5, log=Log(wandb_project="thread", wandb_mode="offline"))):
        pass
    tracker = Tracker(tmp_path / "run", Recipe())
    tracker.log(1, {"train/loss": 2.0})
    tracker.log(2, {"train/loss": float("nan"), "map": Image.new("RGB", (3, 2))})
    append(tmp_path / "run", EVENT)
    return tmp_path / "run"


def append(run: Path, row: dict) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def test_rows_pictures_and_events_are_sent_once(run, wandb_server, capsys):
    main(["replay", str(run)])
    first, second, event = wandb_server.rows
    assert first == {"step": 1, "train/loss": 2}
    assert second["train/loss"] is None
    assert wandb_server.files[second["map"]["path"]].startswith(b"\x89PNG")
    assert event == EVENT
    where = f"{wandb_server.url}/me/backbones/runs/{wandb_server.run['name']}"
    assert capsys.readouterr().out == f"sent        3 rows: {where}\n"
    requests = len(wandb_server.requests)
    main(["replay", str(run)])
    assert capsys.readouterr().out == f"sent        all 3 rows, already: {where}\n"
    assert len(wandb_server.requests) == requests


def test_the_wandb_run_has_the_name_project_and_recipe_of_the_run(run, wandb_server):
    """Also where the recipe says offline: that was for the machine of the run."""
    main(["replay", str(run)])
    assert (wandb_server.run["displayName"], wandb_server.run["project"]) == ("run", "thread")
    assert json.loads(wandb_server.run["config"])["lr"] == {"value": 0.5}


def test_only_rows_that_came_in_the_meantime_are_sent_by_a_second_call(run, wandb_server, capsys):
    main(["replay", str(run)])
    append(run, {"step": 3, "train/loss": 1.0})
    main(["replay", str(run)])
    assert [row["step"] for row in wandb_server.rows] == [1, 2, 2, 3]
    assert "sent        4 rows" in capsys.readouterr().out


@pytest.mark.slow
def test_an_upload_that_fails_is_an_error_and_the_next_call_sends_what_is_missing(run, wandb_server, capsys):
    """W&B's own `finish` says nothing where the server refuses the rows."""
    wandb_server.loses_rows = True
    with pytest.raises(UserError, match=r"W&B has 0 of 3 rows.*Nothing is lost"):
        main(["replay", str(run)])
    wandb_server.loses_rows = False
    main(["replay", str(run)])
    assert [row["step"] for row in wandb_server.rows] == [1, 2, 2]
    assert "sent        3 rows" in capsys.readouterr().out


def test_a_server_out_of_reach_leaves_no_record(run, wandb_server, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    before = sorted(run.iterdir())
    with pytest.raises(UserError, match=r"W&B failed \(ConnectionError: .*refused\)\. Nothing is lost"):
        main(["replay", str(run)])
    assert sorted(path for path in run.iterdir() if path.name != ".wandb.lock") == before


def test_an_upload_that_takes_too_long_is_given_up(run, wandb_server):
    with pytest.raises(UserError, match=r"not done after 0 s"):
        main(["replay", str(run), "--minutes", "0.001"])
    commands = [child.cmdline() for child in psutil.Process().children()]
    assert not [words for words in commands if words and words[-1].endswith("wandb_sender.py")]
    ledger = read_ledger(run, "online")
    assert not ledger or not ledger.complete


def test_what_the_run_itself_sent_is_not_sent_again(tmp_path, wandb_server, capsys):
    tracker = Tracker(tmp_path, Recipe(log_wandb=True))
    with tracker.open(0):
        tracker.log(1, {"train/loss": 2.0})
    main(["replay", str(tmp_path)])
    assert [row["step"] for row in wandb_server.rows] == [1]
    assert "all 1 rows, already" in capsys.readouterr().out


def test_a_run_that_was_resumed_without_wandb_is_sent_from_where_it_was_resumed(tmp_path, wandb_server):
    tracker = Tracker(tmp_path, Recipe(log_wandb=True))
    with tracker.open(0):
        for step in (1, 2):
            tracker.log(step, {"x": 1.0})
    tracker = Tracker(tmp_path, Recipe())
    with tracker.open(1):
        tracker.log(2, {"x": 2.0})
    main(["replay", str(tmp_path)])
    assert [(row["step"], row["x"]) for row in wandb_server.rows] == [(1, 1), (2, 1), (2, 2)]


def test_offline_it_writes_a_folder_for_wandb_sync(run, no_wandb, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    main(["replay", str(run)])
    assert [row.get("event") for row in read_rows(run)] == [None, None, "rollback"]
    (folder,) = run.glob("wandb/offline-run-*")
    main(["replay", str(run)])
    assert capsys.readouterr().out == f"sent        3 rows: {folder}\nsent        all 3 rows, already: {folder}\n"
    assert len(list(run.glob("wandb/offline-run-*"))) == 1


def test_what_was_written_offline_is_not_taken_for_sent(run, wandb_server, monkeypatch):
    write_ledger(run, "offline", Ledger("x", rows=3, step=3, complete=True))
    main(["replay", str(run)])
    assert len(wandb_server.rows) == 3


@pytest.mark.parametrize("content", [None, "", "not json\n"])
def test_a_folder_without_rows_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(UserError, match=f"{tmp_path} has no rows to send"):
        main(["replay", str(tmp_path)])


def test_a_time_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="minutes"):
        main(["replay", str(tmp_path), "--minutes", "0"])
