"""Files that somebody could send to do harm: bombs, damaged pictures, other formats."""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

HUGE = 30_000
"""A side; a picture of this width and height would take 2.7 GB."""

TRICKS = [
    "..",
    "../../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..\\..\\gallery.sqlite",
    "....//gallery.sqlite",
    "/etc/passwd",
    "gallery.sqlite",
    "audit.key",
    "%00",
    "0" * 31,
    "0" * 33,
    "A" * 32,
    "0" * 32 + "%0a",
    "٠" * 32,
    "0" * 32 + "/../../audit.key",
    "*",
    "%",
    "' OR 1=1 --",
]
"""Paths that somebody could send for an id."""

INJECTIONS = [
    "' OR '1'='1",
    '" or 1 == 1 or camera == "',
    '"] or true or camera in ["',
    "1) OR (1=1",
    "1; DROP TABLE rows; --",
    "\\",
    '\\"',
    "{cameras}",
    "%",
    "*",
    "_",
    "\u2028",
    "1\u0000",
    "' UNION SELECT picture FROM thumbnails --",
]
"""Texts that somebody could send for a name in a filter."""


def saved(picture: Image.Image | np.ndarray, kind: str, **settings: Any) -> bytes:
    """A picture as the bytes of a file."""
    made = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(made, kind, **settings)
    return made.getvalue()


def noise(height: int = 48, width: int = 40, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, width: int = 40, height: int = 48) -> bytes:
    """A PNG of these chunks."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def idat(pixels: np.ndarray | None = None) -> bytes:
    """The pixels of a PNG, as one chunk."""
    rows = noise() if pixels is None else pixels
    return chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))


def segment(marker: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with more segments at its beginning."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def exif(orientation: int, order: str = ">") -> bytes:
    """Exif data that state an orientation."""
    start = b"MM\0*" if order == ">" else b"II*\0"
    fields = struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return b"Exif\0\0" + start + fields


def declared(kind: str, width: int, height: int) -> bytes:
    """The head of a file that declares a size and has no pixels."""
    if kind == "PNG":
        return png(width=width, height=height)
    if kind == "JPEG":
        jpeg = bytearray(saved(noise(), "JPEG"))
        at = jpeg.index(b"\xff\xc0")
        jpeg[at + 5 : at + 9] = struct.pack(">HH", height, width)
        return bytes(jpeg)
    if kind == "WEBP":
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + size + saved(noise(), "WEBP")[12:]
        return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header + bytes(100)


def scans(count: int, side: int = 512) -> bytes:
    """A JPEG with about `count` scans: its shortest scan is repeated. Each costs a pass over all pixels."""
    jpeg = saved(np.full((side, side, 3), 128, np.uint8), "JPEG", progressive=True)
    starts = [found.start() for found in re.finditer(rb"\xff\xda", jpeg)]
    parts = [jpeg[start : re.compile(rb"\xff[\xc4\xda\xd9]").search(jpeg, start + 2).start()] for start in starts]  # type: ignore[union-attr]
    shortest = min(parts[1:], key=len)
    at = jpeg.index(shortest) + len(shortest)
    return jpeg[:at] + shortest * (count - len(starts)) + jpeg[at:]


def bombs() -> dict[str, tuple[int, bytes]]:
    """Name → the status that it must get, and the file."""
    jpeg, plain = saved(noise(), "JPEG"), saved(noise(), "PNG")
    rle = bytearray(saved(Image.fromarray(noise()).convert("P"), "BMP"))
    rle[30:34] = struct.pack("<I", 1)
    moving = [Image.fromarray(noise(seed=n)) for n in range(3)]
    animated = {"save_all": True, "append_images": moving[1:]}
    return {
        "empty": (422, b""),
        "text": (415, b"Hello, I am a picture." * 10),
        "page": (415, b"<!doctype html><script>alert(1)</script>"),
        "vector picture": (415, b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
        "program for a printer": (415, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\n"),
        "GIF": (415, saved(noise(), "GIF")),
        "TIFF": (415, saved(noise(), "TIFF")),
        "PPM": (415, saved(noise(), "PPM")),
        "ICO": (415, saved(noise(), "ICO")),
        "compressed BMP": (415, bytes(rle)),
        "animated PNG": (415, saved(moving[0], "PNG", **animated)),
        "animated WebP": (415, saved(moving[0], "WEBP", **animated)),
        **{f"huge {kind}": (413, declared(kind, 16_000, 16_000)) for kind in ("PNG", "JPEG", "WEBP", "BMP")},
        "long": (413, png(width=1_000_000, height=1)),
        "largest PNG": (413, png(width=2**31 - 1, height=2**31 - 1)),
        "no pixels": (422, png(width=0, height=48)),
        "many bytes": (413, plain + bytes(10 * 2**20)),
        "many scans": (422, scans(500)),
        "many segments": (422, with_segments(jpeg, segment(0xFE, b"") * 20_000)),
        "many chunks": (422, png(chunk(b"teSt", b"") * 20_000, idat())),
        "half a JPEG": (422, jpeg[: len(jpeg) // 2]),
        "half a PNG": (422, plain[: len(plain) // 2]),
        "half a WebP": (422, saved(noise(), "WEBP", lossless=True)[:2000]),
        "half a BMP": (422, saved(noise(), "BMP")[:2000]),
        "only a start": (422, b"\xff\xd8\xff"),
        "wrong checksum": (422, plain.replace(b"IDAT", b"IDAT", 1)[:-30] + bytes(30)),
        "pixels that are no pixels": (422, png(chunk(b"IDAT", b"no zlib"))),
        "endless pixels": (200, png(chunk(b"IDAT", zlib.compress(noise_rows() + bytes(50_000_000), 9)))),
        "profiles that inflate": (200, png(chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**20), 9)) * 2000, idat())),
        "texts that inflate": (200, png(chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**20), 9)) * 2000, idat())),
        "much Exif": (200, with_segments(jpeg, segment(0xE1, exif(1) + bytes(1000)) * 5000)),
        "a JPEG and a page": (200, jpeg + b"<!doctype html><script>alert(1)</script>"),
    }


def noise_rows() -> bytes:
    """The rows of a small PNG before they are compressed."""
    return b"".join(b"\0" + row.tobytes() for row in noise())
