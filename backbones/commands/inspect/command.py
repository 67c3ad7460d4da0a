"""The table and the picture of the fusion weights of a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from backbones import terminal
from backbones.assembly.checkpoint import Restored, restore_model
from backbones.commands.inspect.fusion import Branch, fusion_report
from backbones.commands.inspect.heat_map import save_heat_map
from backbones.commands.inspect.options import Options
from backbones.data.loader import EvalLoader
from backbones.dataset.splits import validation
from backbones.errors import UserError
from backbones.terminal import say, write

HEADING = ("layer", "module", "input", "raw", "effective", "share", "")


def inspect(options: Options) -> list[Branch]:
    """Print the table, write the picture and return the dead inputs."""
    restored = restore_model(options.ckpt, model=options.model, ema=options.ema)
    report = fusion_report(restored.model, _read_images(options, restored))
    if not report:
        raise UserError(f"{restored.file} has no shortcut: there is no fusion to inspect.")
    save_heat_map(report, Path(options.heat_map))
    write(table(report))
    say("heat map", options.heat_map)
    dead = [branch for branch in report if branch.dead]
    for branch in dead:
        say("dead", _describe(branch))
    return dead


def table(report: Sequence[Branch]) -> str:
    """Return one line for each input, with the means of weights that each channel has for itself."""
    return terminal.table([HEADING, *map(_format_cells, report)], "rllrrrl")


def _format_cells(branch: Branch) -> tuple[str, ...]:
    source = f"{branch.input}: {_name_source(branch, word='')}"
    raw = "-" if branch.raw is None else f"{branch.raw:.4f}"
    figures = (raw, f"{branch.effective:.4f}", f"{branch.share:.1%}")
    return (str(branch.layer), branch.module, source, *figures, "dead" if branch.dead else "")


def _name_source(branch: Branch, *, word: str = "layer ") -> str:
    return {None: "?", -1: "image"}.get(branch.source, f"{word}{branch.source}")


def _describe(branch: Branch) -> str:
    raw = "" if branch.raw is None else f"raw {branch.raw:.4f}, "
    return (
        f"layer {branch.layer} ({branch.module}), input {branch.input} from {_name_source(branch)}: "
        f"{raw}effective {branch.effective:.2%}"
    )


def _read_images(options: Options, restored: Restored) -> Tensor:
    if options.data_dir is None:
        size = (options.batch_size, 3, restored.img_size, restored.img_size)
        return torch.rand(size, generator=torch.Generator().manual_seed(0))
    batches = EvalLoader(
        validation(options.data_dir, layout=options.layout),
        img_size=restored.img_size,
        preprocess=restored.preprocess,
        batch_size=options.batch_size,
        loader=options.loader,
        workers=1,
    )
    return next(iter(batches))[0]
