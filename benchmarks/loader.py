"""CPU time per training image of our loader, of torchvision's, of timm's and of a bare DALI pipeline, in one run.

python -m benchmarks.loader [--json FILE]

Every loader decodes the same JPEG files (noise with the spectrum of photographs, 500 x 375 pixels, about 110 KB) in
the same batches with the same number of threads or worker processes, to random resized crops of 256 pixels with
flips; the darknet lines warp and shift colours instead. The result is the CPU time of the whole process tree, divided
by the number of images. A turn is several epochs without a break, so that the batches that were prefetched between
turns hardly count.

The lines "bytes" end where a batch would be copied to a GPU: uint8 images, as in timm's prefetcher. The lines "floats"
end with normalized floats on the CPU, as from torchvision's loader. A ratio above 1 means that ours is faster.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any

import timm.data
import torch
from nvidia.dali import fn
from nvidia.dali.pipeline import pipeline_def
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
from benchmarks.harness import Action, Costs, Result, compare, create_parser, measure, publish
from benchmarks.photos import write_photos

SIZE = 256
SCALE, RATIO = (0.33, 1.0), (3 / 4, 4 / 3)

INCEPTION = Augment("inception", inception=InceptionAugment(SCALE, RATIO))
DARKNET = Augment("darknet")
EXACT = Augment("darknet", darknet=DarknetAugment(hsv="exact"))

Batches = Iterator[Any]


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


def measure_loaders(options: argparse.Namespace, root: Path) -> Costs:
    """Return the milliseconds per image of each loader."""
    batches = options.epochs * (options.images // options.batch_size)
    with ExitStack() as stack:
        running = {name: stack.enter_context(closing(make())) for name, make in contenders(root, options).items()}
        turns = {name: take(loader, batches) for name, loader in running.items()}
        return measure(turns, rounds=options.rounds, scale=1000 / (batches * options.batch_size))


def take(loader: Batches, batches: int) -> Action:
    """Return an action that takes the next batches."""
    return lambda: [None for _ in islice(loader, batches)]


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photos(root, options.images)
        size = statistics.mean(path.stat().st_size for path in root.rglob("*.jpg"))
        costs = measure_loaders(options, root)
    setting = vars(options) | {"size": SIZE, "kilobytes_per_file": round(size / 1000, 1)}
    notes = ["A ratio is of costs: above 1, ours (or the second one that is named) is faster."]
    result = Result("Loaders", "CPU ms per image", costs, compare(costs, RATIOS), {}, notes, setting)
    publish(result, options.json)


def parse() -> argparse.Namespace:
    parser = create_parser(__doc__ or "")
    parser.add_argument("--images", type=int, default=384, help="files to load in an epoch")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2, help="decoding threads or worker processes")
    parser.add_argument("--epochs", type=int, default=1, help="epochs of each turn; a round has two turns")
    return parser.parse_args()


if __name__ == "__main__":
    main()
