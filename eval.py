"""Evaluate a checkpoint: checkpoint -> model, validation data -> top-1, top-5, loss, n.

python eval.py --ckpt RUN [--data-dir DIR] [--json FILE]
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from backbones.command_line import parse
from backbones.commands.assembly import eval_loader
from backbones.commands.restored import Restored, restore_model
from backbones.data.index import Index, validation
from backbones.errors import UserError, exit_on_user_error, require_folder_for
from backbones.recipe import require
from backbones.training.evaluate import Evaluation, evaluate
from backbones.training.launch import create_accelerator


@dataclass(frozen=True)
class Options:
    """What to evaluate, on what. Everything about the network comes from the checkpoint."""

    ckpt: str
    """Run folder (its last checkpoint), checkpoint folder (RUN/best) or weights file."""
    data_dir: str | None = None
    """Folder with val/CLASS/*.jpg; unset: the one that the checkpoint was trained on."""
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
        require_folder_for("--json", self.json)


def main(argv: Sequence[str]) -> Evaluation:
    """Evaluate as the command line says, print the figures and return them."""
    options = parse(Options, argv, description=__doc__ or "")
    restored = restore_model(options.ckpt, model=options.model, ema=options.ema, class_order=options.class_order)
    accelerator = create_accelerator(precision=restored.precision, device=options.device, obey_launcher=False)
    index = validation_images(options, restored)
    batches = eval_loader(
        index,
        accelerator,
        img_size=restored.img_size,
        preprocess=restored.preprocess,
        batch_size=options.batch_size,
        loader=options.loader or restored.loader,
        workers=options.workers,
    )
    evaluation = evaluate(accelerator, restored.model.to(accelerator.device), batches, expected=len(index))
    if accelerator.is_main_process:
        print(f"checkpoint  {restored.file}\nresult      {evaluation}")  # noqa: T201
        write_json(options, restored, evaluation)
    accelerator.end_training()
    return evaluation


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


def write_json(options: Options, restored: Restored, evaluation: Evaluation) -> None:
    """Write the figures (percentages 0-100) where ``--json`` says."""
    if options.json is not None:
        figures: dict[str, Any] = {
            **asdict(evaluation),
            "model": restored.name,
            "checkpoint": str(restored.file),
        }
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    with exit_on_user_error():
        main(sys.argv[1:])
