"""The three modalities a row can have."""

from __future__ import annotations

from enum import IntEnum


class Modality(IntEnum):
    """Which kind of sensor a row came from.

    The numbers are part of the public surface: a features file says 0 for visible and 1 for infrared.
    `AUXILIARY` rows are never read from disk; PECA makes them from a visible and an infrared row.
    """

    VISIBLE = 0
    INFRARED = 1
    AUXILIARY = 2

    @property
    def word(self) -> str:
        """The modality as prose writes it.

        >>> Modality.INFRARED.word
        'infrared'
        """
        return self.name.lower()
