"""Structure of a JPEG file: its segments and scans, without decoding them (ITU T.81, annex B)."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from backbones.dataset.place import BadImageError

START, END = b"\xff\xd8", b"\xff\xd9"
START_OF_SCAN = 0xDA
END_OF_IMAGE = 0xD9
RESTART_INTERVAL = 0xDD
ADOBE = 0xEE
ADOBE_TRANSFORM = 11
"""Position in Adobe's segment of the byte that tells the colours."""

FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers whose segment holds the size of the image."""

SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})
"""Frame headers of images in which a scan holds a component in full."""

PROGRESSIVE = frozenset({0xC2, 0xCA})
"""Frame headers of images whose components come in several scans."""

MARKERS_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers that no segment follows."""

FRAME_BYTES, COMPONENT_BYTES = 6, 3
"""Length of a frame header without its components, and of each of these."""

NOT_DECODED = frozenset({*range(0xE0, 0xF0), 0xFE})
"""Segments of applications, and comments."""

_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_RESTART = re.compile(rb"\xff+[\xd0-\xd7]", re.DOTALL)


class JpegHeader(NamedTuple):
    """Size and colours of a picture, from the header of its JPEG file."""

    height: int
    """In pixels."""
    width: int
    """In pixels."""
    components: bytes
    """Identifier of each component."""
    adobe_transform: int | None
    """Colours by Adobe's segment: 0 RGB or CMYK, 1 YCbCr, 2 YCCK; None without this segment."""


class Segment(NamedTuple):
    """One marker segment. ``content`` follows its two bytes of length; ``scan`` follows a start of scan."""

    marker: int
    content: bytes
    scan: bytes = b""


class Band(NamedTuple):
    """Coefficients of one component in a scan, from the header of the scan."""

    component: int
    first: int
    """Number of the first coefficient, in zigzag order."""
    last: int
    low_bit: int
    """Lowest bit that is known after the scan; 0: the coefficients are complete."""


@dataclass(frozen=True)
class Jpeg:
    """The segments of a JPEG file up to its end of image, in order."""

    segments: tuple[Segment, ...]

    @property
    def frame(self) -> Segment:
        """The frame header."""
        return next(each for each in self.segments if each.marker in FRAME_HEADERS)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        content = self.frame.content
        return int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")

    @property
    def components(self) -> dict[int, tuple[int, int]]:
        """Horizontal and vertical sampling factor of each component, by its identifier."""
        content = self.frame.content
        return {
            content[at]: (content[at + 1] >> 4, content[at + 1] & 15)
            for at in range(FRAME_BYTES, len(content) - 2, COMPONENT_BYTES)
        }

    @property
    def scans(self) -> list[Segment]:
        """The start of each scan, with its data."""
        return [each for each in self.segments if each.marker == START_OF_SCAN]

    @property
    def restart_interval(self) -> int:
        """Number of MCUs between restart markers; 0: there are none."""
        found = [each for each in self.segments if each.marker == RESTART_INTERVAL]
        return int.from_bytes(found[-1].content[:2], "big") if found else 0

    def with_size(self, height: int, width: int) -> Self:
        """Return the same file with another size in its frame header."""
        content = self.frame.content
        sized = content[:1] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + content[5:]
        return self.with_segment(self.frame, self.frame._replace(content=sized))

    def with_segment(self, old: Segment, new: Segment) -> Self:
        """Return the same file with ``new`` in the place of ``old``."""
        return replace(self, segments=tuple(new if each is old else each for each in self.segments))

    def up_to_scan(self, count: int) -> Self:
        """Return the file with its first ``count`` scans only."""
        places = [place for place, each in enumerate(self.segments) if each.marker == START_OF_SCAN]
        return replace(self, segments=self.segments[: places[count - 1] + 1])

    def to_bytes(self) -> bytes:
        """Return the file, ended by an end of image, without the segments that no decoder needs."""
        parts = [START]
        for marker, content, scan in self.segments:
            if marker not in NOT_DECODED:
                parts += [bytes((0xFF, marker)), (len(content) + 2).to_bytes(2, "big"), content, scan]
        return b"".join([*parts, END])


def parse_jpeg(data: bytes) -> Jpeg:
    """Return the segments of a JPEG file. Raises BadImageError where one is incomplete, or the frame is missing."""
    return Jpeg(_require_frame(tuple(_read_segments(data))))


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Return what the segments before the first scan say. Raises BadImageError where there is no frame header.

    Training reads the header of every image, so this loop is kept short: it takes some microseconds.
    """
    at, transform = 2, None
    while (at := data.find(b"\xff", at)) >= 0 and at + 10 <= len(data):
        marker = data[at + 1]
        if marker in FRAME_HEADERS:
            height, width, count = struct.unpack_from(">HHB", data, at + 5)
            first = at + 4 + FRAME_BYTES
            return JpegHeader(height, width, data[first : first + COMPONENT_BYTES * count : COMPONENT_BYTES], transform)
        if marker == START_OF_SCAN:
            break
        if marker == 0xFF:
            at += 1
        elif marker in MARKERS_WITHOUT_LENGTH or not marker:
            at += 2
        else:
            if marker == ADOBE and data.startswith(b"Adobe", at + 4):
                transform = data[at + 4 + ADOBE_TRANSFORM]
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    raise BadImageError("its JPEG header is incomplete")


def read_bands(scan: Segment) -> Iterator[Band]:
    """Yield the coefficients that a scan holds."""
    count = scan.content[0] if scan.content else 0
    if len(scan.content) < 4 + 2 * count:
        raise BadImageError("the header of a JPEG scan is incomplete")
    first, last, bits = scan.content[1 + 2 * count : 4 + 2 * count]
    for number in range(count):
        yield Band(scan.content[1 + 2 * number], first, last, bits & 15)


def split_at_restarts(scan: bytes) -> list[bytes]:
    """Return the data between the restart markers of a scan."""
    return _RESTART.split(scan)


def _require_frame(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    frame = next((each.content for each in segments if each.marker in FRAME_HEADERS), b"")
    if len(frame) < FRAME_BYTES or len(frame) < FRAME_BYTES + COMPONENT_BYTES * frame[FRAME_BYTES - 1]:
        raise BadImageError("its JPEG header is incomplete")
    return segments


def _read_segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments up to the end of image, or to the end of the file."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == END_OF_IMAGE:
            return
        if marker == 0xFF:
            at += 1
        elif marker in MARKERS_WITHOUT_LENGTH or not marker:
            at += 2
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            scan = _read_scan(data, end) if marker == START_OF_SCAN else b""
            yield Segment(marker, data[at + 4 : end], scan)
            at = end + len(scan)


def _read_scan(data: bytes, start: int) -> bytes:
    """Return the coded data from ``start`` to the next marker that ends a scan."""
    found = _MARKER_AFTER_SCAN.search(data, start)
    return data[start : found.start() if found else len(data)]
