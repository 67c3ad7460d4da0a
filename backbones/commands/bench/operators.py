"""Where the time and memory of a training step go: the most expensive operators, the peak, and a trace to look at."""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from backbones.commands.bench.turns import synchronize

TOP = 10
"""Operators that are shown."""


class Operator(NamedTuple):
    """One operator of a step, all of its calls together."""

    name: str
    calls: int
    share: float
    """Share of the time of all operators; time of an operator that it calls is not counted."""


class Profile(NamedTuple):
    """Result of profiling a step."""

    operators: list[Operator]
    peak: int
    """Largest number of bytes in use at any time beyond those before the step."""


def profile_step(step: Callable[[], object], device: torch.device, *, trace: str | None = None) -> Profile:
    """Return the most expensive operators of a step, and its peak; write a Chrome trace to ``trace``."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    synchronize(device)
    with profile(activities=activities, profile_memory=True, acc_events=True) as found:
        step()
        synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        found.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
        if trace is not None:
            copyfile(file, trace)
    own_time = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return Profile(rank_operators(found.key_averages(), own_time), peak_bytes(events, device))


def rank_operators(averages: Iterable[Any], own_time: str) -> list[Operator]:
    """Return the `TOP` operators with the largest ``own_time``."""
    rows = sorted(((getattr(row, own_time), row.key, row.count) for row in averages), reverse=True)
    total = sum(seconds for seconds, _, _ in rows) or 1.0
    return [Operator(name, count, seconds / total) for seconds, name, count in rows[:TOP]]


def peak_bytes(events: Iterable[Mapping[str, Any]], device: torch.device) -> int:
    """Return the largest sum of the allocations of a trace, in the order of time, each less what was freed."""
    kinds = {"cpu": 0, "cuda": 1}
    changes = sorted(
        (event["ts"], event["args"]["Bytes"])
        for event in events
        if event.get("name") == "[memory]" and event["args"]["Device Type"] == kinds[device.type]
    )
    used = peak = 0
    for _, change in changes:
        used += change
        peak = max(peak, used)
    return peak


def step_peak(step: Callable[[], object], device: torch.device, profiled: int) -> int:
    """Return the peak of a step beyond what is in use before: CUDA's own count, or that of the profiler."""
    if device.type != "cuda":
        return profiled
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    return torch.cuda.max_memory_allocated(device) - before
