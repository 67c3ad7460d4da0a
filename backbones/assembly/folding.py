"""The networks that are evaluated in place of those that are trained: with batch normalization folded."""

from collections.abc import Callable

import torch
from torch import nn

from backbones.layers.fuse import fuse
from backbones.recipe import Recipe
from backbones.training.compilation import compile_network

ForEvaluation = Callable[[nn.Module], nn.Module]
"""Turns a network into the one that is evaluated in its place."""


class Folding:
    """Function that returns a folded copy of a network, for evaluation.

    A copy takes the memory of the weights while it is evaluated. Compiled copies are kept, one for each network, and
    get the new weights at each call, so that a network is compiled once.

    Args:
        compile: compiles a copy in place; None leaves it as it is.
    """

    def __init__(self, compile: Callable[[nn.Module], None] | None = None) -> None:  # noqa: A002
        self.compile = compile
        self.kept: dict[nn.Module, nn.Module] = {}

    def __call__(self, network: nn.Module) -> nn.Module:
        """Return the folded copy with the network's weights of now."""
        fresh = fuse(network)
        if self.compile is None:
            return fresh
        if network not in self.kept:
            self.compile(fresh)
            self.kept[network] = fresh
            return fresh
        return fill(self.kept[network], fresh)


def choose_for_evaluation(recipe: Recipe, device: torch.device) -> ForEvaluation:
    """Return what the recipe has done to a network before it is evaluated."""
    if not recipe.fold:
        return lambda network: network
    if not recipe.torchcompile:
        return Folding()
    return Folding(lambda network: compile_network(network, recipe.torchcompile, device))


@torch.no_grad()
def fill(network: nn.Module, other: nn.Module) -> nn.Module:
    """Copy the weights of ``other`` into ``network``, which has the same layers, and return it."""
    for own, new in zip(network.state_dict().values(), other.state_dict().values(), strict=True):
        own.copy_(new)
    return network
