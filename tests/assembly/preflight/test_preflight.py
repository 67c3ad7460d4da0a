"""`--dry-run` from the command line: one table, nothing left behind, an error where a check fails."""

import shutil
from types import SimpleNamespace

import pytest

from backbones.assembly.preflight import preflight
from backbones.assembly.preflight.row import Row
from backbones.errors import UserError

CHECKS = ["classes", "train shards", "val shards", "largest train", "largest val", "lr", "resume", "learning", "memory"]
CHECKS += ["loader", "evaluation", "disk", "1 device", "4 devices", "8 devices"]


def test_a_dry_run_checks_everything_and_leaves_nothing(train, tmp_path, capsys):
    """The run of the check is another process, which is killed."""
    before = set(tmp_path.rglob("*"))
    assert train("--dry-run", "--price", "2", "--loader", "reference") is None
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:4] in ("PASS", "FAIL")]
    rows = {line[6:].split("  ")[0]: line[:4] for line in lines}
    assert list(rows) == CHECKS
    assert set(rows.values()) == {"PASS"}
    assert set(tmp_path.rglob("*")) == before


def test_a_check_that_fails_on_another_process_fails(train, monkeypatch, capsys):
    """The failed rows of other processes bear their number."""
    other = SimpleNamespace(process_index=3)
    rows = [Row("decoding", passed=False, found="black"), Row("disk", passed=True, found="much")]
    monkeypatch.setattr(preflight, "gather_object", lambda own: own + preflight._failures_of_another(other, rows))
    monkeypatch.setattr(preflight, "CHECKS", {})
    with pytest.raises(
        UserError, match=r"the dry run failed in disk, decoding \(3\)"
    ):  # no run tells the disk its size
        train("--dry-run", "--loader", "reference")
    assert "FAIL  decoding (3)   black" in capsys.readouterr().out


def test_a_check_that_fails_is_named_and_the_others_are_made(train, tmp_path, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    monkeypatch.setattr(
        preflight, "CHECKS", {"learning": lambda _: iter([Row("learning", passed=False, found="flat")])}
    )
    with pytest.raises(UserError, match="the dry run failed in learning, disk; nothing was trained or written"):
        train("--dry-run", "--loader", "reference")
    assert "FAIL  learning       flat" in capsys.readouterr().out
