"""``prepare`` writes the same index and shards from any layout, with any number of workers, after any interruption."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from backbones.commands import prepare
from backbones.dataset.index import Index, read_index, without_ending
from backbones.dataset.preparation import shards
from backbones.dataset.splits import train_and_val
from backbones.errors import UserError
from tests.dataset.make_sources import WNIDS, make_images, pack, write, write_sources

LAYOUTS = ("folder", "kaggle", "ilsvrc", "webdataset")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same images in every layout; not to be changed."""
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five images make a shard; for this process alone."""
    monkeypatch.setattr(shards, "MAX_IMAGES", 5)


def run(source: Path, out: Path, *words: str, workers: int = 1) -> None:
    prepare.main([str(source), "--out", str(out), "--workers", str(workers), *words])


def refusal(source: Path, out: Path, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        run(source, out, *words)
    return str(caught.value)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def tars(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files(folder).items() if name.endswith(".tar")}


def read(index: Index, row: int) -> bytes:
    place = index.place(row)
    return Path(place.path).read_bytes()[place.offset :][: place.length]


def test_one_of_two_data_sets_is_chosen_before_anything_is_written(sources, tmp_path: Path) -> None:
    both = Path(shutil.copytree(sources["folder"], tmp_path / "both"))
    shutil.copytree(sources["webdataset"], both, dirs_exist_ok=True)
    assert "--layout shards" in refusal(both, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    run(both, tmp_path / "out", "--layout", "shards")
    assert train_and_val(tmp_path / "out")[0].place(0).path.endswith(".tar")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_an_index_of_the_same_images(sources, tmp_path: Path, layout: str) -> None:
    run(sources[layout], tmp_path / "out")
    for index, images in zip(train_and_val(tmp_path / "out"), make_images().values(), strict=True):
        found = {without_ending(index.names[row]): read(index, row) for row in range(len(index))}
        assert found == {without_ending(name): content for name, content in images.items()}


def test_counts_fingerprints_and_the_next_command_are_printed(sources, tmp_path: Path, capsys) -> None:
    run(sources["folder"], tmp_path / "out")
    shown = capsys.readouterr().out
    train, val = train_and_val(sources["folder"])
    assert f"train       24 images of 4 classes, fingerprint {train.fingerprint}" in shown
    assert f"val         12 images of 4 classes, fingerprint {val.fingerprint}" in shown
    assert f"accelerate launch train_imagenet.py --data-dir {tmp_path / 'out'}" in shown


def test_the_same_images_give_the_same_shards_from_every_layout(sources, tmp_path: Path, small_shards) -> None:
    for layout in LAYOUTS:
        run(sources[layout], tmp_path / layout, "--resize", "45")
    expected = tars(tmp_path / "folder")
    assert len(expected) == 5 + 3
    assert all(tars(tmp_path / layout) == expected for layout in LAYOUTS)


def test_images_of_shards_are_small_and_keep_names_and_labels(sources, tmp_path: Path) -> None:
    run(sources["kaggle"], tmp_path / "out", "--resize", "45", "--quality", "70")
    before, after = train_and_val(sources["kaggle"]), train_and_val(tmp_path / "out")
    for ours, theirs in zip(after, before, strict=True):
        assert [without_ending(name) for name in ours.names] == [without_ending(name) for name in theirs.names]
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert ours.classes == WNIDS
        for row in range(len(ours)):
            with Image.open(_opened(ours, row)) as small, Image.open(_opened(theirs, row)) as large:
                assert min(small.size) == min(45, *large.size)
                assert small.format == "JPEG"


def test_the_shards_alone_give_the_same_index(sources, tmp_path: Path, small_shards) -> None:
    run(sources["folder"], tmp_path / "out", "--resize", "45")
    (tmp_path / "bare").mkdir()
    for file in [*(tmp_path / "out").glob("*.tar"), tmp_path / "out" / "classes.txt"]:
        shutil.copy(file, tmp_path / "bare")
    for ours, theirs in zip(train_and_val(tmp_path / "out"), train_and_val(tmp_path / "bare"), strict=True):
        assert ours.fingerprint == theirs.fingerprint
        assert list(ours.names) == list(theirs.names)


def test_prepared_shards_may_move(sources, tmp_path: Path) -> None:
    run(sources["folder"], tmp_path / "out", "--resize", "45")
    before = read(train_and_val(tmp_path / "out")[0], 5)
    (tmp_path / "out").rename(tmp_path / "moved")
    assert read(train_and_val(tmp_path / "moved")[0], 5) == before


def test_the_number_of_workers_changes_nothing(sources, tmp_path: Path) -> None:
    for workers in (1, 2):
        run(sources["ilsvrc"], tmp_path / str(workers), "--resize", "45", workers=workers)
    assert files(tmp_path / "1") == files(tmp_path / "2")


@pytest.mark.parametrize("after", [0, 1, 7, 26, 35])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_killed_run_goes_on_and_ends_the_same(
    sources, tmp_path: Path, small_shards, monkeypatch: pytest.MonkeyPatch, after: int, error
) -> None:
    run(sources["folder"], tmp_path / "whole", "--resize", "45")
    calls = []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise error
        return shrink(*arguments)

    shrink = shards.shrink
    with monkeypatch.context() as patch:
        patch.setattr(shards, "shrink", dying)
        with pytest.raises(error):
            run(sources["folder"], tmp_path / "out", "--resize", "45")
    begun = tars(tmp_path / "out")
    assert "train.npz" not in files(tmp_path / "out")
    monkeypatch.setattr(shards, "shrink", lambda *arguments: calls.append(arguments) or shrink(*arguments))
    del calls[:]
    run(sources["folder"], tmp_path / "out", "--resize", "45")
    assert len(calls) == 36 - sum(_images(content) for content in begun.values())
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_what_a_killed_process_left_half_written_is_not_taken(sources, tmp_path: Path) -> None:
    run(sources["folder"], tmp_path / "whole", "--resize", "45")
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    for name in ("train.npz", "val.npz", "val-000000.tar"):
        (tmp_path / "out" / name).unlink()
    write(tmp_path / "out" / "val-000000.tar.123.partial", b"half")
    run(sources["folder"], tmp_path / "out", "--resize", "45")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_complete_folder_of_the_same_request_is_left_as_it_is(sources, tmp_path: Path, capsys) -> None:
    run(sources["folder"], tmp_path / "out", "--resize", "45")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.name != ".lock"}
    run(sources["folder"], tmp_path / "out", "--resize", "45")
    assert "complete already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def rewrite_backwards(shard: Path) -> None:
    """Write the pairs of image and class of a shard anew in the other order: as many bytes, a later time."""
    with tarfile.open(shard) as archive:
        contents = {member.name: archive.extractfile(member).read() for member in archive}  # pyright: ignore
    before = shard.stat()
    shard.write_bytes(pack(dict(reversed(contents.items()))))
    assert shard.stat().st_size == before.st_size
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def test_a_shard_in_another_order_is_indexed_anew(sources, tmp_path: Path, capsys) -> None:
    root = Path(shutil.copytree(sources["webdataset"], tmp_path / "in"))
    run(root, tmp_path / "out")
    rewrite_backwards(root / "imagenet1k-train-0001.tar")
    run(root, tmp_path / "out")
    assert "the images are in other places now: the index was written again" in capsys.readouterr().out
    for index, images in zip(train_and_val(tmp_path / "out"), make_images().values(), strict=True):
        found = {without_ending(index.names[row]): read(index, row) for row in range(len(index))}
        assert found == {without_ending(name): content for name, content in images.items()}


def test_an_index_that_was_refused_for_a_touched_archive_is_good_once_it_is_prepared_anew(
    sources, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(sources["webdataset"], tmp_path / "in"))
    run(root, tmp_path / "out")
    os.utime(root / "imagenet1k-train-0001.tar", ns=(0, 0))
    with pytest.raises(UserError, match="prepare it anew"):
        train_and_val(tmp_path / "out")
    run(root, tmp_path / "out")
    assert len(train_and_val(tmp_path / "out")[0]) == 24


def test_an_image_with_another_ending_is_indexed_anew(sources, tmp_path: Path, capsys) -> None:
    root = Path(shutil.copytree(sources["folder"], tmp_path / "in"))
    run(root, tmp_path / "out")
    image = next((root / "train" / WNIDS[0]).glob("*.JPEG"))
    image.rename(image.with_suffix(".jpg"))
    run(root, tmp_path / "out")
    assert "the images are in other places now" in capsys.readouterr().out
    assert f"{WNIDS[0]}/{image.stem}.jpg" in list(train_and_val(tmp_path / "out")[0].names)
    run(root, tmp_path / "out")
    assert "complete already" in capsys.readouterr().out


def test_images_that_lie_elsewhere_now_change_nothing_in_shards(sources, tmp_path: Path, capsys) -> None:
    root = Path(shutil.copytree(sources["webdataset"], tmp_path / "in"))
    run(root, tmp_path / "out", "--resize", "45")
    before = files(tmp_path / "out")
    rewrite_backwards(root / "imagenet1k-train-0001.tar")
    run(root, tmp_path / "out", "--resize", "45")
    assert "complete already" in capsys.readouterr().out
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize("broken", [Path.unlink, lambda shard: shard.write_bytes(shard.read_bytes()[:-512])])
@pytest.mark.parametrize("shard", ["train-000001.tar", "val-000002.tar"])
def test_a_shard_that_is_gone_or_cut_is_written_anew(
    sources, tmp_path: Path, small_shards, capsys, broken, shard: str
) -> None:
    run(sources["folder"], tmp_path / "out", "--resize", "45")
    before = files(tmp_path / "out")
    broken(tmp_path / "out" / shard)
    run(sources["folder"], tmp_path / "out", "--resize", "45")
    assert files(tmp_path / "out") == before
    assert "are written again: 1\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train.npz", "val.npz"])
def test_a_damaged_index_is_written_anew(sources, tmp_path: Path, name: str) -> None:
    run(sources["folder"], tmp_path / "out")
    before = files(tmp_path / "out")
    write(tmp_path / "out" / name, b"damaged")
    run(sources["folder"], tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_a_folder_whose_record_knows_no_archives_is_completed(sources, tmp_path: Path) -> None:
    run(sources["folder"], tmp_path / "out", "--resize", "45")
    before = files(tmp_path / "out")
    record = json.loads(before["prepare.json"])
    write(
        tmp_path / "out" / "prepare.json",
        json.dumps({name: record[name] for name in record if name != "archives"}).encode(),
    )
    assert len(train_and_val(tmp_path / "out")[0]) == 24
    run(sources["folder"], tmp_path / "out", "--resize", "45")
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize("words", [["--resize", "44"], ["--resize", "45", "--quality", "80"], [], ["--per-class", "2"]])
def test_other_options_into_the_same_folder_are_refused_with_the_difference(
    sources, tmp_path: Path, words: list[str]
) -> None:
    run(sources["folder"], tmp_path / "out", "--resize", "45")
    message = refusal(sources["folder"], tmp_path / "out", *words)
    assert "was begun in another way" in message
    assert any(f"{name} was" in message for name in ("resize", "quality", "per_class"))


def test_other_images_into_the_same_folder_are_refused(sources, tmp_path: Path) -> None:
    root = Path(shutil.copytree(sources["folder"], tmp_path / "folder"))
    run(root, tmp_path / "out")
    next((root / "train" / WNIDS[0]).iterdir()).unlink()
    assert "train images was" in refusal(root, tmp_path / "out")


def test_a_second_run_into_the_same_folder_is_refused(sources, tmp_path: Path, monkeypatch) -> None:
    seen = []

    def meddling(*arguments):
        seen.append(refusal(sources["folder"], tmp_path / "out", "--resize", "45"))
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "shrink", meddling)
    with pytest.raises(KeyboardInterrupt):
        run(sources["folder"], tmp_path / "out", "--resize", "45")
    assert "is being written by another `prepare` (process " in seen[0]


def test_all_images_that_cannot_be_decoded_are_listed_and_no_index_is_written(
    sources, tmp_path: Path, small_shards
) -> None:
    root = Path(shutil.copytree(sources["folder"], tmp_path / "folder"))
    bad = [root / "train" / name for name in ("n01440764/n01440764_7.JPEG", "n03792782/n03792782_57.JPEG")]
    for path in bad:
        path.write_bytes(path.read_bytes()[:-200])
    message = refusal(root, tmp_path / "out", "--resize", "45")
    assert message.startswith("2 images cannot be used")
    assert all(f"\n  {path}: " in message for path in bad)
    assert f"python -m backbones verify {root}" in message
    assert not {"train.npz", "val.npz"} & files(tmp_path / "out").keys()


def test_the_images_of_a_class_do_not_depend_on_the_other_classes(sources, tmp_path: Path) -> None:
    run(sources["folder"], tmp_path / "few", "--classes", "2", "--per-class", "3")
    run(sources["folder"], tmp_path / "all", "--per-class", "3")
    few, every = read_index(tmp_path / "few" / "train.npz"), read_index(tmp_path / "all" / "train.npz")
    assert list(few.names) == [name for name in every.names if name.split("/")[0] in few.classes]


def test_a_part_of_a_prepared_index_can_be_prepared(sources, tmp_path: Path) -> None:
    run(sources["folder"], tmp_path / "all")
    run(tmp_path / "all", tmp_path / "part", "--per-class", "2")
    assert len(train_and_val(tmp_path / "part")[0]) == 8


def test_shards_may_be_named_in_braces(sources, tmp_path: Path) -> None:
    words = ["--train", "imagenet1k-train-{0000..0002}.tar", "--val", "imagenet1k-validation-000{0,1}.tar"]
    run(sources["webdataset"], tmp_path / "out", *words)
    train, val = train_and_val(tmp_path / "out")
    assert (len(train), len(val)) == (21, 12)


def test_a_shard_that_is_named_but_not_there_is_refused(sources, tmp_path: Path) -> None:
    words = ["--train", "imagenet1k-train-{0002..0004}.tar", "--val", "imagenet1k-validation-0000.tar"]
    assert "imagenet1k-train-0004.tar" in refusal(sources["webdataset"], tmp_path / "out", *words)


def test_classes_of_shards_can_be_named_by_a_file(sources, tmp_path: Path) -> None:
    names = write(tmp_path / "names.txt", b"d\nc\nb\na\n")
    run(sources["webdataset"], tmp_path / "out", "--class-names", str(names))
    train, _ = train_and_val(tmp_path / "out")
    assert train.classes == ("a", "b", "c", "d")
    assert train.labels[list(train.names).index("d/n01440764_7.jpg")] == 3


def test_classes_of_shards_can_be_the_synsets_of_imagenet(tmp_path: Path) -> None:
    for split in ("train", "val"):
        members = {f"{k}.{end}": str(k).encode() for k in range(1000) for end in ("jpg", "cls")}
        write(tmp_path / "in" / f"{split}-0.tar", pack(members))
    run(tmp_path / "in", tmp_path / "out", "--class-names", "imagenet")
    train, _ = train_and_val(tmp_path / "out")
    assert [train.classes[k] for k in (0, 207, 999)] == ["n01440764", "n02099601", "n15075141"]
    assert train.names[207] == "n02099601/207.jpg"


def test_quarantined_images_are_not_prepared(sources, tmp_path: Path, capsys) -> None:
    root = Path(shutil.copytree(sources["folder"], tmp_path / "folder"))
    write(root / "quarantine.tsv", b"split\tname\treason\ntrain\tn01440764/n01440764_7.JPEG\tbad\n")
    run(root, tmp_path / "out")
    assert len(train_and_val(tmp_path / "out")[0]) == 23
    assert "note        1 images of quarantine.tsv are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--resize", "0"], "resize=0"),
        (["--quality", "101"], "quality=101"),
        (["--workers", "0"], "workers=0"),
        (["--train", "x.tar"], "train='x.tar'"),
        (["--rezise", "45"], "--resize"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(sources, tmp_path: Path, words, named: str) -> None:
    with pytest.raises(UserError, match=named):
        prepare.main([str(sources["folder"]), "--out", str(tmp_path / "out"), *words])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "SRC is missing"),
        (["somewhere"], "--out is missing.\nusage: python -m backbones prepare SRC --out OUT"),
        (["--out", "x"], "SRC is missing"),
    ],
)
def test_what_is_missing_on_the_command_line_is_named(words: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        prepare.main(words)


def test_a_disk_that_is_full_is_named_with_how_to_go_on(sources, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    message = refusal(sources["folder"], tmp_path / "out", "--resize", "45")
    assert "No space left on device" in message
    assert "same command again" in message


def test_a_note_with_a_name_that_is_no_text_can_be_shown(sources, tmp_path: Path, capsys) -> None:
    root = Path(shutil.copytree(sources["folder"], tmp_path / "folder"))
    write(root / "quarantine.tsv", b"split\tname\treason\ntrain\tn01440764/\xff.JPEG\tbad\n")
    run(root, tmp_path / "out")
    assert r"not in the data set: 'n01440764/\udcff.JPEG'" in capsys.readouterr().out


def test_other_readers_of_shards_find_pairs_of_image_and_class(sources, tmp_path: Path) -> None:
    """As torch's own data pipes would: members of a sample follow each other and share all but the ending."""
    run(sources["folder"], tmp_path / "out", "--resize", "45")
    with tarfile.open(tmp_path / "out" / "val-000000.tar") as archive:
        names = archive.getnames()
    assert [name.rpartition(".")[2] for name in names] == ["jpg", "cls"] * 12
    assert [name[:-4] for name in names[::2]] == [name[:-4] for name in names[1::2]]


def _images(content: bytes) -> int:
    return content.count(b"ustar") // 2


def _opened(index: Index, row: int):
    import io  # noqa: PLC0415

    return io.BytesIO(read(index, row))


@pytest.mark.parametrize("order", [("{out}", "{source}"), ("{source}", "{out}")])
def test_the_data_set_may_stand_anywhere(sources: dict[str, Path], tmp_path: Path, order: tuple[str, str]) -> None:
    parts = {"{out}": ["--out", str(tmp_path / "index")], "{source}": [str(sources["folder"])]}
    prepare.main([*parts[order[0]], *parts[order[1]], "--workers", "1"])
    assert (tmp_path / "index" / "train.npz").is_file()
