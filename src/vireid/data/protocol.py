"""Evaluation protocols as data: queries, gallery, excluded pairs, and the number of trials.

This file computes no metric, and the metrics know nothing of this file. `parse_protocol` turns a name into a
`Protocol`. `draw_trials` turns a protocol and the arrays of a test set into `Trial`s. Ranking needs only a trial.
docs/protocols.md explains the conventions and where public code differs. A protocol can also be given by lists of its
queries and its gallery (`vireid.data.lists`), or come from outside the package (`register`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np

from vireid.data import drawing
from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality
from vireid.data.outside import load_entry_point
from vireid.data.permutation import SOURCE, Permutation, read_permutation
from vireid.data.records import UNLABELLED

__all__ = [
    "LAYOUTS",
    "Protocol",
    "Side",
    "Trial",
    "both_directions",
    "default_protocols",
    "draw_trials",
    "parse_protocol",
    "protocol_names",
    "read_permutation",
    "register",
]

LAYOUTS = ("sysu-mm01", "regdb", "llcm", "folder")

LISTS = "lists:"
"""`lists:FILE.yaml` is a protocol that a file gives, see `vireid.data.lists`."""

Exclusion = Literal["none", "location", "camera", "identity-camera", "identity-location", "identity-modality"]
Tracklets = Literal["none", "average", "min", "mean"]

# SYSU-MM01: camera → place. Cameras 2 and 3 are in the same room, so matches between them would be too easy.
_SYSU_LOCATION = {1: 1, 2: 2, 3: 2, 4: 4, 5: 5, 6: 6}
_SYSU_VISIBLE = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
_SYSU_INFRARED = {"all": (3, 6), "indoor": (3,)}
_SYSU_SHOTS = {"single": 1, "multi": 10}


@dataclass(frozen=True)
class Side:
    """The queries or the gallery of a protocol.

    Attributes:
        modality: the modality of the pictures; None for both.
        cameras: only these cameras, in the order in which the draw visits them; None for all, ascending.
        drawn: how many pictures are drawn for each (identity, camera); None takes all of them.
        paths: only these pictures, as `Records.path` names them; None for all.
    """

    modality: Modality | None
    cameras: tuple[int, ...] | None = None
    drawn: int | None = None
    paths: tuple[str, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Protocol:
    """An evaluation protocol.

    Attributes:
        name: for example `sysu-mm01/all/single`.
        layout: one of `LAYOUTS`, or a layout from outside the package; empty for any layout.
        query: the queries.
        gallery: the gallery.
        trials: how many trials are averaged; 1 if nothing is drawn.
        exclusion: which gallery pictures are excluded for a query: `location`: those of its own place, of any identity,
            on SYSU-MM01 only; `camera`: those of its own camera, of any identity; `identity-camera`,
            `identity-location`, `identity-modality`: those of its own identity and camera, place (on SYSU-MM01 only),
            or modality; `none`: no picture.
        cmc: how the rank of the first match is counted. `identity` counts identities, each once, at its best picture;
            `image` counts pictures. Rank-1 is the same for both.
        draw: `agw` uses Python's generator, seeded with the number of the trial; `official` uses SYSU-MM01's own file.
        note: what a reader must know before comparing numbers; empty for the usual conventions of the field.
        tracklets: what is ranked. `none`: pictures. Otherwise tracklets, which are pictures of one person at one camera
            with the same number in the column `tracklet`. They are compared by their mean features (`average`), or by
            the smallest (`min`) or the mean distance (`mean`) of all pairs of their pictures.
        halves: in each trial, half of the people are only calibrated on, see `vireid.data.mixed`.
        compare: `distance`, or `ratio`: the log-likelihood ratio of the cosine, calibrated on the other half.

    Raises (when an instance is made):
        BadInput: tracklets are ranked or halves are tested, and a side is drawn picture by picture; tracklets of
            halves; or ratios without halves.
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
    tracklets: Tracklets = "none"
    halves: bool = False
    compare: Literal["distance", "ratio"] = "distance"

    def __post_init__(self) -> None:
        if self.tracklets != "none" and (self.query.drawn or self.gallery.drawn):
            raise BadInput(f"protocol {self.name} cannot rank tracklets and draw single pictures")
        if self.halves and (self.tracklets != "none" or self.query.drawn or self.gallery.drawn):
            raise BadInput(f"protocol {self.name} tests half of the people: it takes all their pictures, one by one")
        if self.compare == "ratio" and not self.halves:
            raise BadInput(f"protocol {self.name} compares by ratio, which needs people to calibrate on: halves")


