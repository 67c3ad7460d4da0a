"""W&B costs a run neither time nor rows, whatever happens to it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image

from backbones.recipe import Log, Recipe
from backbones.training import tracking, wandb_mirror
from backbones.training.tracking import Tracker
from backbones.training.wandb_mirror import WandbMirror
from backbones.training.wandb_sender import read_ledger
from tests.training.wandb_files import read_rows
from tests.training.wandb_server import KEY

START_SECONDS = 1.0
"""Time that W&B may cost at the start. The promise is 5; the process is only started."""
pytestmark = pytest.mark.usefixtures("no_wandb")


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Callable[[str], None]:
    """The function that puts a W&B of our own in the place of the real one: fake(lines of its `init`)."""

    def install(init: str) -> None:
        folder = tmp_path / "fake"
        folder.mkdir(exist_ok=True)
        text = FAKE + textwrap.indent(textwrap.dedent(init), "    ")
        (folder / "wandb.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return install


FAKE = """
import os, sys, time
from types import SimpleNamespace


class Settings:
    model_fields = {}


class Run:
    offline, starting_step, url, dir = True, 0, "", "/nowhere/files"

    def define_metric(self, *_, **__): pass
    def log(self, row, **_): pass
    def alert(self, **_): pass
    def finish(self): pass


def setup():
    return SimpleNamespace(settings=SimpleNamespace(mode="offline", base_url=""))


