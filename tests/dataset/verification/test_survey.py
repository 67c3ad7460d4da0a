"""A survey has figures for each image, whoever checks it, and names the images of a worker that died."""

import hashlib
import multiprocessing
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.dataset.sources.folder import scan_folder
from backbones.dataset.verification import survey as module
from backbones.dataset.verification.look import Remark
from backbones.dataset.verification.survey import Survey, survey
from backbones.dataset.workers import JOBS_PER_WORKER, processes
from backbones.errors import UserError


@pytest.fixture
def odd(small: Path) -> Path:
    """Eight images of two classes, of which one is cut, one is empty and one is a grey PNG."""
    cut, empty, grey = (small / name for name in ("class0/002.jpg", "class1/003.jpg", "class1/005.jpg"))
    cut.write_bytes(cut.read_bytes()[:-2])
    empty.write_bytes(b"")
    Image.open(grey).convert("L").save(grey, format="PNG")
    return small


def test_a_survey_has_a_figure_for_each_image(odd):
    index = scan_folder(odd)
    found = survey({"train": index})["train"]
    for row, name in enumerate(index.names):
        if name in ("class0/002.jpg", "class1/003.jpg"):
            assert row not in found.usable
            assert found.sizes[row].tolist() == [0, 0]
            continue
        with Image.open(odd / name) as image:
            assert tuple(found.sizes[row]) == (image.height, image.width)
        expected = hashlib.blake2b((odd / name).read_bytes(), digest_size=8).digest()
        assert found.digests[row].tobytes() == expected
    assert found.count_kinds() == {"JPEG RGB": 5, "PNG grey": 1}
    assert [index.names[row] for row in found.rows_with(Remark.MISNAMED)] == ["class1/005.jpg"]
    bad = {index.names[row]: reason for row, reason in found.reasons.items()}
    assert bad.keys() == {"class0/002.jpg", "class1/003.jpg"}
    assert bad["class1/003.jpg"] == "it is empty"


def test_two_processes_find_what_one_finds(odd, monkeypatch):
    splits = {"train": scan_folder(odd), "val": scan_folder(odd)}
    monkeypatch.setattr(module, "IMAGES_PER_CHUNK", 3)
    done = []
    with processes(2) as executor:
        together = survey(splits, executor=executor, workers=2, seen=done.append)
    assert done[-1] == 16
    assert sorted(b - a for a, b in pairwise([0, *done])) == [2, 2, 3, 3, 3, 3]
    for split, alone in survey(splits).items():
        other = together[split]
        assert other.reasons == alone.reasons
        assert other.count_kinds() == alone.count_kinds()
        for column in ("digests", "remarks", "sizes"):
            np.testing.assert_array_equal(getattr(other, column), getattr(alone, column))


def test_a_worker_that_dies_ends_the_survey_with_the_images_it_may_have_died_of(odd, monkeypatch):
    monkeypatch.setattr(module, "IMAGES_PER_CHUNK", 1)
    splits = dict.fromkeys("abcdefgh", scan_folder(odd))
    done = []

    def kill(count: int) -> None:
        done.append(count)
        if len(done) == 10:
            for process in multiprocessing.active_children():
                process.kill()

    with (
        processes(2) as executor,
        pytest.raises(UserError, match=r"(?s)worker process died .*fewer --workers") as error,
    ):
        survey(splits, executor=executor, workers=2, seen=kill)
    suspects = re.findall(r"^  ([a-h]/class\d/00\d.jpg) to \1$", str(error.value), flags=re.MULTILINE)
    assert 1 <= len(suspects) <= 2 * JOBS_PER_WORKER


def test_a_survey_costs_a_few_bytes_for_each_image(small):
    found = Survey.of(scan_folder(small))
    each = sum(getattr(found, column).nbytes for column in ("kinds", "digests", "remarks", "sizes")) / 8
    assert each <= 32
