"""The list of bad images is rewritten with what was found; what a person added stays."""

from pathlib import Path

import pytest

from backbones.dataset.quarantine import FILE, read_quarantine
from backbones.dataset.verification import exclusion
from backbones.dataset.verification.exclusion import exclude_bad_images
from backbones.dataset.verification.findings import BadImage, Findings, SplitFindings
from backbones.errors import UserError


def find(*names: str) -> Findings:
    """Return findings with these bad training images."""
    bad = {name: BadImage(f"/data/{name}", "it is empty") for name in names}
    train, val = (SplitFindings(9, 2, each, {}, {}, [], [], []) for each in (bad, {}))
    return Findings(not names, {"train": train, "val": val}, {}, [], [], 1.0, 1, 18.0)


def test_rows_of_a_person_are_kept_and_rows_of_verify_are_replaced(tmp_path: Path) -> None:
    before = {"train": {"a/1": "a cat", "a/2": "verify: cut", "a/3": "mine"}, "val": {}}
    entries = exclude_bad_images(tmp_path, before, find("a/3", "a/4"))
    assert entries == {"train": {"a/1": "a cat", "a/3": "mine", "a/4": "verify: it is empty"}, "val": {}}
    assert read_quarantine(tmp_path) == entries


def test_nothing_is_written_where_nothing_changes(tmp_path: Path) -> None:
    assert exclude_bad_images(tmp_path, {"train": {}, "val": {}}, find()) == {"train": {}, "val": {}}
    assert not (tmp_path / FILE).exists()


def test_a_list_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(exclusion, "write_quarantine", fail)
    with pytest.raises(UserError, match=r"(?s)quarantine.tsv cannot be written: Read-only .*prepare .* --out INDEX"):
        exclude_bad_images(tmp_path, {"train": {}, "val": {}}, find("a/1"))
