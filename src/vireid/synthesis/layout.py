"""Plan the pictures and text files of a generated data set, in one of the three published layouts.

A plan is made without rendering. People with neighbouring numbers, who may look alike, are in the same split as far as
possible. Their numbers on disk are shuffled, so that a file name says nothing about the person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality

LAYOUTS = ("sysu-mm01", "regdb", "llcm")
PICTURES = {"sysu-mm01": 10, "regdb": 10, "llcm": 8}  # per identity and camera, if the user asks for no other number
SYSU_VISIBLE, SYSU_INFRARED = (1, 2, 4, 5), (3, 6)
LLCM_VISIBLE, LLCM_INFRARED = (1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 4, 5, 6, 7, 8, 9)
LEAST = {"sysu-mm01": 3, "regdb": 2, "llcm": 2}
MOST = {"sysu-mm01": 9999, "regdb": 9999, "llcm": 9999}
REGDB_FOLDS = 10


class Picture(NamedTuple):
    """One picture to render.

    `identity` is the identity in the world, from 0, and `number` its number on disk. `moment` counts the pictures of an
    identity, camera and modality, from 0.
    """

    path: str
    identity: int
    number: int
    camera: int
    modality: Modality
    moment: int
    split: str


@dataclass(frozen=True)
class Plan:
    """The pictures of a data set in the order of their planning, and its text files (path → text)."""

    layout: str
    identities: int
    pictures: tuple[Picture, ...]
    texts: dict[str, str]

    def summary(self) -> dict:
        """Count identities and pictures: all of them, by modality, and by split and camera."""
        kinds = Counter(picture.modality for picture in self.pictures)
        splits: dict = {}
        cells: dict[tuple, set[int]] = {}
        for picture in self.pictures:
            word = picture.modality.word
            split = splits.setdefault(picture.split, {"identities": 0, "visible": 0, "infrared": 0, "cameras": {}})
            split[word] += 1
            key = f"{word}/{picture.camera}"
            split["cameras"].setdefault(key, {"identities": 0, "pictures": 0})["pictures"] += 1
            cells.setdefault((picture.split, key), set()).add(picture.number)
            cells.setdefault((picture.split,), set()).add(picture.number)
        for key, numbers in cells.items():
            target = splits[key[0]] if len(key) == 1 else splits[key[0]]["cameras"][key[1]]
            target["identities"] = len(numbers)
        return {
            "layout": self.layout,
            "identities": self.identities,
            "pictures": len(self.pictures),
            "visible": kinds[Modality.VISIBLE],
            "infrared": kinds[Modality.INFRARED],
            "splits": splits,
        }


def make_plan(
    layout: str,
    identities: int,
    *,
    pictures: int | None,
    published: bool,
    rng: np.random.Generator,
    tested: int | None = None,
) -> Plan:
    """Plan every picture and text file of a data set.

    Args:
        layout: one of `LAYOUTS`.
        identities: number of identities in all splits together; ignored if `published`.
        pictures: number of pictures of each identity at each camera, 1..999; None for the usual number of the layout.
        published: use exactly the published numbers of identities, cameras and pictures.
        rng: shuffles numbers, cameras and splits.
        tested: number of test identities; None for the published proportion. RegDB always has half of them.

    Raises:
        BadInput: the layout is unknown, it cannot have this number of identities or of test identities, or `pictures`
            is out of its range.
    """
    if layout not in LAYOUTS:
        raise unknown("layout", str(layout), LAYOUTS)
    if not published and not LEAST[layout] <= identities <= MOST[layout]:
        raise BadInput(f"layout {layout} needs {LEAST[layout]} to {MOST[layout]} identities, not {identities}")
    each = PICTURES[layout] if pictures is None else pictures
    if not isinstance(each, int | np.integer) or isinstance(each, bool) or not 1 <= each <= 999:
        raise BadInput(f"pictures is {each!r}; it must be a whole number from 1 to 999 (per identity and camera)")
    if tested is not None and (published or layout == "regdb"):
        why = "published counts fix them" if published else "regdb tests on half of them"
        raise BadInput(f"the number of test identities cannot be chosen: {why}")
    if tested is not None and not 1 <= tested <= identities - (LEAST[layout] - 1):
        raise BadInput(
            f"{tested} test identities of {identities}: layout {layout} needs 1 to {identities - LEAST[layout] + 1}"
        )
    if layout == "regdb":
        return _regdb(identities, int(each), published, rng)
    maker = {"sysu-mm01": _sysu, "llcm": _llcm}[layout]
    return maker(identities, int(each), published, rng, tested)


def _spread(total: int, cells: int, *, least: int = 1) -> list[int]:
    """Share `total` over `cells` as evenly as possible; the first cell gets `least` if that is below the even share."""
    first = [least] if least * cells < total and least > 1 else []
    rest, count = total - sum(first), cells - len(first)
    return first + [rest // count + (index < rest % count) for index in range(count)]


def _shares(identities: int, *parts: int) -> list[int]:
    """Split `identities` in about these proportions, each at least 1; the first share is the remainder."""
    whole = sum(parts)
    others = [max(1, round(identities * part / whole)) for part in parts[1:]]
    while sum(others) >= identities:
        others[int(np.argmax(others))] -= 1
    return [identities - sum(others), *others]


def _commas(numbers: np.ndarray) -> str:
    return ",".join(str(number) for number in sorted(numbers)) + "\n"


# --- SYSU-MM01 -------------------------------------------------------------------------------------------------------

SYSU_TRAIN = {"train": (296, 20284, 9929), "val": (99, 1974, 1980)}
# The published pictures, 30,071 and 15,792, include those of 42 identities that no list names (533 - 491).
SYSU_UNLISTED = (42, 30071 - 29033, 15792 - 15712)
SYSU_TEST = {1: (56, 1374, 13), 2: (56, 1565, 18), 4: (94, 1918, 20), 5: (95, 1918, 20), 6: (96, 1920, 20)}


def _sysu(identities: int, each: int, published: bool, rng: np.random.Generator, tested: int | None) -> Plan:
    if published:
        test = rng.choice(np.arange(6, 334), 96, replace=False)
        free = rng.permutation(np.setdiff1d(np.arange(1, 534), test))
        numbers = {"train": free[:296], "val": free[296:395], "test": test, "unlisted": free[395:]}
    else:
        shares = (
            _shares(identities, 296, 99, 96) if tested is None else [*_shares(identities - tested, 296, 99), tested]
        )
        order, ends = rng.permutation(identities) + 1, np.cumsum(shares)
        numbers = dict(zip(("train", "val", "test"), np.split(order, ends[:-1]), strict=True))
    taken: list[Picture] = []
    first = 0
    for split, own in numbers.items():
        cells = _sysu_published(split) if published else {
            (index, camera): each for index in range(len(own)) for camera in range(1, 7)
        }  # fmt: skip
        for (index, camera), count in cells.items():
            modality = Modality.INFRARED if camera in SYSU_INFRARED else Modality.VISIBLE
            number = int(own[index])
            taken += [
                Picture(f"cam{camera}/{number:04d}/{moment + 1:04d}.jpg", first + index, number, camera, modality,
                        moment, split)
                for moment in range(count)
            ]  # fmt: skip
        first += len(own)
    listed = {split: own for split, own in numbers.items() if split != "unlisted"}
    texts = {f"exp/{split}_id.txt": _commas(own) for split, own in listed.items()}
    texts["exp/available_id.txt"] = _commas(np.concatenate(list(listed.values())))
    return Plan("sysu-mm01", first, tuple(taken), texts)


def _sysu_published(split: str) -> dict[tuple[int, int], int]:
    """The number of pictures of each (position in the split, camera), with the published totals."""
    cells: dict[tuple[int, int], int] = {}
    if split != "test":
        people, visible, infrared = SYSU_UNLISTED if split == "unlisted" else SYSU_TRAIN[split]
        for cameras, total in ((SYSU_VISIBLE, visible), (SYSU_INFRARED, infrared)):
            keys = [(index, camera) for index in range(people) for camera in cameras]
            cells |= dict(zip(keys, _spread(total, len(keys)), strict=True))
        return cells
    for camera, (people, total, least) in SYSU_TEST.items():
        # Camera 4 lacks the first people and camera 5 the last one, so each person has pictures of one of the two.
        start = 96 - people if camera == 4 else 0
        cells |= {(index, camera): count for index, count in enumerate(_spread(total, people, least=least), start)}
    # Camera 3 lacks three people; two of them have indoor pictures. 8 of its 23 extra pictures show people with indoor
    # pictures. So 1,120 + 1,088 = 2,208 infrared queries have a match indoors, as published.
    indoor, outdoor = range(2, 56), range(57, 96)
    for people, extra in ((indoor, 8), (outdoor, 15)):
        cells |= {(index, 3): 20 + (place < extra) for place, index in enumerate(people)}
    return cells


# --- RegDB -----------------------------------------------------------------------------------------------------------


def _regdb(identities: int, each: int, published: bool, rng: np.random.Generator) -> Plan:
    if published:
        identities, each = 412, 10
    numbers = rng.permutation(identities) + 1
    taken, paths = [], {}
    for folder, word, modality in (("Visible", "v", Modality.VISIBLE), ("Thermal", "t", Modality.INFRARED)):
        for index, number in enumerate(numbers):
            own = [
                Picture(f"{folder}/{number}/{word}_{moment + 1:04d}.bmp", index, int(number), 1 + int(modality),
                        modality, moment, "all")
                for moment in range(each)
            ]  # fmt: skip
            paths[folder, int(number)] = [picture.path for picture in own]
            taken += own
    texts = {}
    for fold in range(1, REGDB_FOLDS + 1):
        order = rng.permutation(identities) + 1
        half = identities - identities // 2
        for split, chosen in (("train", sorted(order[:half])), ("test", sorted(order[half:]))):
            for folder in ("Visible", "Thermal"):
                lines = [f"{path} {label}\n" for label, number in enumerate(chosen) for path in paths[folder, number]]
                texts[f"idx/{split}_{folder.lower()}_{fold}.txt"] = "".join(lines)
    return Plan("regdb", identities, tuple(taken), texts)


# --- LLCM ------------------------------------------------------------------------------------------------------------

LLCM_TRAIN = (713, 16946, 13975)
LLCM_TEST = (351, 8680, 7166)
Cells = list[tuple[int, int, int]]  # (position in the split, camera, number of pictures)


def _llcm(identities: int, each: int, published: bool, rng: np.random.Generator, tested: int | None) -> Plan:
    if published:
        shares = [LLCM_TRAIN[0], LLCM_TEST[0]]
    else:
        shares = _shares(identities, LLCM_TRAIN[0], LLCM_TEST[0]) if tested is None else [identities - tested, tested]
    numbers = np.split(rng.permutation(sum(shares)) + 1, [shares[0]])
    taken: list[Picture] = []
    for split, people, first, own in zip(("train", "test"), shares, (0, shares[0]), numbers, strict=True):
        cells = _llcm_cells(people, each, rng)
        if published:
            cells = _llcm_published(split, rng)
        for modality, chosen in zip((Modality.VISIBLE, Modality.INFRARED), cells, strict=True):
            for index, camera, count in sorted(chosen):
                number, word = int(own[index]), "nir" if modality else "vis"
                folder = f"test_{word}/cam{camera}/{number:04d}" if split == "test" else f"{word}/{number:04d}"
                second, frame = int(rng.integers(80000, 180000)), 15 * int(rng.integers(10, 2000))
                for moment in range(count):
                    name = f"{number:04d}_c{camera:02d}_s{second:06d}_f{frame + 15 * moment:05d}_{word}.jpg"
                    taken.append(Picture(f"{folder}/{name}", first + index, number, camera, modality, moment, split))
    texts = {"idx/test_id.txt": _commas(numbers[1])}
    labels = {int(n): label for own in numbers for label, n in enumerate(sorted(own))}
    for split in ("train", "test"):
        for modality, word in ((Modality.VISIBLE, "vis"), (Modality.INFRARED, "nir")):
            lines = [f"{p.path} {labels[p.number]}\n" for p in taken if p.split == split and p.modality == modality]
            texts[f"idx/{split}_{word}.txt"] = "".join(lines)
    return Plan("llcm", sum(shares), tuple(taken), texts)


def _llcm_cells(people: int, each: int, rng: np.random.Generator) -> tuple[Cells, Cells]:
    """Two visible and two infrared cameras for each person, four different ones."""
    visible, infrared = [], []
    for index in range(people):
        seen = rng.choice(LLCM_VISIBLE, 2, replace=False)
        others = rng.choice([camera for camera in LLCM_INFRARED if camera not in seen], 2, replace=False)
        visible += [(index, int(camera), each) for camera in seen]
        infrared += [(index, int(camera), each) for camera in others]
    return visible, infrared


def _llcm_published(split: str, rng: np.random.Generator) -> tuple[Cells, Cells]:
    """Cells with the published totals. The test set has 484 visible and 619 infrared cells.

    Six people of the test set have pictures of one camera in both modalities, so the rule "same identity and same
    camera" affects 102 visible and 75 infrared queries. The first of these people has no other infrared picture. So 10
    visible queries have no match, as published.
    """
    if split == "train":
        people, *totals = LLCM_TRAIN
        visible, infrared = _llcm_cells(people, 1, rng)
        return _counted(visible, totals[0], {}), _counted(infrared, totals[1], {})
    people, *totals = LLCM_TEST
    visible, infrared = [], []
    for index in range(people):
        dark = rng.choice(LLCM_INFRARED, 2, replace=False)
        light = rng.choice([camera for camera in LLCM_VISIBLE if camera not in dark], 2, replace=False)
        if index < 6:
            light[0] = dark[0]
        dark = dark if 0 < index < 6 or index >= people - (619 - people - 5) else dark[:1]
        light = light if index < 484 - people else light[:1]
        visible += [(index, int(camera), 0) for camera in light]
        infrared += [(index, int(camera), 0) for camera in dark]
    shared_visible = dict(zip(range(6), (10, 18, 18, 18, 19, 19), strict=True))
    shared_infrared = dict(zip(range(6), (12, 12, 12, 13, 13, 13), strict=True))
    return _counted(visible, totals[0], shared_visible), _counted(infrared, totals[1], shared_infrared)


def _counted(cells: Cells, total: int, fixed: Mapping[int, int]) -> Cells:
    """Fill in the pictures of each cell: those of `fixed` in the first cell of these people, even shares elsewhere."""
    first = {index: next(camera for other, camera, _ in cells if other == index) for index in fixed}
    rest = iter(_spread(total - sum(fixed.values()), len(cells) - len(fixed)))
    return [(index, camera, fixed[index] if first.get(index) == camera else next(rest)) for index, camera, _ in cells]
