"""The container of a picture file, read without decoding a pixel: what it declares, and what its pixels need of it.

Much that makes a small file slow or large to read is not in the pixels: profiles and texts that inflate a thousandfold,
metadata in a hundred thousand pieces, a JPEG of a thousand scans. So a file is written again with only the parts that
its pixels need, before any decoder sees it. Of the metadata only the orientation is read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

PARTS = 10_000
"""Most chunks or markers of a file. Encoders write PNG in chunks of 8 KB or more."""
SCANS = 32
"""Most scans of a JPEG. Progressive ones have about ten, and each costs a pass over all pixels, however short it is."""
TAGS = 1_000
"""Most tags of Exif data that are looked at."""
UPRIGHT = 1
"""The Exif orientation of a picture that is stored as it should be shown."""

_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOI, _EOI, _SOS, _COM, _APP0, _APP1, _APP14, _APP15 = 0xD8, 0xD9, 0xDA, 0xFE, 0xE0, 0xE1, 0xEE, 0xEF
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_ADOBE = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


class Unfit(Exception):
    """A file that is not decoded, with a sentence that says why; `unknown` if it is of a kind that is not taken."""

    def __init__(self, says: str, *, unknown: bool = False) -> None:
        super().__init__(says)
        self.unknown = unknown


@dataclass(frozen=True)
class Container:
    """What a file declares.

    Attributes:
        format: Pillow's name of the format.
        width, height: in pixels, as declared; the largest ones if it declares several.
        orientation: Exif's, 1 to 8.
        data: the file with only what its pixels need.
    """

    format: str
    width: int
    height: int
    orientation: int
    data: bytes


def examine(data: bytes) -> Container:
    """Read the container of a JPEG, PNG, WebP or BMP file. What it is follows from its first bytes alone.

    Raises:
        Unfit: it is none of these, is animated, damaged, or has too many parts.
    """
    try:
        return _reader(data)(data)
    except (struct.error, IndexError):
        raise Unfit("the picture is cut short") from None


def _reader(data: bytes) -> Callable[[bytes], Container]:
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp
    if data.startswith(b"BM"):
        return _bmp
    raise Unfit("this is no JPEG, PNG, WebP or BMP picture", unknown=True)


def _animated() -> Unfit:
    return Unfit("this picture is animated: send one of its frames", unknown=True)


def _too_many() -> Unfit:
    return Unfit(f"the file has more than {PARTS} parts: save the picture again")


# --- PNG --------------------------------------------------------------------------------------------------------------


def _png(data: bytes) -> Container:
    (length,), kind = struct.unpack_from(">I", data, 8), data[12:16]
    if kind != b"IHDR" or length != 13:
        raise Unfit("the picture is damaged")
    width, height = struct.unpack_from(">II", data, 16)
    kept, exif, xmp, at = [data[:8]], b"", b"", 8
    for _ in range(PARTS):
        if at + 8 > len(data):
            break
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        end = at + 12 + length
        if kind in (b"acTL", b"fcTL", b"fdAT"):
            raise _animated()
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(data[at:end])
        elif kind == b"eXIf":
            exif = exif or data[at + 8 : end - 4]
        elif kind == b"iTXt" and data.startswith(b"XML:com.adobe.xmp\0\0", at + 8):
            xmp = xmp or data[at + 8 : end - 4]
        at = end
        if kind == b"IEND":
            break
    else:
        raise _too_many()
    return Container("PNG", width, height, _orientation(exif, xmp), b"".join(kept))


# --- JPEG -------------------------------------------------------------------------------------------------------------


def _jpeg(data: bytes) -> Container:
    kept, sizes, scans, exif, xmp, seen, at = [data[:2]], [], 0, b"", b"", set(), 2
    for _ in range(PARTS):
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if at + 2 > len(data) or data[at] != 0xFF or data[at + 1] == _EOI:
            kept.append(data[at : at + 2])  # without a marker the decoder says what is wrong
            break
        marker, end = data[at + 1], at + 2
        if marker not in _WITHOUT_LENGTH:
            end += struct.unpack_from(">H", data, at + 2)[0]
        if marker in _FRAMES:
            sizes.append(struct.unpack_from(">HH", data, at + 5))
        if marker == _SOS:
            scans += 1
            found = _NEXT_MARKER.search(data, end)
            end = found.start() if found else len(data)
        if marker == _APP1:
            exif = exif or (data[at + 4 : end] if data.startswith(b"Exif\0\0", at + 4) else b"")
            xmp = xmp or (data[at + 4 : end] if data.startswith(_ADOBE, at + 4) else b"")
        # JFIF's and Adobe's own segments say which colours the numbers mean, and the first one counts.
        if not (_APP0 <= marker <= _APP15 or marker == _COM) or (marker in (_APP0, _APP14) and marker not in seen):
            kept.append(data[at:end])
        seen.add(marker)
        at = end
    else:
        raise _too_many()
    if not sizes:
        raise Unfit("the picture is damaged or cut short")
    if scans > SCANS:
        raise Unfit(f"this JPEG has {scans} scans, and at most {SCANS} are read: save the picture again")
    width, height = max(width for _, width in sizes), max(height for height, _ in sizes)
    return Container("JPEG", width, height, _orientation(exif, xmp), b"".join(kept))


# --- WebP -------------------------------------------------------------------------------------------------------------


def _webp(data: bytes) -> Container:
    kept, sizes, exif, xmp, at = [], [], b"", b"", 12
    for _ in range(PARTS):
        if at + 8 > len(data):
            break
        kind, (length,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        body, end = at + 8, at + 8 + length + length % 2
        if kind in (b"ANIM", b"ANMF"):
            raise _animated()
        if kind == b"VP8X":
            flags, size = data[body], data[body + 4 : body + 10]
            if flags & 0x02:
                raise _animated()
            sizes.append((1 + int.from_bytes(size[:3], "little"), 1 + int.from_bytes(size[3:], "little")))
            kept.append(data[at:body] + bytes([flags & 0x10]) + data[body + 1 : end])
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, body + 6)
            sizes.append((width & 0x3FFF, height & 0x3FFF))
            kept.append(data[at:end])
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, body + 1)
            sizes.append((1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)))
            kept.append(data[at:end])
        elif kind == b"ALPH":
            kept.append(data[at:end])
        elif kind == b"EXIF":
            exif = exif or data[body:end]
        elif kind == b"XMP ":
            xmp = xmp or data[body:end]
        at = end
    else:
        raise _too_many()
    if not sizes:
        raise Unfit("the picture is damaged or cut short")
    pixels = b"".join(kept)
    width, height = max(width for width, _ in sizes), max(height for _, height in sizes)
    header = b"RIFF" + struct.pack("<I", 4 + len(pixels)) + b"WEBP"
    return Container("WEBP", width, height, _orientation(exif, xmp), header + pixels)


# --- BMP --------------------------------------------------------------------------------------------------------------


def _bmp(data: bytes) -> Container:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Container("BMP", width, height, UPRIGHT, data)
    width, height = struct.unpack_from("<ii", data, 18)
    (compression,) = struct.unpack_from("<I", data, 30)
    if compression not in (0, 3, 6):  # none, and two ways to say which bits are which colour
        raise Unfit("BMP pictures are taken without compression: send a PNG", unknown=True)
    return Container("BMP", abs(width), abs(height), UPRIGHT, data)


# --- orientation ------------------------------------------------------------------------------------------------------


def _orientation(exif: bytes, xmp: bytes) -> int:
    """The orientation that Exif data state; if they state none, what XMP states; else upright."""
    found = _exif_orientation(exif)
    if found is None:
        stated = _XMP_ORIENTATION.search(xmp)
        found = int(stated[1]) if stated else UPRIGHT
    return found if 1 <= found <= 8 else UPRIGHT


def _exif_orientation(exif: bytes) -> int | None:
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for n in range(min(count, TAGS)):
            tag, kind, values = struct.unpack_from(f"{order}HHI", tiff, start + 2 + 12 * n)
            if tag == 0x0112:
                letter = {1: "B", 3: "H", 4: "I"}.get(kind)
                if letter is None or values != 1:
                    return UPRIGHT
                return struct.unpack_from(f"{order}{letter}", tiff, start + 10 + 12 * n)[0]
    except struct.error:
        return None
    return None
