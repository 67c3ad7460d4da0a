"""Cost of the fusions of csresnext50: weighted, multi-input and maxout shortcuts against the plain network.

python -m benchmarks.fusion [--json FILE]

A training step is forward, loss and backward, without the optimizer. On a busy CPU times differ by some per cent, which
is as much as a fusion costs: the second table counts bytes kept and moved and launches, which are exact.
"""

from functools import partial

import torch

from benchmarks.harness import Result, compare, publish
from benchmarks.networks import (
    Setting,
    count_networks,
    create_network_parser,
    create_ours,
    inference,
    measure_task,
    training,
)

PLAIN = "csresnext50"
FUSIONS = ("csresnext50_ws", "csresnext50_ws_mi2", "csresnext50sub", "csresnext50sub_mo")


def main() -> None:
    options = create_network_parser(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    names = (PLAIN, *FUSIONS)
    train, infer = Setting(options.train_batch, options.train_size), Setting(1, options.size)
    steps = {f"training, {name}": training(create_ours(name), train) for name in names}
    costs = measure_task(steps, train, rounds=options.rounds, repeats=options.repeats)
    passes = {f"inference, {name}": inference(create_ours(name), infer) for name in names}
    costs |= measure_task(passes, infer, rounds=options.rounds, repeats=3 * options.repeats)
    pairs = {
        f"{task}, {name} / plain": (f"{task}, {PLAIN}", f"{task}, {name}")
        for task in ("training", "inference")
        for name in FUSIONS
    }
    counts = count_networks({name: partial(create_ours, name) for name in names} if options.counts else {})
    notes = ["A ratio is a speed: the plain network's cost / the fusion's. Below 1, the fusion is slower."]
    tables = {"Exact counts per image, bfloat16, 256 pixels": counts}
    result = Result("Fusions", "CPU ms per image", costs, compare(costs, pairs), tables, notes, vars(options))
    publish(result, options.json)


if __name__ == "__main__":
    main()
