"""Tests of tar archives: the places of members, and refused archives, damaged or hostile."""

import gzip
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.dataset.sources.tar import Member, members
from backbones.errors import UserError
from tests.dataset.make_sources import pack, write

CONTENTS = {"a.jpg": b"A" * 700, "deep/b.jpg": b"B", "empty.jpg": b"", f"{'long' * 60}.jpg": b"C" * 512}


def refusal(file: Path, content: bytes) -> str:
    with pytest.raises(UserError) as caught:
        members(write(file, content))
    message = str(caught.value)
    assert str(file) in message
    return message


def special(name: str, kind: bytes) -> bytes:
    """An archive with a sound member, then one of another kind."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("sound.jpg"))
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    return written.getvalue()


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_bytes_lie_where_it_says(tmp_path: Path, kind: int) -> None:
    contents = CONTENTS if kind != tarfile.USTAR_FORMAT else {"a.jpg": b"A" * 700, "b.jpg": b"B"}
    with tarfile.open(tmp_path / "x.tar", "w", format=kind) as archive:
        folder = tarfile.TarInfo("deep")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    data = (tmp_path / "x.tar").read_bytes()
    found = {member.name: data[member.offset :][: member.length] for member in members(tmp_path / "x.tar")}
    assert found == contents


def test_members_of_an_archive_in_an_archive_lie_in_the_outer_one(tmp_path: Path) -> None:
    outer = write(tmp_path / "x.tar", pack({"first.tar": pack({"x.jpg": b"x"}), "second.tar": pack(CONTENTS)}))
    inner = members(outer)[1]
    data = outer.read_bytes()
    assert {m.name: data[m.offset :][: m.length] for m in members(outer, inner)} == CONTENTS


def test_a_damaged_archive_in_an_archive_does_not_lend_members_of_the_next(tmp_path: Path) -> None:
    cut = pack({"x.jpg": b"x" * 512})[:1024]
    outer = write(tmp_path / "x.tar", pack({"first.tar": cut, "second.tar": pack(CONTENTS)}))
    with pytest.raises(UserError, match=r"first\.tar in .*x\.tar is truncated"):
        members(outer, members(outer)[0])


@pytest.mark.parametrize("name", ["/etc/cron.d/x.jpg", "../x.jpg", "a/../../x.jpg"])
def test_a_name_that_leads_out_of_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    assert repr(name) in refusal(tmp_path / "x.tar", pack({"a.jpg": b"A", name: b"x"}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    assert "'x.jpg' is not a plain file" in refusal(tmp_path / "x.tar", special("x.jpg", kind))


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    content = pack({"a.jpg": b"A"})[:1024] + pack({"a.jpg": b"B"})
    assert "two members of the same name: a.jpg" in refusal(tmp_path / "x.tar", content)


def test_a_compressed_archive_is_refused_with_the_program_to_use(tmp_path: Path) -> None:
    assert "gunzip" in refusal(tmp_path / "x.tar.gz", gzip.compress(pack(CONTENTS)))


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"<html>not found</html>" * 60])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "truncated or not a tar archive" in refusal(tmp_path / "x.tar", content)


WHOLE = pack(CONTENTS, mode="w")
END = max(m for m in range(0, len(WHOLE), 512) if any(WHOLE[m : m + 512])) + 512


@pytest.mark.parametrize("length", [*range(512, END + 1, 512), 100, 700, 1300, END - 1, END + 100])
def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path: Path, length: int) -> None:
    assert "truncated" in refusal(tmp_path / "x.tar", WHOLE[:length])


def test_a_damaged_header_in_the_middle_is_refused_not_taken_for_the_end(tmp_path: Path) -> None:
    damaged = bytearray(WHOLE)
    second = WHOLE.index(b"deep/b.jpg")
    damaged[second : second + 100] = b"\xff" * 100
    assert f"no sound header at byte {second}" in refusal(tmp_path / "x.tar", bytes(damaged))


def test_a_hole_of_zeros_is_refused_not_taken_for_the_end(tmp_path: Path) -> None:
    second = WHOLE.index(b"deep/b.jpg")
    damaged = WHOLE[:second] + bytes(1024) + WHOLE[second + 1024 :]
    again = next(k for k in range(second + 1024, len(WHOLE)) if WHOLE[k])
    assert f"ends at byte {second} and goes on at byte {again}" in refusal(tmp_path / "x.tar", damaged)


def test_a_header_of_zeros_is_refused_not_taken_for_the_end(tmp_path: Path) -> None:
    second = WHOLE.index(b"deep/b.jpg")
    damaged = WHOLE[:second] + bytes(512) + WHOLE[second + 512 :]
    assert f"ends at byte {second} and goes on at byte {second + 512}" in refusal(tmp_path / "x.tar", damaged)


def test_archives_that_were_joined_are_refused(tmp_path: Path) -> None:
    first, second = pack({"a.jpg": b"A"}), pack({"b.jpg": b"B"})
    assert f"goes on at byte {len(first)}: " in refusal(tmp_path / "x.tar", first + second)


def test_a_single_byte_at_the_very_end_is_refused(tmp_path: Path) -> None:
    assert f"goes on at byte {len(WHOLE) - 1}: " in refusal(tmp_path / "x.tar", WHOLE[:-1] + b"x")


def test_a_hole_in_an_archive_in_an_archive_is_refused_by_its_name(tmp_path: Path) -> None:
    hole = pack({"x.jpg": b"x", "y.jpg": b"y"})
    hole = hole[:1024] + bytes(512) + hole[1536:]
    outer = write(tmp_path / "x.tar", pack({"first.tar": hole, "second.tar": pack(CONTENTS)}))
    with pytest.raises(UserError, match=r"first\.tar in .*x\.tar is truncated.* ends at byte 1024 .* at byte 1536:"):
        members(outer, members(outer)[0])


@pytest.mark.parametrize("blocks", [1, 20, 2048])
def test_the_records_of_gnu_tar_may_be_of_any_usual_size(tmp_path: Path, blocks: int) -> None:
    write(tmp_path / "a.jpg", b"A" * 700)
    subprocess.run(["tar", f"--blocking-factor={blocks}", "-cf", "x.tar", "a.jpg"], cwd=tmp_path, check=True)
    assert members(tmp_path / "x.tar") == [Member("a.jpg", 512, 700)]


@pytest.mark.parametrize(("zeros", "sound"), [(2**20, True), (2**20 + 1, False)])
def test_more_zeros_than_a_record_needs_are_refused(tmp_path: Path, zeros: int, sound: bool) -> None:
    content = WHOLE[:END] + bytes(zeros)
    if sound:
        assert len(members(write(tmp_path / "x.tar", content))) == len(CONTENTS)
    else:
        assert f"more than 1,048,576 zeros from byte {END} on" in refusal(tmp_path / "x.tar", content)


def test_a_hole_of_many_gigabytes_is_refused_without_reading_it(tmp_path: Path) -> None:
    """A sparse file of 64 GiB: reading it would take minutes."""
    with write(tmp_path / "x.tar", WHOLE).open("r+b") as file:
        file.truncate(2**36)
    with pytest.raises(UserError, match="more than 1,048,576 zeros"):
        members(tmp_path / "x.tar")


@given(place=st.integers(0, END - 1), value=st.integers(0, 255))
def test_any_changed_byte_is_refused_or_leaves_all_members_inside(tmp_path_factory, place: int, value: int) -> None:
    changed = bytearray(WHOLE)
    changed[place] = value
    file = write(tmp_path_factory.getbasetemp() / "changed.tar", bytes(changed))
    try:
        found = members(file)
    except UserError:
        return
    assert all(0 <= m.offset <= m.offset + m.length <= len(WHOLE) for m in found)


def test_only_headers_are_read(tmp_path: Path) -> None:
    """A sparse file of 64 GiB: reading it would take minutes."""
    size = 2**36
    with (tmp_path / "x.tar").open("wb") as file:
        info = tarfile.TarInfo("large.jpg")
        info.size = size
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + size + 10240)
    assert members(tmp_path / "x.tar") == [Member("large.jpg", 512, size)]
