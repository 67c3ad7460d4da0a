"""A catalogue of image files that are unusual but valid: formats x colour modes x orientation x bit depth."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.dataset.make_pictures import picture

WIDTH, HEIGHT = 46, 34
"""Not square, so that a rotation shows, and not a multiple of 8 or 16."""

ORIENTATION = 0x0112
RGB = picture(WIDTH, HEIGHT, seed=3)
GREY = RGB[..., 1]
ALPHA = np.linspace(0, 255, WIDTH * HEIGHT).astype(np.uint8).reshape(HEIGHT, WIDTH)
DEEP = RGB.astype(np.uint16) * 256 + np.arange(WIDTH, dtype=np.uint16)[None, :, None]


def catalogue() -> dict[str, bytes]:
    """Return the files by name; the name begins with the format and ends as such files do."""
    parts = (jpegs(), pngs(), bitmaps(), tiffs(), portable_maps(), webps(), jpeg2000s())
    return {name: data for part in parts for name, data in part}


def image_of(mode: str) -> Image.Image:
    """Return the picture in a colour mode of PIL."""
    if mode == "CMYK":
        return Image.merge(
            "CMYK", [Image.fromarray(plane) for plane in (*np.moveaxis(255 - RGB, 2, 0) // 2, GREY // 3)]
        )
    if mode == "RGBA":
        return Image.fromarray(np.dstack([RGB, ALPHA]))
    if mode == "LA":
        return Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    if mode == "I;16":
        return Image.fromarray(DEEP[..., 1])
    return Image.fromarray(RGB).convert(mode)


def saved(mode: str, kind: str, *, orientation: int | None = None, **options) -> bytes:
    if orientation is not None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    data = io.BytesIO()
    image_of(mode).save(data, format=kind, **options)
    return data.getvalue()


def without_segment(data: bytes, marker: int) -> bytes:
    """Return a JPEG without the segments of a marker."""
    kept, at = [data[:2]], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        kept.append(b"" if data[at + 1] == marker else data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    return data[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content + data[2:]


def with_adobe(data: bytes, transform: int) -> bytes:
    """Return a JPEG whose Adobe marker is replaced: 0 no transform, 1 YCbCr, 2 YCCK."""
    plain = without_segment(without_segment(data, 0xEE), 0xE0)
    return with_segment(plain, 0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


def with_component_ids(data: bytes, numbers: bytes) -> bytes:
    """Return a JPEG whose components are named by other numbers, in the frame and in the scan."""
    changed = bytearray(data)
    frame = next(at for marker in (b"\xff\xc0", b"\xff\xc2") if (at := data.find(marker)) >= 0)
    scan = data.index(b"\xff\xda")
    for number, name in enumerate(numbers):
        changed[frame + 10 + 3 * number] = name
        changed[scan + 5 + 2 * number] = name
    return bytes(changed)


def jpegs() -> Iterator[tuple[str, bytes]]:
    for mode in ("RGB", "L", "CMYK"):
        for options in ({}, {"progressive": True}):
            yield f"jpeg {mode} {'progressive' * bool(options)}.jpg", saved(mode, "JPEG", quality=92, **options)
    for orientation in range(2, 9):
        yield f"jpeg orientation {orientation}.jpg", saved("RGB", "JPEG", quality=92, orientation=orientation)
    for name, subsampling in {"444": 0, "422": 1, "420": 2}.items():
        yield f"jpeg {name}.jpg", saved("RGB", "JPEG", quality=92, subsampling=subsampling)
    rgb, cmyk = saved("RGB", "JPEG", quality=92, subsampling=0), saved("CMYK", "JPEG", quality=92)
    yield "jpeg kept RGB.jpg", saved("RGB", "JPEG", quality=92, keep_rgb=True)
    yield "jpeg kept RGB without JFIF.jpg", without_segment(saved("RGB", "JPEG", quality=92, keep_rgb=True), 0xEE)
    yield "jpeg without JFIF.jpg", without_segment(rgb, 0xE0)
    yield "jpeg of components 0 1 2.jpg", with_component_ids(without_segment(rgb, 0xE0), bytes((0, 1, 2)))
    yield "jpeg of components R G B.jpg", with_component_ids(without_segment(rgb, 0xE0), b"RGB")
    yield "jpeg of components R G B with JFIF.jpg", with_component_ids(rgb, b"RGB")
    for transform in (0, 1, 2):
        yield f"jpeg Adobe {transform}.jpg", with_adobe(rgb, transform)
        yield f"jpeg CMYK Adobe {transform}.jpg", with_adobe(cmyk, transform)
    yield "jpeg CMYK without Adobe.jpg", without_segment(cmyk, 0xEE)
    yield "jpeg Adobe 0 with JFIF.jpg", with_segment(rgb, 0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0))
    yield "jpeg restarts.jpg", saved("RGB", "JPEG", quality=92, restart_marker_blocks=2)
    yield "jpeg comment.jpg", saved("RGB", "JPEG", quality=92, comment=b"\xff\xd9 in a comment")
    yield "jpeg bytes after the end.jpg", rgb + bytes(100)
    yield "jpeg quality 1.jpg", saved("RGB", "JPEG", quality=1)


def pngs() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield f"png {mode}.png", saved(mode, "PNG")
    yield "png P with transparency.png", saved("P", "PNG", transparency=3)
    yield "png L with transparency.png", saved("L", "PNG", transparency=100)
    yield "png RGB with transparency.png", saved("RGB", "PNG", transparency=tuple(RGB[0, 0].tolist()))
    for bits in (1, 2, 4):
        yield f"png P {bits} bits.png", saved("P", "PNG", bits=bits)
        yield f"png L {bits} bits.png", png(pack(GREY >> (8 - bits), bits), bits, 0)
    for orientation in (3, 6):
        yield f"png orientation {orientation}.png", saved("RGB", "PNG", orientation=orientation)
    big = ">u2"
    yield "png RGB 16.png", png(DEEP.astype(big).reshape(HEIGHT, -1).view(np.uint8), 16, 2)
    with_alpha = np.dstack([DEEP, ALPHA.astype(np.uint16) * 257])
    yield "png RGBA 16.png", png(with_alpha.astype(big).reshape(HEIGHT, -1).view(np.uint8), 16, 6)
    grey_alpha = np.dstack([DEEP[..., 0], ALPHA.astype(np.uint16) * 257])
    yield "png LA 16.png", png(grey_alpha.astype(big).reshape(HEIGHT, -1).view(np.uint8), 16, 4)
    yield "png gamma.png", png(RGB.reshape(HEIGHT, -1), 8, 2, extra=chunk(b"gAMA", struct.pack(">I", 100_000)))
    yield "png gamma 45455.png", png(RGB.reshape(HEIGHT, -1), 8, 2, extra=chunk(b"gAMA", struct.pack(">I", 45_455)))
    yield (
        "png background.png",
        png(np.dstack([RGB, ALPHA]).reshape(HEIGHT, -1), 8, 6, extra=chunk(b"bKGD", struct.pack(">HHH", 0, 255, 0))),
    )
    yield "png interlaced.png", interlaced()
    yield "png animated.png", saved("RGB", "PNG", save_all=True, append_images=[image_of("L").convert("RGB")])


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(rows: np.ndarray, bits: int, colour: int, *, extra: bytes = b"", interlace: int = 0) -> bytes:
    """Return a PNG of rows of bytes; ``colour`` is 0 grey, 2 RGB, 4 grey with alpha, 6 RGB with alpha."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour, 0, 0, interlace)
    lines = rows if isinstance(rows, bytes) else b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def interlaced() -> bytes:
    """Return a PNG in the seven passes of Adam7."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    lines = [b"\0" + row.tobytes() for top, left, down, right in passes for row in RGB[top::down, left::right]]
    return png(b"".join(lines), 8, 2, interlace=1)


def pack(values: np.ndarray, bits: int) -> np.ndarray:
    """Return the values of each row as bytes, the first in the highest bits."""
    each = 8 // bits
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % each))).reshape(len(values), -1, each)
    return (padded << np.arange(8 - bits, -1, -bits)).sum(axis=2).astype(np.uint8)


def bitmaps() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"bmp {mode}.bmp", saved(mode, "BMP")
    yield "bmp top down.bmp", bmp(RGB[..., ::-1], 24, top_down=True)
    yield "bmp 32 bits.bmp", bmp(np.dstack([RGB[..., ::-1], ALPHA]), 32)
    red, green, blue = (RGB[..., channel].astype(np.uint16) for channel in range(3))
    yield "bmp 555.bmp", bmp((red >> 3) << 10 | (green >> 3) << 5 | blue >> 3, 16)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    yield "bmp 565.bmp", bmp((red >> 3) << 11 | (green >> 2) << 5 | blue >> 3, 16, compression=3, table=masks)
    runs = b"".join(b"".join(bytes((1, value)) for value in row) + b"\0\0" for row in GREY[::-1].tolist()) + b"\0\1"
    greys = b"".join(bytes((value, value, value, 0)) for value in range(256))
    yield "bmp runs.bmp", bmp(runs, 8, compression=1, table=greys)


def bmp(pixels: np.ndarray | bytes, bits: int, *, compression: int = 0, table: bytes = b"", top_down=False) -> bytes:
    if isinstance(pixels, bytes):
        body = pixels
    else:
        rows = [row.tobytes() for row in (pixels if top_down else pixels[::-1])]
        body = b"".join(row + bytes(-len(row) % 4) for row in rows)
    height = -HEIGHT if top_down else HEIGHT
    start = 54 + len(table)
    header = struct.pack("<IIIiiHHIIiiII", 0, start, 40, WIDTH, height, 1, bits, compression, len(body), 0, 0, 0, 0)
    return b"BM" + struct.pack("<I", start + len(body)) + header + table + body


def tiffs() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16"):
        yield f"tiff {mode}.tif", saved(mode, "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"tiff {compression}.tif", saved("RGB", "TIFF", compression=compression)
    yield "tiff group4.tif", saved("1", "TIFF", compression="group4")
    for orientation in range(1, 9):
        yield f"tiff orientation {orientation}.tif", saved("RGB", "TIFF", tiffinfo={ORIENTATION: orientation})
        yield f"tiff L orientation {orientation}.tif", saved("L", "TIFF", tiffinfo={ORIENTATION: orientation})
    for order in "<>":
        yield f"tiff RGB 16 {order}.tif", tiff(DEEP.astype(f"{order}u2").tobytes(), 16, 2, 3, order=order)
        yield f"tiff L 16 {order}.tif", tiff(DEEP[..., 0].astype(f"{order}u2").tobytes(), 16, 1, 1, order=order)
        yield f"tiff RGB {order}.tif", tiff(RGB.tobytes(), 8, 2, 3, order=order)
    yield "tiff white is zero.tif", tiff(GREY.tobytes(), 8, 0, 1)
    yield "tiff planes.tif", tiff(np.moveaxis(RGB, 2, 0).tobytes(), 8, 2, 3, planes=2)
    yield "tiff L 4 bits.tif", tiff(pack(GREY >> 4, 4).tobytes(), 4, 1, 1)
    yield "tiff pages.tif", saved("RGB", "TIFF", save_all=True, append_images=[image_of("L")])


def tiff(pixels: bytes, bits: int, photometric: int, channels: int, *, order: str = "<", planes: int = 1) -> bytes:
    """Return an uncompressed TIFF of one strip for each plane."""
    count = channels if planes == 2 else 1
    entries = 10
    after = 8 + 2 + entries * 12 + 4
    depths = struct.pack(f"{order}{channels}H", *[bits] * channels).ljust(8, b"\0")
    data_at = after + 8 + 8 * count
    each = len(pixels) // count
    offsets = struct.pack(f"{order}{count}I", *(data_at + each * number for number in range(count)))
    lengths = struct.pack(f"{order}{count}I", *[each] * count)

    def entry(tag: int, kind: int, number: int, value: int) -> bytes:
        short = kind == 3 and number == 1
        packed = struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
        return struct.pack(f"{order}HHI", tag, kind, number) + packed

    offset_value = data_at if count == 1 else after + 8
    length_value = each if count == 1 else after + 8 + 4 * count
    table = [
        entry(256, 3, 1, WIDTH),
        entry(257, 3, 1, HEIGHT),
        entry(258, 3, channels, bits if channels == 1 else after),
        entry(259, 3, 1, 1),
        entry(262, 3, 1, photometric),
        entry(273, 4, count, offset_value),
        entry(277, 3, 1, channels),
        entry(278, 3, 1, HEIGHT),
        entry(279, 4, count, length_value),
        entry(284, 3, 1, planes),
    ]
    begin = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return begin + struct.pack(f"{order}H", entries) + b"".join(table) + bytes(4) + depths + offsets + lengths + pixels


def portable_maps() -> Iterator[tuple[str, bytes]]:
    size = f"{WIDTH} {HEIGHT}\n".encode()
    for white in (255, 15, 100, 1023, 65535):
        scaled = (RGB.astype(np.int64) * white + 127) // 255
        binary = scaled.astype(">u2" if white > 255 else np.uint8)
        end = size + f"{white}\n".encode()
        yield f"ppm P6 {white}.ppm", b"P6\n" + end + binary.tobytes()
        yield f"ppm P5 {white}.pgm", b"P5\n" + end + np.ascontiguousarray(binary[..., 1]).tobytes()
        yield f"ppm P3 {white}.ppm", b"P3\n" + end + " ".join(map(str, scaled.ravel().tolist())).encode() + b"\n"
        yield (
            f"ppm P2 {white}.pgm",
            b"P2\n" + end + " ".join(map(str, scaled[..., 1].ravel().tolist())).encode() + b"\n",
        )
    bits = (GREY < 128).astype(np.uint8)
    yield "ppm P4.ppm", b"P4\n" + size + pack(bits, 1).tobytes()
    yield "ppm P1.ppm", b"P1\n" + size + " ".join(map(str, bits.ravel().tolist())).encode() + b"\n"
    yield "ppm comment.ppm", b"P6\n# made by hand\n" + size + b"255\n" + RGB.tobytes()


def webps() -> Iterator[tuple[str, bytes]]:
    for mode in ("RGB", "RGBA", "L"):
        yield f"webp {mode}.webp", saved(mode, "WEBP", quality=92)
        yield f"webp {mode} lossless.webp", saved(mode, "WEBP", lossless=True)
    yield "webp orientation 6.webp", saved("RGB", "WEBP", quality=92, orientation=6)
    yield "webp animated.webp", saved("RGB", "WEBP", save_all=True, append_images=[image_of("L").convert("RGB")])


def jpeg2000s() -> Iterator[tuple[str, bytes]]:
    for mode in ("RGB", "L", "RGBA", "LA", "I;16"):
        yield f"jpeg2000 {mode}.jp2", saved(mode, "JPEG2000")
    yield "jpeg2000 codestream.jp2", saved("RGB", "JPEG2000", no_jp2=True)
    yield "jpeg2000 lossy.jp2", saved("RGB", "JPEG2000", quality_mode="rates", quality_layers=[8], irreversible=True)
