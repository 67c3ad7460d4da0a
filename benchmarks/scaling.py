"""Speed of a process that trains beside another one, against one that trains alone.

python -m benchmarks.scaling [--json FILE]

Two processes with one thread each, or with one GPU each, train the same network. In turns, the first one trains alone,
both train without talking to each other, and both train with DistributedDataParallel. The result is elapsed time of the
first process: the machine must be idle, and the load is noted. Efficiency is the time alone / the time together.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from benchmarks.harness import Action, Costs, Result, compare, create_parser, measure, publish
from benchmarks.networks import Setting, create_ours, place, training

PAIRS = {
    "efficiency with all-reduce": ("alone", "together, all-reduce"),
    "efficiency without talking": ("alone", "together, apart"),
}


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (options, folder), nprocs=options.processes)  # type: ignore[attr-defined]
        costs = torch.load(Path(folder) / "costs.pt", weights_only=True)
    notes = ["A ratio is the efficiency of a process; 1 is the best. It needs an idle machine with a core for each."]
    title = f"{options.processes} processes against one"
    publish(Result(title, "ms per image", costs, compare(costs, PAIRS), {}, notes, vars(options)), options.json)


def parse() -> argparse.Namespace:
    parser = create_parser(__doc__ or "", rounds=5)
    parser.add_argument("--model", default="csresnext50")
    parser.add_argument("--batch", type=int, default=8, help="images of each process")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--repeats", type=int, default=1, help="steps of a turn")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser.parse_args()


def work(rank: int, options: argparse.Namespace, folder: str) -> None:
    """Run one of the processes; the first one writes the costs."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if options.device == "cuda" else "gloo"
    dist.init_process_group(backend, f"file://{folder}/meet", rank=rank, world_size=options.processes)
    costs = measure_rank(rank, options)
    if rank == 0:
        torch.save(costs, Path(folder) / "costs.pt")
    dist.destroy_process_group()


def measure_rank(rank: int, options: argparse.Namespace) -> Costs:
    """Return the milliseconds per image of this process in each kind of turn."""
    device = f"cuda:{rank}" if options.device == "cuda" else "cpu"
    setting = Setting(options.batch, options.size, device)
    apart = training(create_ours(options.model), setting)
    ddp = DistributedDataParallel(place(create_ours(options.model), setting), broadcast_buffers=False)
    turns = {
        "alone": apart if rank == 0 else lambda: None,
        "together, apart": apart,
        "together, all-reduce": training(ddp, setting),
    }
    scale = setting.milliseconds_per_image
    return measure(turns, rounds=options.rounds, repeats=options.repeats, scale=scale, clock=seconds_together)


def seconds_together(action: Action) -> float:
    """Start with the other processes, and return the seconds until the own work is done."""
    synchronize()
    dist.barrier()
    before = time.perf_counter()
    action()
    synchronize()
    return time.perf_counter() - before


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
