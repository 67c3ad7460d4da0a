"""Train one network on 1, 2 and 4 of four processes, with several divisions of each step, and save the weights."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from backbones.layers import ConvNormAct, WeightedShortcut
from backbones.layers.batch_norm import PendingStatistics, group_batch_norm, sync_batch_norm

STEPS, BATCH, GROUP, SIZE = 20, 16, 2, 6
PROCESSES = (1, 2, 4)


class Case(NamedTuple):
    """One training."""

    kind: str
    """grouped or synced."""
    count: int
    """Processes."""
    parts: int = 1
    """Micro-batches of a step."""
    dtype: torch.dtype = torch.float64

    def __str__(self) -> str:
        return f"{self.kind}-{self.count}-{self.parts}-{self.dtype}"


GROUPED = [Case("grouped", 1), Case("grouped", 1, 2), Case("grouped", 2), Case("grouped", 2, 2), Case("grouped", 4)]
SYNCED = [Case("synced", count) for count in PROCESSES]
SINGLE = [case._replace(dtype=torch.float32) for case in (GROUPED[0], GROUPED[3], GROUPED[4], SYNCED[0], SYNCED[2])]
CASES = [*GROUPED, *SYNCED, *SINGLE]


class Network(nn.Module):
    """A few layers with a weighted shortcut, whose normalization becomes part of the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNormAct(3, 4, kernel=3)
        self.conv = ConvNormAct(4, 4, kernel=3, act="linear")
        self.shortcut = WeightedShortcut((4, 4), weights_type="per_feature", normalization="softmax", act="mish")
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.shortcut(self.conv.convolve(x), x).mean((2, 3)))


def create(dtype: torch.dtype) -> Network:
    torch.manual_seed(0)
    return Network().to(dtype).to(memory_format=torch.channels_last)


def train(network: nn.Module, pending: PendingStatistics, dtype: torch.dtype, shard: tuple[int, int, int]) -> None:
    """Take steps on the shard (rank, processes, parts of a step) of the same batches."""
    rank, processes, parts = shard
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    random, size = torch.Generator().manual_seed(1), BATCH // (processes * parts)
    for _ in range(STEPS):
        images = torch.randn(BATCH, 3, SIZE, SIZE, generator=random, dtype=torch.float64).to(dtype)
        labels = torch.randint(5, (BATCH,), generator=random)
        for part in range(parts):
            own = slice((part * processes + rank) * size, (part * processes + rank + 1) * size)
            loss = F.cross_entropy(network(images[own].to(memory_format=torch.channels_last)), labels[own]) / parts
            if isinstance(network, DistributedDataParallel) and part < parts - 1:
                with network.no_sync():
                    loss.backward()
            else:
                loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        pending.apply()


def run(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=max(PROCESSES))
    groups: dict[int, Any] = {count: dist.new_group(list(range(count))) for count in PROCESSES}
    for case in CASES:
        if rank < case.count:
            state = run_case(case, rank, groups[case.count])
            torch.save(state, Path(folder) / f"{case}-{rank}.pt")
    dist.destroy_process_group()


def run_case(case: Case, rank: int, group: Any) -> dict[str, Tensor]:
    network = create(case.dtype)
    norms = group_batch_norm(network, GROUP) if case.kind == "grouped" else []
    for norm in sync_batch_norm(network) if case.kind == "synced" else []:
        norm.process_group = group
    module: nn.Module = network
    if case.count > 1:
        module = DistributedDataParallel(network, process_group=group, broadcast_buffers=False)
    train(module, PendingStatistics(norms), case.dtype, (rank, case.count, case.parts))
    return network.state_dict()


def mean_over_processes(folder: Path, case: Case) -> dict[str, Tensor]:
    """Return the weights, with the mean of the processes' statistics, as a validation has them."""
    states = [torch.load(folder / f"{case}-{rank}.pt") for rank in range(case.count)]
    return {name: torch.stack([state[name].double() for state in states]).mean(0) for name in states[0]}


if __name__ == "__main__":
    mp.spawn(run, (sys.argv[1],), nprocs=max(PROCESSES))  # pyright: ignore[reportPrivateImportUsage]
