"""One picture file → H×W×3 uint8, the same numbers whatever is installed.

Pillow decodes, `resampling` resizes. Where `simplejpeg` is installed it decodes plain JPEGs in Pillow's place, about
two and a half times as fast: with the accurate inverse transform and smooth chroma upsampling its pixels are Pillow's,
bit for bit, since both are libjpeg-turbo with the same settings. A build that differs is found out once per process, by
decoding two small pictures with both, and is then left alone: no number may depend on an optional package.
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

# A decoded picture takes up to four bytes a pixel. What a file *declares* is checked before any of it is decoded, so
# that a few kilobytes cannot claim all memory. Person crops have about 0.1 megapixels, a whole 8K frame has 33.
PICTURE_LIMITS = {"pixels": 64_000_000, "bytes": 512 * 2**20}

# Formats with a plain raster inside (JPEG stands for MPO, too). Pillow reads more; some of those start other programs.
# The last two have to be imported: to find a name that is not registered, Pillow would load every plugin it has, which
# costs seconds in each worker.
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
    """Whether a file's first 16 bytes or more could be a picture's."""
    return head.startswith(STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def read_picture(file: str | Path, size: Size | None = None, *, resample: Resample = "lanczos") -> np.ndarray:
    """Decode a picture file, and resize it where a size is given.

    The EXIF orientation is applied. Grey is repeated over the three channels; 16 bits per channel are scaled to 8 (not
    clipped); CMYK, palettes and the like are converted; transparency is laid over black, the colour of padding; of an
    animation the first frame counts.

    Args:
        file: JPEG, PNG, BMP, TIFF, WebP, GIF or PPM/PGM.
        size: height and width to resize to, whatever the picture's proportions; None keeps its own.
        resample: `lanczos` (AGW's preparation script used it, and the field's numbers come from its pictures),
            `bilinear`, or `area` (the mean of the source pixels under each target pixel).

    Returns:
        H×W×3 uint8, red, green, blue, contiguous, writable.

    Raises:
        BadInput: the file is missing, empty, damaged, cut short, not a picture, or declares more than
            `PICTURE_LIMITS` allow; names the file.
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
    # Grey is resized once and only then repeated: the same numbers for a third of the work.
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def _bytes_of(file: Path) -> bytes:
    """The whole file, unless it is missing, empty, too large or not a regular file."""
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
    """An `opener` for files of unknown kind: a named pipe would hold the reader until somebody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _decode(data: bytes, file: str | Path) -> Image.Image:
    """Pillow's picture in mode RGB or L, upright."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > PICTURE_LIMITS["pixels"]:
                raise _too_large(file, width, height)
            picture.load()
            return _eight_bits(ImageOps.exif_transpose(picture))
    except BadInput:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadInput(f"{file} declares more than {PICTURE_LIMITS['pixels'] // 10**6} megapixels") from None
    except UnidentifiedImageError:
        raise BadInput(f"{file} is not a picture in a known format") from None
    except Exception as error:
        # Pillow's format readers raise almost anything on damaged files (OSError, SyntaxError, struct.error, …).
        raise BadInput(f"{file} is damaged, cut short or of an unknown kind: {error}") from None


def _too_large(file: str | Path, width: int, height: int) -> BadInput:
    limit = PICTURE_LIMITS["pixels"] // 10**6
    return BadInput(f"{file} declares {width}×{height} pixels; at most {limit} megapixels are read")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Any mode → RGB or L with 8 bits per channel."""
    if picture.mode.startswith("I"):
        # 0..65535 → 0..255 to the nearest; Pillow's own conversion would clip at 255. Pillow hands some 16-bit files
        # over as 32-bit integers.
        values = np.clip(np.asarray(picture).astype(np.int64), 0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if picture.mode == "F":
        raise ValueError("floating-point pictures have no fixed white")
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        opaque = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, (0, 0, 0, 255)), opaque).convert("RGB")
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    return picture.convert("RGB")


def _fast_jpeg(data: bytes) -> np.ndarray | None:
    """A plain JPEG's pixels by simplejpeg, or None where Pillow has to look: turned, CMYK, odd, too large, damaged."""
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
        # Pillow decides what is still readable, and words the refusal.
        return None


@functools.cache
def _trusted_decoder() -> ModuleType | None:
    """simplejpeg, where it is installed and agrees with Pillow on this machine."""
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
