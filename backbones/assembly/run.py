"""A recipe to its parts: the loaders, the network and the run that the entry scripts put together."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import SGD

from backbones.assembly.batch_norm import pending_statistics, prepare_batch_norm
from backbones.assembly.folding import choose_for_evaluation
from backbones.assembly.health import create_health
from backbones.assembly.hub import describe_for_timm
from backbones.assembly.network import create_network
from backbones.assembly.request import explain_model_args, require_data_dir, require_weights_file, without_loading
from backbones.darknet.network import DarknetNetwork
from backbones.data.loader import EvalLoader, TrainLoader
from backbones.data.mixing import Mixer
from backbones.data.synthetic import synthetic_index
from backbones.dataset.index import Index
from backbones.dataset.splits import train_and_val
from backbones.layers import DropBlock2d, fusion_weights
from backbones.layers.norm_act import set_recompute
from backbones.layers.old_names import current_names
from backbones.recipe import Recipe, burn_in_steps, micro_batch, run_length
from backbones.training.compilation import compile_networks, keep_gradients
from backbones.training.control import Control
from backbones.training.ema import MovingAverage
from backbones.training.loop import Checkpoints, Run
from backbones.training.optim import create_optimizer
from backbones.training.report import Report
from backbones.training.schedule import Schedule, create_schedule
from backbones.training.snapshot import Snapshots
from backbones.training.tracking import Tracker


def splits(recipe: Recipe) -> tuple[Index, Index]:
    """Return the training and validation images."""
    if recipe.loader == "synthetic":
        size = recipe.synthetic
        return synthetic_index(size.classes, size.train_per_class), synthetic_index(size.classes, size.val_per_class)
    return train_and_val(require_data_dir(recipe), layout=recipe.layout)


def train_loader(recipe: Recipe, index: Index, accelerator: Accelerator) -> TrainLoader:
    """Return this process's training batches."""
    return TrainLoader(
        index,
        img_size=recipe.img_size,
        preprocess=recipe.preprocess,
        augment=recipe.augment,
        batch_size=recipe.batch_size,
        grad_accum_steps=recipe.grad_accum_steps,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        device=accelerator.device,
        seed=recipe.seed,
        loader=recipe.loader,
        workers=recipe.workers,
        loading=recipe.loading,
    )


def val_loader(recipe: Recipe, index: Index, accelerator: Accelerator) -> EvalLoader:
    """Return this process's validation batches, as large as its training batches."""
    return eval_loader(
        index,
        accelerator,
        img_size=recipe.img_size,
        preprocess=recipe.preprocess,
        batch_size=micro_batch(recipe, accelerator.num_processes),
        loader=recipe.loader,
        workers=recipe.workers,
        loading=recipe.loading,
    )


def eval_loader(index: Index, accelerator: Accelerator, **options: Any) -> EvalLoader:
    """Return this process's share of ``index``; ``options`` are those of an EvalLoader."""
    rank, processes = accelerator.process_index, accelerator.num_processes
    return EvalLoader(index, rank=rank, world_size=processes, device=accelerator.device, **options)


def build_model(recipe: Recipe, num_classes: int) -> nn.Module:
    """Return the network with its initial weights, which depend on the seed alone, or those that model_args load."""
    options = recipe.model_args if recipe.resume is None else without_loading(recipe.model_args)
    torch.manual_seed(recipe.seed)
    with explain_model_args(recipe):
        model = create_network(recipe.model, num_classes=num_classes, **options)
        if recipe.grad_checkpointing:
            model.set_grad_checkpointing()  # type: ignore[operator]  (every timm model has it)
    prepare_batch_norm(model, recipe)
    set_recompute(model, on=recipe.recompute)
    return model.to(memory_format=torch.channels_last) if recipe.channels_last else model  # type: ignore[call-overload]


def require_network(recipe: Recipe) -> None:
    """Raise UserError where there is no such network or it has no such options; no memory is taken for it."""
    require_weights_file(recipe)
    with explain_model_args(recipe), suppress(RuntimeError), torch.device("meta"):  # some networks need real numbers
        create_network(recipe.model, **without_loading(recipe.model_args))


