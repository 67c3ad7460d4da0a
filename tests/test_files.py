"""Files and folders appear whole or not at all, and a folder has one owner."""

import json
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from backbones import files
from backbones.errors import UserError
from backbones.files import (
    json_text,
    lock,
    new_file,
    new_folder,
    remove_leftovers,
    require_output_file,
    require_output_folder,
    write_text,
)


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_appears_whole_and_alone(tmp_path):
    with new_file(tmp_path / "a.txt") as opened:
        opened.write(b"new")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_bytes() == b"new"
    assert names(tmp_path) == {"a.txt"}


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(TypeError), new_file(tmp_path / "a.txt") as opened:
        opened.writelines([b"new", "no bytes"])  # type: ignore[list-item]
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_a_folder_replaces_another_as_a_whole(tmp_path):
    for name in ("one", "two"):
        with new_folder(tmp_path / "last") as folder:
            (folder / name).write_text(name)
    assert names(tmp_path) == {"last"}
    assert names(tmp_path / "last") == {"two"}


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path):
    with new_folder(tmp_path / "last") as folder:
        (folder / "one").touch()
    with pytest.raises(FileExistsError), new_folder(tmp_path / "last") as folder:
        [(folder / "two").touch(exist_ok=False) for _ in range(2)]
    assert names(tmp_path) == {"last"}
    assert names(tmp_path / "last") == {"one"}


def test_what_a_killed_process_left_is_removed(tmp_path):
    code = """import os, pathlib, sys
from backbones.files import new_file, new_folder
root = pathlib.Path(sys.argv[1])
with new_file(root / "f"), new_folder(root / "d") as folder:
    (folder / "x").touch()
    os.kill(os.getpid(), 9)"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(names(tmp_path)) == 2
    (tmp_path / "kept").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {"kept"}


def test_content_and_names_are_on_the_disk_before_the_block_ends(tmp_path, monkeypatch):
    flushed: list[str] = []
    fsync = os.fsync

    def note_and_flush(descriptor: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", note_and_flush)
    write_text(tmp_path / "a.txt", "x")
    assert [re.sub(r"\.[0-9a-f]{8}\.partial$", ".partial", path) for path in flushed] == [
        f"{tmp_path}/a.txt.partial",
        str(tmp_path),
    ]
    flushed.clear()
    with new_folder(tmp_path / "d") as folder:
        (folder / "x").touch()
    assert [re.sub(r"\.[0-9a-f]{8}\.partial", ".partial", path) for path in flushed] == [
        f"{tmp_path}/d.partial/x",
        f"{tmp_path}/d.partial",
        str(tmp_path),
    ]


def test_a_folder_that_is_owned_names_process_and_host(tmp_path):
    who = re.escape(f"(process {os.getpid()} on {socket.gethostname()})")
    with (
        lock(tmp_path, "belongs to a run that is still going"),
        pytest.raises(UserError, match=f"{tmp_path} belongs to a run that is still going {who}"),
        lock(tmp_path, "belongs to a run that is still going"),
    ):
        pass
    with lock(tmp_path, "is free again"):
        pass


def test_a_lock_ends_with_its_process(tmp_path):
    code = "import os, sys, pathlib; from backbones.files import lock\n"
    code += "with lock(pathlib.Path(sys.argv[1]), 'x'):\n    os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    with lock(tmp_path, "is owned"):
        pass


@pytest.mark.parametrize("path", ["/proc/nothing/run", "/dev/null/run"])
def test_a_folder_that_cannot_be_made_is_refused_in_one_line(path):
    with pytest.raises(UserError, match=rf"--output {path}: /\S+ cannot be written: [A-Z][a-z ]+\.$"):
        require_output_folder("--output", path)


def test_a_link_that_points_nowhere_is_refused_as_a_folder(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"--output .*run: .*run cannot be written: No such file or directory"):
        require_output_folder("--output", tmp_path / "run")


def test_asking_whether_a_folder_can_be_made_makes_nothing(tmp_path):
    require_output_folder("--output", tmp_path / "a" / "b")
    assert names(tmp_path) == set()


def test_an_output_file_needs_a_folder_that_can_be_written(tmp_path):
    require_output_file("--json", None)
    require_output_file("--json", tmp_path / "x.json")
    with pytest.raises(UserError, match=r"--json .*no/x.json: there is no folder"):
        require_output_file("--json", tmp_path / "no" / "x.json")
    with pytest.raises(UserError, match="is a folder; name a file"):
        require_output_file("--json", tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        require_output_file("--json", "/proc/x.json")


def test_json_has_no_nan():
    value = {"loss": math.nan, "list": [1.5, -math.inf, (math.inf, "nan")], "n": 3, "none": None}
    assert json.loads(json_text(value)) == {"loss": None, "list": [1.5, None, [None, "nan"]], "n": 3, "none": None}
    assert json_text({"a": 0.1, "b": [True]}) == '{"a": 0.1, "b": [true]}'
