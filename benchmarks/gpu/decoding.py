"""Decoding of JPEG files on the device: its rate, and whether its pixels are those of the CPU."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.data.decode_check import relative_difference
from backbones.dataset.encoded import decode
from benchmarks.gpu.plan import Left, Plan, Row, rate_rows, row
from benchmarks.harness import Action, measure, wall_seconds
from benchmarks.photos import write_photos

THREADS = 16
GOAL = ">= 5,400: 1.1 x 4,900"


def measure_decoding(plan: Plan) -> Iterator[Row]:
    """Yield images per second of torchvision on the GPU and the CPU, and of DALI."""
    decode_jpeg = find_decoder()

    different, count = (4, 8) if plan.quick else (64, 1000)
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), different)
        encoded = list(islice(cycle(read_files(Path(folder))), count))
        with ThreadPoolExecutor(THREADS) as pool:
            actions: dict[str, Action] = {
                f"torchvision, {THREADS} threads": lambda: list(pool.map(decode_jpeg, encoded))
            }
            if plan.device != "cpu":
                actions["torchvision, GPU"] = lambda: decode_jpeg(encoded, device=plan.device)
            try:
                actions["DALI, mixed" if plan.device != "cpu" else "DALI, CPU"] = dali(plan, Path(folder), count)
            except ModuleNotFoundError:
                yield row("DALI", "left out: not installed")
            costs = measure(actions, rounds=1 if plan.quick else 3, scale=1 / count, clock=wall_seconds)
    for found in rate_rows(costs):
        yield found | ({"goal": GOAL} if "threads" not in found["what"] and plan.device != "cpu" else {})


def find_decoder() -> Callable[..., Any]:
    """Return torchvision's decoder, which is deprecated since 0.29; raises Left where it is gone."""
    warnings.filterwarnings("ignore", message="The image decoding and encoding", category=DeprecationWarning)
    try:
        from torchvision.io import decode_jpeg  # noqa: PLC0415
    except ImportError as error:
        raise Left(f"torchvision decodes no JPEG files: {error}") from None
    return decode_jpeg


def read_files(folder: Path) -> list[Tensor]:
    """Return the bytes of each file."""
    return [torch.from_numpy(np.fromfile(file, np.uint8)) for file in sorted(folder.rglob("*.jpg"))]


def dali(plan: Plan, folder: Path, count: int) -> Action:
    """Return DALI's decoding of at least ``count`` images, in batches."""
    from nvidia.dali import fn  # noqa: PLC0415
    from nvidia.dali.pipeline import pipeline_def  # noqa: PLC0415

    on_gpu, batch = plan.device != "cpu", min(count, 125)

    @pipeline_def
    def graph() -> Tensor:
        encoded, _ = fn.readers.file(file_root=str(folder), pad_last_batch=True)
        return fn.decoders.image(encoded, device="mixed" if on_gpu else "cpu")

    pipe = graph(batch_size=batch, num_threads=THREADS, device_id=0 if on_gpu else None)

    def decode_all() -> None:
        for _ in range(count // batch):
            pipe.run()
        if on_gpu:
            torch.cuda.synchronize()

    return decode_all


def check_decoded(plan: Plan) -> Iterator[Row]:
    """Compare what the GPU decodes with what PIL decodes; 1 is the most that rounding explains."""
    decode_jpeg = find_decoder()

    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), 8 if plan.quick else 64)
        encoded = read_files(Path(folder))
        expected = [torch.from_numpy(np.array(decode(data.numpy().tobytes()))) for data in encoded]
        found = decode_jpeg(encoded) if plan.device == "cpu" else decode_jpeg(encoded, device=plan.device)
        yield from compare_pixels("torchvision", [each.cpu().permute(1, 2, 0) for each in found], expected)
        yield from check_loader(plan, Path(folder))


def compare_pixels(who: str, found: list[Tensor], expected: list[Tensor]) -> Iterator[Row]:
    """Yield the largest difference. Raises AssertionError where rounding does not explain it."""
    largest = max(relative_difference(a, b) for a, b in zip(found, expected, strict=True))
    yield row(f"{who}: largest difference from PIL of {len(found)} images", largest, goal="<= 1")
    if largest > 1:
        raise AssertionError(f"{who} decodes other pixels than PIL")


def check_loader(plan: Plan, folder: Path) -> Iterator[Row]:
    """Compare what our loader decodes with PIL."""
    from backbones.data.loader import TrainLoader  # noqa: PLC0415
    from backbones.dataset.sources.folder import scan_folder  # noqa: PLC0415
    from backbones.errors import UserError  # noqa: PLC0415
    from backbones.recipe import Augment, Preprocess  # noqa: PLC0415

    index = scan_folder(folder)
    options = {
        "img_size": 224,
        "preprocess": Preprocess(),
        "augment": Augment(),
        "batch_size": 8,
        "device": plan.device,
    }
    try:
        loader = TrainLoader(index, **options)
    except UserError as error:
        raise Left(f"our loader: {error}".partition("\n")[0]) from None
    yield row("our loader with DALI: images with the pixels of PIL", str(loader.check_decoding(len(index))))
