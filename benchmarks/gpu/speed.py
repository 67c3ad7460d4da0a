"""Training and inference of networks on the device: ours and timm's, eager and compiled, with their memory."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import timm
import torch
from torch import nn

from backbones.layers.fuse import fuse
from benchmarks.gpu.plan import Plan, Row, rate_rows, ratio_rows, row
from benchmarks.harness import Action, compare
from benchmarks.networks import create_ours, create_peer, inference, training

Create = Callable[[], nn.Module]

YARDSTICK = "timm resnet50, 224 pixels"
NETWORKS: dict[str, Create] = {
    YARDSTICK: partial(timm.create_model, "resnet50"),
    "timm cspresnext50 leaky": partial(create_peer, "csresnext50", "leaky"),
    "csresnext50 leaky": partial(create_ours, "csresnext50", act="leaky"),
    "timm cspresnext50 mish": partial(create_peer, "csresnext50", "mish"),
    "csresnext50 mish": partial(create_ours, "csresnext50"),
    "csresnext50_ws": partial(create_ours, "csresnext50_ws"),
    "csresnext50_ws_mi2": partial(create_ours, "csresnext50_ws_mi2"),
    "timm cspdarknet53 leaky": partial(create_peer, "csdarknet53", "leaky"),
    "csdarknet53 leaky": partial(create_ours, "csdarknet53", act="leaky"),
    "csdarknet53 mish": partial(create_ours, "csdarknet53"),
}
SHALLOW = {"depths": (1, 1, 1, 1)}
QUICK: dict[str, Create] = {
    "timm cspresnext50 leaky": partial(timm.create_model, "test_resnet", num_classes=1000),
    "csresnext50 leaky": partial(create_ours, "csresnext50", act="leaky", **SHALLOW),
}
"""Stand-ins for a quick try."""

RATIOS = {
    "csresnext50 leaky / timm": ("timm cspresnext50 leaky", "csresnext50 leaky"),
    "csresnext50 mish / timm": ("timm cspresnext50 mish", "csresnext50 mish"),
    "csdarknet53 leaky / timm": ("timm cspdarknet53 leaky", "csdarknet53 leaky"),
    "csresnext50_ws / plain": ("csresnext50 mish", "csresnext50_ws"),
    "csresnext50_ws_mi2 / plain": ("csresnext50 mish", "csresnext50_ws_mi2"),
}
"""Speed of the first / speed of the second: the costs the other way round."""

GOALS = {
    "csresnext50 leaky / timm": ">= 1.00",
    "csresnext50 mish / timm": ">= 1.00",
    "csdarknet53 leaky / timm": ">= 1.00",
    "csresnext50_ws / plain": ">= 0.98",
    "csresnext50_ws_mi2 / plain": ">= 0.95",
}

COMPILED = (
    "csresnext50 mish",
    "timm cspresnext50 leaky",
    "csresnext50 leaky",
    "csresnext50_ws_mi2",
    "csdarknet53 leaky",
    "timm cspdarknet53 leaky",
)
"""Networks to compile, the most telling first: the time may not suffice for all."""

COMPILE_SECONDS = 100
"""Time after which no other network is compiled."""

EAGER = ", eager"


def measure_eager(plan: Plan) -> Iterator[Row]:
    """Yield images per second of training steps, the ratios, and the peak memory of a step."""
    actions = {name: step_of(plan, name) for name in networks_of(plan)}
    for name in list(actions):
        if (peak := measure_peak(actions[name], plan)) is None:
            del actions[name]
            yield row(name, "out of memory")
        elif peak:
            yield row(f"{name}, most memory of a step", peak / plan.batch / 1e6, "MB per image")
    costs = plan.measure(actions, repeats=10, scale=1 / plan.batch)
    yield from ratio_rows(compare(costs, known(RATIOS, costs)), GOALS)
    yield from rate_rows(costs)


def networks_of(plan: Plan) -> dict[str, Create]:
    """Return the networks to train."""
    return QUICK if plan.quick else NETWORKS


def step_of(plan: Plan, name: str, *, compiled: str | None = None) -> Action:
    """Return a training step of a network with its update."""
    setting = plan.setting(size=224 if name == YARDSTICK else None)
    return training(networks_of(plan)[name](), setting, optimizer=True, compiled=compiled)


def known(ratios: Mapping[str, tuple[str, str]], costs: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    """Return the ratios of what was measured."""
    return {name: pair for name, pair in ratios.items() if set(pair) <= set(costs)}


def measure_peak(action: Action, plan: Plan) -> int | None:
    """Return the bytes that a step allocates beyond what is there before it; None where they do not fit; 0 on a CPU."""
    try:
        action()  # allocates what stays
        if plan.device == "cpu":
            return 0
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
    except torch.OutOfMemoryError:
        return None
    return torch.cuda.max_memory_allocated() - before


def measure_compiled(plan: Plan) -> Iterator[Row]:
    """Yield seconds of compilation, ratios of compiled networks to timm's, also to its eager one, and rates."""
    mode, names = ("no compiler", tuple(QUICK)) if plan.quick else ("default", COMPILED)
    peer, start = "timm cspresnext50 leaky", time.perf_counter()
    actions = {peer + EAGER: step_of(plan, peer)}
    for name in names:
        if time.perf_counter() - start > COMPILE_SECONDS:
            yield row(name, "left out: no time")
            continue
        actions[name], before = step_of(plan, name, compiled=mode), time.perf_counter()
        actions[name]()
        yield row(f"{name}, first step", time.perf_counter() - before, "s")
    costs = plan.measure(actions, repeats=10, scale=1 / plan.batch)
    ratios = RATIOS | {f"{name} / timm's eager": (peer + EAGER, name) for name in names if "resnext" in name}
    goals = GOALS | {"csresnext50 leaky / timm's eager": ">= 1.35"}
    yield from ratio_rows(compare(costs, known(ratios, costs)), goals)
    yield from rate_rows(costs)


def measure_inference(plan: Plan) -> Iterator[Row]:
    """Yield the speed of fused networks at one image and at a batch, and the ratios to the plain one."""
    names = ("csresnext50", "csresnext50_ws", "csresnext50_ws_mi2")
    options = SHALLOW if plan.quick else {}
    networks = {name: fuse(create_ours(name, **options)) for name in names}
    for batch, goals in ((1, (">= 0.993", ">= 0.993")), (plan.batch, (">= 0.993", ">= 0.98"))):
        setting = plan.setting(batch=batch)
        actions = {f"{name}, batch {batch}": inference(network, setting) for name, network in networks.items()}
        costs = plan.measure(actions, repeats=200 if batch == 1 else 10, scale=1 / batch)
        plain, *others = actions
        ratios = compare(costs, {f"{name} / plain": (plain, name) for name in others})
        yield from ratio_rows(ratios, dict(zip(ratios, goals, strict=True)))
        yield from rate_rows(costs)
