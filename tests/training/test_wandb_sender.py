"""The program that sends rows: what it reads, what it keeps, and what it takes for sent."""

import io
import json
import queue
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import psutil
import pytest
import wandb

from backbones.training import wandb_sender
from backbones.training.wandb_sender import (
    Gallery,
    Ledger,
    Order,
    Rows,
    count_rows,
    forget_rows,
    read_ledger,
    write_ledger,
)
from tests.training.wandb_server import serve

pytestmark = pytest.mark.usefixtures("no_wandb")


def order(folder: Path, *, at_most: int = 99) -> Order:
    return Order(str(folder), at_most, parent=0, id="x", name="run", project="p", mode=None, config={})


def write(folder: Path, text: str) -> Path:
    (folder / "metrics.jsonl").write_text(text)
    return folder / "metrics.jsonl"


def test_a_row_is_read_once_and_only_when_its_line_is_whole(tmp_path):
    file = write(tmp_path, '{"step": 1}\n{"step": 2}\n{"st')
    rows = Rows(file)
    assert rows.read() == [{"step": 1}, {"step": 2}]
    with file.open("a") as opened:
        opened.write('ep": 3}\n')
    assert rows.read() == [{"step": 3}]
    assert rows.read() == []


def test_a_file_that_is_not_there_yet_has_no_rows(tmp_path):
    rows = Rows(tmp_path / "metrics.jsonl", skip=1)
    assert rows.read() == []
    write(tmp_path, '{"step": 1}\n{"step": 2}\n')
    assert rows.read() == [{"step": 2}]


def test_what_is_no_json_object_is_neither_read_nor_counted(tmp_path):
    file = write(tmp_path, '{"step": 1}\n7\nnot json\n\n{"event": "x"}\n{"step": 2}\n')
    assert Rows(file, skip=1).read() == [{"event": "x"}, {"step": 2}]
    assert count_rows(tmp_path) == 3


def test_rows_that_were_sent_may_be_read_in_several_turns(tmp_path):
    file = write(tmp_path, '{"step": 1}\n')
    rows = Rows(file, skip=2)
    assert rows.read() == []
    with file.open("a") as opened:
        opened.write('{"step": 2}\n{"step": 3}\n')
    assert rows.read() == [{"step": 3}]


def test_bytes_that_are_no_text_do_not_stop_a_row(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"note": "caf\xe9"}\n')
    assert Rows(tmp_path / "metrics.jsonl").read() == [{"note": "caf\ufffd"}]


