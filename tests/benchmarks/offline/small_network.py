"""Small network whose bytes, launches and calls can be counted by hand; prints what the modules count, as JSON.

It is a process of its own, since torch keeps some answers about the GPU that it was made to believe in.
"""

import json
import sys
from dataclasses import asdict

import torch
from torch import Tensor, nn

from benchmarks.offline.floor import count_kept
from benchmarks.offline.inductor import count_graph
from benchmarks.offline.trace import trace_step

IMAGES, CHANNELS, SIDE = 8, 16, 32


class Network(nn.Module):
    """Two convolutions with an activation between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, CHANNELS, 1, bias=False)
        self.act = nn.Mish()
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.act(self.first(x)))


def main() -> None:
    network = Network().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images = torch.empty(IMAGES, 4, SIDE, SIDE).to(memory_format=torch.channels_last)
    step = trace_step(network, images)
    kept = count_kept(step.backward, IMAGES)
    result = {"kept": kept, "costs": [asdict(count_graph(graph)) for graph in step.graphs]}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
