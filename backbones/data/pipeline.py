"""DALI decodes and augments, on the CPU or the GPU, in training and evaluation; on the CPU, torch resizes."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, cast

import numpy as np
import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline, pipeline_def

from backbones.data.augment.auto_augment import ROUNDS
from backbones.data.augment.auto_augment_dali import augment
from backbones.data.augment.resize import resize_windows
from backbones.data.augment.view import View
from backbones.data.augment.warp import relative_to
from backbones.data.feed import Feed, Pixels
from backbones.data.order import Plan
from backbones.data.reading.ahead import run_ahead
from backbones.data.reading.reader import EncodedBatch, Reader
from backbones.errors import UserError
from backbones.recipe import Loading

Inputs = tuple[Any, ...]
"""One array, or list of arrays, for each input of a graph."""

Graph = Callable[..., Any]
"""A function that `pipeline_def` made: its first outputs are the pixels and the rows."""

Decoded = Generator[tuple[EncodedBatch, Any], None, None]
"""Each batch with DALI's first output, which is good until the next one is asked for."""

INTEGER, FLOAT = types.DALIDataType.INT32, types.DALIDataType.FLOAT

FILTERS = {"bilinear": types.DALIInterpType.INTERP_LINEAR, "bicubic": types.DALIInterpType.INTERP_CUBIC}


def images(plans: Iterator[Plan], feed: Feed, *, decode_only: bool = False) -> Pixels:
    """Yield each plan with its pixels, read and decoded by threads that run ahead.

    With ``decode_only`` nothing is augmented, so that decoding can be timed: in place of the pixels come the height,
    width and channels of what was decoded, int64 (N, 3) on the CPU.

    A file that DALI cannot decode ends its pipeline, but not the run: a new one goes on with the batches in flight,
    after the file has been found and named, replaced, or decoded by PIL in DALI's place. Raises UserError for a bad
    file where it must stop the run, truncated ones included even where the random crop misses the damage.

    Shape: uint8 (N, size, size, 3), on feed.device.
    """
    reader = Reader(feed.bad, threads=feed.loading.read_threads)
    with closing(reader), closing(run_ahead(reader.batches(plans), feed.loading.prefetch)) as batches:
        flight = Flight(batches, feed, reader)
        if decode_only:
            yield from map(_shapes, _decoded(flight, feed, _windows))
        elif resizes_outside(feed):
            yield from _resized(_decoded(flight, feed, _windows), feed)
        else:
            yield from map(_as_tensor, _decoded(flight, feed, _graph))


def resizes_outside(feed: Feed) -> bool:
    """Return whether torch resizes what DALI decodes: on the CPU, where DALI is slow at it, if no more follows."""
    return feed.device.type == "cpu" and not feed.view.is_warp and not feed.view.is_auto


class Flight:
    """The batches that DALI was given and has not returned yet, so that a failure can be traced to its file."""

    def __init__(self, batches: Iterator[EncodedBatch], feed: Feed, reader: Reader) -> None:
        self.batches = batches
        self.view = feed.view
        self.device_id = _device_id(feed)
        self.reader = reader
        self.waiting: deque[EncodedBatch] = deque()
        self.lent: deque[Inputs] = deque()
        """The arrays of what is waiting: DALI reads them in place."""
        self.again: deque[EncodedBatch] = deque()
        """What pipelines that failed did not return, in order."""
        self.error: UserError | None = None
        """Why no further batch can be read; raised when the ones before it have been taken."""

    def __iter__(self) -> Iterator[Inputs]:
        """Yield what the graph takes, from the batches that an earlier pipeline did not return on."""
        self.again.extendleft(reversed(self.waiting))
        self.waiting.clear()
        self.lent.clear()
        while batch := self._next():
            self.waiting.append(batch)
            self.lent.append((batch.data, batch.plan.rows, *_geometry(batch, self.view)))
            yield self.lent[-1]

    def _next(self) -> EncodedBatch | None:
        """Return the next batch; None at the end, or at an error that must wait for its turn."""
        try:
            batch = self.again.popleft() if self.again else next(self.batches, None)
            return batch and self.reader.renew(batch)
        except UserError as error:
            self.error = error
            return None

    def land(self, rows: np.ndarray) -> EncodedBatch:
        """Return the batch that DALI has finished, having checked that these are its images."""
        batch = self.waiting.popleft()
        self.lent.popleft()
        if not np.array_equal(rows, batch.plan.rows):
            raise AssertionError(f"DALI returned rows {rows[:8]}... where {batch.plan.rows[:8]}... were asked for")
        return batch

    def recover(self, error: RuntimeError) -> None:
        """Find out which of the images in flight DALI could not decode, so that they are read anew without it.

        Each is tried alone, so that the verdict on an image does not depend on its company. Raises UserError where
        that must stop the run, and ``error`` where every image decodes alone.
        """
        refused = {row for batch in self.waiting for row in _undecodable(batch, self.device_id)}
        for row in sorted(refused):
            self.reader.refuse(row)
        if not refused:
            raise error


