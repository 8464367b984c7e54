"""Pictures from people who are not trusted: decode them within known time and memory, or refuse them.

1. The number of bytes, then the first bytes: JPEG, PNG, WebP or BMP. The name and the declared type do not matter.
2. The container, without decoding (`vireid.gallery.containers`): declared size, number of scans and parts. Everything
   that the pixels do not need is dropped.
3. Pillow decodes what is left, two pictures at a time.

The slowest file that we could make within these limits took 1.4 s of one core (a CMYK JPEG of 20 megapixels with 32
scans), the largest one 0.5 GB (WebP with transparency). So decoding needs neither a clock nor a process that could be
killed. Without the limit of scans, a JPEG of 0.14 MB took 20 s, and one of 10 MB would take half an hour.
"""

from __future__ import annotations

import hashlib
import io
import threading
from dataclasses import dataclass

import numpy as np
from PIL import Image, WebPImagePlugin  # noqa: F401 (registers WebP)

from vireid.data.modality import Modality
from vireid.data.pictures import Scaling, eight_bits
from vireid.gallery.containers import Container, Unfit, examine

BYTES = 10 * 2**20
"""Most bytes of a picture."""
PIXELS = 20_000_000
"""Most pixels of a picture."""
SIDE = 30_000
"""Most pixels of a side."""
AT_ONCE = 2
"""Pictures that are decoded at the same time, so that the memory is bounded."""
GREY, COLOURED = 8, 0.001
"""A picture is infrared if at most a thousandth of its pixels have channels that differ by more than 8."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_decoding = threading.BoundedSemaphore(AT_ONCE)


class Refused(Exception):
    """A picture that is not taken.

    Attributes:
        status: 413 (too large), 415 (of a kind that is not taken) or 422 (damaged), as HTTP means them.
        detail: a sentence for people. It has nothing of the file in it.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True)
class Decoded:
    """A picture without metadata.

    Attributes:
        pixels: H×W×3 uint8, red, green, blue, contiguous.
        content: SHA-256 of the bytes that were sent, as `vireid.gallery.row.Row.content`.
    """

    pixels: np.ndarray
    content: str


def decode(data: bytes, *, pixels: int = PIXELS) -> Decoded:
    """Decode a picture. The pixels are those of `vireid.data.pictures.read_picture`.

    Args:
        data: up to 10 MiB.
        pixels: most pixels that it may have.

    Raises:
        Refused: it is too large, of another kind, animated, damaged or cut short.
    """
    if len(data) > BYTES:
        raise Refused(413, f"the picture has more than {BYTES // 2**20} MiB")
    if not data:
        raise Refused(422, "the picture is empty")
    try:
        container = examine(data)
    except Unfit as error:
        raise Refused(415 if error.unknown else 422, str(error)) from None
    _check_size(container.width, container.height, pixels)
    with _decoding:
        found = _pixels(container, pixels)
    return Decoded(found, hashlib.sha256(data).hexdigest())


def guess(pixels: np.ndarray) -> Modality:
    """The modality of a picture, as far as its colours tell: without colours it is infrared.

    A visible picture in black and white is taken for infrared, and a thermal one in false colours for visible. So this
    is for a first choice that a person can correct.

    Args:
        pixels: H×W×3 uint8.
    """
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / 1_000_000) ** 0.5))
    some = pixels[::step, ::step]
    spread = some.max(axis=2) - some.min(axis=2)
    return Modality.INFRARED if (spread > GREY).mean() <= COLOURED else Modality.VISIBLE


def _check_size(width: int, height: int, most: int) -> None:
    if width < 1 or height < 1:
        raise Refused(422, "the picture has no pixels")
    if width * height > most or max(width, height) > SIDE:
        raise Refused(413, f"the picture has more than {most / 1e6:g} megapixels, or a side of more than {SIDE} pixels")


def _pixels(container: Container, most: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(container.data), formats=(container.format,)) as picture:
            _check_size(*picture.size, most)
            picture.load()
            turn = _TURNS.get(container.orientation)
            turned = picture if turn is None else picture.transpose(turn)
            found = np.asarray(_from_deep(turned) if turned.mode.startswith("I") else eight_bits(turned))
    except Refused:
        raise
    except Exception:
        # On damaged files Pillow raises many kinds of exceptions (OSError, SyntaxError, struct.error, …).
        raise Refused(422, "the picture is damaged, cut short or of an unknown kind") from None
    return np.ascontiguousarray(found if found.ndim == 3 else np.repeat(found[:, :, None], 3, axis=2))


def _from_deep(picture: Image.Image) -> np.ndarray:
    """A grey picture with 16 bits as 8 bits. A table of all values needs a tenth of the memory of sums."""
    table = Scaling("full", 0, 65535).apply(np.arange(65536))
    return table[np.clip(np.asarray(picture), 0, 65535)]
