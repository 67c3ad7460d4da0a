"""The measurement of one subject, or of two in turns."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from backbones.commands.bench.ceilings import copy_bandwidth, device_name, peak_flops
from backbones.commands.bench.counters import count
from backbones.commands.bench.operators import profile_step, step_peak
from backbones.commands.bench.options import Options
from backbones.commands.bench.report import Figures, Report, as_json, text
from backbones.commands.bench.subject import Subject, choose_settings
from backbones.commands.bench.turns import Rounds, take_turns
from backbones.files import json_text, write_text
from backbones.terminal import STDERR, write


def run(options: Options) -> None:
    """Measure as the options say, print the report and write it to the files that they name."""
    report = measure(options)
    write(text(report))
    if options.json is not None:
        write_text(Path(options.json), json_text(as_json(report), indent=2) + "\n")


def measure(options: Options) -> Report:
    """Return the figures of the subjects."""
    device = torch.device("cuda" if options.device == "auto" and torch.cuda.is_available() else "cpu")
    subjects = [Subject(setting, device) for setting in choose_settings(options, device)]
    tell("the bandwidth of a copy")
    bandwidth = copy_bandwidth(device)
    tell("exact counts and operators")
    figures = [_examine(subject, bandwidth, options, is_first=not number) for number, subject in enumerate(subjects)]
    training = _time("training", subjects, [subject.train for subject in subjects], options)
    for subject in subjects:
        subject.network.eval()
    inference = _time("inference", subjects, [subject.infer for subject in subjects], options)
    images = [subject.setting.batch_size for subject in subjects]
    for number, found in enumerate(figures):
        found.training, found.inference = (each.rate(number, images[number]) for each in (training, inference))
    by_cpu_time = device.type == "cpu"
    ratios = {
        name: each.ratio(images, by_cpu_time=by_cpu_time)
        for name, each in (("training", training), ("inference", inference))
        if len(subjects) == 2
    }
    return Report(device_name(device), options.rounds, figures, ratios, by_cpu_time)


def _examine(subject: Subject, bandwidth: float, options: Options, *, is_first: bool) -> Figures:
    """Return what is counted and not timed."""
    subject.train()  # allocates gradients and the state of the optimizer, and compiles
    profile = profile_step(subject.train, subject.device, trace=options.profile if is_first else None)
    name = device_name(subject.device)
    return Figures(
        setting=subject.setting,
        counts=count(subject.eager_step, subject.eager_loss, subject.network),
        peak_bytes=step_peak(subject.train, subject.device, profile.peak),
        operators=profile.operators,
        peak_flops=peak_flops(name, subject.setting.precision, given=options.peak_tflops),
        bandwidth=bandwidth,
    )


def _time(what: str, subjects: Sequence[Subject], actions: Sequence[Callable[[], None]], options: Options) -> Rounds:
    tell(what)
    return take_turns(actions, rounds=options.rounds, seconds=options.seconds, device=subjects[0].device)


def tell(what: str) -> None:
    """Print what is measured on stderr, apart from the report."""
    STDERR.console.print(f"measuring   {what}")