def _decoded(flight: Flight, feed: Feed, graph: Graph) -> Decoded:
    """Run one pipeline after another until the plans are at an end."""
    while True:
        try:
            yield from _run(flight, feed, graph)
            break
        except RuntimeError as error:
            flight.recover(error)
    if flight.error:
        raise flight.error


def _run(flight: Flight, feed: Feed, graph: Graph) -> Decoded:
    """Run one pipeline until the plans or its life are at an end."""
    stream = torch.cuda.current_stream(feed.device) if feed.device.type == "cuda" else None
    pipe: Pipeline = graph(
        iter(flight),
        feed.view,
        feed.loading,
        batch_size=feed.batch_size,
        num_threads=max(1, feed.workers),
        device_id=flight.device_id,
        prefetch_queue_depth=feed.loading.prefetch,
        enable_conditionals=feed.view.is_auto,  # an image's number of an operation is a condition
    )
    while True:
        try:
            output, rows, *_ = cast("tuple[Any, ...]", pipe.run(stream))
        except StopIteration:
            return
        yield flight.land(rows.as_array().ravel()), output


def _as_tensor(pair: tuple[EncodedBatch, Any]) -> tuple[Plan, torch.Tensor]:
    batch, output = pair
    return batch.plan, torch.from_dlpack(output.as_tensor())


def _shapes(pair: tuple[EncodedBatch, Any]) -> tuple[Plan, torch.Tensor]:
    batch, output = pair
    return batch.plan, torch.tensor([output[i].shape() for i in range(len(output))], dtype=torch.int64)


def _resized(decoded: Decoded, feed: Feed) -> Pixels:
    """Resize with threads of our own, one batch ahead of the one that is taken."""

    def resize(pair: tuple[EncodedBatch, Any]) -> tuple[Plan, torch.Tensor]:
        batch, output = pair
        windows = [torch.from_dlpack(output[i]) for i in range(len(output))]
        crops = feed.view.crops(batch.sizes, batch.plan.draws)
        kind = feed.view.preprocess.interpolation
        return batch.plan, resize_windows(windows, crops, size=feed.view.size, interpolation=kind, pool=pool)

    with (
        ThreadPoolExecutor(max(1, feed.workers), thread_name_prefix="resize") as pool,
        closing(decoded),
        closing(run_ahead(map(resize, decoded), 1)) as batches,
    ):
        yield from batches


def _device_id(feed: Feed) -> int | None:
    return (feed.device.index or 0) if feed.device.type == "cuda" else None


def _undecodable(batch: EncodedBatch, device_id: int | None) -> Iterator[int]:
    """Yield the rows of the images that DALI refuses one by one."""
    for row, data in zip(batch.plan.rows.tolist(), batch.data, strict=True):
        try:
            _decode_alone(data, batch_size=1, num_threads=1, device_id=device_id).run()
        except RuntimeError:
            yield row


def _geometry(batch: EncodedBatch, view: View) -> Inputs:
    """Return the window to decode and what happens to it, one array for each input of the graph."""
    if view.is_warp:
        warps = view.warps(batch.sizes, batch.plan.draws)
        matrices = np.zeros((len(batch.sizes), 3, 3), dtype=np.float32)
        matrices[:, :2] = relative_to(warps.matrices, warps.windows)
        matrices[:, 2, 2] = 1
        return _int32(warps.windows[:, :2]), _int32(warps.windows[:, 2:]), matrices
    crops = view.crops(batch.sizes, batch.plan.draws)
    resized = crops.resized.astype(np.float32)
    places = _int32(crops.windows[:, :2]), _int32(crops.windows[:, 2:])
    return *places, resized, _int32(crops.corners), _int32(crops.flips), *_operations(batch, view)


