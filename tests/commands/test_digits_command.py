"""Tests of ``python -m backbones digits`` and of the table of commands."""

import importlib
from pathlib import Path

import pytest

from backbones.__main__ import COMMANDS, main


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown and purpose in shown for name, purpose in COMMANDS.items())


def test_every_command_in_the_table_has_a_main() -> None:
    for name in COMMANDS:
        assert callable(importlib.import_module(f"backbones.commands.{name}").main)


def test_an_unknown_command_is_refused_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digist"]) == 2
    assert "No command 'digist'. Did you mean digits?" in capsys.readouterr().err


def test_digits_are_written_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    assert main(["digits", "--output", str(tmp_path / "digits")]) == 0
    assert "1437 training and 360 validation images" in capsys.readouterr().out
    assert (tmp_path / "digits" / "val" / "9").is_dir()


def test_what_the_user_can_mend_ends_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").touch()
    assert main(["digits", "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
