"""Checkpoint -> network, validation data -> top-1, top-5, loss, n."""

from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator

from backbones.assembly.checkpoint import Restored, restore_model
from backbones.assembly.class_order import name_outputs
from backbones.assembly.evaluation.options import Options
from backbones.assembly.figures import as_json, report
from backbones.assembly.run import eval_loader
from backbones.dataset.index import Index
from backbones.dataset.splits import validation
from backbones.dataset.validation_sets import LAYOUTS, ValidationSet, folder_set, own_set, real_set
from backbones.errors import UserError
from backbones.files import json_text, write_text
from backbones.layers.fuse import fuse
from backbones.terminal import say, write
from backbones.training.compilation import compile_network, require_compiler
from backbones.training.evaluate import Evaluation, evaluate
from backbones.training.launch import create_accelerator
from backbones.training.report import show_validation


def evaluate_checkpoint(options: Options) -> Evaluation:
    """Evaluate as the options say, print the figures and return those of the checkpoint's own set."""
    order = "sorted" if options.class_order == "sorted" else "darknet"
    trained = restore_model(options.ckpt, model=options.model, ema=options.ema, class_order=order)
    restored = trained.as_asked(options)
    accelerator = create_accelerator(
        precision=restored.precision, device=options.device, tf32=restored.tf32, obey_launcher=False
    )
    require_compiler(options.torchcompile, accelerator.device)
    sets = validation_sets(options, restored)
    restored.model.to(accelerator.device)
    if restored.fold and options.fold:
        restored = replace(restored, model=fuse(restored.model))
    compile_network(restored.model, options.torchcompile, accelerator.device)
    results = {name: (each, measure(options, restored, accelerator, each)) for name, each in sets.items()}
    if accelerator.is_main_process:
        write(report(trained, restored, results))
        if options.json is not None:
            write_text(Path(options.json), json_text(as_json(restored, results), indent=2) + "\n")
    accelerator.end_training()
    return results["val"][1]


def measure(options: Options, restored: Restored, accelerator: Accelerator, images: ValidationSet) -> Evaluation:
    """Return the figures of one set."""
    batches = eval_loader(
        images.index,
        accelerator,
        img_size=restored.img_size,
        preprocess=restored.preprocess,
        batch_size=options.batch_size,
        loader=options.loader or restored.loader,
        workers=options.workers,
    )
    judge, size = images.judge(accelerator.device), len(images.index)
    pad_to = options.batch_size if options.torchcompile else None
    with show_validation(accelerator, images.title, size) as show:
        return evaluate(accelerator, restored.model, batches, expected=size, judge=judge, on_batch=show, pad_to=pad_to)


def validation_sets(options: Options, restored: Restored) -> dict[str, ValidationSet]:
    """Return the sets of the options by name; the first is the checkpoint's own, "val"."""
    index = validation_images(options, restored)
    where = options.data_dir or restored.data_dir
    classes = name_outputs(restored, index.classes, order=options.class_order, where=where)
    require_same_images(options, restored, index)
    sets = {"val": own_set(index, classes)}
    if options.real:
        sets["real"] = real_set(index, classes)
    folders = {name: folder for name in LAYOUTS if (folder := getattr(options, name)) is not None}
    return sets | {name: folder_set(name, folder, classes) for name, folder in folders.items()}


def validation_images(options: Options, restored: Restored) -> Index:
    """Return the validation images; UserError where no data set is named."""
    data_dir = options.data_dir or restored.data_dir
    if data_dir is None:
        raise UserError("--data-dir is missing: the checkpoint does not say where its data set is.")
    layout = options.layout or (restored.layout if options.data_dir is None else None)
    index = validation(data_dir, layout=layout)
    for note in index.notes:
        say("note", note)
    return index


def require_same_images(options: Options, restored: Restored, index: Index) -> None:
    """Raise UserError where the recorded validation set has changed; print a note where another one was named."""
    if restored.val_fingerprint in (None, index.fingerprint):
        return
    if options.data_dir is None:
        raise UserError(
            f"{restored.data_dir} no longer holds the validation images that the checkpoint was measured on; "
            "restore them, or name the folder with --data-dir to evaluate on the images that are there."
        )
    say("note", "these are not the validation images that the checkpoint was measured on")
