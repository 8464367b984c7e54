"""Read a picture file as H×W×3 uint8. The pixels do not depend on optional packages.

Pillow decodes the file and `resampling` resizes it. If `simplejpeg` is installed, it decodes plain JPEGs instead of
Pillow, about 2.5 times as fast. With the accurate inverse transform and smooth chroma upsampling, its pixels are those
of Pillow, bit for bit, because both use libjpeg-turbo with the same settings. Each process checks this once: it decodes
two small pictures with both decoders. If they differ, it does not use simplejpeg.
"""

from __future__ import annotations

import functools
import io
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401 (see FORMATS)

from vireid.data.errors import BadInput, unknown
from vireid.data.resampling import WINDOWS, resize
from vireid.data.size import Size

Resample = Literal["lanczos", "bilinear", "area"]
Found = TypeVar("Found")

# A decoded picture takes up to four bytes per pixel. The size that a file declares is checked before it is decoded, so
# that a file of a few kilobytes cannot fill the memory. Crops of people have about 0.1 megapixels, an 8K frame has 33.
PICTURE_LIMITS = {"pixels": 64_000_000, "bytes": 512 * 2**20}

# Formats that hold plain pixels (JPEG includes MPO). Pillow reads more formats, but some of them start other programs.
# TIFF and WEBP are imported above to register them. Otherwise Pillow would load all of its plugins to find them, which
# takes seconds in each worker.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "PPM", "GIF", "TIFF", "WEBP")
STARTS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"GIF87a",
    b"GIF89a",
    b"P1",
    b"P2",
    b"P3",
    b"P4",
    b"P5",
    b"P6",
)


