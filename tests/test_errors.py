"""Errors for the user come without a traceback and with the nearest name."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backbones import errors
from backbones.errors import UserError, did_you_mean, exit_on_user_error, require_choice


def test_a_user_error_becomes_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        raise UserError("there is no such thing")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: there is no such thing\n"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("--data-dir https://me:secret@host/a is no folder", "--data-dir https://***@host/a is no folder"),
        ("https:/me:secret@host/a", "https:/***@host/a"),
        ("/images/a@b: no folder", "/images/a@b: no folder"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
    ],
)
def test_the_password_of_an_address_is_not_shown(capsys, said, shown):
    with pytest.raises(SystemExit), exit_on_user_error():
        raise UserError(said)
    assert capsys.readouterr().err == f"error: {shown}\n"


def test_ctrl_c_is_no_success_and_no_traceback(capsys):
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        raise KeyboardInterrupt
    assert stopped.value.code == 130
    assert "--resume RUN" in capsys.readouterr().err


def test_another_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), exit_on_user_error():
        raise ZeroDivisionError


def test_an_error_of_all_processes_is_printed_once(tmp_path):
    """As under a launcher, which ends the second process when the first has failed."""
    code = "import errors\nerrors.WAIT_FOR_LAUNCHER_SECONDS = 60\n"
    code += "with errors.exit_on_user_error(): raise errors.UserError('of both')"
    environments = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2))
    command = [sys.executable, "-c", code]
    first, second = (
        subprocess.Popen(command, cwd=Path(errors.__file__).parent, env=os.environ | each, stderr=subprocess.PIPE)
        for each in environments
    )
    printed = first.communicate()[1]
    second.terminate()
    assert printed == b"error: of both\n"
    assert second.communicate()[1] == b""


def test_an_error_of_one_process_is_printed_when_no_launcher_ends_it(capsys, monkeypatch):
    monkeypatch.setattr("backbones.errors.WAIT_FOR_LAUNCHER_SECONDS", 0.01)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit), exit_on_user_error():
        raise UserError("lost")
    assert capsys.readouterr().err == "error (rank 3): lost\n"


def test_another_rank_says_which_it_is(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit), exit_on_user_error():
        raise UserError("lost")
    assert capsys.readouterr().err == "error (rank 3): lost\n"


def test_the_nearest_names_are_suggested():
    assert did_you_mean("smoothingg", ["smoothing", "mosaic"]) == " Did you mean smoothing?"


def test_nothing_is_suggested_when_nothing_is_near():
    assert did_you_mean("zzz", ["smoothing", "mosaic"]) == ""


def test_the_exit_status_is_that_of_the_error():
    error = UserError("it cannot tell")
    error.exit_status = 1
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        raise error
    assert stopped.value.code == 1


def test_after_ctrl_c_a_program_says_how_to_go_on(capsys):
    with pytest.raises(SystemExit), exit_on_user_error(interrupted="give it again"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "interrupted: give it again\n"


def test_names_that_are_near_by_letters_alone_are_not_suggested():
    assert did_you_mean("amp", ["warmup", "sampling", "mixup", "clip_grad"]) == ""


def test_a_terminal_that_knows_ascii_alone_is_shown_everything():
    code = (
        "from backbones.errors import exit_on_user_error\nwith exit_on_user_error():\n    print('gr\\u00fcn \\udcff')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
    )
    assert ended.stdout == rb"gr\xfcn \udcff" + b"\n"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["train_imagenet.py", "--data-dir"], ["eval.py", "--ckpt"]])
def test_both_scripts_show_an_odd_folder_to_such_a_terminal(words):
    ended = subprocess.run(
        [sys.executable, *words, "/gr\u00fcn"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 2
    assert rb"gr\xfcn" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_a_known_word_passes():
    require_choice("act", "mish", ("mish", "leaky"))


def test_an_unknown_word_is_refused_with_the_option_and_the_nearest_word():
    with pytest.raises(ValueError, match=r"act='mihs' is not one of mish, leaky\. Did you mean mish\?"):
        require_choice("act", "mihs", ("mish", "leaky"))
