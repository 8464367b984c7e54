"""Picture sizes, written height×width, as papers of the field write them."""

from __future__ import annotations

import re
from typing import NamedTuple

from vireid.data.errors import BadInput


class Size(NamedTuple):
    """Height and width in pixels.

    >>> Size.parse("384x144")
    Size(height=384, width=144)
    >>> str(Size(288, 144))
    '288x144'
    """

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    @classmethod
    def parse(cls, text: str | Size) -> Size:
        """Read `HEIGHTxWIDTH`.

        Raises:
            BadInput: the text is not two whole numbers from 16 to 4096 with an x between them.
        """
        if isinstance(text, Size):
            return text
        found = re.fullmatch(r"\s*(\d{2,4})\s*[x×]\s*(\d{2,4})\s*", str(text))
        size = cls(int(found[1]), int(found[2])) if found else None
        if size is None or min(size) < 16 or max(size) > 4096:
            raise BadInput(f"size '{text}' is not HEIGHTxWIDTH in pixels (16 to 4096), such as 384x144")
        return size