@dataclass(frozen=True)
class Trial:
    """One draw of queries and gallery.

    A gallery sample is excluded for a query if and only if their keys are equal. The key -1 is equal to no other key.

    Attributes:
        query: Q int64, positions in the arrays given to `draw_trials`, ascending.
        gallery: G int64, positions in the same arrays, ascending. If two distances are equal, the lower position ranks
            first.
        query_key: Q int64.
        gallery_key: G int64.
        query_sets, gallery_sets: where tracklets are ranked, the positions of the pictures of each, ascending. `query`
            and `gallery` are then their first pictures. Otherwise None.
        other: where half of the people are tested, the positions of the other half's pictures, ascending. Otherwise
            None.
        other_key: two pictures of `other` with equal keys are no pair to calibrate on.
    """

    query: np.ndarray
    gallery: np.ndarray
    query_key: np.ndarray
    gallery_key: np.ndarray
    query_sets: tuple[np.ndarray, ...] | None = None
    gallery_sets: tuple[np.ndarray, ...] | None = None
    other: np.ndarray | None = None
    other_key: np.ndarray | None = None

    @property
    def pictures(self) -> np.ndarray:
        """The positions of all pictures that this trial compares or calibrates on, each once, ascending."""
        more = [*(self.query_sets or ()), *(self.gallery_sets or ()), *([] if self.other is None else [self.other])]
        return np.unique(np.concatenate([self.query, self.gallery, *more]))


_outside: dict[str, Protocol] = {}
_layouts_outside: set[str] = set()


def register(protocols: Iterable[Protocol], layout: str) -> None:
    """Make protocols from outside the package known, for a layout of the package or from outside.

    Raises:
        BadInput: the package has a protocol of this name, or the protocol is not of this layout.
    """
    found = list(protocols)
    for one in found:
        if not isinstance(one, Protocol):
            raise BadInput(f"PROTOCOLS of layout '{layout}' holds {one!r}, which is no vireid.data.protocol.Protocol")
        if one.layout != layout or not one.name.startswith(f"{layout}/"):
            raise BadInput(f"protocol '{one.name}' must have the layout '{layout}' and a name of the form {layout}/…")
        if one.name in _table():
            raise BadInput(f"the package has a protocol '{one.name}' already; give yours another name")
        if layout != "sysu-mm01" and (one.exclusion.endswith("location") or one.draw == "official"):
            raise BadInput(f"protocol '{one.name}': exclusion by location and draw official are for sysu-mm01 only")
    _outside.update({one.name: one for one in found})
    _layouts_outside.add(layout)


def forget(names: Iterable[str]) -> None:
    """Remove protocols from outside the package, and the layouts that have no protocol left."""
    for name in names:
        _outside.pop(name, None)
    _layouts_outside.intersection_update({one.layout for one in _outside.values()})


def _known_protocols(layout: str = "") -> Mapping[str, Protocol]:
    """All protocols by name. The entry point `vireid.protocols` of this layout is loaded first, if there is one."""
    if layout and (found := load_entry_point("vireid.protocols", layout)) is not None:
        register(getattr(found.module, "PROTOCOLS", ()), layout)
    return {**_table(), **_outside}


def parse_protocol(name: str | Protocol) -> Protocol:
    """The protocol with this name, or of this file (`lists:FILE.yaml`). A `Protocol` is returned as it is.

    >>> parse_protocol("llcm/i2v").gallery
    Side(modality=<Modality.VISIBLE: 0>, cameras=None, drawn=1)

    Raises:
        BadInput: no protocol has this name (the sentence names the most similar one and all choices), or the file
            cannot be used.
    """
    if isinstance(name, Protocol):
        return name
    if not isinstance(name, str):
        raise BadInput(f"a protocol is one name, not {name!r}; choices: {', '.join(_known_protocols())}")
    if name.startswith(LISTS):
        from vireid.data.lists import read_lists

        return read_lists(name.removeprefix(LISTS))
    known = _known_protocols(name.partition("/")[0])
    if name not in known:
        raise unknown("protocol", name, known)
    return known[name]


