"""Errors for the user come without a traceback and with the nearest name."""

import pytest

from backbones.errors import UserError, did_you_mean, exit_on_user_error


def test_a_user_error_becomes_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        raise UserError("there is no such thing")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: there is no such thing\n"


def test_ctrl_c_is_no_success_and_no_traceback(capsys):
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        raise KeyboardInterrupt
    assert stopped.value.code == 130
    assert "--resume RUN" in capsys.readouterr().err


def test_another_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), exit_on_user_error():
        raise ZeroDivisionError


def test_another_rank_says_which_it_is(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit), exit_on_user_error():
        raise UserError("lost")
    assert capsys.readouterr().err == "error (rank 3): lost\n"


def test_the_nearest_names_are_suggested():
    assert did_you_mean("smoothingg", ["smoothing", "mosaic"]) == " Did you mean smoothing?"


def test_nothing_is_suggested_when_nothing_is_near():
    assert did_you_mean("zzz", ["smoothing", "mosaic"]) == ""
