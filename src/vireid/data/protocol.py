"""Evaluation protocols as data: who asks, who is searched, which pairs do not count, how often it is drawn.

Nothing here computes a metric and no metric knows anything that is written here. A name gives a `Protocol`
(`parse_protocol`), a protocol and the columns of a test set give `Trial`s (`draw_trials`), and a trial is all that
ranking needs. docs/protocols.md tells the conventions and where code bases disagree.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality
from vireid.data.permutation import SOURCE, Permutation, read_permutation

__all__ = [
    "LAYOUTS",
    "Protocol",
    "Side",
    "Trial",
    "default_protocols",
    "draw_trials",
    "parse_protocol",
    "protocol_names",
    "read_permutation",
]

LAYOUTS = ("sysu-mm01", "regdb", "llcm", "folder")

Exclusion = Literal["none", "location", "identity-camera"]

# SYSU-MM01: camera → place. Cameras 2 and 3 hang in one room, so a picture of one finds itself in the other too easily.
_SYSU_LOCATION = {1: 1, 2: 2, 3: 2, 4: 4, 5: 5, 6: 6}
_SYSU_VISIBLE = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
_SYSU_INFRARED = {"all": (3, 6), "indoor": (3,)}
_SYSU_SHOTS = {"single": 1, "multi": 10}
_DRAWS = 10


@dataclass(frozen=True)
class Side:
    """The queries or the gallery of a protocol.

    Attributes:
        modality: whose pictures stand here.
        cameras: only these cameras, in the order in which a draw visits them; None for all, ascending.
        drawn: how many pictures are drawn for each (identity, camera); None for all of them.
    """

    modality: Modality
    cameras: tuple[int, ...] | None = None
    drawn: int | None = None


@dataclass(frozen=True)
class Protocol:
    """What a protocol's name stands for.

    Attributes:
        name: as given, e.g. `sysu-mm01/all/single`.
        layout: one of `LAYOUTS`.
        query: who asks.
        gallery: who is searched.
        trials: how many draws are averaged; 1 where nothing is drawn.
        exclusion: which gallery pictures a query does not see: `location` those of its own place (any identity),
            `identity-camera` those of its own identity and camera, `none`.
        cmc: `identity` counts distinct identities on the way to the first match (each counts once, at its best
            picture), `image` counts pictures. Only ranks above 1 differ.
        draw: `agw` for Python's generator seeded with the trial's number, `official` for SYSU-MM01's own file.
        note: what a reader must know before comparing; empty for the field's plain conventions.
    """

    name: str
    layout: str
    query: Side
    gallery: Side
    trials: int = 1
    exclusion: Exclusion = "none"
    cmc: Literal["identity", "image"] = "identity"
    draw: Literal["agw", "official"] = "agw"
    note: str = ""


@dataclass(frozen=True)
class Trial:
    """One draw. A gallery row is dropped for a query if and only if their keys are equal; key −1 equals nothing.

    Attributes:
        query: Q int64, rows of the arrays given to `draw_trials`, ascending.
        gallery: G int64, rows likewise, ascending. Where two distances are equal the lower row ranks first.
        query_key: Q int64.
        gallery_key: G int64.
    """

    query: np.ndarray
    gallery: np.ndarray
    query_key: np.ndarray
    gallery_key: np.ndarray


def parse_protocol(name: str | Protocol) -> Protocol:
    """The protocol of this name.

    >>> parse_protocol("llcm/i2v").gallery
    Side(modality=<Modality.VISIBLE: 0>, cameras=None, drawn=1)

    Raises:
        BadInput: no protocol has this name; the sentence names the nearest one and all choices.
    """
    if isinstance(name, Protocol):
        return name
    found = _table().get(name)
    if found is None:
        raise unknown("protocol", str(name), _table())
    return found


def protocol_names(layout: str | None = None) -> list[str]:
    """Every name, or those of one layout.

    >>> protocol_names("regdb")
    ['regdb/v2i', 'regdb/i2v']
    """
    return [name for name, protocol in _table().items() if layout is None or protocol.layout == _known(layout)]


def default_protocols(layout: str) -> list[str]:
    """What a test runs when no protocol is named: the layout's plain conventions, as papers report them.

    >>> default_protocols("llcm")
    ['llcm/i2v', 'llcm/v2i']
    """
    return [name for name in protocol_names(layout) if "@" not in name and "/reverse/" not in name]


def draw_trials(
    protocol: str | Protocol,
    identity: np.ndarray,
    camera: np.ndarray,
    modality: np.ndarray,
    *,
    permutation: Permutation | None = None,
) -> list[Trial]:
    """The query and gallery rows of every trial.

    AGW's draw is reproduced bit for bit (github.com/mangye16/Cross-Modal-Re-ID-baseline): trial t seeds Python's
    generator with t; identities ascend, inside each the cameras go in the protocol's order, and each pair that has
    pictures takes one `choice` over its sorted files. AGW draws single-shot only: for multi-shot the same seeded
    generator takes a `sample` of ten without replacement, which is our extension. The official draw takes, for trial
    t, the first one or ten entries of row t of the pair's permutation, counted in the sorted list of its files.

    Args:
        protocol: a name, or what `parse_protocol` gave.
        identity: N integers.
        camera: N integers, the data set's own numbers.
        modality: N integers, 0 visible or 1 infrared.
        permutation: what `read_permutation` gave; only the `@official` protocols need it.

    All columns stand in file order: inside one identity and camera the rows must be sorted by file name.

    Raises:
        BadInput: a side is empty, no query has a true match, a camera does not fit the layout, or the permutation is
            missing or does not fit.
    """
    protocol = parse_protocol(protocol)
    identity, camera, modality = (np.asarray(column, dtype=np.int64) for column in (identity, camera, modality))
    if not (identity.shape == camera.shape == modality.shape == (identity.size,)):
        raise BadInput(
            f"identity, camera and modality are columns of one length, not of shapes {identity.shape}, "
            f"{camera.shape} and {modality.shape}"
        )
    if protocol.layout == "sysu-mm01":
        _check_sysu_cameras(camera, modality)
    if protocol.draw == "official" and permutation is None:
        raise BadInput(f"protocol {protocol.name} needs the official permutation: {SOURCE}")
    key = _keys(protocol.exclusion, identity, camera)
    rows = {
        "queries": _side(protocol, protocol.query, "queries", identity, camera, modality, permutation),
        "gallery": _side(protocol, protocol.gallery, "gallery", identity, camera, modality, permutation),
    }
    trials = []
    for t in range(protocol.trials):
        query, gallery = rows["queries"](t), rows["gallery"](t)
        trials.append(Trial(query, gallery, key[query], key[gallery]))
    _check_some_match(protocol, trials[0], identity)
    return trials


def _check_sysu_cameras(camera: np.ndarray, modality: np.ndarray) -> None:
    expected = np.full(7, -1)
    expected[list(_SYSU_VISIBLE["all"])] = Modality.VISIBLE
    expected[list(_SYSU_INFRARED["all"])] = Modality.INFRARED
    strange = np.flatnonzero(~np.isin(camera, list(_SYSU_LOCATION)))
    if strange.size:
        raise BadInput(f"row {strange[0]} has camera {camera[strange[0]]}; the cameras of sysu-mm01 are 1 to 6")
    wrong = np.flatnonzero(expected[camera] != modality)
    if wrong.size:
        row = int(wrong[0])
        raise BadInput(
            f"row {row} has camera {camera[row]}, which is {Modality(expected[camera[row]]).word} in sysu-mm01, but "
            f"modality {modality[row]} (0 visible, 1 infrared)"
        )


def _keys(exclusion: Exclusion, identity: np.ndarray, camera: np.ndarray) -> np.ndarray:
    if exclusion == "none":
        return np.full(len(identity), -1, dtype=np.int64)
    if exclusion == "location":
        return np.array([_SYSU_LOCATION[number] for number in camera.tolist()], dtype=np.int64)
    _, code = np.unique(np.stack([identity, camera], axis=1), axis=0, return_inverse=True)
    return code.reshape(-1).astype(np.int64)


def _side(
    protocol: Protocol,
    side: Side,
    role: str,
    identity: np.ndarray,
    camera: np.ndarray,
    modality: np.ndarray,
    permutation: Permutation | None,
) -> Callable[[int], np.ndarray]:
    """A function from the trial's number to this side's rows, ascending."""
    inside = modality == side.modality
    if side.cameras is not None:
        inside &= np.isin(camera, side.cameras)
    rows = np.flatnonzero(inside)
    if not rows.size:
        where = f" of cameras {', '.join(map(str, side.cameras))}" if side.cameras else ""
        raise BadInput(f"protocol {protocol.name} has no {role}: there are no {side.modality.word} rows{where}")
    shots = side.drawn
    if shots is None:
        return lambda trial: rows
    cells = _cells(rows, identity, camera, side.cameras)
    if protocol.draw == "official":
        fixed = permutation or {}
        return lambda trial: np.sort(np.concatenate([_official(cell, fixed, trial, shots) for cell in cells]))
    return lambda trial: np.sort(_agw(cells, trial, shots))


_Cell = tuple[int, int, np.ndarray]  # identity, camera, rows in file order


def _cells(rows: np.ndarray, identity: np.ndarray, camera: np.ndarray, cameras: tuple[int, ...] | None) -> list[_Cell]:
    """The rows of each (identity, camera) that has any: identities ascending, cameras in the order listed."""
    order = {number: place for place, number in enumerate(cameras or sorted(set(camera[rows].tolist())))}
    place = np.array([order[number] for number in camera[rows].tolist()])
    rows = rows[np.lexsort((rows, place, identity[rows]))]
    pairs = np.stack([identity[rows], camera[rows]], axis=1)
    edges = np.flatnonzero((pairs[1:] != pairs[:-1]).any(axis=1)) + 1
    return [(int(identity[part[0]]), int(camera[part[0]]), part) for part in np.split(rows, edges)]


def _agw(cells: list[_Cell], trial: int, shots: int) -> np.ndarray:
    generator = random.Random(trial)
    chosen: list[int] = []
    for _, _, rows in cells:
        files = rows.tolist()
        if shots == 1:
            chosen.append(generator.choice(files))
        else:
            chosen.extend(generator.sample(files, min(shots, len(files))))
    return np.array(chosen, dtype=np.int64)


def _official(cell: _Cell, permutation: Permutation, trial: int, shots: int) -> np.ndarray:
    identity, camera, rows = cell
    table = permutation.get((camera, identity))
    if table is None:
        raise BadInput(f"the official permutation has no camera {camera}, identity {identity}; expected {SOURCE}")
    if table.shape[1] != len(rows) or trial >= len(table):
        raise BadInput(
            f"the official permutation is for {table.shape[1]} pictures of identity {identity} at camera {camera} in "
            f"{len(table)} trials, but there are {len(rows)} pictures and {_DRAWS} trials"
        )
    return rows[table[trial, :shots] - 1]


def _check_some_match(protocol: Protocol, trial: Trial, identity: np.ndarray) -> None:
    """Refuse a test set in which no query can be answered; drawing again would not change that."""
    seen = set(zip(identity[trial.gallery].tolist(), trial.gallery_key.tolist(), strict=True))
    by_identity: dict[int, set[int]] = {}
    for number, key in seen:
        by_identity.setdefault(number, set()).add(key)
    for number, key in set(zip(identity[trial.query].tolist(), trial.query_key.tolist(), strict=True)):
        if any(key == -1 or other != key for other in by_identity.get(number, ())):
            return
    raise BadInput(f"protocol {protocol.name}: not one query has a true match left in the gallery")


def _known(layout: str) -> str:
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    return layout


@cache
def _table() -> dict[str, Protocol]:
    protocols = [*_sysu(), *_regdb(), *_llcm(), *_folder()]
    return {protocol.name: protocol for protocol in protocols}


def _sysu() -> list[Protocol]:
    made = []
    for suffix in ("", "@agw", "@official"):
        for mode, cameras in _SYSU_VISIBLE.items():
            for shot, drawn in _SYSU_SHOTS.items():
                made.append(
                    Protocol(
                        f"sysu-mm01/{mode}/{shot}{suffix}",
                        "sysu-mm01",
                        # The queries are the same in both modes: an outdoor picture may be looked for indoors.
                        query=Side(Modality.INFRARED, _SYSU_INFRARED["all"]),
                        gallery=Side(Modality.VISIBLE, cameras, drawn),
                        trials=_DRAWS,
                        exclusion="location",
                        draw="official" if suffix == "@official" else "agw",
                    )
                )
    for mode, cameras in _SYSU_VISIBLE.items():
        for shot, drawn in _SYSU_SHOTS.items():
            made.append(
                Protocol(
                    f"sysu-mm01/reverse/{mode}/{shot}",
                    "sysu-mm01",
                    query=Side(Modality.VISIBLE, cameras),
                    gallery=Side(Modality.INFRARED, _SYSU_INFRARED[mode], drawn),
                    trials=_DRAWS,
                    exclusion="location",
                    note="visible queries on sysu-mm01 are this toolbox's own protocol; papers ask with infrared ones",
                )
            )
    return made


def _regdb() -> list[Protocol]:
    visible, infrared = Side(Modality.VISIBLE), Side(Modality.INFRARED)
    return [
        Protocol("regdb/v2i", "regdb", query=visible, gallery=infrared, cmc="image"),
        Protocol("regdb/i2v", "regdb", query=infrared, gallery=visible, cmc="image"),
    ]


def _llcm() -> list[Protocol]:
    visible, infrared = Side(Modality.VISIBLE), Side(Modality.INFRARED)
    full = "full test lists on both sides, nothing drawn and nothing excluded: not comparable with the paper's protocol"
    return [
        Protocol(
            "llcm/i2v",
            "llcm",
            query=infrared,
            gallery=Side(Modality.VISIBLE, drawn=1),
            trials=_DRAWS,
            exclusion="identity-camera",
        ),
        Protocol(
            "llcm/v2i",
            "llcm",
            query=visible,
            gallery=Side(Modality.INFRARED, drawn=1),
            trials=_DRAWS,
            exclusion="identity-camera",
        ),
        Protocol(
            "llcm/v2i@swapped",
            "llcm",
            # What the data set's own test script does since 2023-06: the drawn infrared pictures ask.
            query=Side(Modality.INFRARED, drawn=1),
            gallery=visible,
            trials=_DRAWS,
            exclusion="identity-camera",
            note="the drawn infrared pictures ask and all visible ones are searched: not comparable with llcm/v2i",
        ),
        Protocol("llcm/i2v@full", "llcm", query=infrared, gallery=visible, note=full),
        Protocol("llcm/v2i@full", "llcm", query=visible, gallery=infrared, note=full),
    ]


def _folder() -> list[Protocol]:
    visible, infrared = Side(Modality.VISIBLE), Side(Modality.INFRARED)
    return [
        Protocol("folder/v2i", "folder", query=visible, gallery=infrared, cmc="image"),
        Protocol("folder/i2v", "folder", query=infrared, gallery=visible, cmc="image"),
    ]