def protocol_names(layout: str | None = None) -> list[str]:
    """The names of all protocols, or those of one layout. Protocols that files give have no place here.

    >>> protocol_names("regdb")[:3]
    ['regdb/v2i', 'regdb/i2v', 'regdb/mixed/i2v']
    """
    known = _known_protocols(layout or "")
    return [name for name, protocol in known.items() if layout is None or protocol.layout == _known(layout)]


def default_protocols(layout: str) -> list[str]:
    """The protocols of a test if the user names none: the usual conventions of the layout, as papers report them.

    >>> default_protocols("llcm")
    ['llcm/i2v', 'llcm/v2i']
    """
    return [name for name in protocol_names(layout) if not re.search("@|/reverse/|/mixed/", name)]


@dataclass(frozen=True)
class _Columns:
    """The arrays of a test set, N entries each; `path` and `tracklet` may be unknown."""

    identity: np.ndarray
    camera: np.ndarray
    modality: np.ndarray
    path: np.ndarray | None
    tracklet: np.ndarray | None

    @classmethod
    def checked(cls, path: np.ndarray | None, tracklet: np.ndarray | None, **integers: np.ndarray) -> _Columns:
        """Raises BadInput if a column has another length."""
        if tracklet is not None:
            integers["tracklet"] = tracklet
        columns = {name: np.asarray(column, dtype=np.int64) for name, column in integers.items()}
        shapes = [column.shape for column in columns.values()]
        size = columns["identity"].size
        if any(shape != (size,) for shape in shapes) or (path is not None and len(path) != size):
            names = ", ".join([*columns][:-1]) + f" and {[*columns][-1]}"
            shown = ", ".join(map(str, shapes[:-1])) + f" and {shapes[-1]}"
            raise BadInput(f"{names} must be columns of one length, not of shapes {shown}")
        return cls(**{"tracklet": None, **columns}, path=None if path is None else np.asarray(path).astype(str))


def draw_trials(
    protocol: str | Protocol,
    identity: np.ndarray,
    camera: np.ndarray,
    modality: np.ndarray,
    *,
    permutation: Permutation | None = None,
    path: np.ndarray | None = None,
    tracklet: np.ndarray | None = None,
) -> list[Trial]:
    """Draw the queries and the gallery of every trial.

    The draw of AGW is reproduced bit for bit (github.com/mangye16/Cross-Modal-Re-ID-baseline). Trial t seeds Python's
    generator with t. Identities are visited in ascending order, and the cameras of an identity in the order of the
    protocol. Each (identity, camera) with pictures takes one `choice` from its sorted files. AGW only draws
    single-shot. For multi-shot, the same generator takes a `sample` of ten without replacement; this is our extension.

    The official draw takes the first one or ten entries of line t of the pair's permutation in trial t. They are
    positions in the sorted list of the pair's files.

    Args:
        protocol: a name, or a protocol of `parse_protocol`.
        identity: N integers. All arrays are in file order: the samples of one identity and camera must be sorted by
            file name. Samples with `UNLABELLED` are left out, except gallery pictures that a list names.
        camera: N integers, the data set's own numbers.
        modality: N integers, 0 visible or 1 infrared.
        permutation: the result of `read_permutation`; only the `@official` protocols need it.
        path: N texts; only protocols that are given by lists need them.
        tracklet: N integers, −1 for a picture that is in no tracklet; only protocols of tracklets need them.

    Raises:
        BadInput: there are no queries or no gallery, no query has a true match, a camera does not fit the layout, or
            the permutation, the paths or the tracklets are missing or do not fit.
    """
    protocol = parse_protocol(protocol)
    columns = _Columns.checked(path, tracklet, identity=identity, camera=camera, modality=modality)
    if protocol.layout == "sysu-mm01":
        _check_sysu_cameras(columns.camera, columns.modality)
    if protocol.draw == "official" and permutation is None:
        raise BadInput(f"protocol {protocol.name} needs the official permutation: {SOURCE}")
    key = _keys(protocol.exclusion, columns)
    queries = _side(protocol, protocol.query, "queries", columns, permutation)
    galleries = _side(protocol, protocol.gallery, "gallery", columns, permutation)
    if protocol.halves:
        from vireid.data.mixed import halves

        found = halves(protocol, queries(0), galleries(0), key, columns.identity, columns.camera, columns.modality)
        for trial in found:
            _check_some_match(protocol, trial, columns.identity)
        return found
    trials = []
    for t in range(protocol.trials):
        query, gallery = queries(t), galleries(t)
        sets = (None, None)
        if protocol.tracklets != "none":
            sets = (_sets(protocol, query, columns), _sets(protocol, gallery, columns))
            query, gallery = (np.array([own[0] for own in side], dtype=np.int64) for side in sets)
        trials.append(Trial(query, gallery, key[query], key[gallery], *sets))
    _check_some_match(protocol, trials[0], columns.identity)
    return trials


