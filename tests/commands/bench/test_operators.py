import json
from types import SimpleNamespace

import torch

from backbones.commands.bench.operators import Operator, peak_bytes, profile_step, rank_operators

CPU = torch.device("cpu")
MB = 1_000_000


def ones(size: int) -> torch.Tensor:
    return torch.ones(size, dtype=torch.uint8)


def test_the_peak_counts_what_is_in_use_at_the_same_time():
    def one_after_the_other() -> None:
        for size in (MB, 2 * MB):
            ones(size)

    def at_once() -> list[torch.Tensor]:
        return [ones(size) for size in (MB, 2 * MB)]

    assert profile_step(one_after_the_other, CPU).peak == 2 * MB
    assert profile_step(at_once, CPU).peak == 3 * MB


def test_allocations_count_in_the_order_of_time_and_those_of_other_devices_do_not():
    events = [
        {"name": "[memory]", "ts": when, "args": {"Bytes": size, "Device Type": device}}
        for when, size, device in [(3, 7, 0), (1, 5, 0), (2, -5, 0), (2.5, 100, 1)]
    ]
    assert peak_bytes([*events, {"name": "aten::add"}], CPU) == 7
    assert peak_bytes(events, torch.device("cuda")) == 100


def test_the_operators_with_the_most_time_of_their_own_come_first():
    rows = [SimpleNamespace(key=f"op{n}", count=n, own=float(n)) for n in range(12)]
    ranked = rank_operators(rows, "own")
    assert ranked[0] == Operator("op11", 11, 11 / 66)
    assert len(ranked) == 10


def test_a_profile_names_the_operators_and_writes_a_trace(tmp_path):
    x = torch.ones(64, 64)
    profile = profile_step(lambda: x @ x, CPU, trace=str(tmp_path / "trace.json"))
    assert "aten::mm" in {operator.name for operator in profile.operators}
    names = {event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert "aten::mm" in names
