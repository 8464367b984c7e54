"""Resize pictures with Lanczos, triangle or box windows, with Pillow's arithmetic in a fixed order of the axes.

Pillow resamples one axis after the other and rounds to 8 bits in between, so the result depends on the order. Up to
version 12, Pillow always resamples horizontally first. Version 13 chooses the cheaper order, which changes a noisy
picture by up to 37 of 255. AGW's pictures were made horizontally first, and this file always does the same, with any
version of Pillow. Its fixed-point sums are those of Pillow, bit for bit. With Lanczos it is about four times as fast as
Pillow, because its loops read memory in order.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from vireid.data.compiled import compiled
from vireid.data.size import Size

# Half widths of the windows, in source pixels when source and target have the same size.
WINDOWS = {"lanczos": 3.0, "bilinear": 1.0, "area": 0.5}
# Weights have 22 bits after the binary point. With 8 bits of pixel and 2 bits of overshoot, the sums fit into 32 bits.
_BITS = 22
_HALF = 1 << (_BITS - 1)
# Unsigned numbers for indices: for signed ones numba allows counting from the end, which prevents vector instructions.
_ONE, _TWO, _THREE, _EIGHT = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(8)


def resize(pixels: np.ndarray, size: Size, resample: str) -> np.ndarray:
    """Resample a picture to a size. The proportions are not kept.

    Each target pixel is the weighted mean of the source pixels under a window around it. `WINDOWS` gives the half width
    of the window; if the picture shrinks, it is multiplied by the factor of shrinking. The picture is resampled
    horizontally, rounded to 8 bits, and then resampled vertically.

    Args:
        pixels: H×W×C uint8, contiguous.
        size: height and width of the result.
        resample: a key of `WINDOWS`.

    Returns:
        size.height×size.width×C uint8, contiguous.
    """
    height, width, channels = pixels.shape
    if width != size.width:
        pixels = _along_lines(pixels, *_weights(width, size.width, resample))
    if height != size.height:
        flat = pixels.reshape(height, size.width * channels)
        pixels = _along_columns(flat, *_weights(height, size.height, resample))
    return pixels.reshape(size.height, size.width, channels)


@functools.lru_cache(maxsize=4096)
def _weights(source: int, target: int, resample: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each target pixel: the first source pixel, the number of source pixels, and their fixed-point weights."""
    return _window_weights(source, target, WINDOWS[resample])


@compiled
def _window(at: float, half_width: float) -> float:
    if half_width == 3.0:
        if not -3.0 <= at < 3.0:
            return 0.0
        if at == 0.0:
            return 1.0
        angle, slow = at * math.pi, at / 3.0 * math.pi
        return math.sin(angle) / angle * (math.sin(slow) / slow)
    if half_width == 1.0:
        return max(0.0, 1.0 - abs(at))
    return 1.0 if -0.5 < at <= 0.5 else 0.0


@compiled
def _window_weights(source, target, half_width):
    scale = source / target
    shrink = max(1.0, scale)
    reach = half_width * shrink
    first = np.zeros(target, np.int64)
    count = np.zeros(target, np.int64)
    weights = np.zeros((target, math.ceil(reach) * 2 + 1), np.int32)
    for t in range(target):
        centre = (t + 0.5) * scale
        begin = max(0, int(centre - reach + 0.5))
        end = min(source, int(centre + reach + 0.5))
        total = 0.0
        for s in range(begin, end):
            total += _window((s - centre + 0.5) * (1.0 / shrink), half_width)
        for s in range(begin, end):
            share = _window((s - centre + 0.5) * (1.0 / shrink), half_width) / total * (1 << _BITS)
            # Round to the nearest, halves away from zero.
            weights[t, s - begin] = int(share - 0.5) if share < 0 else int(share + 0.5)
        first[t], count[t] = begin, end - begin
    return first, count, weights


@compiled
def _along_columns(pixels, first, count, weights):
    """H×N → target×N: each line of the target is a weighted sum of lines of the source."""
    target, columns = len(first), pixels.shape[1]
    out = np.empty((target, columns), np.uint8)
    total = np.empty(columns, np.int32)
    for t in range(target):
        total[:] = _HALF
        for k in range(count[t]):
            line = pixels[first[t] + k]
            weight = weights[t, k]
            for j in range(columns):
                total[j] += np.int32(line[j]) * weight
        for j in range(columns):
            out[t, j] = min(max(total[j] >> _BITS, 0), 255)
    return out


def _along_lines(pixels: np.ndarray, first: np.ndarray, count: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """H×W×C → H×target×C. The picture is transposed before and after, so that whole lines are summed here too."""
    height, width, channels = pixels.shape
    turned = _turned(pixels).reshape(width, height * channels)
    return _turned(_along_columns(turned, first, count, weights).reshape(len(first), height, channels))


def _turned(pixels: np.ndarray) -> np.ndarray:
    """H×W×C → W×H×C."""
    return _turned_colour(pixels) if pixels.shape[2] == 3 else np.ascontiguousarray(pixels.transpose(1, 0, 2))


@compiled
def _turned_colour(pixels):
    """H×W×3 → W×H×3. Pixels are moved as one number of 32 bits, which is twice as fast as moving three bytes."""
    height, width = np.uint64(pixels.shape[0]), np.uint64(pixels.shape[1])
    wide, turned = np.empty(height * width, np.uint32), np.empty(height * width, np.uint32)
    values = pixels.ravel()
    for j in range(height * width):
        red, green, blue = values[_THREE * j], values[_THREE * j + _ONE], values[_THREE * j + _TWO]
        wide[j] = np.uint32(red) | (np.uint32(green) << np.uint32(8)) | (np.uint32(blue) << np.uint32(16))
    whole = height // _EIGHT * _EIGHT
    for top in range(np.uint64(0), whole, _EIGHT):  # eight lines at a time stay in the processor's cache
        for x in range(width):
            for y in range(_EIGHT):
                turned[x * height + top + y] = wide[(top + y) * width + x]
    for x in range(width):
        for y in range(whole, height):
            turned[x * height + y] = wide[y * width + x]
    out = np.empty((pixels.shape[1], pixels.shape[0], 3), np.uint8)
    into = out.ravel()
    for j in range(height * width):
        into[_THREE * j] = turned[j]
        into[_THREE * j + _ONE] = turned[j] >> np.uint32(8)
        into[_THREE * j + _TWO] = turned[j] >> np.uint32(16)
    return out


@compiled
def write_planes(planes, pixels):
    """Write H×W×3 uint8, contiguous, as 3×H×W: four times as fast as NumPy's copy of a transposed array."""
    red, green, blue, values = planes[0].ravel(), planes[1].ravel(), planes[2].ravel(), pixels.ravel()
    for j in range(np.uint64(red.size)):
        red[j], green[j], blue[j] = values[_THREE * j], values[_THREE * j + _ONE], values[_THREE * j + _TWO]
