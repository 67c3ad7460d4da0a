"""Table of what torch.compile makes of a training step on an H100, made on a machine without one.

python -m benchmarks.offline.table [NETWORK ...] [--folder DIR]

Each network is compiled in a process of its own, which takes minutes. The figures go to DIR/offline-gpu.json and
DIR/offline-gpu.md; networks that are not named keep the figures they have there.
"""

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.offline.commit import find_commit
from benchmarks.offline.inductor import BATCH
from benchmarks.offline.networks import CONTENDERS, SIZE

RESULTS = Path(__file__).parents[1] / "results"

NETWORKS = (
    "csresnext50",
    "csresnext50_ws",
    "csresnext50_ws_mi2",
    "csresnext50sub_mo",
    "timm cspresnext50 mish",
    "csdarknet53",
    "csdarknet53_omega_mi",
    "timm cspdarknet53 mish",
)
"""Networks of the table; each is compared with the next peer below it."""

Figures = dict[str, Any]


def measure(network: str) -> Figures:
    """Return what ``benchmarks.offline.inductor`` prints of a network."""
    command = [sys.executable, "-m", "benchmarks.offline.inductor", network]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {"commit": find_commit(), **json.loads(printed.splitlines()[-1])}


def sum_up(figures: Figures) -> dict[str, float]:
    """Return launches, different kernels and MB per image of both graphs together."""
    parts = [figures["forward"], figures["backward"]]
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    return {
        "triton": total["triton_launches"],
        "library": total["library_calls"],
        "launches": total["triton_launches"] + total["library_calls"],
        "kernels": total["kernels"],
        "moved": total["moved"] / figures["batch"] / 1e6,
    }


def find_peer(network: str) -> str:
    """Return the network to compare with."""
    return next(name for name in NETWORKS[NETWORKS.index(network) :] if name.startswith("timm"))


def write_page(result: dict[str, Any]) -> str:
    """Return the figures as a page in Markdown."""
    measured: dict[str, Figures] = result["networks"]
    sums = {name: sum_up(figures) for name, figures in measured.items()}
    rows = [_write_row(name, sums, measured[name]) if name in sums else _write_gap(name) for name in NETWORKS]
    return PAGE.format(size=SIZE, batch=BATCH, rows="\n".join(rows), **result["versions"])


def _write_row(name: str, sums: dict[str, dict[str, float]], figures: Figures) -> str:
    own, peer = sums[name], sums.get(find_peer(name))
    ratios = [f"{own[key] / peer[key]:.3f}" if peer else "not measured" for key in ("moved", "launches")]
    split = [f"{figures[part]['moved'] / figures['batch'] / 1e6:.0f}" for part in ("forward", "backward")]
    counts = [f"{own[key]:.0f}" for key in ("triton", "library", "kernels")]
    cells = [name, *counts, *split, f"{own['moved']:.0f}", *ratios, figures["commit"]]
    return f"| {' | '.join(cells)} |"


def _write_gap(name: str) -> str:
    return f"| {name} | {' | '.join(['not measured'] + [''] * 8)} |"


PAGE = """# A compiled training step on an H100, counted without one

`python -m benchmarks.offline.table` writes this page. torch {torch}, triton {triton}, timm {timm}; bfloat16 autocast,
channels_last, {size} x {size} pixels, {batch} images.

Inductor generates the code of forward and backward for an H100 and does not run it. A launch is one of a generated
Triton kernel; a call is a convolution or another operator of torch, which launches one kernel or more. Bytes: each
launch reads its inputs once and writes its outputs once. "MB / timm" and "both / timm" (launches and calls) are ratios
to timm's network of the same shape and activation (Mish): below 1, ours does less. These are counts, not times.

| network | launches | calls | kernels | MB forward | MB backward | MB per image | MB / timm | both / timm | commit |
|---|---|---|---|---|---|---|---|---|---|
{rows}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"default: {', '.join(NETWORKS)}")
    parser.add_argument("--folder", type=Path, default=RESULTS, metavar="DIR", help="default: benchmarks/results")
    options = parser.parse_args()
    if unknown := set(options.networks) - set(CONTENDERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(CONTENDERS)}")
    file = options.folder / "offline-gpu.json"
    result = json.loads(file.read_text()) if file.exists() else {"networks": {}}
    result["versions"] = {package: version(package) for package in ("torch", "triton", "timm")}
    for name in options.networks or NETWORKS:
        result["networks"][name] = measure(name)
        print(name, sum_up(result["networks"][name]), flush=True)
        file.write_text(json.dumps(result, indent=1) + "\n")
        (options.folder / "offline-gpu.md").write_text(write_page(result))


if __name__ == "__main__":
    main()
