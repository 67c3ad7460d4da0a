"""Speed of the whole trainer against its network alone, with a loader that is a little faster, or slower, than it.

python -m benchmarks.end_to_end [--json FILE]

The trainer makes `train_step`: mixing, moving average, logging, monitors. The network alone makes forward, loss,
backward and update on one batch. The loader delivers free batches at a fixed rate: 1.2 times that of the
network alone, where the trainer should reach the network's speed, and half of it, where it should reach the loader's.
The result is elapsed time, since waiting is what is measured: the machine must be idle, and the load is noted.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from backbones.recipe import Recipe, Synthetic
from benchmarks.harness import Action, Costs, Result, compare, create_parser, measure, publish, wall_seconds
from benchmarks.networks import Setting, create_ours, place
from benchmarks.trainer import BATCHES_AHEAD, Trainer, build, fixed_images, synthetic_recipe

FAST, SLOW = 1.2, 0.5
"""Rate of the loader / rate of the network alone."""


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        costs = measure_trainer(options, Path(folder))
    pairs = {
        "trainer / network alone, fast loader": ("network alone", "trainer, fast loader"),
        "trainer / loader, slow loader": ("slow loader", "trainer, slow loader"),
    }
    notes = [
        "A ratio is a speed: 1 means that the trainer is as fast as what limits it.",
        f"Load of the machine at the end: {load()}.",
    ]
    title = "The whole trainer against its network alone"
    publish(Result(title, "ms per image", costs, compare(costs, pairs), {}, notes, vars(options)), options.json)


def parse() -> argparse.Namespace:
    parser = create_parser(__doc__ or "", rounds=3)
    parser.add_argument("--model", default="csresnext50_ws_mi2")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--turn", type=int, default=2, help="steps of each turn, and of a log row")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def measure_trainer(options: argparse.Namespace, folder: Path) -> Costs:
    """Return the milliseconds per image of the network alone and of both trainers, and of the slow loader."""
    recipe = recipe_of(options)
    alone = bare_step(recipe, Setting(recipe.batch_size, recipe.img_size))
    seconds = statistics.median(wall_seconds(alone) for _ in range(options.turn + 1))
    contenders = {
        "network alone": alone,
        "trainer, fast loader": Trainer(build(recipe, folder / "fast"), seconds=seconds / FAST),
        "trainer, slow loader": Trainer(build(recipe, folder / "slow"), seconds=seconds / SLOW),
    }
    scale = 1000 / options.batch_size
    turns = {"rounds": options.rounds, "repeats": options.turn, "scale": scale, "clock": wall_seconds}
    costs = measure(contenders, **turns, prepare=partial(settle, contenders))
    return costs | {"slow loader": [seconds / SLOW * scale] * options.rounds}


def settle(contenders: Mapping[str, Action], name: str) -> None:
    """Take what the loader has delivered during the turns of the others."""
    for _ in range(BATCHES_AHEAD + 1 if name.startswith("trainer") else 0):
        contenders[name]()


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Return the recipe of the trainer."""
    classes = Synthetic(classes=1000, train_per_class=1, val_per_class=1)
    return synthetic_recipe(options, device="cpu", precision="fp32", model_ema=True, synthetic=classes)


def bare_step(recipe: Recipe, setting: Setting) -> Action:
    """Return forward, loss, backward and update of the recipe's network."""
    network = place(create_ours(recipe.model), setting).train()
    images, labels = fixed_images(setting)
    targets = F.one_hot(labels, 1000).float()
    options = {"momentum": 0.9, "weight_decay": 5e-4, "fused": setting.device != "cpu"}
    sgd = torch.optim.SGD(network.parameters(), lr=recipe.lr, **options)

    def step() -> None:
        with setting.autocast():
            loss = F.cross_entropy(network(images), targets)
        loss.backward()
        sgd.step()
        sgd.zero_grad()

    return step


def load() -> str:
    return Path("/proc/loadavg").read_text().split()[0]


if __name__ == "__main__":
    main()
