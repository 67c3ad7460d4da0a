"""Tests of the folders that systems make."""

import pytest

from backbones.dataset.sources.clutter import is_clutter, is_in_clutter


@pytest.mark.parametrize(
    "name", ["@eaDir", "#recycle", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information"]
)
def test_folders_of_systems_are_known_whatever_their_case(name: str) -> None:
    assert is_clutter(name)
    assert is_clutter(name.upper())
    assert is_in_clutter(f"a/{name}/b/c.jpg")


@pytest.mark.parametrize("name", ["eaDir", "recycle", "n01440764", "lost", "MACOSX"])
def test_other_folders_are_classes(name: str) -> None:
    assert not is_clutter(name)
    assert not is_in_clutter(f"{name}/c.jpg")


def test_a_file_of_such_a_name_is_in_no_folder() -> None:
    assert not is_in_clutter("a/lost+found")
