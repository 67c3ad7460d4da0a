"""Bytes per image that a compiled training step keeps for backward: the floor for networks that run without compiling.

python -m benchmarks.offline.floor [--json FILE] [NETWORK ...]

bfloat16 autocast, channels_last, 256 x 256 pixels. Two figures for each network, in bytes per image:

* ``partitioner``: what torch's min-cut partitioner chooses for the graph as it is traced. This is the floor.
* ``torch_compile``: what it chooses after torch.compile has simplified that graph, which is what torch.compile keeps.

Counted are the tensors that grow with the batch. The images themselves are not: every network keeps them.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

from torch import nn
from torch.fx import Node

from benchmarks.offline.networks import CONTENDERS, SIZE, create_images
from benchmarks.offline.trace import Graph, trace_step

COUNT = 127
"""Images of the batch. No layer has this width, so a tensor of this length holds one row for each image."""


def measure_floor(network: nn.Module, size: int = SIZE) -> dict[str, int]:
    """Return both figures of one network, in bytes per image."""
    images = create_images(COUNT, size)
    return {
        name: count_kept(trace_step(network, images, joint_passes=joint_passes).backward, COUNT)
        for name, joint_passes in (("partitioner", False), ("torch_compile", True))
    }


def count_kept(backward: Graph, images: int) -> int:
    """Return the bytes per image of the tensors that backward gets from forward."""
    return sum(map(_count_bytes, (node for node in backward.placeholders if _is_kept(node, images)))) // images


def _is_kept(node: Node, images: int) -> bool:
    if node.name.startswith(("primals", "tangents")):
        return False
    shape = node.meta["val"].shape
    is_picture = len(shape) == 4 and shape[1] == 3
    return len(shape) > 0 and shape[0] == images and not is_picture


def _count_bytes(node: Node) -> int:
    value = node.meta["val"]
    return value.numel() * value.element_size()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"default: all of {', '.join(CONTENDERS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args()
    floors = {}
    for name in options.networks or CONTENDERS:
        floors[name] = measure_floor(CONTENDERS[name].create())
        print(name, floors[name], flush=True)
    if options.json:
        command = "python -m benchmarks.offline.floor --json tests/fixtures/compiled_floor.json"
        versions = {package: version(package) for package in ("torch", "timm")}
        result = {"command": command, "unit": "bytes per image", "versions": versions, "networks": floors}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
