import json

import torch

from backbones.commands.bench.counters import Counts
from backbones.commands.bench.operators import Operator
from backbones.commands.bench.options import Options
from backbones.commands.bench.report import Figures, Report, as_json, text
from backbones.commands.bench.subject import choose_settings
from backbones.commands.bench.turns import Spread


def figures(*, peak_flops: float | None) -> Figures:
    return Figures(
        setting=choose_settings(Options(model="csresnext50", batch_size=10), torch.device("cpu"))[0],
        counts=Counts(flops=2 * 10**9, kept=10**6, moved=10**6, moved_anyway=10**7, launches=7),
        peak_bytes=3 * 10**6,
        operators=[Operator("aten::mm", 4, 0.5)],
        peak_flops=peak_flops,
        bandwidth=4e9,
        training=Spread(100.0, 90.0, 110.0),
        inference=Spread(300.0, 290.0, 310.0),
    )


def test_the_shares_of_the_limits_follow_from_counts_and_speed():
    """100 images/s of 2 GFLOP are 0.2 of 1 TFLOP/s; an image moves 1 MB and a tenth of 10 MB."""
    found = figures(peak_flops=1e12)
    assert found.utilization == 0.2
    assert found.bandwidth_share == 100 * (1e6 + 1e6) / 4e9


def test_the_ratio_comes_first_and_an_unknown_peak_is_said():
    ratio = {"training": Spread(0.98, 0.97, 0.99)}
    lines = text(Report("CPU", 9, [figures(peak_flops=None), figures(peak_flops=1e12)], ratio, True)).splitlines()
    assert lines[0] == "A / B       training by CPU time: 0.980 (0.970 to 0.990)"
    assert next(line for line in lines if line.startswith("MFU")).split() == ["MFU", "unknown", "20.0%"]
    assert [line.split() for line in lines].count(["4", "50.0%", "aten::mm"]) == 2


def test_the_json_has_every_figure():
    plain = json.loads(json.dumps(as_json(Report("CPU", 9, [figures(peak_flops=None)], {}, True))))
    assert plain["ratio"] == {}
    (subject,) = plain["subjects"]
    assert subject["images_per_second"]["training"] == {"median": 100.0, "low": 90.0, "high": 110.0}
    assert subject["per_image"] == {"flops": 2 * 10**9, "kept": 10**6, "moved": 10**6}
    assert subject["mfu"] is None
