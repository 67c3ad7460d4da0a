"""``python -m backbones inspect CKPT|X.weights``: what the fusion weights of a network have become.

Prints the raw weight, the effective weight and the share in the sum for each input of each shortcut, and draws the
effective weights as a heat map. Exits with status 2 when an input is dead, with 1 when it cannot tell.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from backbones.assembly.checkpoint import Restored, restore_model
from backbones.commands.inspect.fusion import Branch, fusion_report
from backbones.commands.inspect.heat_map import save_heat_map
from backbones.data.loader import EvalLoader
from backbones.dataset.splits import validation
from backbones.errors import UserError, require_folder_for

DEAD = 2
"""Exit status when a branch is dead."""


def main(arguments: Sequence[str]) -> None:
    """Print the table, write the picture, and exit with status 2 where something is dead."""
    options = _parser().parse_args(arguments)
    require_folder_for("--heat-map", options.heat_map)
    restored = restore_model(options.ckpt, model=options.model, ema=not options.no_ema)
    report = fusion_report(restored.model, _images(options, restored))
    if not report:
        raise UserError(f"{restored.file} has no shortcut: there is no fusion to inspect.")
    save_heat_map(report, Path(options.heat_map))
    sys.stdout.write(table(report) + f"\nheat map    {options.heat_map}\n")
    if dead := [branch for branch in report if branch.dead]:
        sys.stdout.write("".join(f"dead        {_obituary(branch)}\n" for branch in dead))
        sys.exit(DEAD)


def table(report: Sequence[Branch]) -> str:
    """Return one line for each input; per_channel weights are shown as their means."""
    heading = f"{'layer':>5}  {'module':<34} {'input':<10} {'raw':>9} {'effective':>9} {'share':>7}"
    return "\n".join([heading, *(_row(branch) for branch in report)])


def _row(branch: Branch) -> str:
    source = f"{branch.input}: {_origin(branch, word='')}"
    raw = f"{branch.raw:9.4f}" if branch.raw is not None else f"{'-':>9}"
    figures = f"{raw} {branch.effective:9.4f} {branch.share:7.1%}"
    return f"{branch.layer:>5}  {branch.module:<34} {source:<10} {figures}{'  dead' if branch.dead else ''}"


def _origin(branch: Branch, *, word: str = "layer ") -> str:
    return {None: "?", -1: "image"}.get(branch.source, f"{word}{branch.source}")


def _obituary(branch: Branch) -> str:
    raw = "" if branch.raw is None else f"raw {branch.raw:.4f}, "
    return (
        f"layer {branch.layer} ({branch.module}), input {branch.input} from {_origin(branch)}: "
        f"{raw}effective {branch.effective:.2%}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backbones inspect", description=__doc__)
    parser.add_argument("ckpt", help="run folder, checkpoint folder, weights file or darknet's .weights")
    parser.add_argument("--model", help="name of the network or its .cfg, for a file that does not say")
    parser.add_argument("--no-ema", action="store_true", help="take the last weights, not the averaged ones")
    parser.add_argument("--heat-map", default="fusion.png", help="picture to write (default: %(default)s)")
    parser.add_argument("--data-dir", help="take the batch from val/ of this folder (default: noise)")
    parser.add_argument("--batch-size", type=int, default=8, help="images in the batch (default: %(default)s)")
    parser.add_argument("--loader", choices=("dali", "reference"), default="reference", help="who decodes them")
    return parser


def _images(options: argparse.Namespace, restored: Restored) -> Tensor:
    if options.batch_size < 1:
        raise UserError(f"--batch-size {options.batch_size} must be positive.")
    if options.data_dir is None:
        size = (options.batch_size, 3, restored.img_size, restored.img_size)
        return torch.rand(size, generator=torch.Generator().manual_seed(0))
    batches = EvalLoader(
        validation(options.data_dir),
        img_size=restored.img_size,
        preprocess=restored.preprocess,
        batch_size=options.batch_size,
        loader=options.loader,
        workers=1,
    )
    return next(iter(batches))[0]
