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
import stat
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401 (see FORMATS)

from vireid.data.errors import BadInput, unknown
from vireid.data.resampling import WINDOWS, resize
from vireid.data.size import Size

Resample = Literal["lanczos", "bilinear", "area"]

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


def is_picture_start(head: bytes) -> bool:
    """Whether a file with these first bytes (at least 16) could be a picture."""
    return head.startswith(STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def read_picture(file: str | Path, size: Size | None = None, *, resample: Resample = "lanczos") -> np.ndarray:
    """Decode a picture file, and resize it if a size is given.

    The EXIF orientation is applied. A grey channel is repeated three times. 16 bits per channel are scaled to 8, not
    clipped. CMYK, palettes and other modes are converted to RGB. Transparent pixels are blended with black, the colour
    of padding. Only the first frame of an animation is read.

    Args:
        file: JPEG, PNG, BMP, TIFF, WebP, GIF or PPM/PGM.
        size: height and width to resize to; the proportions of the picture are not kept. None does not resize.
        resample: `lanczos` (the preparation script of AGW uses it, so published numbers come from such pictures),
            `bilinear`, or `area` (the mean of the source pixels under each target pixel).

    Returns:
        H×W×3 uint8 in the order red, green, blue, contiguous and writable.

    Raises:
        BadInput: the file is missing, empty, damaged, cut short or not a picture, or it declares more than
            `PICTURE_LIMITS`; the sentence names the file.
    """
    if resample not in WINDOWS:
        raise unknown("resample", str(resample), WINDOWS)
    data = _bytes_of(Path(file))
    pixels = _fast_jpeg(data)
    if pixels is None:
        decoded = _decode(data, file)
        pixels = np.array(decoded).reshape(decoded.height, decoded.width, -1)
    if size is not None:
        pixels = resize(pixels, size, resample)
    # A grey picture is resized before the channel is repeated: the same pixels with a third of the work.
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def _bytes_of(file: Path) -> bytes:
    """Read the whole file; BadInput if it is missing, empty, too large or not a regular file."""
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
    return data


def without_waiting(path: str, flags: int) -> int:
    """An `opener` that does not block on a named pipe, where a plain `open` waits until another process writes."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _decode(data: bytes, file: str | Path) -> Image.Image:
    """Decode a file with Pillow, apply its orientation, and convert it to mode RGB or L."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > PICTURE_LIMITS["pixels"]:
                raise _too_large(file, width, height)
            picture.load()
            return eight_bits(ImageOps.exif_transpose(picture))
    except BadInput:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadInput(f"{file} declares more than {PICTURE_LIMITS['pixels'] // 10**6} megapixels") from None
    except UnidentifiedImageError:
        raise BadInput(f"{file} is not a picture in a known format") from None
    except Exception as error:
        # On damaged files Pillow raises many kinds of exceptions (OSError, SyntaxError, struct.error, …).
        raise BadInput(f"{file} is damaged, cut short or of an unknown kind: {error}") from None


def _too_large(file: str | Path, width: int, height: int) -> BadInput:
    limit = PICTURE_LIMITS["pixels"] // 10**6
    return BadInput(f"{file} declares {width}×{height} pixels; at most {limit} megapixels are read")


def eight_bits(picture: Image.Image) -> Image.Image:
    """Convert a picture of any mode to RGB or L with 8 bits per channel."""
    if picture.mode.startswith("I"):
        # Scale 0..65535 to 0..255 and round to the nearest. Pillow's own conversion would clip at 255. Pillow returns
        # some 16-bit files as 32-bit integers.
        values = np.clip(np.asarray(picture).astype(np.int64), 0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if picture.mode == "F":
        raise ValueError("floating-point pictures have no fixed value for white")
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
