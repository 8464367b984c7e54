"""The three modalities that a sample can have, and the words for them."""

from __future__ import annotations

from enum import IntEnum

from vireid.data.errors import unknown


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


MODALITIES = {
    "visible": Modality.VISIBLE,
    "vis": Modality.VISIBLE,
    "rgb": Modality.VISIBLE,
    "colour": Modality.VISIBLE,
    "color": Modality.VISIBLE,
    "infrared": Modality.INFRARED,
    "ir": Modality.INFRARED,
    "nir": Modality.INFRARED,
    "thermal": Modality.INFRARED,
}
"""The words for a modality, in tables, folder names, features files and calls from Python. Case does not matter."""


def modality_of(word: str) -> Modality:
    """The modality that a word stands for.

    >>> modality_of("RGB"), modality_of("thermal")
    (<Modality.VISIBLE: 0>, <Modality.INFRARED: 1>)

    Raises:
        BadInput: no modality has this name; the sentence names the words that there are.
    """
    found = MODALITIES.get(word.strip().lower())
    if found is None:
        raise unknown("modality", word[:40], MODALITIES)
    return found