def _sets(protocol: Protocol, samples: np.ndarray, columns: _Columns) -> tuple[np.ndarray, ...]:
    """The pictures of each tracklet among these samples, in the order of their first pictures.

    Equal numbers of different people, cameras or modalities are different tracklets. A picture with −1 is alone.
    """
    if columns.tracklet is None:
        raise BadInput(f"protocol {protocol.name} ranks tracklets, but the pictures have no column 'tracklet'")
    alone = np.where(columns.tracklet[samples] < 0, samples, -1)
    told = [columns.identity, columns.camera, columns.modality, columns.tracklet]
    rows = np.stack([*(column[samples] for column in told), alone], axis=1)
    _, code = np.unique(rows, axis=0, return_inverse=True)
    order = np.argsort(code.reshape(-1), kind="stable")
    edges = np.flatnonzero(np.diff(code.reshape(-1)[order])) + 1
    return tuple(sorted(np.split(samples[order], edges), key=lambda own: int(own[0])))


def _check_sysu_cameras(camera: np.ndarray, modality: np.ndarray) -> None:
    """Refuse a camera number that SYSU-MM01 does not have, or a modality that does not fit the camera."""
    expected = np.full(7, -1)
    expected[list(_SYSU_VISIBLE["all"])] = Modality.VISIBLE
    expected[list(_SYSU_INFRARED["all"])] = Modality.INFRARED
    strange = np.flatnonzero(~np.isin(camera, list(_SYSU_LOCATION)))
    if strange.size:
        raise BadInput(f"sample {strange[0]} has camera {camera[strange[0]]}; the cameras of sysu-mm01 are 1 to 6")
    wrong = np.flatnonzero(expected[camera] != modality)
    if wrong.size:
        first = int(wrong[0])
        raise BadInput(
            f"sample {first} has camera {camera[first]}, which is {Modality(expected[camera[first]]).word} in "
            f"sysu-mm01, but modality {modality[first]} (0 visible, 1 infrared)"
        )


def _keys(exclusion: Exclusion, columns: _Columns) -> np.ndarray:
    """The key of each sample, N int64, see `Trial`."""
    if exclusion == "none":
        return np.full(len(columns.identity), -1, dtype=np.int64)
    kind = exclusion.removeprefix("identity-")
    if kind == "location":
        own = np.array([_SYSU_LOCATION[number] for number in columns.camera.tolist()], dtype=np.int64)
    else:
        own = columns.modality if kind == "modality" else columns.camera
    return own if exclusion == kind else numbered(columns.identity, own)


def numbered(*columns: np.ndarray) -> np.ndarray:
    """N int64, from 0: equal numbers where the entries of all columns are equal."""
    _, code = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return code.reshape(-1).astype(np.int64)


def _side(
    protocol: Protocol, side: Side, role: str, columns: _Columns, permutation: Permutation | None
) -> Callable[[int], np.ndarray]:
    """A function from the number of a trial to the samples of this side, ascending."""
    identity, camera = columns.identity, columns.camera
    inside = np.ones(len(identity), dtype=bool) if side.modality is None else columns.modality == side.modality
    if side.cameras is not None:
        inside &= np.isin(camera, side.cameras)
    if side.paths is not None:
        inside &= _listed(protocol, side.paths, role, columns.path)
    if side.paths is None or role == "queries":  # a list may name people who are not known, for the gallery only
        inside &= identity != UNLABELLED
    samples = np.flatnonzero(inside)
    if not samples.size:
        where = f" of cameras {', '.join(map(str, side.cameras))}" if side.cameras else ""
        kind = f"{side.modality.word} " if side.modality is not None else ""
        raise BadInput(f"protocol {protocol.name} has no {role}: there are no {kind}pictures{where}")
    shots = side.drawn
    if shots is None:
        return lambda trial: samples
    cells = drawing.cells(samples, identity, camera, side.cameras)
    if protocol.draw == "official":
        fixed = permutation or {}
        return lambda trial: np.sort(np.concatenate([drawing.official(cell, fixed, trial, shots) for cell in cells]))
    return lambda trial: np.sort(drawing.agw(cells, trial, shots))


