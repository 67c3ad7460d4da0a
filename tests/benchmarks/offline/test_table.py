"""The page of the table shows the figures that were recorded."""

import json
import re
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


def test_the_page_has_the_bytes_and_the_ratio_of_each_network():
    recorded = json.loads((RESULTS / "offline-gpu.json").read_text())["networks"]
    lines = (RESULTS / "offline-gpu.md").read_text().splitlines()
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for line in lines if (cells := line.split("|"))[1:]
    }
    for name, figures in recorded.items():
        moved = (figures["forward"]["moved"] + figures["backward"]["moved"]) / figures["batch"]
        peer = recorded["timm cspresnext50 mish" if "resnext" in name else "timm cspdarknet53 mish"]
        of_peer = (peer["forward"]["moved"] + peer["backward"]["moved"]) / peer["batch"]
        assert float(rows[name][5]) == pytest.approx(moved / 1e6, abs=0.5)
        assert float(rows[name][6]) == pytest.approx(moved / of_peer, abs=5e-4)
        assert re.fullmatch("[0-9a-f]{7,}", rows[name][8])
