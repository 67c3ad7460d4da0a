"""CPU time per training image of our loader, of torchvision's, of timm's and of a bare DALI pipeline, in one run.

python benchmarks/loader.py [--json FILE]

Every loader decodes the same JPEG files (noise with the spectrum of photographs, 500 x 375 pixels, about 110 KB) in
the same batches with the same number of threads or worker processes, to random resized crops of 256 pixels with
flips; the darknet lines warp and shift colours instead. The result is the CPU time of the whole process tree, divided
by the number of images. The loaders take turns (A B C ... C B A). A turn is several epochs without a break, so that the
batches that were prefetched between turns hardly count. The first round is a warm-up and is dropped.

The lines "bytes" end where a batch would be copied to a GPU: uint8 images, as in timm's prefetcher. The lines "floats"
end with normalized floats on the CPU, as from torchvision's loader. A ratio above 1 means that ours is faster.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import date
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import timm.data
import torch
from nvidia.dali import fn
from nvidia.dali.pipeline import pipeline_def
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from backbones.data.augment.finish import Finish
from backbones.data.augment.view import View
from backbones.data.feed import Feed
from backbones.data.order import Shares, training_plans
from backbones.data.pipeline import images
from backbones.data.reading.bad_images import BadImages
from backbones.dataset.index import Index
from backbones.dataset.sources.folder import scan_folder
from backbones.recipe import Augment, DarknetAugment, InceptionAugment, Loading, Preprocess

SIZE = 256
SCALE, RATIO = (0.33, 1.0), (3 / 4, 4 / 3)
PACKAGES = ("torch", "torchvision", "timm", "nvidia-dali-cuda120", "pillow", "numpy")

INCEPTION = Augment("inception", inception=InceptionAugment(SCALE, RATIO))
DARKNET = Augment("darknet")
EXACT = Augment("darknet", darknet=DarknetAugment(hsv="exact"))

Batches = Iterator[Any]


def write_photos(folder: Path, count: int) -> None:
    """Write ``count`` JPEG files of 500 x 375 pixels with the spectrum of photographs."""
    rng = np.random.default_rng(0)
    fall = np.sqrt(np.fft.fftfreq(375)[:, None] ** 2 + np.fft.rfftfreq(500) ** 2)
    fall[0, 0] = 1
    for number in range(count):
        waves = rng.normal(size=(3, *fall.shape)) + 1j * rng.normal(size=(3, *fall.shape))
        planes = np.fft.irfft2(waves / fall**0.9, s=(375, 500)).transpose(1, 2, 0)
        grey = planes.mean(axis=2, keepdims=True)
        planes = grey + 0.4 * (planes - grey)
        pixels = 120 + 50 * (planes - planes.mean()) / planes.std()
        path = folder / f"class{number % 8}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=83)


def ours(index: Index, options: argparse.Namespace, augment: Augment, *, floats: bool) -> Batches:
    view, loading = View(SIZE, Preprocess(), augment), Loading()
    plans = training_plans(len(index), Shares(options.batch_size), seed=0)
    device = torch.device("cpu")
    feed = Feed(index, view, options.batch_size, device, options.threads, loading, BadImages(index, loading))
    finish = Finish(view, device)
    with images(plans, feed) as pixels:
        for plan, image in pixels:
            yield finish(image, plan.draws) if floats else image


@pipeline_def
def bare_pipeline(root: str) -> Any:
    encoded, labels = fn.readers.file(file_root=root, shuffle_after_epoch=True, pad_last_batch=True)
    pixels = fn.decoders.image_random_crop(
        encoded, random_area=SCALE, random_aspect_ratio=RATIO, adjust_orientation=False
    )
    pixels = fn.resize(pixels, size=(SIZE, SIZE))
    return fn.flip(pixels, horizontal=fn.random.coin_flip()), labels


def dali(root: Path, options: argparse.Namespace) -> Batches:
    pipe = bare_pipeline(str(root), batch_size=options.batch_size, num_threads=options.threads, device_id=None)
    while True:
        yield torch.from_dlpack(pipe.run()[0].as_tensor())


def torchvision(root: Path, options: argparse.Namespace) -> Batches:
    steps = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, SCALE, RATIO),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    workers = {"num_workers": options.threads, "persistent_workers": True}
    loader = torch.utils.data.DataLoader(
        ImageFolder(root, steps), options.batch_size, shuffle=True, drop_last=True, **workers
    )
    while True:
        yield from (batch for batch, _ in loader)


def timm_loader(root: Path, options: argparse.Namespace) -> Batches:
    loader = timm.data.create_loader(
        timm.data.create_dataset("", root=str(root)),
        (3, SIZE, SIZE),
        options.batch_size,
        is_training=True,
        scale=SCALE,
        ratio=RATIO,
        color_jitter=None,
        interpolation="bilinear",
        num_workers=options.threads,
        persistent_workers=True,
        device=torch.device("cpu"),
    )
    while True:
        yield from (batch for batch, _ in loader.loader)  # its outer part makes floats on the GPU


def contenders(root: Path, options: argparse.Namespace) -> dict[str, Callable[[], Batches]]:
    index = scan_folder(root)
    return {
        "ours, inception, bytes": lambda: ours(index, options, INCEPTION, floats=False),
        "ours, darknet, bytes": lambda: ours(index, options, DARKNET, floats=False),
        "ours, inception, floats": lambda: ours(index, options, INCEPTION, floats=True),
        "ours, darknet, floats": lambda: ours(index, options, DARKNET, floats=True),
        "ours, darknet exact HSV, floats": lambda: ours(index, options, EXACT, floats=True),
        "bare DALI, bytes": lambda: dali(root, options),
        "timm, bytes": lambda: timm_loader(root, options),
        "torchvision, floats": lambda: torchvision(root, options),
    }


RATIOS = {
    "torchvision": ("torchvision, floats", "ours, inception, bytes"),
    "timm": ("timm, bytes", "ours, inception, bytes"),
    "dali": ("bare DALI, bytes", "ours, inception, bytes"),
    "torchvision, both to floats": ("torchvision, floats", "ours, inception, floats"),
    "darknet cost / inception cost, bytes": ("ours, darknet, bytes", "ours, inception, bytes"),
    "darknet cost / inception cost, floats": ("ours, darknet, floats", "ours, inception, floats"),
}
"""Name of a ratio -> dividend and divisor, both CPU time per image in the same round."""


def tree_seconds() -> float:
    """Return the CPU time used by this process and its workers."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


