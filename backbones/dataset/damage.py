"""Damage that decoders pass over in silence: a JPEG or WebP that lost a part of its data, but decodes.

PIL, torchvision and DALI decode such files without an error. libjpeg warns of them, and simplejpeg turns its warnings
into errors. What no decoder needs (comments, EXIF, bytes after the end) is left out before, so that it cannot warn.
"""

import re
from collections.abc import Callable
from typing import Any

from backbones.dataset.encoded import JPEG, read_header
from backbones.dataset.jpeg import PROGRESSIVE, SEQUENTIAL, Jpeg, parse_jpeg, read_bands, split_at_restarts
from backbones.errors import UserError

COEFFICIENTS = 64
"""Coefficients of a block."""

WHOLE_BLOCK = bytes((0, COEFFICIENTS - 1, 0))
"""End of the header of a scan with all coefficients at full precision."""

WARNINGS_OF_DAMAGE = re.compile("Corrupt JPEG data|Premature end of JPEG file|Inconsistent progression")
"""Beginnings of libjpeg's warnings of lost data."""

LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
"""Warning of data at the end of the last scan that belong to no block."""

MAX_PADDING_BYTES = 8
"""Zeros at the end of a scan that an encoder may have added."""

HOLE = re.compile(rb"\0{64,}")
"""Zeros that a damaged file has in the place of its data; coded data of a flat picture may hold them, too."""

MIN_SHARE_BEFORE_HOLE = 0.05
"""Share of a scan before a run of zeros from which on that run is a hole: data of one colour begin with zeros."""

MIN_HOLE_BYTES, PIXELS_PER_ZERO = 64, 4_000
"""Zeros in a row that the data of a sound WebP, or of details in a progressive JPEG, do not reach: a fixed number, or
one for so many pixels. Pictures of one colour have one for 10,400 pixels in WebP, a ramp one for 9,000 in JPEG."""

WEBP_CODED = (b"VP8 ", b"VP8L")
"""Chunks of a WebP file that hold compressed pixels."""