def init(**_):
"""


def recipe(mode: str | None = "offline") -> Recipe:
    return Recipe(log_wandb=True, log=Log(wandb_mode=mode))  # type: ignore[arg-type]


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def is_connected(tracker: Tracker) -> bool:
    assert tracker.wandb
    tracker.wandb.poll()
    return bool(tracker.wandb.where)


def core_of(tracker: Tracker) -> psutil.Process:
    """The process of W&B itself."""
    assert tracker.wandb
    assert tracker.wandb.sender
    children = psutil.Process(tracker.wandb.sender._process.pid).children(recursive=True)
    return next(child for child in children if "wandb-core" in child.cmdline()[0])


def warnings_in(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("warning")]


def test_rows_pictures_and_alerts_arrive(tmp_path, wandb_server, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_SERVICE", "that of another run of W&B in this process")
    tracker = Tracker(tmp_path, recipe(None))
    with tracker.open(0):
        tracker.log(1, {"train/loss": 2.0})
        tracker.log(2, {"train/loss": 1.0, "map": Image.new("RGB", (3, 2))})
        assert tracker.wandb
        tracker.wandb.alert("alarm", "the loss is high")
    assert [(row["step"], row["train/loss"]) for row in wandb_server.rows] == [(1, 2), (2, 1)]
    assert wandb_server.rows[1]["map"]["_type"] == "image-file"
    assert wandb_server.files[wandb_server.rows[1]["map"]["path"]].startswith(b"\x89PNG")
    assert wandb_server.alerts == [("alarm", "the loss is high")]
    assert f"W&B         {wandb_server.url}/me/backbones/runs/{tracker.wandb_id}" in capsys.readouterr().out
    assert wandb_server.run
    assert json.loads(wandb_server.run["config"])["lr"] == {"value": 0.1}


def test_a_resumed_run_sends_again_what_it_does_again_and_nothing_twice(tmp_path, wandb_server):
    """Lower steps arrive, too: W&B drops rows whose own step goes backwards, so ours is a metric."""
    first = Tracker(tmp_path, recipe(None))
    with first.open(0):
        for step in (1, 2, 3):
            first.log(step, {"x": 1.0})
    second = Tracker(tmp_path, recipe(None), wandb_id=first.wandb_id)
    with second.open(1):
        for step in (2, 3):
            second.log(step, {"x": 2.0})
    assert [(row["step"], row["x"]) for row in wandb_server.rows] == [(1, 1), (2, 1), (3, 1), (2, 2), (3, 2)]


def test_offline_a_run_that_goes_back_keeps_every_row_for_wandb_sync(tmp_path, wandb_server):
    run = tmp_path / "run"
    run.mkdir()
    tracker = Tracker(run, recipe())
    with tracker.open(0):
        for step in (1, 2, 3):
            tracker.log(step, {"x": 1.0})
        wait_for(lambda: (ledger := read_ledger(run, "offline")) and ledger.rows == 3)
        tracker.rewind(1)
        tracker.log(2, {"x": 2.0})
    expected = [(1, 1), (2, 1), (3, 1), (2, 2)]
    assert [(row["step"], row["x"]) for row in read_rows(run)] == expected
    sessions = sorted(map(str, run.glob("wandb/offline-run-*")))
    command = [sys.executable, "-m", "wandb", "sync", *sessions]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, timeout=60)
    assert [(row["step"], row["x"]) for row in wandb_server.rows] == expected
    assert [json.loads(line)["_step"] for line in wandb_server.lines] == [0, 1, 2, 3]


SILENT = "a server that accepts and says nothing"
TROUBLE = [
    ({"WANDB_BASE_URL": "http://127.0.0.1:9"}, "refused"),
    ({"WANDB_BASE_URL": "http://no-such-host.invalid"}, "does not answer"),
    ({"WANDB_BASE_URL": "http://wandb.invalid", "http_proxy": "http://me:secret@127.0.0.1:9"}, "refused"),
    ({"WANDB_BASE_URL": SILENT}, "timed out"),
    pytest.param({"WANDB_BASE_URL": "http://wandb.invalid", "http_proxy": SILENT}, "timed out", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("environment", "reason"), TROUBLE)
def test_a_server_out_of_reach_is_one_warning_with_reason_and_remedy(tmp_path, monkeypatch, capfd, environment, reason):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for name, value in environment.items():
            monkeypatch.setenv(name, value.replace(SILENT, f"http://127.0.0.1:{silent.getsockname()[1]}"))
        check_trouble(tmp_path, capfd, reason)


@pytest.mark.parametrize(("status", "reason"), [(401, "401"), pytest.param(500, "500", marks=pytest.mark.slow)])
def test_a_server_that_refuses_is_one_warning(tmp_path, wandb_server, capfd, status, reason):
    wandb_server.status = status
    check_trouble(tmp_path, capfd, reason)


def test_a_missing_key_is_one_warning_and_no_question(tmp_path, wandb_server, monkeypatch, capfd):
    monkeypatch.delenv("WANDB_API_KEY")
    check_trouble(tmp_path, capfd, "No API key|api_key not configured")


def test_a_wandb_folder_that_cannot_be_written_is_one_warning(tmp_path, capfd):
    (tmp_path / "wandb").write_text("a file in its place")
    check_trouble(tmp_path, capfd, "Not a directory|File exists", mode="offline")


@pytest.mark.parametrize(
    ("init", "reason"),
    [
        ("raise ModuleNotFoundError(\"No module named 'wandb'\")", "No module named 'wandb'"),
        ("sys.exit('fatal')", "SystemExit: fatal"),
        ("os._exit(3)", "its process ended with 3"),
        ("os.kill(os.getpid(), 9)", "its process ended with -9"),
        ("raise ValueError('at https://me:secret@host/x\\nand more')", "ValueError: at https://host/x and more"),
        ("print('chatter'); os.write(1, b'more'); raise ValueError('bad')", "ValueError: bad"),
    ],
)
def test_whatever_wandb_does_at_the_start_is_one_warning(tmp_path, fake, capfd, init, reason):
    fake(init)
    check_trouble(tmp_path, capfd, reason)


def test_a_wandb_that_is_not_installed_is_one_warning(tmp_path, fake, monkeypatch, capfd):
    fake("pass")
    (tmp_path / "fake" / "wandb.py").write_text("raise ModuleNotFoundError('No module named wandb')")
    check_trouble(tmp_path, capfd, "ModuleNotFoundError: No module named wandb")


def check_trouble(folder: Path, capfd, reason: str, *, mode: str | None = None) -> None:
    """Run five rows with W&B; there must be one warning with ``reason``, no delay at the start, and every row."""
    tracker = Tracker(folder, recipe(mode))
    begin = time.monotonic()
    with tracker.open(0):
        assert time.monotonic() - begin < START_SECONDS
        for step in range(5):
            tracker.log(step, {"x": 1.0})
    assert [row["step"] for row in rows(folder)] == [0, 1, 2, 3, 4]
    out, err = capfd.readouterr()
    assert err == ""
    (line,) = out.splitlines()
    remedy = rf"the run goes on and metrics\.jsonl has every row; send them later: python -m backbones replay {folder}"
    assert re.fullmatch(rf"warning     W&B failed \(.*({reason}).*\); {remedy}", line), line
    assert "secret" not in out


def test_wandb_killed_in_mid_run_is_one_warning_and_no_traceback(tmp_path, wandb_server, capfd):
    tracker = Tracker(tmp_path, recipe(None))
    with tracker.open(0):
        wait_for(lambda: is_connected(tracker))
        core_of(tracker).kill()
        tracker.log(1, {"x": 1.0})
        wait_for(lambda: tracker.wandb.poll() or tracker.wandb.sender is None)  # type: ignore[union-attr]
        for step in (2, 3):
            tracker.log(step, {"x": 1.0})
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]
    out, err = capfd.readouterr()
    assert err == ""
    assert len(warnings_in(out)) == 1
    assert "W&B failed" in out


def test_rows_lost_with_wandb_are_sent_when_it_is_started_again(tmp_path, wandb_server, capfd, monkeypatch):
    tracker = Tracker(tmp_path, recipe(None))
    with tracker.open(0):
        tracker.log(1, {"x": 1.0})
        wait_for(lambda: is_connected(tracker))
        wait_for(lambda: (ledger := read_ledger(tmp_path, "online")) and ledger.rows == 1)
        core_of(tracker).kill()
        tracker.log(2, {"x": 1.0})
        wait_for(lambda: tracker.wandb.poll() or tracker.wandb.sender is None)  # type: ignore[union-attr]
        monkeypatch.setattr(wandb_mirror, "RETRY_SECONDS", 0.0)
        tracker.log(3, {"x": 1.0})
    assert [row["step"] for row in wandb_server.rows] == [1, 2, 3]
    assert len(warnings_in(capfd.readouterr().out)) == 1


def test_a_process_that_failed_is_started_again_only_after_a_while_and_in_silence(tmp_path, fake, capfd, monkeypatch):
    starts = tmp_path / "starts"
    fake(f"open({str(starts)!r}, 'a').write('x'); raise ValueError('no')")
    mirror = WandbMirror(tmp_path, recipe())
    wait_for(lambda: mirror.poll() or mirror.failed_at)
    for _ in range(100):
        mirror.poll()
    assert mirror.sender is None
    assert starts.read_text() == "x"
    monkeypatch.setattr(wandb_mirror, "RETRY_SECONDS", 0.0)
    wait_for(lambda: mirror.poll() or len(starts.read_text()) == 2)
    mirror.close()
    assert len(warnings_in(capfd.readouterr().out)) == 1


def test_signals_for_the_run_do_not_end_the_process(tmp_path, fake, capfd):
    """A scheduler may signal every process of a job; Ctrl-C reaches the whole group."""
    fake("return Run()")
    mirror = WandbMirror(tmp_path, recipe())
    wait_for(lambda: mirror.poll() or mirror.where)
    assert mirror.sender
    pid = mirror.sender._process.pid
    assert os.getsid(pid) == pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        os.kill(pid, number)
    sender = mirror.sender
    mirror.close()
    assert sender.rows == 0
    assert warnings_in(capfd.readouterr().out) == []


@pytest.mark.parametrize("who", ["wandb-core", "our own process"])
def test_a_wandb_that_is_stopped_holds_up_neither_the_run_nor_its_end(tmp_path, wandb_server, capfd, monkeypatch, who):
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 1.0)
    tracker = Tracker(tmp_path, recipe(None))
    with tracker.open(0):
        wait_for(lambda: is_connected(tracker))
        assert tracker.wandb
        assert tracker.wandb.sender
        core = core_of(tracker)
        pid = core.pid if who == "wandb-core" else tracker.wandb.sender._process.pid
        os.kill(pid, signal.SIGSTOP)
        begin = time.monotonic()
        for step in range(200):
            tracker.log(step, {"x": 1.0})
            tracker.wandb.alert("alarm", "x" * 1000)
        assert time.monotonic() - begin < 5
        begin = time.monotonic()
    assert time.monotonic() - begin < 5
    assert len(rows(tmp_path)) == 200
    out, err = capfd.readouterr()
    assert err == ""
    assert len(warnings_in(out)) == 1
    assert "W&B failed (not done after 1 s)" in out
    wait_for(lambda: not core.is_running() or core.status() == psutil.STATUS_ZOMBIE)


def test_a_process_that_has_died_takes_no_alert(tmp_path, fake, capfd):
    fake("os._exit(3)")
    mirror = WandbMirror(tmp_path, recipe())
    time.sleep(1)
    for _ in range(3):
        mirror.alert("alarm", "text")
    mirror.close()
    assert len(warnings_in(capfd.readouterr().out)) == 1


def test_an_error_of_our_own_does_not_reach_the_run(tmp_path, fake, capfd, monkeypatch):
    fake("return Run()")
    mirror = WandbMirror(tmp_path, recipe())
    assert mirror.sender
    monkeypatch.setattr(mirror.sender, "listen", lambda: 1 / 0)
    mirror.poll()
    mirror.close()
    assert "W&B failed (ZeroDivisionError" in capfd.readouterr().out


def test_a_machine_without_room_for_a_process_is_one_warning(tmp_path, capfd, monkeypatch):
    def refuse(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    mirror = WandbMirror(tmp_path, recipe())
    mirror.alert("alarm", "text")
    mirror.close()
    assert "Cannot allocate memory" in capfd.readouterr().out


def test_a_disabled_wandb_starts_no_process(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = Tracker(tmp_path, recipe(None))
    with tracker.open(0):
        tracker.log(1, {"x": 1.0})
        assert tracker.wandb
        assert tracker.wandb.sender is None
    assert capfd.readouterr().out == ""


def test_the_wandb_run_of_a_folder_stays_the_same(tmp_path, fake):
    fake("return Run()")
    first = Tracker(tmp_path, recipe())
    with first.open(0):
        first.log(1, {})
    other = Tracker(tmp_path, recipe(), wandb_id="another")
    with other.open(1):
        assert other.wandb_id == first.wandb_id
