"""Alarms of one monitor: raised when something begins, and again only after it has ended or after many steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from backbones.training.health.monitor import Finding

QUIET_STEPS = 200
"""Steps without a finding after which its alarm has ended."""
REMINDER_STEPS = 1000
"""Steps after which an alarm that goes on is raised again; each time twice as many."""
MAX_PLACES = 3
"""Places that one line names."""


@dataclass
class _State:
    """An alarm that goes on."""

    seen: int
    """Step of the last finding."""
    reminder: int
    """Step from which on it is raised again."""
    gap: int = REMINDER_STEPS
    """Steps from the last time to the reminder."""


class Alarms:
    """Memory of the alarms that go on."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], _State] = {}

    def update(self, step: int, findings: Sequence[Finding]) -> list[Finding]:
        """Take everything that is wrong at this step, and return what is to be said, one line for each alarm."""
        new = [finding for finding in findings if self._is_news(step, finding)]
        self._states = {key: state for key, state in self._states.items() if step - state.seen < QUIET_STEPS}
        ordered = sorted(new, key=lambda finding: finding.alarm)
        return [_merge(list(group)) for _, group in groupby(ordered, lambda finding: finding.alarm)]

    def restart(self) -> None:
        """Forget all alarms: what is still wrong is said again."""
        self._states.clear()

    def _is_news(self, step: int, finding: Finding) -> bool:
        state = self._states.setdefault((finding.alarm, finding.place), _State(step, reminder=step, gap=0))
        state.seen = step
        if step < state.reminder:
            return False
        state.gap = max(REMINDER_STEPS, 2 * state.gap)
        state.reminder = step + state.gap
        return True


def _merge(findings: Sequence[Finding]) -> Finding:
    """Return findings of one alarm as one."""
    first, others = findings[0], len(findings) - MAX_PLACES
    texts = [finding.text for finding in findings[:MAX_PLACES]]
    more = [f"and {others} more"] if others > 0 else []
    count = {"count": len(findings)} if len(findings) > 1 else {}
    stops = any(finding.stops for finding in findings)
    return first._replace(text="; ".join(texts + more), numbers={**first.numbers, **count}, stops=stops)