def _listed(protocol: Protocol, paths: tuple[str, ...], role: str, path: np.ndarray | None) -> np.ndarray:
    """Which pictures a list names, N booleans."""
    if path is None:
        raise BadInput(f"protocol {protocol.name} is given by lists of paths, but the pictures have no paths")
    if missing := sorted(set(paths) - set(path.tolist())):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadInput(f"protocol {protocol.name}: '{missing[0]}'{more} of its {role} is not among the test pictures")
    return np.isin(path, list(paths))


def _check_some_match(protocol: Protocol, trial: Trial, identity: np.ndarray) -> None:
    """Refuse a test set without any true match. One trial is enough for this check, because all trials agree on it."""
    seen = set(zip(identity[trial.gallery].tolist(), trial.gallery_key.tolist(), strict=True))
    by_identity: dict[int, set[int]] = {}
    for number, key in seen:
        by_identity.setdefault(number, set()).add(key)
    for number, key in set(zip(identity[trial.query].tolist(), trial.query_key.tolist(), strict=True)):
        if any(key == -1 or other != key for other in by_identity.get(number, ())):
            return
    raise BadInput(f"protocol {protocol.name}: not one query has a true match in the gallery")


def _known(layout: str) -> str:
    if layout not in LAYOUTS and layout not in _layouts_outside:
        raise unknown("layout", layout, (*LAYOUTS, *sorted(_layouts_outside)))
    return layout


@cache
def _table() -> dict[str, Protocol]:
    from vireid.data.mixed import mixed_protocols

    usual = {"sysu-mm01": _sysu(), "regdb": _regdb(), "llcm": _llcm(), "folder": both_directions("folder")}
    protocols = [one for layout, found in usual.items() for one in (*found, *mixed_protocols(layout))]
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
                        # The queries are the same in both modes: a picture taken outdoors is searched indoors too.
                        query=Side(Modality.INFRARED, _SYSU_INFRARED["all"]),
                        gallery=Side(Modality.VISIBLE, cameras, drawn),
                        trials=drawing.DRAWS,
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
                    trials=drawing.DRAWS,
                    exclusion="location",
                    note="visible queries on sysu-mm01 are a protocol of this toolbox; papers use infrared queries",
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
    full = (
        "all test pictures on both sides, nothing drawn and nothing excluded: not comparable with the paper's protocol"
    )
    return [
        Protocol(
            "llcm/i2v",
            "llcm",
            query=infrared,
            gallery=Side(Modality.VISIBLE, drawn=1),
            trials=drawing.DRAWS,
            exclusion="identity-camera",
        ),
        Protocol(
            "llcm/v2i",
            "llcm",
            query=visible,
            gallery=Side(Modality.INFRARED, drawn=1),
            trials=drawing.DRAWS,
            exclusion="identity-camera",
        ),
        Protocol(
            "llcm/v2i@swapped",
            "llcm",
            # The data set's own test script has done this since 2023-06: the drawn infrared pictures are the queries.
            query=Side(Modality.INFRARED, drawn=1),
            gallery=visible,
            trials=drawing.DRAWS,
            exclusion="identity-camera",
            note="drawn infrared pictures are the queries, all visible ones the gallery: not comparable with llcm/v2i",
        ),
        Protocol("llcm/i2v@full", "llcm", query=infrared, gallery=visible, note=full),
        Protocol("llcm/v2i@full", "llcm", query=visible, gallery=infrared, note=full),
    ]


def both_directions(layout: str) -> list[Protocol]:
    """All visible pictures search all infrared ones, and the reverse; nothing is drawn and nothing is excluded."""
    visible, infrared = Side(Modality.VISIBLE), Side(Modality.INFRARED)
    return [
        Protocol(f"{layout}/v2i", layout, query=visible, gallery=infrared, cmc="image"),
        Protocol(f"{layout}/i2v", layout, query=infrared, gallery=visible, cmc="image"),
    ]
