"""Compiled loops over the pixels of one picture, for pictures in the memory of a CPU.

Each of them gives the bits of the torch expressions that it replaces: the same operations on the same float32 numbers,
in the same order. This module imports numba, which takes about half a second, so it is imported when it is needed.
"""

from __future__ import annotations

import numpy as np

from vireid.data.compiled import compiled

# Indices below are unsigned numbers. For signed ones numba allows counting from the end, which keeps the compiler from
# using vector instructions. Most loops run over a whole plane, because lines are short: 144 pixels.


@compiled
def _copy(into, values):  # pragma: no cover - compiled
    for j in range(into.size):
        into[j] = values[j]


@compiled
def shift(image, down, right, fill):  # pragma: no cover - compiled
    """Pixel (y, x) becomes pixel (y + down, x + right) of the picture, or `fill` where there is none, in place.

    Args:
        image: 3×H×W uint8.
        down, right: pixels, positive or negative.
        fill: uint8.
    """
    height, width = image.shape[1:]
    down, right = max(-height, min(down, height)), max(-width, min(right, width))
    offset = down * width + right
    begin, end = max(0, -offset), min(height * width, height * width - offset)
    top, bottom = max(0, -down), min(height, height - down)
    left, after, lines = np.uint64(max(0, -right)), np.uint64(min(width, width - right)), np.uint64(width)
    kept = np.empty(height * width, np.uint8)
    for c in range(3):
        plane = image[c].ravel()
        _copy(kept, plane)
        _copy(plane[begin:end], kept[begin + offset : end + offset])
        plane[: top * width] = fill
        plane[bottom * width :] = fill
        for y in range(np.uint64(top), np.uint64(bottom)):
            for x in range(left):
                plane[y * lines + x] = fill
            for x in range(after, lines):
                plane[y * lines + x] = fill


@compiled
def mirror(image):  # pragma: no cover - compiled
    """Reverse each line of a 3×H×W uint8 picture, in place."""
    width = np.uint64(image.shape[2])
    kept = np.empty(image.shape[1] * image.shape[2], np.uint8)
    for c in range(3):
        plane = image[c].ravel()
        _copy(kept, plane)
        for y in range(np.uint64(image.shape[1])):
            for x in range(width):
                plane[y * width + x] = kept[y * width + width - np.uint64(1) - x]


@compiled
def interleaved(image, top, left, height, width):  # pragma: no cover - compiled
    """The three values of each pixel side by side: height×width×3 of a cut of a 3×H×W uint8 picture."""
    out = np.empty((height, width, 3), np.uint8)
    for y in range(height):
        line = out[y].ravel()
        red, green, blue = image[0, top + y], image[1, top + y], image[2, top + y]
        red, green, blue = red[left : left + width], green[left : left + width], blue[left : left + width]
        for x in range(np.uint64(red.size)):
            line[np.uint64(3) * x] = red[x]
            line[np.uint64(3) * x + np.uint64(1)] = green[x]
            line[np.uint64(3) * x + np.uint64(2)] = blue[x]
    return out


@compiled
def normalise(image, source, scale, shift, divide, taken, channels):  # pragma: no cover - compiled
    """Normalised values of a picture, with channels exchanged before and after the normalisation.

    Args:
        image: 3×H×W float32, output.
        source: 3×H×W uint8.
        scale, shift: 3 float32 each: what channel c is multiplied by, and what is then subtracted.
        divide: whether values are divided by 255 first.
        taken: 3 integers: channel c is made of this channel of `source`.
        channels: 3 integers: this normalised channel is written into channel c of `image`.
    """
    for c in range(3):
        channel = channels[c]
        factor, less = scale[channel], shift[channel]
        into, values = image[c].ravel(), source[taken[channel]].ravel()
        if divide:
            for j in range(into.size):
                into[j] = np.float32(values[j]) / np.float32(255) * factor - less
        else:
            for j in range(into.size):
                into[j] = np.float32(values[j]) * factor - less


@compiled
def normalise_grey(image, source, scale, shift, weights, channels):  # pragma: no cover - compiled
    """As `normalise` with `divide`, of the luminance. `weights` are the 3 float32 shares of the source's channels."""
    grey = np.empty(source.shape[1] * source.shape[2], np.float32)
    red, green, blue = source[0].ravel(), source[1].ravel(), source[2].ravel()
    for j in range(grey.size):
        grey[j] = (
            weights[0] * (np.float32(red[j]) / np.float32(255))
            + weights[1] * (np.float32(green[j]) / np.float32(255))
            + weights[2] * (np.float32(blue[j]) / np.float32(255))
        )
    for c in range(3):
        factor, less = scale[channels[c]], shift[channels[c]]
        into = image[c].ravel()
        for j in range(into.size):
            into[j] = grey[j] * factor - less


@compiled
def fill(image, top, left, height, width, red, green, blue):  # pragma: no cover - compiled
    """Write one colour into a rectangle of a 3×H×W float32 picture."""
    for y in range(top, top + height):
        image[0, y, left : left + width] = red
        image[1, y, left : left + width] = green
        image[2, y, left : left + width] = blue
