"""Storage of checkpoints: the disk has little space left, or the newest checkpoint is old. For the first process."""

import shutil
import time
from pathlib import Path

from backbones.recipe import Saving
from backbones.training.health.monitor import Finding, HostMonitor, Level, Row
from backbones.training.manifest import MANIFEST
from backbones.training.run_files import LAST

LOOK_SECONDS = 60.0
"""Time between two looks at the disk."""
MIN_FREE, FREE_RELEASE = 3.0, 4.0
"""Checkpoints that should fit on the disk, and where the alarm ends."""
MAX_INTERVALS = 2.0
"""Age of the newest checkpoint in intervals."""


class DiskSpace(HostMonitor):
    """Monitor of the free space, in checkpoints of the size of the last one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.watch = _Watch()
        self.restart()

    def restart(self) -> None:
        """Forget what was seen."""
        self.level = Level(-MIN_FREE, -FREE_RELEASE)

    def look(self, row: Row) -> list[Finding] | None:  # noqa: ARG002
        """Return whether few checkpoints fit."""
        if not self.watch.is_due():
            return None
        size, free = _measure_disk(self.folder)
        if size == 0 or not self.level.exceeds(-free / size):
            return []
        text = f"{free / 1e9:.2f} GB are free for {self.folder}, {free / size:.1f} checkpoints of {size / 1e9:.2f} GB"
        return [Finding("disk_space", text, {"free_bytes": free, "checkpoints": free / size})]


class CheckpointAge(HostMonitor):
    """Monitor of the age of the newest checkpoint: one that fails is tried again, but somebody should know."""

    def __init__(self, folder: Path, saving: Saving) -> None:
        self.manifest = folder / LAST / MANIFEST
        self.seconds = saving.ckpt_minutes and 60 * saving.ckpt_minutes
        self.steps = saving.ckpt_every
        self.watch = _Watch()
        self.saved: int | None = None
        """Time of the newest checkpoint, by the clock of the disk; None where there is none."""
        self.seen: tuple[float, int] | None = None
        """Time and step at which it was first seen; None before the first look."""

    def restart(self) -> None:
        """Count from the next look on."""
        self.seen = None

    def look(self, row: Row) -> list[Finding] | None:
        """Return whether the newest checkpoint is too old."""
        if not self.watch.is_due():
            return None
        now, saved = time.monotonic(), self._read_time()
        if saved != self.saved or self.seen is None:
            self.saved, self.seen = saved, (now, row.step)
        seconds, steps = now - self.seen[0], row.step - self.seen[1]
        is_late = self.seconds is not None and seconds > MAX_INTERVALS * self.seconds
        if not is_late and not (self.steps is not None and steps > MAX_INTERVALS * self.steps):
            return []
        text = f"no checkpoint was written for {seconds / 60:.0f} minutes and {steps} steps"
        return [Finding("checkpoint_age", text, {"seconds": seconds, "steps": steps})]

    def _read_time(self) -> int | None:
        """Return when the newest checkpoint was written, by the clock of the disk; None where there is none."""
        try:
            return self.manifest.stat().st_mtime_ns
        except OSError:  # the writer renames it at this moment
            return None


class _Watch:
    """A clock that lets the disk be looked at now and then."""

    def __init__(self) -> None:
        self.looked = -LOOK_SECONDS

    def is_due(self) -> bool:
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS:
            return False
        self.looked = now
        return True


def _measure_disk(folder: Path) -> tuple[int, int]:
    """Return the size of the last checkpoint and the free space; 0 where they cannot be read at this moment."""
    try:
        size = sum(file.stat().st_size for file in (folder / LAST).iterdir())
        return size, shutil.disk_usage(folder).free
    except OSError:  # there is none yet, or the writer renames it
        return 0, 0
