"""Loader with DALI, which decodes and augments on the CPU or the GPU; on the CPU, torch resizes."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline, pipeline_def

from backbones.data.augment.auto_augment import OPERATIONS_PER_IMAGE
from backbones.data.augment.auto_augment_dali import augment
from backbones.data.augment.resize import resize_windows
from backbones.data.augment.view import View
from backbones.data.augment.warp import relative_to
from backbones.data.decode_check import DecodeCheck
from backbones.data.feed import Feed, OpenStage, Pixels
from backbones.data.order import Plan
from backbones.data.reading.ahead import run_ahead
from backbones.data.reading.reader import EncodedBatch, Reader, read_plans
from backbones.dataset.index import some
from backbones.errors import UserError
from backbones.recipe import Loading

Inputs = tuple[Any, ...]
"""One array, or list of arrays, for each input of a graph."""

Graph = Callable[..., Any]
"""A function made by `pipeline_def`; the first output of its graph is the rows, the second the pixels."""

Convert = Callable[..., torch.Tensor]
"""(batch, outputs of the graph after the rows) -> tensor."""

RunAlone = Callable[[Iterator[Inputs]], Iterator[tuple[Any, ...]]]
"""(inputs of one image each) -> outputs of the graph for each. Raises RuntimeError where DALI fails with one."""

INTEGER, FLOAT = types.DALIDataType.INT32, types.DALIDataType.FLOAT

FILTERS = {"bilinear": types.DALIInterpType.INTERP_LINEAR, "bicubic": types.DALIInterpType.INTERP_CUBIC}


@contextmanager
def images(plans: Iterator[Plan], feed: Feed) -> Iterator[Pixels]:
    """Open an iterator of plans with their pixels, read and decoded by threads that run ahead.

    A file that DALI cannot decode ends its pipeline, but not the run. The file is found and named, then replaced, or
    decoded by PIL instead, and a new pipeline goes on with the batches that were in flight. Raises UserError for a bad
    file that must stop the run, or for pixels that are not the file's; a truncated file is found even where the random
    crop misses the damage.

    Shape: uint8 (N, size, size, 3), on feed.device.
    """
    check = DecodeCheck(feed)
    if not resizes_with_torch(feed):
        convert = partial(_to_tensor, check=check)
        with open_decoder(plans, feed, _describe_images, convert, check.finish) as decoder:
            yield decoder
        return
    with ThreadPoolExecutor(max(1, feed.workers), thread_name_prefix="resize") as pool:
        resize = partial(_resize, view=feed.view, pool=pool, check=check)
        with (
            open_decoder(plans, feed, _describe_windows, resize, check.finish) as decoder,
            closing(run_ahead(decoder, 1)) as resized,
        ):
            yield resized


def decode_plans(plans: Iterator[Plan], feed: Feed) -> AbstractContextManager["Decoder"]:
    """Open an iterator of plans with the sizes of what was decoded, not augmented, so that decoding can be timed.

    Shape: int64 (N, 3) height, width, channels, on the CPU.
    """
    return open_decoder(plans, feed, _describe_windows, _to_shapes)


STAGES: dict[str, OpenStage] = {"read": read_plans, "decode": decode_plans, "augment": images}
"""Stages of this loader, each with the work before it, for TrainLoader.stages."""


def resizes_with_torch(feed: Feed) -> bool:
    """Return whether torch resizes what DALI decodes: on the CPU, where DALI is slow at it, if nothing else follows."""
    return feed.device.type == "cpu" and not feed.view.is_warp and not feed.view.is_auto


@contextmanager
def open_decoder(
    plans: Iterator[Plan], feed: Feed, graph: Graph, convert: Convert, finish: Callable[[], None] = lambda: None
) -> Iterator["Decoder"]:
    """Open a Decoder of the images of ``plans``, which are read in advance. It calls ``finish`` after the last plan."""
    with (
        closing(Reader(feed.bad, threads=feed.loading.read_threads, for_dali=True)) as reader,
        closing(run_ahead(map(reader.read, plans), feed.loading.prefetch)) as batches,
        closing(Decoder(batches, feed, reader, graph=graph, convert=convert, finish=finish)) as decoder,
    ):
        yield decoder


class Decoder:
    """Iterator of plans with tensors, made by one DALI pipeline after another: a file that DALI refuses ends one."""

    def __init__(
        self,
        batches: Iterator[EncodedBatch],
        feed: Feed,
        reader: Reader,
        *,
        graph: Graph,
        convert: Convert,
        finish: Callable[[], None],
    ) -> None:
        self.in_flight = InFlight(batches, feed, reader)
        self.feed, self.graph, self.convert, self.finish = feed, graph, convert, finish
        self.stream = torch.cuda.current_stream(feed.device) if feed.device.type == "cuda" else None
        self.pipe: Pipeline | None = self._build()

    def __iter__(self) -> Iterator[tuple[Plan, torch.Tensor]]:
        return self

    def __next__(self) -> tuple[Plan, torch.Tensor]:
        while (outputs := self._run()) is None:
            self.close()  # before its arrays are released
            self.in_flight.restart()
            self.pipe = self._build()
        rows, *rest = outputs
        batch = self.in_flight.finish(rows.as_array().ravel())
        return batch.plan, self.convert(batch, *rest)

    def close(self) -> None:
        """End the pipeline and its threads."""
        self.pipe = None

    def _run(self) -> tuple[Any, ...] | None:
        """Return the next outputs of the pipeline; None where a bad file has ended it."""
        assert self.pipe is not None
        try:
            return self.pipe.run(self.stream)
        except StopIteration:
            if self.in_flight.error:
                raise self.in_flight.error from None
            self.finish()
            raise
        except RuntimeError as error:
            self.in_flight.find_culprits(error, self._run_alone)
            return None

    def _build(self) -> Pipeline:
        workers, ahead = max(1, self.feed.workers), self.feed.loading.prefetch
        return self._graph_of(self.in_flight, self.feed.batch_size, num_threads=workers, prefetch_queue_depth=ahead)

    def _run_alone(self, inputs: Iterator[Inputs]) -> Iterator[tuple[Any, ...]]:
        """Yield the outputs for each of ``inputs``, one image at a time, as the graph of this decoder makes them."""
        pipe = self._graph_of(inputs, 1, num_threads=1, prefetch_queue_depth=1, exec_async=False, exec_pipelined=False)
        while True:
            try:
                yield pipe.run(self.stream)
            except StopIteration:
                return

    def _graph_of(self, source: Iterator[Inputs], batch_size: int, **options: Any) -> Pipeline:
        view = self.feed.view
        return self.graph(
            source,
            view,
            self.feed.loading,
            batch_size=batch_size,
            device_id=self.in_flight.device_id,
            enable_conditionals=view.is_auto,  # the number of an image's operation is a condition
            **options,
        )


class InFlight:
    """Iterator of the inputs of DALI that keeps each batch until DALI has returned it.

    So a failure can be traced to its file, and the next pipeline gets the same batches. DALI reads the arrays in
    place: they must exist as long.
    """

    def __init__(self, batches: Iterator[EncodedBatch], feed: Feed, reader: Reader) -> None:
        self.batches, self.view, self.reader = batches, feed.view, reader
        self.device_id = (feed.device.index or 0) if feed.device.type == "cuda" else None
        self.given: deque[tuple[EncodedBatch, Inputs]] = deque()
        """Batches given to DALI and not yet returned, with their arrays."""
        self.unfinished: deque[EncodedBatch] = deque()
        """Batches not returned by earlier pipelines, in order."""
        self.error: UserError | None = None
        """Error that ended the reading; raised after the batches before it."""

    def __iter__(self) -> Iterator[Inputs]:
        return self

    def __next__(self) -> Inputs:
        batch = self._next_batch()
        self.given.append((batch, (batch.data, batch.plan.rows, *_compute_geometry(batch, self.view))))
        return self.given[-1][1]

    def restart(self) -> None:
        """Give the next pipeline, first, the batches that the last one did not return."""
        self.unfinished.extendleft(batch for batch, _ in reversed(self.given))
        self.given.clear()

    def finish(self, rows: np.ndarray) -> EncodedBatch:
        """Return the batch that DALI has finished, after a check that ``rows`` are its images."""
        batch, _ = self.given.popleft()
        if not np.array_equal(rows, batch.plan.rows):
            raise AssertionError(f"DALI returned rows {rows[:8]}... where {batch.plan.rows[:8]}... were asked for")
        return batch

    def find_culprits(self, error: RuntimeError, run_alone: RunAlone) -> None:
        """Find the images in flight with which DALI fails, so that they are read again without it.

        Each goes alone through the same graph, so that the verdict on an image does not depend on the others in its
        batch. Where none fails, those are found whose whole picture differs in size from their header. Raises
        UserError where an image must stop the run, or where nothing is found.
        """
        refused = {row for batch, inputs in self.given for row in _find_failing(batch, inputs, run_alone)}
        refused = refused or {row for batch, _ in self.given for row in _find_odd_sizes(batch, self.device_id)}
        for row in sorted(refused):
            self.reader.refuse(row)
        if not refused:
            raise self._explain(error) from error

    def _explain(self, error: RuntimeError) -> UserError:
        """Return an error for a failure that no image causes alone, such as a lack of memory."""
        rows = [row for batch, _ in self.given for row in batch.plan.rows.tolist()]
        names = some([self.reader.index.describe(row) for row in rows])
        reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
        return UserError(f"DALI failed, though it decodes each of these images alone: {names}.\nDALI says: {reason}")

    def _next_batch(self) -> EncodedBatch:
        """Return the next batch; StopIteration at the end, or at an error, which is kept for later."""
        try:
            return self.reader.renew(self.unfinished.popleft() if self.unfinished else next(self.batches))
        except UserError as error:
            self.error, self.batches = error, iter(())
            self.unfinished.clear()
            raise StopIteration from None


def _to_tensor(batch: EncodedBatch, output: Any, before_operations: Any = None, *, check: DecodeCheck) -> torch.Tensor:
    pixels = torch.from_dlpack(output.as_tensor())
    check.take(batch, torch.from_dlpack(before_operations.as_tensor()) if before_operations else pixels)
    return pixels


def _to_shapes(_: EncodedBatch, output: Any, *_unused: Any) -> torch.Tensor:
    return torch.tensor([output[i].shape() for i in range(len(output))], dtype=torch.int64)


def _resize(
    batch: EncodedBatch, output: Any, *_unused: Any, view: View, pool: Executor, check: DecodeCheck
) -> torch.Tensor:
    windows = [torch.from_dlpack(output[i]) for i in range(len(output))]
    crops = view.crops(batch.sizes, batch.plan.draws)
    pixels = resize_windows(windows, crops, size=view.size, interpolation=view.preprocess.interpolation, pool=pool)
    check.take(batch, pixels)
    return pixels


def _find_failing(batch: EncodedBatch, inputs: Inputs, run_alone: RunAlone) -> Iterator[int]:
    """Yield the rows of the images with which the graph fails. It is built again after each of them."""
    rows = batch.plan.rows.tolist()
    at = 0
    while at < len(rows):
        singles = iter([tuple(each[number : number + 1] for each in inputs) for number in range(at, len(rows))])
        try:
            for _ in run_alone(singles):
                at += 1
        except RuntimeError:
            yield rows[at]
            at += 1


def _find_odd_sizes(batch: EncodedBatch, device_id: int | None) -> Iterator[int]:
    """Yield the rows of the images that DALI does not decode in full, or not to the size in their header."""
    for row, data, size in zip(batch.plan.rows.tolist(), batch.data, batch.sizes.tolist(), strict=True):
        try:
            (decoded,) = _decode_alone(data, batch_size=1, num_threads=1, device_id=device_id).run()
        except RuntimeError:
            yield row
            continue
        if list(decoded[0].shape()[:2]) != size:
            yield row


def _compute_geometry(batch: EncodedBatch, view: View) -> Inputs:
    """Return the window to decode and the geometry that follows, one array for each input of the graph."""
    if view.is_warp:
        warps = view.warps(batch.sizes, batch.plan.draws)
        matrices = np.zeros((len(batch.sizes), 3, 3), dtype=np.float32)
        matrices[:, :2] = relative_to(warps.matrices, warps.windows)
        matrices[:, 2, 2] = 1
        return _int32(warps.windows[:, :2]), _int32(warps.windows[:, 2:]), matrices
    crops = view.crops(batch.sizes, batch.plan.draws)
    places = _int32(crops.windows[:, :2]), _int32(crops.windows[:, 2:])
    start, end = crops.boxes[:, :2], crops.boxes[:, :2] + crops.boxes[:, 2:]
    floats = start.astype(np.float32), end.astype(np.float32), crops.resized.astype(np.float32)
    return *places, *floats, _int32(crops.corners), _int32(crops.flips), *_choose_operations(batch, view)


def _choose_operations(batch: EncodedBatch, view: View) -> Inputs:
    if not view.is_auto:
        return ()
    choice = view.operations(batch.plan.draws)
    return _int32(choice.operation), choice.amount.astype(np.float32)


def _int32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.int32)


@pipeline_def
def _describe_images(source: Iterator[Inputs], view: View, loading: Loading) -> tuple[Any, ...]:
    """Describe the graph: decode a window of an image, then warp it, or resize, cut and mirror it.

    Where operations follow, the pixels before them are the third output.
    """
    encoded, rows, corner, shape, *rest = _take_inputs(source, view)
    pixels = _decode(encoded, loading, start=corner, shape=shape, axes=(0, 1))
    if view.is_warp:
        return rows, _warp(pixels, *rest, view=view)
    start, end, resized, corners, flips, *operations = rest
    cropped = _crop(pixels, (start, end), resized, corners, flips, view=view)
    return (rows, _operate(cropped, *operations, view=view), cropped) if operations else (rows, cropped)


@pipeline_def
def _describe_windows(source: Iterator[Inputs], view: View, loading: Loading) -> tuple[Any, ...]:
    """Describe the decoding alone; the other inputs are returned, since DALI warns of unused ones."""
    encoded, rows, start, shape, *rest = _take_inputs(source, view)
    return rows, _decode(encoded, loading, start=start, shape=shape, axes=(0, 1)), *rest


def _take_inputs(source: Iterator[Inputs], view: View) -> Any:
    """Return the inputs: encoded images, rows, corner and shape of a window, and numbers for the augmentation."""
    kinds = [(types.DALIDataType.UINT8, 1), (types.DALIDataType.INT64, 0), (INTEGER, 1), (INTEGER, 1)]
    kinds += [(FLOAT, 2)] if view.is_warp else [(FLOAT, 1)] * 3 + [(INTEGER, 1), (INTEGER, 0)]
    kinds += [(INTEGER, 1), (FLOAT, 1)] if view.is_auto else []
    return fn.external_source(
        source=source,
        num_outputs=len(kinds),
        batch=True,
        no_copy=True,  # InFlight keeps the arrays until DALI has returned their batch
        dtype=[dtype for dtype, _ in kinds],
        ndim=[dimensions for _, dimensions in kinds],
    )


def _decode(encoded: Any, loading: Loading, **window: Any) -> Any:
    """Decode a window of an image to RGB; EXIF orientation is ignored, as ImageFolder does."""
    on_gpu = _decoder_device() == "mixed"
    width, height = loading.preallocate
    hints = {"preallocate_width_hint": width, "preallocate_height_hint": height} if on_gpu and width else {}
    return fn.decoders.image_slice(
        encoded,
        device=_decoder_device(),
        output_type=types.DALIImageType.RGB,
        adjust_orientation=False,
        hw_decoder_load=loading.hw_decoder_load,
        **hints,
        **window,
    )


def _decoder_device() -> str:
    """Return the device of the decoder in the graph that is being described."""
    pipe = Pipeline.current()
    assert pipe is not None
    return "cpu" if pipe.device_id is None else "mixed"


def _warp(pixels: Any, matrices: Any, *, view: View) -> Any:
    """Sample a square through an affine map. ``warp_affine`` does the same, but takes five times as long on a CPU."""
    return fn.experimental.warp_perspective(
        pixels,
        matrix=matrices,
        size=(view.size, view.size),
        border_mode="constant",
        fill_value=[0.0, 0.0, 0.0],
        pixel_origin="center",
    )


def _crop(pixels: Any, box: tuple[Any, Any], resized: Any, corners: Any, flips: Any, *, view: View) -> Any:
    whole: Any = fn.resize(
        pixels,
        roi_start=box[0],
        roi_end=box[1],
        size=resized,
        interp_type=FILTERS[view.preprocess.interpolation],
        antialias=True,
        subpixel_scale=False,
    )
    cut = fn.slice(whole, start=corners, shape=(view.size, view.size), axes=(0, 1))
    return fn.flip(cut, horizontal=flips)


def _operate(pixels: Any, operations: Any, amounts: Any, *, view: View) -> Any:
    assert view.augment is not None
    for number in range(OPERATIONS_PER_IMAGE[view.augment.inception.auto]):
        pixels = augment(pixels, operations[number], amounts[number], size=view.size)
    return pixels


@pipeline_def
def _decode_alone(data: np.ndarray) -> Any:
    encoded: Any = types.Constant(data, device="cpu")
    return fn.decoders.image(encoded, device=_decoder_device(), output_type=types.DALIImageType.RGB)
