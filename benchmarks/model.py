"""Training step and inference of our plain networks against timm's, at the same activation.

python -m benchmarks.model [--json FILE]

timm's cspresnext50 and cspdarknet53 are the same architectures as csresnext50 and csdarknet53. A training step is
forward, loss and backward, without the optimizer, which is the same for both. The second table counts bytes and
launches, which are exact.
"""

import argparse
from functools import partial
from itertools import product

import torch
from torch import nn

from backbones.layers.fuse import fuse
from benchmarks.harness import Costs, Result, compare, publish
from benchmarks.networks import (
    PEERS,
    Setting,
    count_networks,
    create_network_parser,
    create_ours,
    create_peer,
    inference,
    measure_task,
    training,
)

ACTIVATIONS = ("leaky", "mish")


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    costs: Costs = {}
    pairs: dict[str, tuple[str, str]] = {}
    for name, act in product(options.networks, ACTIVATIONS):
        costs |= measure_training(name, act, options) | measure_inference(name, act, options)
        pairs |= pairs_of(name, act)
    cases = product(options.networks, ACTIVATIONS, ("timm", "ours"))
    counts = count_networks({" ".join(case): partial(create, *case) for case in cases} if options.counts else {})
    tables = {"Exact counts per image, bfloat16, 256 pixels": counts}
    notes = ["A ratio is timm's cost / ours: above 1, ours is faster."]
    title = "Training step and inference against timm"
    publish(Result(title, "CPU ms per image", costs, compare(costs, pairs), tables, notes, vars(options)), options.json)


def parse() -> argparse.Namespace:
    parser = create_network_parser(__doc__ or "")
    parser.add_argument("--networks", nargs="+", choices=list(PEERS), default=list(PEERS))
    return parser.parse_args()


def create(name: str, act: str, who: str) -> nn.Module:
    return create_ours(name, act=act) if who == "ours" else create_peer(name, act)


def measure_training(name: str, act: str, options: argparse.Namespace) -> Costs:
    """Return the milliseconds per image of both networks."""
    setting = Setting(options.train_batch, options.train_size)
    actions = {f"training, {name} {act}, {who}": training(create(name, act, who), setting) for who in ("ours", "timm")}
    return measure_task(actions, setting, rounds=options.rounds, repeats=options.repeats)


def measure_inference(name: str, act: str, options: argparse.Namespace) -> Costs:
    """Return the milliseconds per image of both networks, and of ours with BatchNorm folded into the convolutions."""
    setting = Setting(1, options.size)
    networks = {who: create(name, act, who) for who in ("ours", "timm")}
    networks["ours folded"] = fuse(networks["ours"])
    actions = {f"inference, {name} {act}, {who}": inference(network, setting) for who, network in networks.items()}
    return measure_task(actions, setting, rounds=options.rounds, repeats=3 * options.repeats)


def pairs_of(name: str, act: str) -> dict[str, tuple[str, str]]:
    """Return the ratios of one network and activation."""
    train, infer = f"training, {name} {act}", f"inference, {name} {act}"
    return {
        train: (f"{train}, timm", f"{train}, ours"),
        infer: (f"{infer}, timm", f"{infer}, ours"),
        f"{infer}, ours folded": (f"{infer}, timm", f"{infer}, ours folded"),
    }


if __name__ == "__main__":
    main()
