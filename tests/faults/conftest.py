"""The data set of the faults, and the outcome of each row where `make faults` asks for it."""

import json
import os
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.faults.small_runs import CLASSES

OUTCOMES = "FAULT_OUTCOMES"
"""Environment variable with the folder for the outcomes, one file for each process of pytest."""

outcomes: dict[int, list[str]] = defaultdict(list)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Note whether a row ended right, wrong, or wrong without a word: the worst."""
    report = (yield).get_result()
    if report.when == "call" or (report.when == "setup" and not report.passed):
        silently = "DID NOT RAISE" in str(report.longrepr) or "wrong silently" in str(report.longrepr)
        outcome = "right" if report.passed else "not run" if report.skipped else "silent" if silently else "wrong"
        for marker in item.iter_markers("fault"):
            outcomes[marker.args[0]].append(outcome)


def pytest_sessionfinish() -> None:
    """Write the outcomes of this process."""
    if folder := os.environ.get(OUTCOMES):
        Path(folder, f"{os.getpid()}.json").write_text(json.dumps(outcomes))


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set without a fault."""
    root = tmp_path_factory.mktemp("sound")
    random = np.random.default_rng(0)
    for split, counts in (("train", [16] * 4), ("val", [6, 5, 5, 5])):
        for label, (name, count) in enumerate(zip(CLASSES, counts, strict=True)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                noise = random.integers(0, 90, (64, 64, 3))
                noise[..., label % 3] += 60 + 60 * (label // 3)
                Image.fromarray(noise.astype(np.uint8)).save(root / split / name / f"{number:03d}.jpg", quality=92)
    return root


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(sound, tmp_path / "data"))
