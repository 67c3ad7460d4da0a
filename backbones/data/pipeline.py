"""DALI decodes and augments: the only importer of nvidia.dali; one graph for CPU and GPU, training and validation."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import nvidia.dali.math as dali_math
import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline, pipeline_def

from backbones.data.crop import View, crop_arguments, geometry
from backbones.data.feed import Feed, Pixels
from backbones.data.index import Index
from backbones.data.order import Plan
from backbones.data.reference import decode
from backbones.errors import UserError

PREFETCH = 2
"""Batches that DALI prepares ahead."""

HARDWARE_SHARE = 0.9
"""Share of the JPEG files given to the GPU's hardware decoder, where it has one."""

INTEGER = types.DALIDataType.INT32

FILTERS = {"bilinear": types.DALIInterpType.INTERP_LINEAR, "bicubic": types.DALIInterpType.INTERP_CUBIC}

WHOLE_TAILS = np.array([(0xFF, 0xD9), (0x60, 0x82)], dtype=np.uint8)
"""Last two bytes of a whole JPEG (end of image) and PNG (checksum of its end chunk)."""


def images(plans: Iterator[Plan], feed: Feed) -> Pixels:
    """Yield each plan with its pixels, decoded by threads that run ahead.

    Raises UserError that names the file where one is missing or cannot be decoded, truncated ones included even
    where the random crop misses the damage.

    Shape: uint8 (N, size, size, 3), on feed.device.
    """
    flight = Flight(plans, feed)
    device_id = (feed.device.index or 0) if feed.device.type == "cuda" else None
    pipe = _graph(
        iter(flight),
        feed.view,
        gpu=device_id is not None,
        batch_size=feed.batch_size,
        num_threads=max(1, feed.workers),
        device_id=device_id,
        prefetch_queue_depth=PREFETCH,
    )
    try:
        while (outputs := _run(pipe, flight, feed.device)) is not None:
            pixels, rows, tails = outputs
            yield (
                flight.land(rows.as_array().ravel(), tails.as_array()),
                torch.from_dlpack(pixels.as_tensor()),
            )
    finally:
        del pipe


class Flight:
    """The batches that DALI was given and has not returned yet, so that a failure can be traced to a file."""

    def __init__(self, plans: Iterator[Plan], feed: Feed) -> None:
        self.plans = plans
        self.index: Index = feed.index
        self.augment = feed.view.augment
        self.waiting: deque[Plan] = deque()
        self.verified: set[int] = set()

    def __iter__(self) -> Iterator[tuple[list[np.ndarray], np.ndarray, np.ndarray]]:
        """Yield what the graph reads: file names as bytes, rows, and crop arguments (N, 5)."""
        for plan in self.plans:
            self.waiting.append(plan)
            names = [np.frombuffer(_encode(self.index.path(row)), dtype=np.uint8) for row in plan.rows]
            yield names, plan.rows, crop_arguments(plan.draws, self.augment)

    def land(self, rows: np.ndarray, tails: np.ndarray) -> Plan:
        """Return the plan that DALI has finished, having checked that these are its images and that they are whole."""
        plan = self.waiting.popleft()
        if not np.array_equal(rows, plan.rows):
            raise RuntimeError(f"DALI returned rows {rows[:8]}... where {plan.rows[:8]}... were asked for")
        whole = (tails[:, None] == WHOLE_TAILS).all(axis=2).any(axis=1)
        for row in set(rows[~whole].tolist()) - self.verified:
            decode(self.index.path(row))
            self.verified.add(row)
        return plan

    def find_culprit(self) -> None:
        """Raise UserError for the first file in flight that cannot be decoded; return if all can."""
        for plan in self.waiting:
            for row in plan.rows:
                decode(self.index.path(row))


def _run(pipe: Pipeline, flight: Flight, device: torch.device) -> tuple[Any, ...] | None:
    """Return the next batch of the graph, None at the end; raise UserError for a bad file."""
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
    try:
        return pipe.run(stream)
    except StopIteration:
        return None
    except RuntimeError as error:
        try:
            flight.find_culprit()
        except UserError as culprit:
            raise culprit from error
        raise


@pipeline_def
def _graph(source: Iterator[Any], view: View, *, gpu: bool) -> tuple[Any, Any, Any]:
    """Describe the work on one image: read, cut and decode, resize, cut, mirror."""
    names, rows, arguments = fn.external_source(
        source=source,
        num_outputs=3,
        batch=True,
        dtype=[types.DALIDataType.UINT8, types.DALIDataType.INT64, types.DALIDataType.FLOAT64],
        ndim=[1, 0, 1],
    )
    encoded = fn.io.file.read(names)  # pyright: ignore[reportAttributeAccessIssue]  # absent from the stubs
    shape = fn.peek_image_shape(encoded, dtype=types.DALIDataType.FLOAT64, adjust_orientation=False)
    where = geometry(shape[0], shape[1], [arguments[i] for i in range(5)], view=view, ops=dali_math)
    pixels = _decode(encoded, where.window, gpu=gpu)
    resized: Any = fn.resize(
        pixels,
        size=_stack(types.DALIDataType.FLOAT, *where.resized),
        interp_type=FILTERS[view.preprocess.interpolation],
        antialias=True,
        subpixel_scale=False,
    )
    pixels = fn.slice(resized, start=_stack(INTEGER, *where.corner), shape=(view.size, view.size), axes=(0, 1))
    return fn.flip(pixels, horizontal=fn.cast(where.flip, dtype=INTEGER)), rows, encoded[-2:]


def _decode(encoded: Any, window: tuple[Any, ...], *, gpu: bool) -> Any:
    """Decode only ``window`` (top, left, height, width) to RGB; EXIF orientation is ignored, as ImageFolder does."""
    top, left, height, width = window
    return fn.decoders.image_slice(
        encoded,
        start=_stack(INTEGER, top, left),
        shape=_stack(INTEGER, height, width),
        axes=(0, 1),
        device="mixed" if gpu else "cpu",
        output_type=types.DALIImageType.RGB,
        adjust_orientation=False,
        hw_decoder_load=HARDWARE_SHARE,
    )


def _stack(dtype: types.DALIDataType, *values: Any) -> Any:
    return fn.stack(*[fn.cast(value, dtype=dtype) for value in values])


def _encode(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
