"""darknet's geometric image operations on float tensors, slow and plain: the reference for the fast versions.

An image is RGB in [0, 1], of shape (3, H, W). Pixels have integer positions: pixel (x, y) is at (x, y), not half a
pixel further. All rules come from image.c of AlexeyAB's darknet; positions are float64 here, float32 there.
"""

import math

import torch


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the image with its corner pixels in the new corners; bilinear, without antialiasing.

    A side of one pixel shows the first pixel of the old side (undefined in darknet's own code).

    Shape: (3, H, W) -> (3, height, width).
    """
    columns = _interpolate(image, width)
    return _interpolate(columns.transpose(1, 2), height).transpose(1, 2)


def resize_min(image: torch.Tensor, short: int) -> torch.Tensor:
    """Return the image with a short side of ``short`` pixels; the long side in proportion, truncated.

    Shape: (3, H, W) -> (3, short, short or more) or (3, short or more, short).
    """
    height, width = image.shape[1:]
    side = min(height, width)
    return resize(image, short * height // side, short * width // side)


def crop(image: torch.Tensor, top: int, left: int, *, height: int, width: int) -> torch.Tensor:
    """Return a rectangle that may exceed the image; outside, the nearest pixel of the edge is repeated.

    Shape: (3, H, W) -> (3, height, width).
    """
    rows = torch.arange(top, top + height).clamp(0, image.shape[1] - 1)
    columns = torch.arange(left, left + width).clamp(0, image.shape[2] - 1)
    return image[:, rows][:, :, columns]


def centre_crop(image: torch.Tensor, size: int, *, crop_pct: float = 1.0) -> torch.Tensor:
    """Return the image as darknet evaluates it: resized to a short side of size / crop_pct (darknet: size), centre cut.

    Shape: (3, H, W) -> (3, size, size).
    """
    resized = resize_min(image, math.floor(size / crop_pct))
    top, left = ((side - size) // 2 for side in resized.shape[1:])
    return crop(resized, top, left, height=size, width=size)


def flip(image: torch.Tensor) -> torch.Tensor:
    """Return the image with left and right exchanged.

    Shape: (3, H, W) -> (3, H, W).
    """
    return image.flip(2)


def rotate_crop(
    image: torch.Tensor,
    size: tuple[int, int],
    *,
    radians: float,
    scale: float,
    shift: tuple[float, float],
    aspect: float,
) -> torch.Tensor:
    """Return a window of ``size`` (height, width) of the rotated image; bilinear, black outside.

    The image is scaled by ``scale``, its width divided by ``aspect``. The window is ``shift`` (x, y) right of and
    below the centre, in pixels.

    Shape: (3, H, W) -> (3, height, width).
    """
    height, width = size
    x = (torch.arange(width, dtype=torch.float64) - width / 2 + shift[0]) * aspect / scale
    y = (torch.arange(height, dtype=torch.float64) - height / 2 + shift[1])[:, None] / scale
    columns = math.cos(radians) * x - math.sin(radians) * y + image.shape[2] / 2
    rows = math.sin(radians) * x + math.cos(radians) * y + image.shape[1] / 2
    return _sample(image, rows, columns)


def _interpolate(image: torch.Tensor, width: int) -> torch.Tensor:
    """Return the image with ``width`` columns, each interpolated between the two nearest old ones."""
    last = image.shape[2] - 1
    place = torch.arange(width, dtype=torch.float64) * (last / max(1, width - 1))
    left = place.floor().long().clamp(max=last)
    share = (place - left).to(image.dtype)
    return (1 - share) * image[:, :, left] + share * image[:, :, (left + 1).clamp(max=last)]


def _sample(image: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return the bilinear mean of the four nearest pixels at each position."""
    top, left = rows.floor(), columns.floor()
    down, right = rows - top, columns - left
    upper = (1 - right) * _pixels(image, top, left) + right * _pixels(image, top, left + 1)
    lower = (1 - right) * _pixels(image, top + 1, left) + right * _pixels(image, top + 1, left + 1)
    return ((1 - down) * upper + down * lower).to(image.dtype)


def _pixels(image: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return the pixels at whole positions, 0 outside the image."""
    height, width = image.shape[1:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return image[:, rows.clamp(0, height - 1).long(), columns.clamp(0, width - 1).long()] * inside
