"""Tests of ``python -m backbones digits`` and of the table of commands."""

import importlib
from pathlib import Path

import pytest

from backbones.__main__ import COMMANDS, main
from backbones.errors import UserError


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    shown = capsys.readouterr().out
    assert all(name in shown and purpose in shown for name, purpose in COMMANDS.items())


def test_every_command_in_the_table_has_a_main() -> None:
    for name in COMMANDS:
        assert callable(importlib.import_module(f"backbones.commands.{name}").main)


def test_an_unknown_command_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"no command 'digist'. Did you mean digits"):
        main(["digist"])


def test_digits_are_written_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["digits", "--output", str(tmp_path / "digits")])
    assert "1437 training and 360 validation images" in capsys.readouterr().out
    assert (tmp_path / "digits" / "val" / "9").is_dir()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match=str(tmp_path)):
        main(["digits", "--output", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