class Scaling(NamedTuple):
    """How grey pictures with more than 8 bits per pixel become 8 bits: `low` becomes 0, `high` becomes 255.

    Values in between are scaled linearly and rounded to the nearest, values outside are clipped. Pictures with 8 bits
    are never changed.

    >>> Scaling.parse("window:0-4095")
    Scaling(rule='window', low=0.0, high=4095.0)

    Attributes:
        rule: `full` is 0 to 65,535; `window` is the same fixed range for every picture; `percentile` takes two
            percentiles of each picture's own values.
        low, high: the range in values, or the two percentiles.
    """

    rule: str
    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> Scaling:
        """Read `full`, `percentile` (from 1 to 99), `percentile:LOW-HIGH` or `window:LOW-HIGH`.

        Raises:
            BadInput: the text has another form, or LOW is not below HIGH, or they are out of range.
        """
        if text == "full":
            return cls("full", 0, 65535)
        found = re.fullmatch(r"(percentile|window):(\d{1,6}(?:\.\d{1,6})?)-(\d{1,6}(?:\.\d{1,6})?)", str(text))
        if text == "percentile":
            return cls("percentile", 1, 99)
        most = {"percentile": 100, "window": 65535}[found[1]] if found else 0
        if found is None or not float(found[2]) < float(found[3]) <= most:
            raise BadInput(
                f"scaling '{str(text)[:40]}' is not full, percentile, percentile:LOW-HIGH (0 to 100) or "
                "window:LOW-HIGH (0 to 65535)"
            )
        return cls(found[1], float(found[2]), float(found[3]))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Scale the values of one picture.

        Args:
            values: integers of any shape.

        Returns:
            uint8 of the same shape. All values become 0 if the two percentiles are equal.
        """
        low, high = np.percentile(values, (self.low, self.high)) if self.rule == "percentile" else self[1:]
        return np.clip((values - low) * (255 / max(high - low, 1)) + 0.5, 0, 255).astype(np.uint8)


def is_picture_start(head: bytes) -> bool:
    """Whether a file with these first bytes (at least 16) could be a picture."""
    return head.startswith(STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def read_picture(
    file: str | Path, size: Size | None = None, *, resample: Resample = "lanczos", scaling: str = "full"
) -> np.ndarray:
    """Decode a picture file, and resize it if a size is given.

    The EXIF orientation is applied. A grey channel is repeated three times. Grey pictures with 16 bits are scaled to 8
    by a rule; of colour pictures with 16 bits, the upper 8 bits are taken. CMYK, palettes and other modes are converted
    to RGB. Transparent pixels are blended with black, the colour of padding. Only the first frame of an animation is
    read.

    Args:
        file: JPEG, PNG, BMP, TIFF, WebP, GIF or PPM/PGM.
        size: height and width to resize to; the proportions of the picture are not kept. None does not resize.
        resample: `lanczos` (the preparation script of AGW uses it, so published numbers come from such pictures),
            `bilinear`, or `area` (the mean of the source pixels under each target pixel).
        scaling: the rule for grey pictures with 16 bits, see `Scaling.parse`. It is a property of the data set:
            `Records.scaling`.

    Returns:
        H×W×3 uint8 in the order red, green, blue, contiguous and writable.

    Raises:
        BadInput: the file is missing, empty, damaged, cut short or not a picture, or it declares more than
            `PICTURE_LIMITS`; the sentence names the file. Or the resampling or the scaling is unknown.
    """
    if resample not in WINDOWS:
        raise unknown("resample", str(resample), WINDOWS)
    rule = _rule(scaling)
    pixels = decoded(read_file(file)[0], file, rule)
    if size is not None:
        pixels = resize(pixels, size, resample)
    # A grey picture is resized before the channel is repeated: the same pixels with a third of the work.
    return three_channels(pixels)


def decoded(data: bytes, file: str | Path, scaling: str | Scaling = "full") -> np.ndarray:
    """The upright pixels of a picture's bytes, at their own size: H×W×3 uint8, or H×W×1 of a grey picture.

    Args:
        data: what `read_file` returned.
        file: named by the sentence about a picture that cannot be read.
        scaling: the rule for grey pictures with 16 bits.

    Raises:
        BadInput: as `read_picture`.
    """
    rule = _rule(scaling) if isinstance(scaling, str) else scaling
    pixels = _fast_jpeg(data)
    if pixels is None:
        picture = _decode(data, file, lambda picture: eight_bits(ImageOps.exif_transpose(picture), rule))
        pixels = np.array(picture).reshape(picture.height, picture.width, -1)
    return pixels


def three_channels(pixels: np.ndarray) -> np.ndarray:
    """H×W×3 of H×W×3 or H×W×1."""
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def deep_values(file: str | Path) -> tuple[int, int] | None:
    """The lowest and the highest value of a grey picture with more than 8 bits; None for every other picture.

    Of every other picture, only the header is decoded.

    Raises:
        BadInput: the picture cannot be read.
    """

    def extremes(picture: Image.Image) -> tuple[int, int] | None:
        if not picture.mode.startswith("I"):
            return None
        values = np.asarray(picture)
        return int(values.min()), int(values.max())

    return _decode(read_file(file)[0], file, extremes)


_rule = functools.lru_cache(maxsize=8)(Scaling.parse)


def read_file(file: str | Path) -> tuple[bytes, os.stat_result]:
    """The bytes of a picture file, and its size and times as they were when it was opened.

    Raises:
        BadInput: the file is missing, empty, too large or no regular file; the sentence names it.
    """
    try:
        with open(file, "rb", opener=without_waiting) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadInput(f"{file} is not a file")
            if status.st_size > PICTURE_LIMITS["bytes"]:
                raise BadInput(f"{file} has {status.st_size} bytes; at most {PICTURE_LIMITS['bytes']} are read")
            data = stream.read()
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist") from None
    except IsADirectoryError:
        raise BadInput(f"{file} is a folder, not a picture") from None
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from None
    if not data:
        raise BadInput(f"{file} is empty")
    return data, status


def without_waiting(path: str, flags: int) -> int:
    """An `opener` that does not block on a named pipe, where a plain `open` waits until another process writes."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _decode(data: bytes, file: str | Path, use: Callable[[Image.Image], Found]) -> Found:
    """What a function makes of a file's picture. Pillow has read its header; the function decodes it."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > PICTURE_LIMITS["pixels"]:
                raise _too_large(file, width, height)
            return use(picture)
    except BadInput:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadInput(f"{file} declares more than {PICTURE_LIMITS['pixels'] // 10**6} megapixels") from None
    except UnidentifiedImageError:
        raise BadInput(f"{file} is not a picture in a known format") from None
    except FloatingPoint as error:
        raise BadInput(f"{file} cannot be read: {error}") from None
    except Exception:
        # On damaged files Pillow raises many kinds of exceptions (OSError, SyntaxError, struct.error, …).
        raise BadInput(f"{file} is damaged, cut short or of an unknown kind") from None


def _too_large(file: str | Path, width: int, height: int) -> BadInput:
    limit = PICTURE_LIMITS["pixels"] // 10**6
    return BadInput(f"{file} declares {width}×{height} pixels; at most {limit} megapixels are read")


class FloatingPoint(ValueError):
    """A picture of floating-point values."""

    def __init__(self) -> None:
        super().__init__("floating-point pictures have no fixed value for white")


def eight_bits(picture: Image.Image, scaling: str | Scaling = "full") -> Image.Image:
    """Convert a picture of any mode to RGB or L with 8 bits per channel.

    Raises:
        FloatingPoint: the picture has floating-point values.
        BadInput: the scaling is unknown.
    """
    if picture.mode.startswith("I"):
        # Pillow's own conversion would clip at 255. Pillow returns some 16-bit files as 32-bit integers.
        rule = _rule(scaling) if isinstance(scaling, str) else scaling
        return Image.fromarray(rule.apply(np.asarray(picture).astype(np.int64)))
    if picture.mode == "F":
        raise FloatingPoint
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        opaque = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, (0, 0, 0, 255)), opaque).convert("RGB")
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    return picture.convert("RGB")


def _fast_jpeg(data: bytes) -> np.ndarray | None:
    """Decode a plain JPEG with simplejpeg; None if it is not one, is rotated, CMYK, unusual, too large or damaged."""
    if not data.startswith(b"\xff\xd8\xff") or b"Exif\0\0" in data or b"Orientation" in data:
        return None
    decoder = _trusted_decoder()
    if decoder is None:
        return None
    try:
        height, width, space, sampling = decoder.decode_jpeg_header(data)
        if height * width > PICTURE_LIMITS["pixels"]:
            return None
        if space != "Gray" and (space != "YCbCr" or sampling not in ("444", "422", "420")):
            return None
        return decoder.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    except ValueError:
        # Pillow decides whether the file can be read, and the error message comes from there.
        return None


@functools.cache
def _trusted_decoder() -> ModuleType | None:
    """The module simplejpeg, if it is installed and gives the same pixels as Pillow on this machine; otherwise None."""
    try:
        import simplejpeg
    except ImportError:
        return None
    noise = np.random.default_rng(0).integers(0, 256, (37, 43, 3), dtype=np.uint8)
    noise = np.asarray(Image.fromarray(noise).resize((61, 93), Image.Resampling.BICUBIC))
    for subsampling in (0, 2):
        stream = io.BytesIO()
        Image.fromarray(noise).save(stream, "JPEG", quality=85, subsampling=subsampling)
        ours = simplejpeg.decode_jpeg(stream.getvalue(), "RGB", fastdct=False, fastupsample=False)
        if not np.array_equal(ours, np.asarray(Image.open(io.BytesIO(stream.getvalue())))):
            return None
    return simplejpeg