def find_damage(data: bytes) -> str:
    """Return what an image that decodes has lost, and why we think so; empty for a sound image.

    A changed byte is found only if the decoder loses its place by it. The lost end of an arithmetic JPEG is not found:
    its decoder takes what is missing for zeros. Nor is damage in a JPEG of a subsampling that libjpeg's simple
    interface does not know, such as 2x2,1x1,2x1.

    Raises:
        BadImageError: a JPEG without a complete header.
        UserError: simplejpeg is not installed.
    """
    if data.startswith(JPEG):
        return _find_jpeg_damage(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _find_webp_damage(data)
    return ""


def _find_jpeg_damage(data: bytes) -> str:
    jpeg = _with_regular_scans(parse_jpeg(data))
    warning = _warning_of(jpeg)
    if warning and _is_padding(jpeg, warning):
        return ""
    if warning:
        return f"{_estimate_loss(jpeg, warning)} (libjpeg: {warning})"
    return _find_missing_scans(jpeg) or _find_hole_in_details(jpeg)


def _with_regular_scans(jpeg: Jpeg) -> Jpeg:
    """Return the file with the end of each sequential scan's header as it must be: libjpeg ignores it, but warns."""
    if jpeg.frame.marker not in SEQUENTIAL:
        return jpeg
    for scan in jpeg.scans:
        jpeg = jpeg.with_segment(scan, scan._replace(content=scan.content[:-3] + WHOLE_BLOCK))
    return jpeg


def _warning_of(jpeg: Jpeg) -> str:
    """Return libjpeg's first warning of lost data; empty for none."""
    try:
        # In grey and with an eighth of the side all coded data are read, but hardly any pixels are made
        colours = "CMYK" if len(jpeg.components) == 4 else "GRAY"
        _simplejpeg().decode_jpeg(jpeg.to_bytes(), colours, min_height=1, min_width=1, strict=True)
    except ValueError as error:
        return str(error) if WARNINGS_OF_DAMAGE.match(str(error)) else ""
    return ""


def require_damage_check() -> None:
    """Raise UserError where simplejpeg is not installed."""
    _simplejpeg()


def _simplejpeg() -> Any:
    try:
        import simplejpeg  # noqa: PLC0415  # training does not need it
    except ModuleNotFoundError as error:
        raise UserError(
            "To find damaged JPEG files, simplejpeg is needed.\nInstall it with pip install 'backbones[train]'."
        ) from error
    return simplejpeg


def _is_padding(jpeg: Jpeg, warning: str) -> bool:
    """Return whether the warning is about a few zeros that follow the last block."""
    match, last = LEFT_OVER.search(warning), jpeg.scans[-1]
    if not match or int(match[1]) > MAX_PADDING_BYTES:
        return False
    count = int(match[1])
    stripped = last._replace(scan=last.scan[:-count])
    return last.scan.endswith(bytes(count)) and not _warning_of(jpeg.with_segment(last, stripped))


def _estimate_loss(jpeg: Jpeg, warning: str) -> str:
    """Say roughly how much of the picture is lost."""
    scans = jpeg.scans
    if len(scans) > 1:
        sound = _largest(len(scans), lambda count: not _warning_of(jpeg.up_to_scan(count)))
        missing = _find_missing_scans(jpeg)
        return f"scan {sound + 1} of its {len(scans)} is damaged{', ' if missing else ''}{missing}"
    if jpeg.restart_interval:
        lost, intervals = _count_lost_intervals(jpeg)
        return (
            f"at least {max(lost, 1) / intervals:.0%} of its picture are lost, {lost} of {intervals} restart intervals"
        )
    hole = HOLE.search(scans[0].scan)
    if hole and hole.start() > MIN_SHARE_BEFORE_HOLE * len(scans[0].scan):
        before = jpeg.with_segment(scans[0], scans[0]._replace(scan=scans[0].scan[: hole.start()]))
        zeros = hole.end() - hole.start()
        return f"about {1 - _share_of_rows(before):.0%} of its picture are lost from a hole of {zeros} zeros on"
    if match := LEFT_OVER.search(warning):
        left = int(match[1])
        return f"a part of its picture is lost or shifted, {left / len(scans[0].scan):.0%} of its data are left over"
    return f"at least {max(1 - _share_of_rows(jpeg), 0.01):.0%} of its rows are lost"


def _share_of_rows(jpeg: Jpeg) -> float:
    """Return the share of the rows that the data suffice for, in a file with one scan; the last may be in part."""
    (height, width), step = jpeg.size, _block_size(jpeg)[0]
    rows = -(-height // step)

    def suffice(count: int) -> bool:
        warning = _warning_of(jpeg.with_size(min(count * step, height), width))
        return not warning or bool(LEFT_OVER.search(warning))

    return min(_largest(rows, suffice) + 0.5, rows) / rows


def _count_lost_intervals(jpeg: Jpeg) -> tuple[int, int]:
    """Return the number of lost restart intervals, each of which is coded by itself, and the number of all."""
    (height, width), (mcu_height, mcu_width), interval = jpeg.size, _block_size(jpeg), jpeg.restart_interval
    count = -(-height // mcu_height) * -(-width // mcu_width)
    intervals = -(-count // interval)
    scan = jpeg.scans[0]
    sound = 0
    for number, part in enumerate(split_at_restarts(scan.scan)[:intervals]):
        blocks = min(interval, count - number * interval)
        alone = jpeg.with_segment(scan, scan._replace(scan=part)).with_size(mcu_height, blocks * mcu_width)
        sound += not _warning_of(alone)
    return intervals - sound, intervals


def _block_size(jpeg: Jpeg) -> tuple[int, int]:
    """Return the height and width in pixels of the smallest unit of a scan (MCU)."""
    factors = jpeg.components.values()
    if len(factors) == 1:
        return 8, 8
    return 8 * max(vertical for _, vertical in factors), 8 * max(horizontal for horizontal, _ in factors)


def _largest(count: int, holds: Callable[[int], bool]) -> int:
    """Return the largest number below ``count`` for which ``holds``, which holds up to some number; 0 for none."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _find_missing_scans(jpeg: Jpeg) -> str:
    """Say which part of the coefficients no scan holds; empty where all are there at full precision."""
    if jpeg.frame.marker not in SEQUENTIAL | PROGRESSIVE:
        return ""
    low_bits: dict[tuple[int, int], int | None] = {
        (component, k): None for component in jpeg.components for k in range(COEFFICIENTS)
    }
    for scan in jpeg.scans:
        for band in read_bands(scan):
            low_bits |= {(band.component, k): band.low_bit for k in range(band.first, band.last + 1)}
    missing = sum(bit is None for bit in low_bits.values()) / len(low_bits)
    coarse = sum(bool(bit) for bit in low_bits.values()) / len(low_bits)
    if not missing and not coarse:
        return ""
    return f"its last scans are missing: {missing:.0%} of its coefficients are lost, {coarse:.0%} are not exact"


def _find_hole_in_details(jpeg: Jpeg) -> str:
    """Say which scan of a progressive JPEG holds a run of zeros: a decoder may take them for data."""
    if jpeg.frame.marker not in PROGRESSIVE:
        return ""
    height, width = jpeg.size
    zeros = max(MIN_HOLE_BYTES, height * width // PIXELS_PER_ZERO)
    for number, scan in enumerate(jpeg.scans, 1):
        has_details = all(band.first > 0 for band in read_bands(scan))
        if has_details and (hole := scan.scan.find(bytes(zeros))) >= 0:
            lost = 1 - hole / len(scan.scan)
            return (
                f"scan {number} of its {len(jpeg.scans)} is damaged: {lost:.0%} of it are lost from a hole of zeros on"
            )
    return ""


def _find_webp_damage(data: bytes) -> str:
    header = read_header(data)
    zeros = max(MIN_HOLE_BYTES, header.height * header.width // PIXELS_PER_ZERO)
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        hole = data.find(bytes(zeros), at + 8, at + 8 + size)
        if data[at : at + 4] in WEBP_CODED and hole >= 0:
            return f"about {1 - (hole - at - 8) / size:.0%} of its picture are lost from a hole of zeros on"
        at += 8 + size + size % 2
    return ""
