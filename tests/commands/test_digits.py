"""``python -m backbones digits`` writes the demo's data set and touches nothing else."""

from pathlib import Path

import pytest

from backbones.commands.digits import main
from backbones.errors import UserError


def test_digits_are_written_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--output", str(tmp_path / "digits")])
    assert "1437 training and 360 validation images" in capsys.readouterr().out
    assert (tmp_path / "digits" / "val" / "9").is_dir()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match=str(tmp_path)):
        main(["--output", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
