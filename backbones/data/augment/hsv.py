"""darknet's shift of hue, saturation and value, exactly as image.c of AlexeyAB's darknet does it."""

from typing import Any

import torch

SECTORS = (5.0, 3.0, 1.0)
"""Sixths of the circle from the hue of red, green, blue to the hue from which that channel is darkened."""


def distort(images: torch.Tensor, hue: Any, saturation: Any, exposure: Any, *, dim: int = -3) -> torch.Tensor:
    """Return the images with their hue shifted, and saturation and value multiplied, in HSV; clamped to [0, 1].

    ``hue`` is a share of the circle. Each of the three is a number, or a tensor (N,) with a number per image.
    Saturation may exceed 1 in between, as in darknet. The host reads no value, so it never waits for a GPU.

    A channel is value - saturation * value * darkening. Since saturation * value is the largest minus the smallest
    channel, only the hue needs a division.

    Shape: (..., 3, H, W), or (..., H, W, 3) with dim=-1 -> the same.
    """
    red, green, blue = images.unbind(dim)
    largest = torch.maximum(torch.maximum(red, green), blue)
    spread = largest - torch.minimum(torch.minimum(red, green), blue)
    sixths = _hue(red, green, blue, largest, spread) + 6 * _per_pixel(hue)
    spread = spread * _per_pixel(saturation)
    channels = [largest - spread * _darkening(sixths + start) for start in SECTORS]
    return torch.stack([channel * _per_pixel(exposure) for channel in channels], dim=dim).clamp_(0, 1)


def _hue(
    red: torch.Tensor, green: torch.Tensor, blue: torch.Tensor, largest: torch.Tensor, spread: torch.Tensor
) -> torch.Tensor:
    """Return the hue in sixths of the circle, from -1 to 5; greys have 0."""
    some = spread.clamp(min=torch.finfo(spread.dtype).tiny)
    other = torch.where(green == largest, 2 + (blue - red) / some, 4 + (red - green) / some)
    return torch.where(red == largest, (green - blue) / some, other)


def _darkening(sixths: torch.Tensor) -> torch.Tensor:
    """Return the distance of a channel below the value, as a share of the spread: 0, a ramp, 1, a ramp, 0."""
    sector = sixths.remainder(6)
    return torch.minimum(sector, 4 - sector).clamp_(0, 1)


def _per_pixel(value: Any) -> Any:
    """Return one number per image in a shape that broadcasts with (N, H, W)."""
    return value[..., None, None] if isinstance(value, torch.Tensor) else value
