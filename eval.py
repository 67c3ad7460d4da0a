"""Evaluate a checkpoint: checkpoint -> model, validation data -> top-1, top-5, loss, n.

python eval.py --ckpt RUN [--data-dir DIR] [--eval-size 288] [--real] [--v2 DIR] [--json FILE]
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from accelerate import Accelerator

from backbones.assembly.checkpoint import Restored, restore_model
from backbones.assembly.figures import as_json, report
from backbones.assembly.run import eval_loader
from backbones.command_line import parse
from backbones.dataset.index import Index
from backbones.dataset.splits import validation
from backbones.dataset.validation_sets import LAYOUTS, ValidationSet, folder_set, own_set, real_set
from backbones.errors import UserError, exit_on_user_error, require_folder_for
from backbones.recipe import Interpolation, Protocol, require
from backbones.training.evaluate import Evaluation, evaluate
from backbones.training.launch import create_accelerator


@dataclass(frozen=True)
class Options:
    """What to evaluate, on what. Everything about the network comes from the checkpoint."""

    ckpt: str
    """Run folder (its last checkpoint), checkpoint folder (RUN/best) or weights file."""
    data_dir: str | None = None
    """Data set with validation images, of any layout; unset: the one that the checkpoint was trained on."""
    real: bool = False
    """Judge the validation images by ImageNet-ReaL's labels too."""
    v2: str | None = None
    """Folder of ImageNet-V2, with class folders 0, 1, 2, ...: evaluate on it too."""
    a: str | None = None
    """Folder of ImageNet-A, with a folder for each of its classes."""
    r: str | None = None
    """Folder of ImageNet-R, with a folder for each of its classes."""
    sketch: str | None = None
    """Folder of ImageNet-Sketch, with a folder for each class or the folder sketch/ that holds them."""
    eval_size: int | None = None
    """Height and width of the input in pixels; unset: as in the checkpoint."""
    protocol: Protocol | None = None
    """What is cut out of an image (see preprocess.protocol of the recipe); unset: as in the checkpoint."""
    crop_pct: float | None = None
    """Centre crop as a share of the resized short side; unset: as in the checkpoint."""
    interpolation: Interpolation | None = None
    """Filter of the resize; unset: as in the checkpoint."""
    json: str | None = None
    """File to write the figures to."""
    model: str | None = None
    """Name of the network, for a weights file that does not say (it must agree with one that does)."""
    class_order: Literal["darknet", "sorted"] = "darknet"
    """Order of the 1000 classes in a darknet .weights file."""
    ema: bool = True
    """Evaluate the averaged weights where the checkpoint has them."""
    batch_size: int = 64
    """Images per batch of each process."""
    loader: Literal["dali", "reference"] | None = None
    """Who decodes: NVIDIA DALI or the slow torchvision reference; unset: as in training."""
    workers: int = 4
    """Decoding threads per process."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: a GPU where there is one."""

    def __post_init__(self) -> None:
        for option in ("batch_size", "workers"):
            require(getattr(self, option) > 0, option, getattr(self, option), "must be positive")
        require(self.eval_size is None or self.eval_size > 0, "eval_size", self.eval_size, "must be positive")
        require_folder_for("--json", self.json)


def main(argv: Sequence[str]) -> Evaluation:
    """Evaluate as the command line says, print the figures and return those of the checkpoint's own set."""
    options = parse(Options, argv, description=__doc__ or "")
    trained = restore_model(options.ckpt, model=options.model, ema=options.ema, class_order=options.class_order)
    restored = trained.overridden(
        img_size=options.eval_size,
        protocol=options.protocol,
        crop_pct=options.crop_pct,
        interpolation=options.interpolation,
    )
    accelerator = create_accelerator(precision=restored.precision, device=options.device, obey_launcher=False)
    sets = validation_sets(options, restored)
    restored.model.to(accelerator.device)
    figures = {name: measure(options, restored, accelerator, each) for name, each in sets.items()}
    if accelerator.is_main_process:
        print(report(trained, restored, sets, figures))  # noqa: T201
        if options.json is not None:
            Path(options.json).write_text(json.dumps(as_json(restored, sets, figures), indent=2) + "\n")
    accelerator.end_training()
    return figures["val"]


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
    judge = images.judge(accelerator.device)
    return evaluate(accelerator, restored.model, batches, expected=len(images.index), judge=judge)


def validation_sets(options: Options, restored: Restored) -> dict[str, ValidationSet]:
    """Return the sets that the options name, by name; the checkpoint's own ("val") comes first."""
    index = validation_images(options, restored)
    sets = {"val": own_set(index)}
    if options.real:
        sets["real"] = real_set(index, index.classes)
    folders = {name: folder for name in LAYOUTS if (folder := getattr(options, name)) is not None}
    return sets | {name: folder_set(name, folder, index.classes) for name, folder in folders.items()}


def validation_images(options: Options, restored: Restored) -> Index:
    """Return the validation images; their classes must be the ones the network was trained on."""
    data_dir = options.data_dir or restored.data_dir
    if data_dir is None:
        raise UserError("--data-dir is missing: the checkpoint does not say where its data set is.")
    index = validation(data_dir)
    if restored.classes is None and restored.model.num_classes != len(index.classes):
        raise UserError(
            f"{restored.name} has {restored.model.num_classes} outputs, {data_dir} has {len(index.classes)} classes."
        )
    if restored.classes is not None and index.classes != restored.classes:
        differing = sorted(set(index.classes) ^ set(restored.classes))
        raise UserError(
            f"--data-dir {data_dir} has {len(index.classes)} classes, the checkpoint has {len(restored.classes)}; "
            f"not in both: {', '.join(differing[:5])}."
        )
    require_same_images(options, restored, index)
    return index


def require_same_images(options: Options, restored: Restored, index: Index) -> None:
    """Refuse a validation set that changed behind our back; one that was named may differ, and is said to."""
    if restored.val_fingerprint in (None, index.fingerprint):
        return
    if options.data_dir is None:
        raise UserError(
            f"{restored.data_dir} no longer holds the validation images that the checkpoint was measured on; "
            "restore them, or name the folder with --data-dir to evaluate on what is there."
        )
    print("note        these are not the validation images that the checkpoint was measured on")  # noqa: T201


if __name__ == "__main__":
    with exit_on_user_error():
        main(sys.argv[1:])
