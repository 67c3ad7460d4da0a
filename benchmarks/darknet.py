"""Inference of one network by darknet's CPU build and by ours, with one thread each.

python -m benchmarks.darknet --darknet PATH [--json FILE]

PATH is darknet's program, built without a GPU (`make OPENMP=1 AVX=1`). It runs `darknet speed CFG N` on the cfg that
this package writes for its network. The time of a run of one evaluation is subtracted, which leaves out reading and
allocating. "Folded" has no batch normalization: darknet gets a cfg without it.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import torch

from backbones.darknet.trace import save_cfg
from backbones.layers.fuse import fuse
from benchmarks.harness import Action, Costs, Result, compare, create_parser, measure, publish
from benchmarks.networks import Setting, create_ours, inference

ACTIVATIONS = ("leaky", "mish")
START = ", start"
"""End of the names of darknet's runs of one evaluation, which are subtracted."""


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    costs: Costs = {}
    with tempfile.TemporaryDirectory() as folder:
        for act in ACTIVATIONS:
            contenders = darknets(options, act, Path(folder)) | networks(options, act)
            found = measure(contenders, rounds=options.rounds, scale=1000 / options.images)
            costs |= subtract_start(found)
    pairs = {
        f"{options.model} {act}{form}": (f"darknet, {act}{form}", f"ours, {act}{form}")
        for act, form in product(ACTIVATIONS, ("", ", folded"))
    }
    notes = ["A ratio is darknet's cost / ours: above 1, ours is faster."]
    setting = vars(options) | {"darknet": Path(options.darknet).name}
    title = "Inference against darknet's CPU build"
    publish(Result(title, "CPU ms per image", costs, compare(costs, pairs), {}, notes, setting), options.json)


def parse() -> argparse.Namespace:
    parser = create_parser(__doc__ or "")
    parser.add_argument("--darknet", required=True, type=program, help="darknet's program, built for the CPU")
    parser.add_argument("--model", default="csresnext50")
    parser.add_argument("--size", type=int, default=256, help="height and width of the image")
    parser.add_argument("--images", type=int, default=4, help="images of a turn")
    return parser.parse_args()


def program(path: str) -> str:
    """Return the absolute path of a program, which must exist."""
    if (found := shutil.which(path)) is None:
        raise argparse.ArgumentTypeError(f"{path} is no program: build darknet with make OPENMP=1 AVX=1")
    return str(Path(found).resolve())


def darknets(options: argparse.Namespace, act: str, folder: Path) -> dict[str, Action]:
    """Return darknet's runs, plain and folded, each also with one evaluation."""
    text = cfg_text(options.model, act, options.size, folder)
    found: dict[str, Action] = {}
    for form, content in (("", text), (", folded", text.replace("batch_normalize=1\n", ""))):
        file = folder / f"{act}{form.replace(', ', '-')}.cfg"
        file.write_text(content)
        found[f"darknet, {act}{form}"] = run(options.darknet, file, options.images + 1)
        found[f"darknet, {act}{form}{START}"] = run(options.darknet, file, 1)
    return found


def cfg_text(model: str, act: str, size: int, folder: Path) -> str:
    """Return our network as a cfg for one image."""
    save_cfg(create_ours(model, act=act), folder / "whole.cfg")
    lines = (folder / "whole.cfg").read_text().splitlines()
    net = {"batch": 1, "subdivisions": 1, "height": size, "width": size}
    return "".join(f"{name}={net.get(name, value)}\n" if value else f"{name}\n" for name, value in map(_split, lines))


def _split(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name, value


def run(darknet: str, cfg: Path, evaluations: int) -> Action:
    """Return a run of darknet with one thread."""
    command = [darknet, "speed", str(cfg), str(evaluations)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def evaluate() -> None:
        found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if found.returncode or f"{evaluations} evals" not in found.stdout:
            raise SystemExit(f"{' '.join(command)} failed:\n{found.stdout[-500:]}\n{found.stderr[-500:]}")

    return evaluate


def networks(options: argparse.Namespace, act: str) -> dict[str, Action]:
    """Return our network, plain and folded, on as many images one after the other."""
    network, setting = create_ours(options.model, act=act), Setting(1, options.size)

    def repeated(action: Action) -> Action:
        return lambda: [action() for _ in range(options.images)]

    forms = {"": network, ", folded": fuse(network)}
    return {f"ours, {act}{form}": repeated(inference(each, setting)) for form, each in forms.items()}


def subtract_start(costs: Mapping[str, list[float]]) -> Costs:
    """Return the costs without the start of darknet."""
    return {
        name: [cost - start for cost, start in zip(values, costs.get(name + START, [0.0] * len(values)), strict=True)]
        for name, values in costs.items()
        if not name.endswith(START)
    }


if __name__ == "__main__":
    main()
