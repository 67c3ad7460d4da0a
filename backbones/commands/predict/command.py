"""Predictions of a checkpoint for images, printed as they come."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from accelerate import Accelerator
from timm.data.imagenet_info import ImageNetInfo

from backbones.assembly.checkpoint import Restored, restore_model
from backbones.commands.predict.options import Options
from backbones.commands.predict.output import FORMATS, Guess, Prediction, printable
from backbones.darknet.labels import synsets
from backbones.data.tolerant import TolerantLoader
from backbones.dataset.loose import File, find_files, index_files
from backbones.errors import UserError
from backbones.terminal import STDERR, STDOUT, write
from backbones.training.launch import create_accelerator

STATUS_PASSED_OVER = 1
"""Exit status where an image could not be read."""

STATUS_CLOSED = 141
"""Exit status where the reader of the output has closed it, as `head` does: that of shells for SIGPIPE."""


def run(options: Options) -> None:
    """Predict as the options say; exit with status 1 where an image could not be read."""
    files = find_files(options.images)
    restored = restore_model(options.ckpt, model=options.model, ema=options.ema, class_order=options.class_order)
    restored = restored.as_asked(options)
    accelerator = create_accelerator(
        precision=restored.precision, device=options.device, tf32=restored.tf32, obey_launcher=False
    )
    if accelerator.num_processes > 1:
        raise UserError("predict is one process: start it without a launcher.")
    passed_over: list[str] = []
    predictions = predict(options, restored, accelerator, files, note=passed_over.append)
    print_all(FORMATS["json" if options.json else "csv" if options.csv else "text"](predictions))
    summarize(len(files), len(passed_over))


def predict(
    options: Options,
    restored: Restored,
    accelerator: Accelerator,
    files: Sequence[File],
    *,
    note: Callable[[str], None],
) -> Iterator[Prediction]:
    """Yield the prediction of each file, with a progress bar; ``note`` gets the path of each that cannot be read."""
    batches = TolerantLoader(
        index_files(files),
        img_size=restored.img_size,
        preprocess=restored.preprocess,
        batch_size=options.batch_size,
        workers=options.workers,
        device=accelerator.device,
    )
    restored.model.to(accelerator.device).eval()
    display = STDOUT if STDOUT.is_live else STDERR
    with display.task("predicting", len(files), unit="images") as task:
        done = 0
        for batch in batches:
            for row, reason in batch.bad.items():
                note(files[row].path)
                tell(f"passed over {printable(files[row].path)}: {reason}")
            if batch.rows:
                probabilities = compute_probabilities(restored, accelerator, batch.images)
                for row, guesses in zip(batch.rows, choose_classes(restored, probabilities, options.top), strict=True):
                    yield Prediction(files[row].path, guesses)
            done += len(batch.rows) + len(batch.bad)
            task.update(done)


@torch.inference_mode()
def compute_probabilities(restored: Restored, accelerator: Accelerator, images: torch.Tensor) -> torch.Tensor:
    """Return the softmax of the network's outputs, in the precision of the evaluation.

    Shape:
        (N, 3, H, W) -> (N, classes) float32

    Raises:
        UserError: the network is no classifier.
    """
    with accelerator.autocast():
        logits = restored.model(images)
    if logits.dim() != 2:
        raise UserError(f"{restored.name} is no classifier: its output has the shape {list(logits.shape)}.")
    return logits.float().softmax(dim=1)


def choose_classes(restored: Restored, probabilities: torch.Tensor, top: int) -> list[list[Guess]]:
    """Return the ``top`` most probable classes of each image; of equal ones the first counts as more probable."""
    ordered, numbers = probabilities.cpu().sort(dim=1, descending=True, stable=True)
    words = describe_classes(restored.classes)
    names = restored.classes or tuple(map(str, range(probabilities.shape[1])))
    return [
        [Guess(number, names[number], value, words.get(names[number], "")) for number, value in zip(*row, strict=True)]
        for row in zip(numbers[:, :top].tolist(), ordered[:, :top].tolist(), strict=True)
    ]


def describe_classes(classes: tuple[str, ...] | None) -> dict[str, str]:
    """Return ImageNet's classes in words where all ``classes`` are of it; {} otherwise."""
    if classes is None or not set(classes) <= set(synsets()):
        return {}
    info = ImageNetInfo()
    return {name: info.label_name_to_description(name) for name in classes}


def print_all(parts: Iterable[str]) -> None:
    """Print the output in parts, on a terminal above the progress bar; end quietly where nobody reads it any more."""
    try:
        for part in parts:
            if STDOUT.is_live:
                write(part.removesuffix("\n"))
            else:
                STDOUT.console.file.write(part)
        STDOUT.console.file.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the exit
        sys.exit(STATUS_CLOSED)


def summarize(files: int, passed_over: int) -> None:
    """Count the images on stderr where there are several; exit with status 1 where some could not be read."""
    if files > 1:
        tell(f"{files - passed_over} of {files} images predicted, {passed_over} passed over")
    if passed_over:
        sys.exit(STATUS_PASSED_OVER)


def tell(text: str) -> None:
    """Print one line on stderr; where both streams are a terminal, above the progress bar."""
    display = STDOUT if STDOUT.is_live and STDERR.is_live else STDERR
    display.console.print(display.escape(text))
