"""The figures of `bench`, as text for people and as JSON: ratios first."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from backbones.commands.bench.counters import Counts
from backbones.commands.bench.operators import Operator
from backbones.commands.bench.subject import Setting
from backbones.commands.bench.turns import Spread
from backbones.terminal import table

UNMEASURED = Spread(0.0, 0.0, 0.0)
MEGABYTE = 1e6


@dataclass
class Figures:
    """All figures of one subject. Speeds are images per second."""

    setting: Setting
    counts: Counts
    peak_bytes: int
    """Largest number of bytes in use in a training step beyond those before it: weights and the optimizer's state."""
    operators: list[Operator]
    """Most expensive operators of a training step."""
    peak_flops: float | None
    """Operations per second that the device can make; None if unknown."""
    bandwidth: float
    """Bytes per second of a copy."""
    training: Spread = UNMEASURED
    inference: Spread = UNMEASURED

    @property
    def utilization(self) -> float | None:
        """Model FLOPs utilization of training: operations of the network / operations that the device could make."""
        if self.peak_flops is None:
            return None
        return self.counts.flops * self.training.median / self.peak_flops

    @property
    def moved_per_image(self) -> float:
        """Bytes that a training step moves, for each image of the batch."""
        return self.counts.moved + self.counts.moved_anyway / self.setting.batch_size

    @property
    def bandwidth_share(self) -> float:
        """Speed of training / speed at which its operators, each as fast as a copy, would move their bytes."""
        return self.moved_per_image * self.training.median / self.bandwidth


@dataclass(frozen=True)
class Report:
    """Result of a measurement."""

    device: str
    rounds: int
    figures: list[Figures]
    """Of one subject or two."""
    ratios: dict[str, Spread]
    """"training" and "inference" -> speed of the first / speed of the second; empty for one subject."""
    by_cpu_time: bool
    """The ratios compare CPU time."""


def text(report: Report) -> str:
    """Return the report for people."""
    return "\n".join(_list_lines(report))


def _list_lines(report: Report) -> Iterator[str]:
    time = " by CPU time" if report.by_cpu_time else ""
    for what, ratio in report.ratios.items():
        yield f"A / B       {what}{time}: {ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
    names = "AB"[: len(report.figures)]
    for name, figures in zip(names, report.figures, strict=True):
        yield f"{name:<11} {describe(figures.setting)}"
    yield f"device      {report.device}, torch {version('torch')}, {report.rounds} rounds"
    columns = [_describe_figures(figures) for figures in report.figures]
    rows = [(label, *(column[label] for column in columns)) for label in columns[0]]
    yield f"\n{table([('', *names), *rows], 'l' + 'r' * len(names))}"
    for name, figures in zip(names, report.figures, strict=True):
        rows = [
            ("calls", "share", f"operators of a training step of {name}"),
            *map(_format_operator, figures.operators),
        ]
        yield f"\n{table(rows, 'rrl')}"


def describe(setting: Setting) -> str:
    """Return a setting on one line."""
    arguments = f" {dict(setting.model_args)}" if setting.model_args else ""
    size = f"{setting.batch_size} images of {setting.img_size}x{setting.img_size}"
    how = [setting.precision, size]
    how += ["channels_last"] * setting.channels_last + ["compiled"] * setting.torchcompile
    return f"{setting.model}{arguments}, {', '.join(how)}"


def _describe_figures(figures: Figures) -> dict[str, str]:
    """Return the text of each figure by its label."""
    counts, utilization = figures.counts, figures.utilization
    return {
        "training, images/s": _format_spread(figures.training),
        "inference, images/s": _format_spread(figures.inference),
        "peak memory of a step, MB": f"{figures.peak_bytes / MEGABYTE:.1f}",
        "kept for backward, MB per image": f"{counts.kept / MEGABYTE:.2f}",
        "moved by a step, MB per image": f"{figures.moved_per_image / MEGABYTE:.1f}",
        "kernels of forward and backward": str(counts.launches),
        "GFLOP of a step per image": f"{counts.flops / 1e9:.3f}",
        "MFU": "unknown" if utilization is None else f"{utilization:.1%}",
        f"share of the bandwidth, {figures.bandwidth / 1e9:.1f} GB/s": f"{figures.bandwidth_share:.1%}",
    }


def _format_spread(values: Spread) -> str:
    return f"{values.median:.4g} ({values.low:.4g} to {values.high:.4g})"


def _format_operator(operator: Operator) -> tuple[str, str, str]:
    return str(operator.calls), f"{operator.share:.1%}", operator.name


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as plain types."""
    return {
        "ratio": {what: ratio._asdict() for what, ratio in report.ratios.items()},
        "ratio_of": "CPU time" if report.by_cpu_time else "elapsed time",
        "device": report.device,
        "rounds": report.rounds,
        "versions": {name: version(name) for name in ("torch", "timm")},
        "subjects": [_as_plain(figures) for figures in report.figures],
    }


def _as_plain(figures: Figures) -> dict[str, Any]:
    return {
        "setting": asdict(figures.setting),
        "images_per_second": {"training": figures.training._asdict(), "inference": figures.inference._asdict()},
        "per_image": {"flops": figures.counts.flops, "kept": figures.counts.kept, "moved": figures.counts.moved},
        "per_step": {"moved_anyway": figures.counts.moved_anyway, "launches": figures.counts.launches},
        "peak_bytes": figures.peak_bytes,
        "mfu": figures.utilization,
        "bandwidth": figures.bandwidth,
        "bandwidth_share": figures.bandwidth_share,
        "top_operators": [operator._asdict() for operator in figures.operators],
    }
