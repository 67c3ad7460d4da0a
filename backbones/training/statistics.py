"""BatchNorm statistics of all processes: each has its own within an epoch, and the weights file has their mean."""

import torch
from accelerate.utils import gather_object
from torch import Tensor

from backbones.training.loop import Run


def gather_statistics(run: Run) -> list[list[Tensor]]:
    """Return the buffers of each process's networks: within an epoch, BatchNorm statistics are each process's own."""
    own = [buffer.detach().cpu() for network in run.networks.values() for buffer in network.buffers()]
    if run.accelerator.num_processes == 1:
        return [own]
    return gather_object([own])


def average_statistics(run: Run, gathered: list[list[Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Return the weights of each network, with the mean of the processes' statistics."""
    networks = {key: network.state_dict() for key, network in run.networks.items()}
    if len(gathered) > 1:
        values = iter(zip(*gathered, strict=True))
        for key, network in run.networks.items():
            for name, _ in network.named_buffers():
                mean = torch.stack([value.double() for value in next(values)]).mean(dim=0)
                if name in networks[key]:
                    networks[key][name] = mean.to(networks[key][name].dtype)
    return networks


def load_statistics(run: Run, gathered: list[list[Tensor]]) -> None:
    """Give this process its own buffers again; another number of processes keeps the mean of the weights file."""
    if len(gathered) == run.accelerator.num_processes > 1:
        buffers = [buffer for network in run.networks.values() for buffer in network.buffers()]
        for buffer, value in zip(buffers, gathered[run.accelerator.process_index], strict=True):
            buffer.copy_(value)
