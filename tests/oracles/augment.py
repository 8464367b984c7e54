"""Slow versions of the augmentations, pixel by pixel."""

from __future__ import annotations

import math

import torch


def pad_crop(image: torch.Tensor, top: int, left: int, padding: int, fill: int) -> torch.Tensor:
    """Pixel (y, x) of the cut is pixel (y + top - padding, x + left - padding) of the picture, or the fill."""
    result = torch.full_like(image, fill)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            from_y, from_x = y + top - padding, x + left - padding
            if 0 <= from_y < image.shape[1] and 0 <= from_x < image.shape[2]:
                result[:, y, x] = image[:, from_y, from_x]
    return result


def crop_resize(image: torch.Tensor, top: int, left: int, height: int, width: int) -> torch.Tensor:
    """Bilinear interpolation between pixel centres. Beyond the border of the cut, its border pixels are used."""
    cut = image[:, top : top + height, left : left + width].double()
    result = torch.zeros(image.shape, dtype=torch.float64)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            at_y = max(0.0, (y + 0.5) * height / image.shape[1] - 0.5)
            at_x = max(0.0, (x + 0.5) * width / image.shape[2] - 0.5)
            y0, x0 = math.floor(at_y), math.floor(at_x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            upper = (1 - at_x + x0) * cut[:, y0, x0] + (at_x - x0) * cut[:, y0, x1]
            lower = (1 - at_x + x0) * cut[:, y1, x0] + (at_x - x0) * cut[:, y1, x1]
            result[:, y, x] = (1 - at_y + y0) * upper + (at_y - y0) * lower
    return result


def exchange(image: torch.Tensor, case: int) -> torch.Tensor:
    """Cases 0, 1 and 2 copy this channel into all three, 3 changes nothing, 4 copies the luminance into all three."""
    result = image.clone()
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            red, green, blue = (float(value) for value in image[:, y, x])
            values = [(red,) * 3, (green,) * 3, (blue,) * 3, (red, green, blue)]
            values.append((0.2989 * red + 0.5870 * green + 0.1140 * blue,) * 3)
            result[:, y, x] = torch.tensor(values[case])
    return result


def erase(image: torch.Tensor, top: int, left: int, height: int, width: int, colour: list[float]) -> torch.Tensor:
    """Write `colour` into each pixel of the rectangle."""
    result = image.clone()
    for y in range(top, top + height):
        for x in range(left, left + width):
            result[:, y, x] = torch.tensor(colour)
    return result


def normalise(value: int, mean: float, std: float) -> float:
    """Normalise one uint8 value."""
    return (value / 255 - mean) / std
