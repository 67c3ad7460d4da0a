"""The verify command: what it prints, what it writes, and how it ends."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backbones.__main__ import main
from backbones.commands import verify
from backbones.dataset.quarantine import read_quarantine, write_quarantine
from backbones.dataset.splits import train_and_val
from backbones.dataset.verification import exclusion, findings
from backbones.errors import UserError, exit_on_user_error

BAD_TRAIN, BAD_VAL = "train/cow/003.jpg", "val/bee/001.jpg"
REASON = "it is empty"
LISTED = f"verify: {REASON}"
"""The same in the list."""


@pytest.fixture
def data(image_folder: Path, tmp_path: Path) -> Path:
    """64 training and 20 validation images of 4 classes that a test may spoil."""
    return shutil.copytree(image_folder, tmp_path / "data")


def run(data: Path, *options: str) -> int:
    """Verify without a second process and return the exit status."""
    try:
        main(["verify", str(data), "--workers", "1", *options])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else -1
    return 0


def spoil(*files: Path) -> None:
    for file in files:
        file.write_bytes(b"")


def cells(shown: str) -> dict[str, list[str]]:
    """Return title -> cells of the table."""
    lines = [re.split("  +", line) for line in shown.partition("\n\n")[0].splitlines()[1:]]
    return {title: numbers for title, *numbers in lines}


def test_sound_images_end_well_and_leave_nothing_behind(data, capsys):
    assert run(data) == 0
    assert sorted(path.name for path in data.iterdir()) == ["train", "val"]
    assert "all is well" in capsys.readouterr().out


def test_one_of_two_data_sets_is_chosen(data, capsys):
    (data / "ILSVRC2012_img_val.tar").touch()
    with pytest.raises(UserError, match="--layout folders"):
        run(data)
    assert run(data, "--layout", "folders") == 0
    assert "all is well" in capsys.readouterr().out


def test_the_table_counts_both_splits(data, capsys):
    spoil(data / BAD_TRAIN)
    run(data)
    shown = cells(capsys.readouterr().out)
    sizes = {split: sorted(file.stat().st_size for file in data.glob(f"{split}/*/*.jpg")) for split in ("train", "val")}
    assert shown["images"] == ["64", "20"]
    assert shown["classes"] == ["4", "4"]
    assert shown["bad"] == ["1", "0"]
    assert shown["JPEG RGB"] == ["63", "20"]
    middle = {split: (each[(len(each) - 1) // 2] + each[len(each) // 2]) // 2 for split, each in sizes.items()}
    assert shown["bytes, min/median/max"] == [f"{s[0]}/{middle[split]}/{s[-1]}" for split, s in sizes.items()]
    assert shown["shorter side, min/median/max"] == ["36/36/36"] * 2
    assert shown["longer side, min/median/max"] == ["44/44/44"] * 2


def test_two_workers_find_what_one_finds(data, capsys):
    spoil(data / BAD_TRAIN)
    run(data)
    alone = capsys.readouterr().out.partition("result")[0]
    with pytest.raises(SystemExit):
        main(["verify", str(data), "--workers", "2"])
    assert capsys.readouterr().out.partition("result")[0] == alone


def test_a_bad_training_image_is_listed_and_then_left_out(data, capsys):
    spoil(data / BAD_TRAIN)
    assert run(data) == 1
    shown = capsys.readouterr().out
    bad = [line for line in shown.splitlines() if line.startswith("bad image")]
    assert bad == [f"bad image   {data / BAD_TRAIN}: {REASON}"]
    assert f"{data / 'quarantine.tsv'}: training leaves out 1 image\n" in shown
    train, _ = train_and_val(data)
    assert len(train) == 63
    assert "cow/003.jpg" not in list(train.names)


def test_a_bad_validation_image_stops_training_until_it_is_replaced(data, capsys):
    spoil(data / BAD_VAL)
    assert run(data) == 1
    assert "training refuses to run until the bad images of val (1) are replaced" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"bee/001\.jpg"):
        train_and_val(data)


def test_a_listed_image_that_is_still_bad_stays_listed(data, capsys):
    spoil(data / BAD_TRAIN, data / BAD_VAL)
    assert [run(data), run(data)] == [1, 1]
    assert read_quarantine(data) == {"train": {"cow/003.jpg": LISTED}, "val": {"bee/001.jpg": LISTED}}
    assert "no longer listed" not in capsys.readouterr().out


def test_an_image_that_is_good_again_leaves_the_list(data, capsys):
    write_quarantine(data, {"train": {"cow/003.jpg": LISTED}, "val": {"bee/001.jpg": LISTED}})
    assert run(data) == 0
    assert read_quarantine(data) == {"train": {}, "val": {}}
    shown = capsys.readouterr().out
    assert "no longer listed, because they are good or gone: train/cow/003.jpg, val/bee/001.jpg\n" in shown


def test_what_a_person_has_listed_stays_with_its_reason(data, capsys):
    spoil(data / BAD_TRAIN)
    mine = {"train": {"dog/001.jpg": "a cat", "ant/002.jpg": ""}, "val": {}}
    write_quarantine(data, mine | {"train": mine["train"] | {"cow/004.jpg": LISTED}})
    assert run(data) == 1
    assert read_quarantine(data) == {"train": mine["train"] | {"cow/003.jpg": LISTED}, "val": {}}
    shown = capsys.readouterr().out
    assert "quarantine  kept, since added by hand: 2 images\n" in shown
    assert "training leaves out 3 images\n" in shown
    assert "no longer listed, because they are good or gone: train/cow/004.jpg\n" in shown


def test_a_bad_image_that_a_person_has_listed_keeps_the_reason_of_the_person(data):
    spoil(data / BAD_TRAIN)
    write_quarantine(data, {"train": {"cow/003.jpg": "a copy"}})
    assert run(data) == 1
    assert read_quarantine(data)["train"] == {"cow/003.jpg": "a copy"}


def test_one_bad_image_with_a_name_that_breaks_lines_does_not_lose_the_list(data):
    shutil.move(data / "train/cow/004.jpg", data / "train/cow/a\tb\n.jpg")
    spoil(data / BAD_TRAIN, data / "train/cow/a\tb\n.jpg")
    assert run(data) == 1
    assert list(train_and_val(data)[0].names).count("cow/a\tb\n.jpg") == 0
    assert len(read_quarantine(data)["train"]) == 2


def test_a_damaged_list_is_refused_before_the_work(data, monkeypatch):
    (data / "quarantine.tsv").write_text("cow/003.jpg\n")
    monkeypatch.setattr(verify, "survey", None)
    with pytest.raises(UserError, match=r"quarantine\.tsv, line 1"):
        run(data)


def fail_to_write(*_):
    raise OSError(30, "Read-only file system")


def test_where_the_list_cannot_be_written_the_findings_are_shown_first(data, capsys, tmp_path, monkeypatch):
    spoil(data / BAD_TRAIN)
    monkeypatch.setattr(exclusion, "write_quarantine", fail_to_write)
    with pytest.raises(UserError, match=r"(?s)quarantine.tsv cannot be written: .*prepare .* --out INDEX"):
        run(data, "--json", str(tmp_path / "found.json"))
    assert f"{data / BAD_TRAIN}: {REASON}" in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["splits"]["train"]["bad"]


def test_sound_images_need_no_place_to_write(data, monkeypatch):
    monkeypatch.setattr(exclusion, "write_quarantine", fail_to_write)
    assert run(data) == 0


def test_the_terminal_shows_twenty_bad_images_and_the_list_all(data, capsys):
    spoil(*(data / "train" / "cow").iterdir(), *(data / "train" / "dog").glob("00*.jpg"))
    assert run(data) == 1
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bad image")]
    assert len(shown) == 21
    assert shown[-1] == "bad image   and 6 more"
    assert len(read_quarantine(data)["train"]) == 26


def test_equal_images_are_remarks_not_errors(data, capsys):
    for copy in ("train/cow/again.jpg", "train/dog/again.jpg", "val/cow/again.jpg", "val/dog/again.jpg"):
        shutil.copy(data / "train/cow/003.jpg", data / copy)
    assert run(data) == 0
    names = "train/cow/003.jpg = train/cow/again.jpg = train/dog/again.jpg = val/cow/again.jpg = 1 more"
    shown = capsys.readouterr().out
    for where in ("within a class", "across classes", "in train and val"):
        assert f"remark      1 image more than once {where}: {names}\n" in shown


def test_counts_that_are_not_imagenets_are_errors(data, capsys, monkeypatch):
    monkeypatch.setattr(findings, "find_miscounts", lambda splits: [f"{' and '.join(splits)} are short"])
    assert run(data) == 1
    assert "count       train and val are short\n" in capsys.readouterr().out


def test_json_is_written_with_the_findings(data, tmp_path):
    spoil(data / BAD_TRAIN)
    run(data, "--json", str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["good"] is False
    assert found["splits"]["train"]["bad"] == {"cow/003.jpg": {"file": str(data / BAD_TRAIN), "reason": REASON}}


def test_a_file_name_that_is_no_text_can_be_shown(data, capsys):
    file = os.fsencode(data / "train" / "cow") + b"/\xff.jpg"
    Path(os.fsdecode(file)).write_bytes(b"")
    assert run(data) == 1
    assert r"cow/\udcff.jpg: it is empty" in capsys.readouterr().out
    assert len(train_and_val(data)[0]) == 64


@pytest.mark.slow
def test_a_terminal_that_knows_ascii_alone_is_shown_every_name(data):
    Path(os.fsdecode(os.fsencode(data / "train" / "cow") + b"/\xff.jpg")).write_bytes(b"")
    (data / "train" / "cow" / "\u00e9.jpg").write_bytes(b"")
    command = [sys.executable, "-m", "backbones", "verify", str(data), "--workers", "1"]
    ended = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=False)
    assert ended.returncode == 1
    assert rb"cow/\udcff.jpg: it is empty" in ended.stdout
    assert rb"cow/\xe9.jpg: it is empty" in ended.stdout


def test_an_interrupted_run_writes_nothing(data, capsys, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    spoil(data / BAD_TRAIN)
    monkeypatch.setattr(verify, "survey", interrupted)
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        main(["verify", str(data), "--workers", "1", "--json", str(tmp_path / "found.json")])
    assert stopped.value.code == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (data / "quarantine.tsv").exists()
    assert not (tmp_path / "found.json").exists()


def test_a_missing_folder_for_json_is_refused_before_the_work(data, monkeypatch, tmp_path):
    monkeypatch.setattr(verify, "survey", None)
    with pytest.raises(UserError, match="--json"):
        run(data, "--json", str(tmp_path / "missing" / "found.json"))


def test_a_json_file_that_cannot_be_written_is_named(data, tmp_path):
    with pytest.raises(UserError, match=r"--json .* is a folder; name a file"):
        run(data, "--json", str(tmp_path))


def test_no_workers_are_refused(data):
    with pytest.raises(UserError, match="--workers=0 must be positive"):
        main(["verify", str(data), "--workers", "0"])
