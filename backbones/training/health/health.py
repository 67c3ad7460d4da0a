"""The monitors of a run together: what they collect on the device, and the alarms that they raise."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from torch import Tensor

from backbones.training.health.alarms import Alarms
from backbones.training.health.heartbeat import HEARTBEAT, LastKnown, beating
from backbones.training.health.monitor import Finding, Monitor, Row


class Health:
    """Monitors of one process. Without any it does nothing.

    Args:
        monitors: the same ones in the same order on every process, as far as they call collectives.
        folder: run folder for the heartbeat, on the first process only.
    """

    def __init__(self, monitors: Sequence[Monitor] = (), folder: Path | None = None) -> None:
        self.monitors = tuple(monitors)
        self.folder = folder
        self._alarms = [Alarms() for _ in self.monitors]

    def collect(self, step: int) -> list[Tensor | None]:
        """Return what each monitor wants to read from the device at this row."""
        return [monitor.collect(step) for monitor in self.monitors]

    def judge(self, row: Row, values: Sequence[Sequence[float]]) -> Iterator[Finding]:
        """Yield the alarms to raise at this row.

        Args:
            row: figures of the steps since the last row.
            values: what `collect` returned, on the host; empty for None.
        """
        for monitor, alarms, own in zip(self.monitors, self._alarms, values, strict=True):
            findings = monitor.judge(row, own)
            if findings is not None:
                yield from alarms.update(row.step, findings)

    def restart(self) -> None:
        """Forget what was seen: the run went back to a checkpoint, or goes on from one."""
        for part in (*self.monitors, *self._alarms):
            part.restart()

    def beating(self, last_known: LastKnown) -> AbstractContextManager[None]:
        """Keep the heartbeat file up to date during the block."""
        return beating(self.folder / HEARTBEAT, last_known) if self.folder else nullcontext()
