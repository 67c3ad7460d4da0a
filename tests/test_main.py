"""``python -m backbones`` lists its commands and finds them by name."""

import importlib

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


def test_a_command_gets_the_words_that_follow_it(tmp_path) -> None:
    main(["digits", "--output", str(tmp_path / "here")])
    assert (tmp_path / "here" / "train").is_dir()
