"""Cost of mixing one batch: our Mixer against timm's Mixup, on the same batches, in one run.

python benchmarks/mixing.py [--json FILE]

Both get float images (N, 3, 256, 256) in channels_last memory and integer labels, overwrite the images and return soft
targets of 1000 classes. timm has its usual ImageNet setting (mixup_alpha 0.8, cutmix_alpha 1), which mixes every image,
in mode "batch" (one decision and one place for the batch) and "elem" (one for each image). Ours mixes half of
the images unless the line says otherwise, so "every image mixed" and "mixup only" do as much work as timm.

The contenders take turns (A B C ... C B A) in each round; a turn is several batches. The result is CPU time of this
process with one thread; on a GPU, elapsed time until the GPU has finished. The first round is a warm-up and is dropped.
A ratio is our cost / timm's in the same round: below 1, ours is cheaper.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from datetime import date
from importlib.metadata import version
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data.mixup import Mixup

from backbones.data.batch import Batch
from backbones.data.mixing import Mixer
from backbones.recipe import Mixing

CLASSES = 1000
PACKAGES = ("torch", "torchvision", "timm", "numpy")

OURS = {
    "default recipe": Mixing(),
    "every image mixed": Mixing(prob=1),
    "mixup only": Mixing(mosaic=False, cutmix=False, mixup=True, prob=1),
    "batch sampling": Mixing(sampling="batch"),
    "default recipe, blur 15": Mixing(blur=15),
}
TIMM = {"timm batch": "batch", "timm elem": "elem"}

Images = Sequence[torch.Tensor]
Mixed = Iterator[tuple[torch.Tensor, torch.Tensor]]


def ours(mixing: Mixing, batches: Images, labels: torch.Tensor) -> Mixed:
    mix = Mixer(mixing, CLASSES, seed=0, batch_size=len(labels))
    for images, position in zip(cycle(batches), count(0, len(labels))):
        yield mix(Batch(images, labels, 0, position))


def timm(mode: str, batches: Images, labels: torch.Tensor) -> Mixed:
    mix = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, mode=mode, num_classes=CLASSES)
    for images in cycle(batches):
        yield mix(images, labels)


def contenders(options: argparse.Namespace, device: str) -> dict[str, Mixed]:
    """Return endless mixers on shared batches, which are larger in total than a processor's cache."""
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch_size, 3, options.size, options.size)
    batches = [
        torch.rand(shape, generator=generator).to(device, memory_format=torch.channels_last)
        for _ in range(options.batches)
    ]
    labels = torch.randint(CLASSES, (options.batch_size,), generator=generator).to(device)
    mixers = {name: ours(mixing, batches, labels) for name, mixing in OURS.items()}
    return mixers | {name: timm(mode, batches, labels) for name, mode in TIMM.items()}


def seconds(device: str) -> float:
    """Return the CPU time of this process; for a GPU, the time when it has finished all work."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def turn(mixer: Mixed, options: argparse.Namespace, device: str) -> float:
    """Return the milliseconds per batch."""
    before = seconds(device)
    for _ in islice(mixer, options.turn):
        pass
    return 1000 * (seconds(device) - before) / options.turn


def measure(options: argparse.Namespace, device: str) -> dict[str, list[float]]:
    """Return each contender's milliseconds per batch, the mean of two turns, in each round except the first."""
    np.random.seed(0)  # noqa: NPY002  (timm draws from the global generator)
    mixers = contenders(options, device)
    milliseconds: dict[str, list[float]] = {name: [] for name in mixers}
    for _ in range(options.rounds + 1):
        turns = [(name, turn(mixers[name], options, device)) for name in [*mixers, *reversed(mixers)]]
        for name, values in milliseconds.items():
            values.append(statistics.mean(spent for other, spent in turns if other == name))
    return {name: values[1:] for name, values in milliseconds.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(milliseconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return our cost / timm's in the same round, for each of our settings and each of timm's modes."""
    return {
        f"{own} / {other}": spread([a / b for a, b in zip(milliseconds[own], milliseconds[other], strict=True)])
        for other in TIMM
        for own in OURS
    }


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    print(f"{title:44s}  median     min     max")
    for name, row in rows.items():
        print(f"{name:44s}  {row['median']:6.2f}  {row['min']:6.2f}  {row['max']:6.2f}")
    print()


def report(options: argparse.Namespace, devices: Sequence[str]) -> dict[str, Any]:
    """Measure, print the tables and return the content of the ``--json`` file."""
    rows: dict[str, dict[str, float]] = {}
    paired: dict[str, dict[str, float]] = {}
    for device in devices:
        milliseconds = measure(options, device)
        mark = "" if device == "cpu" else f", {device}"
        rows |= {name + mark: spread(values) for name, values in milliseconds.items()}
        paired |= {name + mark: row for name, row in ratios(milliseconds).items()}
    show(f"ms per batch of {options.batch_size} images", rows)
    show("ratio: our cost / timm's", paired)
    return {
        "ratios": {name: round(row["median"], 3) for name, row in paired.items()},
        "paired": paired,
        "rows": rows,
        "setting": {name: value for name, value in vars(options).items() if name != "json"} | {"devices": devices},
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        | ({"gpu": torch.cuda.get_device_name()} if "cuda" in devices else {}),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "date": date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=256, help="height and width of the images")
    parser.add_argument("--batches", type=int, default=4, help="different batches to take in turn")
    parser.add_argument("--turn", type=int, default=16, help="batches of each turn")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="unset: the CPU, then the GPU where there is one")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    devices = ["cpu", *["cuda"] * torch.cuda.is_available()]
    result = report(options, [options.device] if options.device else devices)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