def build_run(
    recipe: Recipe,
    accelerator: Accelerator,
    model: nn.Module,
    batches: tuple[TrainLoader, EvalLoader],
    *,
    checkpoints: Checkpoints,
    tracker: Tracker | None = None,
) -> Run:
    """Return the run at step 0; ``tracker`` belongs to the first process."""
    train, val = batches
    total_steps, burn_in, schedule = plan_steps(recipe, train)
    ema = place_networks(recipe, accelerator.device, model)
    prepared, optimizer = accelerator.prepare(model, optimizer_of(recipe, model, burn_in))
    report = create_report(recipe, accelerator, train, schedule, total_steps=total_steps, tracker=tracker)
    report.health = create_health(recipe, accelerator, prepared, optimizer.optimizer, tracker and tracker.folder)
    return Run(
        accelerator=accelerator,
        model=prepared,
        optimizer=optimizer,
        schedule=schedule,
        recipe=recipe,
        total_steps=total_steps,
        train_batches=train,
        val_batches=val,
        mix=Mixer(recipe.mixing, classes=len(train.index.classes), seed=recipe.seed, batch_size=recipe.batch_size),
        checkpoints=checkpoints,
        report=report,
        on_step=follow_progress(model),
        pending=pending_statistics(model),
        ema=ema,
        padded_batch=val.batch_size if recipe.torchcompile else None,
        for_evaluation=choose_for_evaluation(recipe, accelerator.device),
        keeps_gradients=keep_gradients(recipe, accelerator.device, prepared.parameters()),
    )


def plan_steps(recipe: Recipe, train: TrainLoader) -> tuple[int, int, Schedule]:
    """Return the steps of the run, those of its burn-in, and the schedule."""
    total_steps = run_length(recipe, train.steps_per_epoch)
    burn_in = burn_in_steps(recipe, total_steps)
    return total_steps, burn_in, create_schedule(recipe.optim, lr=recipe.lr, total_steps=total_steps, burn_in=burn_in)


def place_networks(recipe: Recipe, device: torch.device, model: nn.Module) -> MovingAverage | None:
    """Put the network on the device, and return its moving average, if any; both are compiled as the recipe says."""
    ema = make_ema(recipe, model.to(device))
    compile_networks(recipe, device, [model, ema.module] if ema else [model])
    return ema


def optimizer_of(recipe: Recipe, model: nn.Module, burn_in: int) -> SGD:
    """Return the optimizer of the recipe for a run with this many steps of burn-in."""
    rule = {"fusion_weights": fusion_weights(model), "batch_size": recipe.batch_size, "burn_in": burn_in}
    return create_optimizer(model, recipe.optim, lr=recipe.lr, **rule)


def create_snapshots(
    recipe: Recipe, folder: Path, model: nn.Module, train: Index, val: Index, control: Control
) -> Snapshots:
    """Return the writer and reader of the run's checkpoints in ``folder``."""
    cfg = model.cfg_text if isinstance(model, DarknetNetwork) else None
    about = {"img_size": recipe.img_size, "preprocess": recipe.preprocess, "model_args": recipe.model_args}
    return Snapshots(
        folder,
        recipe,
        train.classes,
        train.fingerprint,
        val.fingerprint,
        cfg,
        current_names,
        control,
        timm_config=describe_for_timm(model, classes=train.classes, **about),
    )


def create_report(
    recipe: Recipe,
    accelerator: Accelerator,
    train: TrainLoader,
    schedule: Schedule,
    *,
    total_steps: int,
    tracker: Tracker | None,
) -> Report:
    """Return the report of a run. A part that has metrics of its own adds them to its ``contributions``."""
    return Report(
        accelerator=accelerator,
        schedule=schedule,
        total_steps=total_steps,
        steps_per_epoch=train.steps_per_epoch,
        batch_size=recipe.batch_size,
        interval=recipe.log.interval,
        count=train.counters,
        tracker=tracker,
    )


def make_ema(recipe: Recipe, model: nn.Module) -> MovingAverage | None:
    """Return the moving average of the weights, where the recipe asks for one."""
    if not recipe.model_ema:
        return None
    return MovingAverage(model, decay=recipe.ema.decay, use_warmup=recipe.ema.warmup)


def follow_progress(model: nn.Module) -> Callable[[float], None]:
    """Return `set_drop_block_progress` of ``model``; its layers are looked for once."""
    layers = [module for module in model.modules() if isinstance(module, DropBlock2d)]

    def follow(share: float) -> None:
        if layers:
            progress = [layer.progress for layer in layers]
            values = [torch.full_like(progress[0], share)] * len(progress)
            torch._foreach_copy_(progress, values)  # type: ignore[attr-defined]  # one kernel on a GPU

    return follow