def measure(options: argparse.Namespace, root: Path) -> dict[str, list[float]]:
    """Return the milliseconds per image of each loader in each round except the first."""
    per_turn = options.epochs * (options.images // options.batch_size)
    milliseconds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        running = {name: stack.enter_context(closing(make())) for name, make in contenders(root, options).items()}
        for number in range(options.rounds + 1):
            names = list(running) if number % 2 == 0 else list(running)[::-1]
            for name in names:
                before = tree_seconds()
                for _ in islice(running[name], per_turn):
                    pass
                spent = 1000 * (tree_seconds() - before) / (per_turn * options.batch_size)
                milliseconds.setdefault(name, []).append(spent)
    return {name: values[1:] for name, values in milliseconds.items()}


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def report(milliseconds: dict[str, list[float]], options: argparse.Namespace, size: float) -> dict[str, Any]:
    """Print the tables and return the content of the ``--json`` file."""
    costs = {name: spread(values) for name, values in milliseconds.items()}
    paired = {
        name: spread([a / b for a, b in zip(milliseconds[theirs], milliseconds[own], strict=True)])
        for name, (theirs, own) in RATIOS.items()
    }
    print(f"{'CPU ms per image':40s}  median     min     max")
    for name, cost in costs.items():
        print(f"{name:40s}  {cost['median']:6.2f}  {cost['min']:6.2f}  {cost['max']:6.2f}")
    print(f"\n{'ratio':40s}  median     min     max")
    for name, ratio in paired.items():
        print(f"{name:40s}  {ratio['median']:6.2f}  {ratio['min']:6.2f}  {ratio['max']:6.2f}")
    return {
        "ratios": {name: round(paired[name]["median"], 3) for name in ("torchvision", "timm", "dali")},
        "paired": paired,
        "cpu_milliseconds_per_image": costs,
        "setting": vars(options) | {"size": SIZE, "kilobytes_per_file": round(size / 1000, 1)},
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "date": date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512, help="files to load in an epoch")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2, help="decoding threads or worker processes")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=2, help="epochs of each turn")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photos(root, options.images)
        size = statistics.mean(path.stat().st_size for path in root.rglob("*.jpg"))
        result = report(measure(options, root), options, size)
    if options.json:
        result["setting"]["json"] = options.json.name
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
