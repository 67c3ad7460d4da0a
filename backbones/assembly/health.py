"""The monitors of a run, put together from its network, its optimizer and its recipe."""

from collections.abc import Iterator
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from backbones.layers import WeightedShortcut
from backbones.recipe import Recipe
from backbones.training.health.batch_norm import BatchNormStatistics
from backbones.training.health.fusion import FusionWeights, Shortcut
from backbones.training.health.health import Health
from backbones.training.health.monitor import Monitor
from backbones.training.health.replicas import Replicas
from backbones.training.health.speed import DataStall, ThroughputDrop
from backbones.training.health.spikes import GradientSpikes, LossSpikes
from backbones.training.health.storage import CheckpointAge, DiskSpace
from backbones.training.health.stragglers import Stragglers


def create_health(
    recipe: Recipe, accelerator: Accelerator, prepared: nn.Module, optimizer: Optimizer, folder: Path | None
) -> Health:
    """Return the monitors of this process; none where the recipe says so.

    Args:
        recipe: the recipe.
        accelerator: of this process.
        prepared: the network as accelerate wrapped it, which is called in training.
        optimizer: torch's own optimizer.
        folder: the run folder, on the first process of a run that has one.
    """
    if not recipe.health.monitors:
        return Health()
    model = accelerator.unwrap_model(prepared, keep_torch_compile=False)
    return Health(
        [
            FusionWeights(find_shortcuts(model), optimizer, recipe.health.fusion_interval),
            LossSpikes(),
            GradientSpikes(),
            BatchNormStatistics(model, accelerator),
            *_watch_processes(recipe, accelerator, prepared, model),
            *_watch_this_process(recipe, folder),
        ],
        folder,
    )


def find_shortcuts(model: nn.Module) -> list[Shortcut]:
    """Return the weighted shortcuts of a network, as their monitor wants to know them."""
    return [
        _describe(name, module, module.weight)
        for name, module in model.named_modules()
        if isinstance(module, WeightedShortcut) and module.weight is not None
    ]


def _describe(name: str, module: WeightedShortcut, weight: nn.Parameter) -> Shortcut:
    # Below the floor of relu the true gradient is zero; darknet's is not
    has_floor = module.normalization == "relu" and module.fusion_gradient == "true"
    widths = [min(width, module.channels[0]) for width in module.channels]
    return Shortcut(name, weight, lambda: _shares(module), widths, module.floor if has_floor else None)


def _shares(module: WeightedShortcut) -> Tensor:
    shares = module.effective_weights()
    assert shares is not None
    return shares


def _watch_processes(
    recipe: Recipe, accelerator: Accelerator, prepared: nn.Module, model: nn.Module
) -> Iterator[Monitor]:
    """Yield the monitors that compare processes."""
    if accelerator.num_processes > 1:
        yield Stragglers(prepared, accelerator)
        yield Replicas(model, accelerator, recipe.health.replica_interval)


def _watch_this_process(recipe: Recipe, folder: Path | None) -> Iterator[Monitor]:
    """Yield the monitors of speed and disk, on the first process alone."""
    if folder is not None:
        yield DataStall()
        yield ThroughputDrop()
        yield DiskSpace(folder)
        yield CheckpointAge(folder, recipe.saving)