def _operations(batch: EncodedBatch, view: View) -> Inputs:
    if not view.is_auto:
        return ()
    choice = view.operations(batch.plan.draws)
    return _int32(choice.operation), choice.amount.astype(np.float32)


def _int32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.int32)


@pipeline_def
def _graph(source: Iterator[Inputs], view: View, loading: Loading) -> tuple[Any, Any]:
    """Describe the work on one image: decode a window of it, then warp it, or resize, cut and mirror."""
    encoded, rows, start, shape, *rest = _inputs(source, view)
    pixels = _decode(encoded, loading, start=start, shape=shape, axes=(0, 1))
    follow: Callable[..., Any] = _warp if view.is_warp else _crop
    return follow(pixels, *rest, view=view), rows


@pipeline_def
def _windows(source: Iterator[Inputs], view: View, loading: Loading) -> tuple[Any, ...]:
    """Describe the first half of `_graph` alone; DALI warns of inputs that nothing takes, so they are returned."""
    encoded, rows, start, shape, *rest = _inputs(source, view)
    return _decode(encoded, loading, start=start, shape=shape, axes=(0, 1)), rows, *rest


def _inputs(source: Iterator[Inputs], view: View) -> Any:
    """Take encoded images, rows, the corner and shape of a window, and what the augmentation needs."""
    kinds = [(types.DALIDataType.UINT8, 1), (types.DALIDataType.INT64, 0), (INTEGER, 1), (INTEGER, 1)]
    kinds += [(FLOAT, 2)] if view.is_warp else [(FLOAT, 1), (INTEGER, 1), (INTEGER, 0)]
    kinds += [(INTEGER, 1), (FLOAT, 1)] if view.is_auto else []
    return fn.external_source(
        source=source,
        num_outputs=len(kinds),
        batch=True,
        no_copy=True,  # Flight keeps the arrays until their batch has landed
        dtype=[dtype for dtype, _ in kinds],
        ndim=[dimensions for _, dimensions in kinds],
    )


def _decode(encoded: Any, loading: Loading, **window: Any) -> Any:
    """Decode a window of an image to RGB; EXIF orientation is ignored, as ImageFolder does."""
    on_gpu = _decoder() == "mixed"
    width, height = loading.preallocate
    hints = {"preallocate_width_hint": width, "preallocate_height_hint": height} if on_gpu and width else {}
    return fn.decoders.image_slice(
        encoded,
        device=_decoder(),
        output_type=types.DALIImageType.RGB,
        adjust_orientation=False,
        hw_decoder_load=loading.hw_decoder_load,
        **hints,
        **window,
    )


def _decoder() -> str:
    """Return where the pipeline that is being described decodes."""
    pipe = Pipeline.current()
    assert pipe is not None
    return "cpu" if pipe.device_id is None else "mixed"


def _warp(pixels: Any, matrices: Any, *, view: View) -> Any:
    """Sample a square through an affine map. ``warp_affine`` does the same on the CPU in five times the time."""
    return fn.experimental.warp_perspective(
        pixels,
        matrix=matrices,
        size=(view.size, view.size),
        border_mode="constant",
        fill_value=[0.0, 0.0, 0.0],
        pixel_origin="center",
    )


def _crop(pixels: Any, resized: Any, corners: Any, flips: Any, *operations: Any, view: View) -> Any:
    whole: Any = fn.resize(
        pixels,
        size=resized,
        interp_type=FILTERS[view.preprocess.interpolation],
        antialias=True,
        subpixel_scale=False,
    )
    cut = fn.slice(whole, start=corners, shape=(view.size, view.size), axes=(0, 1))
    mirrored = fn.flip(cut, horizontal=flips)
    return _auto(mirrored, *operations, view=view) if operations else mirrored


def _auto(pixels: Any, operations: Any, amounts: Any, *, view: View) -> Any:
    assert view.augment is not None
    for number in range(ROUNDS[view.augment.inception.auto]):
        pixels = augment(pixels, operations[number], amounts[number], size=view.size)
    return pixels


@pipeline_def
def _decode_alone(data: np.ndarray) -> Any:
    encoded: Any = types.Constant(data, device="cpu")
    return fn.decoders.image(encoded, device=_decoder(), output_type=types.DALIImageType.RGB)
