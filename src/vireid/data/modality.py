"""The three modalities that a sample can have."""

from __future__ import annotations

from enum import IntEnum


class Modality(IntEnum):
    """The kind of sensor that took a picture.

    The numbers are public: in a features file, 0 is visible and 1 is infrared. `AUXILIARY` samples are never read from
    disk. PECA makes each of them from a visible and an infrared sample.
    """

    VISIBLE = 0
    INFRARED = 1
    AUXILIARY = 2

    @property
    def word(self) -> str:
        """The modality as a word.

        >>> Modality.INFRARED.word
        'infrared'
        """
        return self.name.lower()
