import pytest
import torch

from backbones.commands.bench import ceilings
from backbones.commands.bench.ceilings import copy_bandwidth, device_name, peak_flops
from backbones.commands.bench.turns import Rounds, Turn


def test_a_copy_reads_and_writes_and_the_fastest_round_counts(monkeypatch):
    rounds = Rounds([[Turn(1.0, 0.0), Turn(0.5, 0.0)]])
    monkeypatch.setattr(ceilings, "take_turns", lambda *_, **__: rounds)
    assert copy_bandwidth(torch.device("cpu"), size=1000) == 2 * 1000 / 0.5


@pytest.mark.parametrize(
    ("name", "precision", "given", "peak"),
    [
        ("NVIDIA H200", "bf16", None, 989.5e12),
        ("NVIDIA H200 NVL", "bf16", None, None),
        ("NVIDIA H200", "fp32", None, None),
        ("NVIDIA H200", "bf16", 790.0, 790e12),
        ("CPU, 2 threads", "fp32", None, None),
    ],
)
def test_a_peak_is_given_or_published_or_unknown(name, precision, given, peak):
    assert peak_flops(name, precision, given=given) == peak


def test_a_cpu_is_named_by_its_threads():
    assert device_name(torch.device("cpu")) == f"CPU, {torch.get_num_threads()} threads"
