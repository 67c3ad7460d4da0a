"""What is printed fits the terminal, can be encoded, and says where a task is."""

import io
import os
import pty
import re
import subprocess
import sys
import threading

import pytest
from rich.console import Console

from backbones import terminal
from backbones.terminal import Display, say, table, write


def display_on_terminal(width: int = 80) -> tuple[Display, io.StringIO]:
    stream = io.StringIO()
    display = Display()
    display.console = Console(file=stream, force_terminal=True, width=width, color_system="standard", soft_wrap=True)
    return display, stream


def last_line(stream: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue().rpartition("\x1b[2K")[2]).rstrip()


def test_a_line_begins_with_its_label(capsys):
    say("run folder", "runs/x")
    say("note", 5)
    assert capsys.readouterr().out == "run folder  runs/x\nnote        5\n"


def test_text_in_brackets_and_long_lines_are_printed_as_they_are(capsys):
    say("note", "DIR/[/b]x[red].jpg:smile: " + "x" * 200)
    assert capsys.readouterr().out == "note        DIR/[/b]x[red].jpg:smile: " + "x" * 200 + "\n"


@pytest.mark.parametrize(("name", "shown"), [("caf\u00e9", "caf\\xe9"), (os.fsdecode(b"\xff.jpg"), "\\udcff.jpg")])
def test_a_terminal_that_cannot_encode_a_name_gets_it_escaped(monkeypatch, name, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    say("run folder", name)
    stream.flush()
    assert stream.buffer.getvalue() == f"run folder  {shown}\n".encode()  # type: ignore[attr-defined]


def test_a_table_has_aligned_columns():
    assert (
        table([("name", "n"), ("ant", 7), ("bumblebee", 120)], "lr") == "name         n\nant          7\nbumblebee  120"
    )


def test_without_a_terminal_a_line_comes_every_ten_seconds(clock, capsys):
    with Display().task("epoch 3", 100, unit="steps") as task:
        for step in range(1, 51):
            clock.now += 1.0
            assert task.is_due == (step % 10 == 0)
            task.update(step, ["loss 2.187", "lr 0.0412", "123 images/s"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[-1] == "epoch 3  50/100 steps  loss 2.187  lr 0.0412  123 images/s  ETA 0:00:50"


def test_the_time_left_counts_only_what_this_process_did(clock, capsys):
    with Display().task("epoch 3", 100, unit="steps", done=80) as task:
        for _ in range(2):
            clock.now += 10.0
            task.update(80 + round((clock.now - 100) / 2))
    assert capsys.readouterr().out.splitlines()[-1] == "epoch 3  90/100 steps  ETA 0:00:20"


def test_at_80_columns_and_step_370000_of_1200000_the_bar_is_still_there(clock):
    display, stream = display_on_terminal(80)
    with display.task("epoch 37", 1_200_000, unit="steps", done=369_999) as task:
        clock.now += 1.0
        task.update(370_000, ["loss 2.187", "lr 0.0412", "4120 images/s", "wait 6%"])
        display.bars.refresh()
        line = last_line(stream)
    assert len(line) <= 80
    assert line.count("\u2501") + line.count("\u2578") + line.count("\u257a") >= terminal.MIN_BAR_WIDTH
    assert "370000/1200000 loss 2.187 lr 0.0412" in line
    assert "wait" not in line


def test_a_wide_terminal_shows_every_figure(clock):
    display, stream = display_on_terminal(140)
    with display.task("epoch 37", 1_200_000, unit="steps") as task:
        clock.now += 1.0
        task.update(5, ["loss 2.187", "lr 0.0412", "4120 images/s", "wait 6%"])
        display.bars.refresh()
        assert "loss 2.187 lr 0.0412 4120 images/s wait 6%" in last_line(stream)


def test_an_error_takes_the_bar_down_before_it_is_shown():
    display, stream = display_on_terminal()

    def interrupted() -> None:
        with display.task("epoch 1", 10, unit="steps") as outer, display.task("validating", 5, unit="images"):
            outer.update(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not display.bars.live.is_started
    assert "\x1b[?25h" in stream.getvalue()[-20:]  # the cursor is back


def test_tasks_can_follow_each_other_on_one_display(clock, capsys):
    display = Display()
    for what in ("one", "two"):
        with display.task(what, 2, unit="files") as task:
            clock.now += 11
            task.update(1)
    assert capsys.readouterr().out.splitlines() == ["one  1/2 files", "two  1/2 files"]


def test_lines_are_printed_above_a_bar_on_a_real_terminal():
    """A child process with a pseudo-terminal of 80 columns: the bar is drawn, and the line stays."""
    code = (
        "import time\n"
        "from backbones.terminal import STDOUT, say\n"
        "with STDOUT.task('verifying', 10, unit='images') as task:\n"
        "    task.update(3)\n"
        "    say('note', 'a line')\n"
        "    time.sleep(0.3)\n"
    )
    main, child = pty.openpty()
    shown: list[bytes] = []
    reader = threading.Thread(target=read_all, args=(main, shown))
    reader.start()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", code], stdout=child, env=environment, check=True)
    os.close(child)
    reader.join(10)
    text = b"".join(shown).decode()
    assert "note        a line\r\n" in text
    assert "verifying" in text
    assert "3/10" in text


def read_all(descriptor: int, into: list[bytes]) -> None:
    try:
        while part := os.read(descriptor, 4096):
            into.append(part)
    except OSError:  # the other side has closed
        return


def test_a_report_of_many_lines_is_written_as_it_is(capsys):
    write("a\n  b")
    assert capsys.readouterr().out == "a\n  b\n"