def picture(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def matched(gallery: Gallery, *rows: dict) -> list[dict[str, str]]:
    found = gallery.match(rows)
    return [{name: file.name for name, file in pictures.items()} for pictures in found]


def test_a_row_gets_the_pictures_of_its_step_by_name(tmp_path):
    for name in ("a/00000005.png", "fusion/map/00000005.png", "a/00000050.png"):
        picture(tmp_path, name)
    gallery = Gallery(tmp_path)
    found = matched(gallery, {"step": 5}, {"step": 6}, {"event": "no step"}, {"step": 50.0})
    assert found == [{"a": "00000005.png", "fusion/map": "00000005.png"}, {}, {}, {}]


def test_the_pictures_of_a_validation_go_to_the_second_row_of_its_step(tmp_path):
    for name in ("a/00000005.png", "a/00000005-validation.png"):
        picture(tmp_path, name)
    first, second = {"a": "00000005.png"}, {"a": "00000005-validation.png"}
    assert matched(Gallery(tmp_path), {"step": 5}, {"step": 5}, {"step": 5}) == [first, second, {}]


def test_a_picture_is_given_once_though_it_stays(tmp_path):
    gallery = Gallery(tmp_path)
    picture(tmp_path, "a/00000005.png")
    assert matched(gallery, {"step": 5}) == [{"a": "00000005.png"}]
    picture(tmp_path, "a/00000005-validation.png")
    assert matched(gallery, {"step": 5}) == [{"a": "00000005-validation.png"}]


def test_the_record_of_each_mode_is_its_own(tmp_path):
    write_ledger(tmp_path, "online", Ledger("x", rows=3, step=4))
    assert read_ledger(tmp_path, "online") == Ledger("x", rows=3, step=4)
    assert read_ledger(tmp_path, "offline") is None
    assert {path.name for path in tmp_path.iterdir()} == {"wandb-online.json"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rows": 3}', '{"id": "x", "unknown": 1}'])
def test_a_record_that_cannot_be_read_is_none(tmp_path, content):
    (tmp_path / "wandb-online.json").write_text(content)
    assert read_ledger(tmp_path, "online") is None


def test_dropped_rows_are_forgotten_in_both_records_and_fewer_are_not_made_more(tmp_path):
    write_ledger(tmp_path, "online", Ledger("x", rows=9, step=12))
    write_ledger(tmp_path, "offline", Ledger("x", rows=2, step=2))
    forget_rows(tmp_path, 5)
    assert read_ledger(tmp_path, "online") == Ledger("x", rows=5, step=12)
    assert read_ledger(tmp_path, "offline") == Ledger("x", rows=2, step=2)


RESUMED = [
    # rows and step handed over, W&B's step, rows in the file: rows taken for sent
    ("all arrived", 10, 10, 10, 10, 10),
    ("the last three were lost on the way", 10, 10, 7, 10, 7),
    ("nothing arrived", 10, 10, 0, 10, 0),
    ("resumed before, so W&B has more than the file", 6, 10, 10, 6, 6),
    ("the same, and two were lost", 6, 10, 8, 6, 4),
    ("more were lost than are in the file", 2, 10, 3, 2, 0),
    ("the file was cut by another process", 10, 10, 10, 4, 4),
]


@pytest.mark.parametrize(("_case", "rows", "step", "theirs", "in_file", "sent"), RESUMED)
def test_wandb_itself_tells_which_rows_it_has(tmp_path, _case, rows, step, theirs, in_file, sent):
    write_ledger(tmp_path, "online", Ledger("x", rows=rows, step=step))
    run = SimpleNamespace(starting_step=theirs, url="https://here", dir="")
    found = wandb_sender._resume(order(tmp_path, at_most=in_file), run, "online")
    assert found == Ledger("x", rows=sent, step=theirs, where="https://here")


def test_the_rows_of_another_wandb_run_do_not_count(tmp_path):
    write_ledger(tmp_path, "online", Ledger("other", rows=5, step=5))
    run = SimpleNamespace(starting_step=0, url="u", dir="")
    assert wandb_sender._resume(order(tmp_path), run, "online").rows == 0


def test_offline_the_record_alone_counts(tmp_path):
    """W&B's own step begins at 0 in each session; `wandb sync` joins the sessions."""
    write_ledger(tmp_path, "offline", Ledger("x", rows=5, step=8))
    run = SimpleNamespace(starting_step=0, url=None, dir="/run/wandb/offline-run-1/files")
    found = wandb_sender._resume(order(tmp_path), run, "offline")
    assert found == Ledger("x", rows=5, step=8, where="/run/wandb/offline-run-1")


@pytest.mark.parametrize(("theirs", "sent"), [(8, 5), (0, 0)])
def test_offline_rows_that_were_synced_by_hand_are_not_sent_again(tmp_path, theirs, sent):
    write_ledger(tmp_path, "offline", Ledger("x", rows=5, step=8))
    run = SimpleNamespace(starting_step=theirs, url="u", dir="")
    assert wandb_sender._resume(order(tmp_path), run, "online").rows == sent


@pytest.mark.parametrize("status", [200, 404, 401, 500])
def test_any_status_is_an_answer(status):
    with serve(status=status) as server:
        wandb_sender._require_answer(server.url)


def test_a_server_that_accepts_and_is_silent_is_waited_for_briefly(monkeypatch):
    monkeypatch.setattr(wandb_sender, "PROBE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        with pytest.raises(ConnectionError, match="does not answer: timed out"):
            wandb_sender._require_answer(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize(
    ("url", "reason"), [("http://127.0.0.1:9", "refused"), ("http://no-such-host.invalid", "Name|name|resolution")]
)
def test_a_server_that_cannot_be_reached_is_named_with_the_reason(url, reason):
    with pytest.raises(ConnectionError, match=rf"^{url} does not answer: .*({reason})"):
        wandb_sender._require_answer(url)


def test_the_way_to_the_server_may_lead_through_a_proxy(monkeypatch):
    with serve() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        wandb_sender._require_answer("http://wandb.example.invalid")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"wandb\.example\.invalid does not answer"):
        wandb_sender._require_answer("http://wandb.example.invalid")


def test_a_proxy_that_only_wandb_can_use_is_left_to_it(monkeypatch):
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:9")
    wandb_sender._require_answer("http://127.0.0.1:9")


def test_a_certificate_that_python_does_not_know_is_left_to_wandb(monkeypatch):
    def refuse(*_, **__):
        raise URLError(ssl.SSLError("self-signed"))

    monkeypatch.setattr(wandb_sender, "build_opener", lambda: SimpleNamespace(open=refuse))
    wandb_sender._require_answer("https://wandb.example.invalid")


def test_alerts_are_sent_and_the_end_is_heard(monkeypatch):
    monkeypatch.setattr(wandb_sender, "POLL_SECONDS", 0.01)
    sent: list[dict] = []
    run, messages = SimpleNamespace(alert=lambda **words: sent.append(words)), queue.Queue()
    for message in ({"title": "alarm", "text": "hot"}, None):
        messages.put(message)
    assert [wandb_sender._hear(run, messages) for _ in range(2)] == [True, False]
    assert wandb_sender._hear(run, messages)
    assert sent == [{"title": "alarm", "text": "hot"}]


def test_an_orphan_stops_to_follow_though_its_input_goes_on(tmp_path, monkeypatch):
    """Another process may hold the other end of its input."""
    monkeypatch.setattr(wandb_sender, "POLL_SECONDS", 0.01)
    write(tmp_path, '{"step": 1}\n')
    run = SimpleNamespace(log=lambda *_, **__: None)
    followed = wandb_sender._follow(order(tmp_path), run, Ledger("x"), "offline", queue.Queue())
    assert followed.rows == 1


def test_an_orphan_ends_whatever_wandb_does(monkeypatch):
    limits: list[int] = []
    monkeypatch.setattr(wandb_sender.signal, "alarm", limits.append)
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"title": "t", "text": "x"}\n'))
    messages = queue.Queue()
    wandb_sender._read_messages(messages, parent=0)
    assert [messages.get_nowait(), messages.get_nowait()] == [{"title": "t", "text": "x"}, None]
    assert limits == [30]


def test_two_processes_do_not_send_the_rows_of_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_sender, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(wandb_sender, "LOCK_SECONDS", 0.05)
    sending = pytest.raises(TimeoutError, match="another process is sending")
    with wandb_sender._own(tmp_path), sending, wandb_sender._own(tmp_path):
        pass
    with wandb_sender._own(tmp_path):
        pass


def test_the_program_loads_no_torch(tmp_path):
    """It runs beside every training; torch would cost half a gigabyte."""
    code = (
        "import runpy, sys;"
        f"runpy.run_path({wandb_sender.__file__!r}, run_name='loaded');"
        "assert 'torch' not in sys.modules and 'backbones' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_rows_of_a_run_that_was_killed_still_arrive(tmp_path, wandb_server):
    """The program sees the end of its input, sends the rest and ends."""
    write(tmp_path, '{"step": 1}\n')
    code = f"""
        import json, os, subprocess, sys
        words = [sys.executable, "-P", {wandb_sender.__file__!r}]
        quiet = subprocess.DEVNULL
        sender = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True)
        order = {asdict(order(tmp_path))!r} | {{"parent": os.getpid()}}
        sender.stdin.write(json.dumps(order).encode() + b"\\n")
        sender.stdin.flush()
        print(sender.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -9
    wait_for_end(int(done.stdout))
    assert [row["step"] for row in wandb_server.rows] == [1]
    where = f"{wandb_server.url}/me/backbones/runs/x"
    assert read_ledger(tmp_path, "online") == Ledger("x", 1, 1, complete=True, where=where)


def wait_for_end(pid: int) -> None:
    until = time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_wandb_knows_the_settings_that_keep_things_private():
    """Settings that W&B does not know are left out, so that a new name would go unnoticed."""
    assert set(wandb_sender.PRIVATE) <= set(wandb.Settings.model_fields)
    assert wandb.Settings(**wandb_sender.PRIVATE).console == "off"


def test_an_order_that_makes_no_sense_is_an_answer():
    words = [sys.executable, "-P", wandb_sender.__file__]
    done = subprocess.run(words, input="{}\n", capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["failed"].startswith("TypeError")
    assert (done.returncode, done.stderr) == (1, "")
