"""Cost of mixing one batch: our Mixer against timm's Mixup, on the same batches, in one run.

python -m benchmarks.mixing [--json FILE]

Both get float images (N, 3, 256, 256) in channels_last memory and integer labels, overwrite the images and return soft
targets of 1000 classes. timm has its usual ImageNet setting (mixup_alpha 0.8, cutmix_alpha 1), which mixes every image,
in mode "batch" (one decision and one place for the batch) and "elem" (one for each image). Ours mixes half of
the images unless the line says otherwise, so "every image mixed" and "mixup only" do as much work as timm.

A turn is several batches. The result is CPU time of one thread; on a GPU, its own time. A ratio is our cost / timm's in
the same round: below 1, ours is cheaper.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count, cycle

import numpy as np
import torch
from timm.data.mixup import Mixup

from backbones.data.batch import Batch
from backbones.data.mixing import Mixer
from backbones.data.paste import Paste, paste_, paste_by_gather_, paste_by_slices_
from backbones.recipe import Mixing
from benchmarks.harness import Costs, Result, clock_for, compare, create_parser, measure, publish

CLASSES = 1000

OURS = {
    "default recipe": Mixing(),
    "every image mixed": Mixing(prob=1),
    "mixup only": Mixing(mosaic=False, cutmix=False, mixup=True, prob=1),
    "batch sampling": Mixing(sampling="batch"),
    "default recipe, blur 15": Mixing(blur=15),
}
PASTES = {"slices": paste_by_slices_, "gather": paste_by_gather_}
"""The two ways to paste: the first is for a CPU, the second for a GPU."""
TIMM = {"timm batch": "batch", "timm elem": "elem"}

Images = Sequence[torch.Tensor]
Mixed = Iterator[tuple[torch.Tensor, torch.Tensor]]


def ours(mixing: Mixing, batches: Images, labels: torch.Tensor, paste: Paste = paste_) -> Mixed:
    mix = Mixer(mixing, CLASSES, seed=0, batch_size=len(labels), paste=paste)
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
    for name, paste in PASTES.items():
        mixers[f"default recipe, by {name}"] = ours(Mixing(), batches, labels, paste)
    return mixers | {name: timm(mode, batches, labels) for name, mode in TIMM.items()}


def measure_mixers(options: argparse.Namespace, device: str) -> Costs:
    """Return the milliseconds per batch of each contender on a device."""
    np.random.seed(0)  # noqa: NPY002  (timm draws from the global generator)
    turns = {name: partial(next, mixer) for name, mixer in contenders(options, device).items()}
    costs = measure(turns, rounds=options.rounds, repeats=options.turn, scale=1000, clock=clock_for(device))
    return {name + mark(device): values for name, values in costs.items()}


def mark(device: str) -> str:
    return "" if device == "cpu" else f", {device}"


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    costs: Costs = {}
    pairs: dict[str, tuple[str, str]] = {}
    for device in options.devices:
        costs |= measure_mixers(options, device)
        end = mark(device)
        pairs |= {f"{own} / {other}{end}": (own + end, other + end) for other in TIMM for own in OURS}
    notes = ["A ratio is our cost / timm's: below 1, ours is cheaper. timm mixes every image."]
    result = Result("Mixing", "ms per batch", costs, compare(costs, pairs), {}, notes, vars(options))
    publish(result, options.json)


def parse() -> argparse.Namespace:
    parser = create_parser(__doc__ or "")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=256, help="height and width of the images")
    parser.add_argument("--batches", type=int, default=4, help="different batches to take in turn")
    parser.add_argument("--turn", type=int, default=16, help="batches of each turn")
    both = ["cpu", *["cuda"] * torch.cuda.is_available()]
    parser.add_argument("--devices", nargs="+", choices=["cpu", "cuda"], default=both)
    return parser.parse_args()


if __name__ == "__main__":
    main()
