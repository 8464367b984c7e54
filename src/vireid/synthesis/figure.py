"""Turn a person in a pose, with clothes, into the parts and surfaces that the ray caster draws.

Lengths are in metres. Constants fit a body of medium height, and most are scaled by the proportions of the body.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from vireid.synthesis import render as at
from vireid.synthesis.garment import PATTERNS, PRINTS, Material, Pattern, Print
from vireid.synthesis.person import Person, Skeleton

NEVER = 1e6
PLAIN = Pattern("plain", 1.0, 0.5, 0.0, 0.0, 0.0)
Frame = tuple[np.ndarray, np.ndarray]  # 3×3 from world to frame, and the origin of the frame


class Figure:
    """Collects the parts and surfaces of a scene. `tables` returns them for the ray caster.

    `face` is the contrast of eyes and mouth, 0 to 1.
    """

    def __init__(self, *, infrared: bool, face: float = 1.0) -> None:
        self.infrared, self.face = infrared, face
        self._parts: list[np.ndarray] = []
        self._surfaces: list[np.ndarray] = []

    def surface(
        self,
        material: Material,
        *,
        second: Material | None = None,
        inner: Material | None = None,
        pattern: Pattern = PLAIN,
        figure: Print | None = None,
        fold: float = 0.0,
        opening: float = 0.0,
        shine: float = 0.0,
        stripe: float = 0.0,
        hem: float = NEVER,
        number: int | None = None,
    ) -> int:
        """Add a surface and return its index. `number` replaces the number of the pattern (used for faces)."""
        entry = np.zeros(at.SURFACE)
        entry[at.BASE : at.BASE + 3] = material.seen(self.infrared)
        entry[at.SECOND : at.SECOND + 3] = (second or material).seen(self.infrared)
        entry[at.INNER : at.INNER + 3] = (inner or material).seen(self.infrared)
        entry[at.PATTERN] = PATTERNS.index(pattern.kind) if number is None else number
        entry[at.PERIOD : at.CONTRAST] = pattern.period, pattern.duty, pattern.phase
        entry[at.CONTRAST] = self.face if number is not None else pattern.infrared if self.infrared else pattern.visible
        entry[at.FOLD], entry[at.FOLD_PHASE] = fold, 6.0 * material.infrared + 3.0 * len(self._surfaces)
        entry[at.OPENING], entry[at.SHINE], entry[at.STRIPE], entry[at.HEM] = opening, shine, stripe, hem
        if figure is not None:
            entry[at.PRINT : at.PRINT + 3] = figure.material.seen(self.infrared)
            entry[at.PRINT_KIND], entry[at.PRINT_SIDE] = PRINTS.index(figure.kind), figure.side
            entry[at.PRINT_X : at.PRINT_CONTRAST] = figure.across, figure.up, figure.size
            entry[at.PRINT_CONTRAST] = figure.infrared if self.infrared else figure.visible
        self._surfaces.append(entry)
        return len(self._surfaces) - 1

    def part(
        self,
        start: np.ndarray,
        end: np.ndarray,
        radii: tuple[float, float],
        surface: int,
        *,
        side: np.ndarray,
        wide: float = 1.0,
        deep: float = 1.0,
        frame: Frame | None = None,
        low: float = -NEVER,
        high: float = NEVER,
        face: tuple[float, float] | None = None,
    ) -> None:
        """Add a tapered capsule from `start` to `end`, or an ellipsoid if both are the same point.

        Args:
            start, end: centres of the two balls in the world, in metres.
            radii: radii of the two balls.
            surface: index of the surface.
            side: direction across the part. It is made perpendicular to the axis.
            wide: stretch along `side`.
            deep: stretch along the third direction.
            frame: frame of the texture; None takes the part's own frame.
            low, high: range of heights in the frame where the part is solid.
            face: z and y of an opening for a face, see `render.FACE_Z`.
        """
        axis = end - start
        length = float(np.sqrt(axis @ axis))
        axis = axis / length if length > 1e-6 else np.array([0.0, 1.0, 0.0]) if frame is None else frame[0][1]
        across = side - (side @ axis) * axis
        across = across / np.sqrt(across @ across)
        ahead = np.array(
            [
                across[1] * axis[2] - across[2] * axis[1],
                across[2] * axis[0] - across[0] * axis[2],
                across[0] * axis[1] - across[1] * axis[0],
            ]
        )
        entry = np.empty(at.PART)
        entry[0:3], entry[3:6], entry[6:9] = across / wide, axis, ahead / deep
        entry[at.ORIGIN : at.LENGTH] = start
        entry[at.LENGTH] = length if length > 1e-6 else 0.0
        entry[at.START], entry[at.END] = radii
        if frame is None:
            entry[at.FRAME : at.FRAME + 3], entry[at.FRAME + 3 : at.FRAME + 6] = across, axis
            entry[at.FRAME + 6 : at.FRAME + 9], entry[at.FRAME_ORIGIN : at.LOW] = ahead, start
        else:
            entry[at.FRAME : at.FRAME_ORIGIN], entry[at.FRAME_ORIGIN : at.LOW] = frame[0].ravel(), frame[1]
        entry[at.LOW], entry[at.HIGH] = low, high
        entry[at.FACE_Z], entry[at.FACE_Y] = face or (NEVER, -NEVER)
        entry[at.SURFACE_INDEX], entry[at.AROUND] = surface, 0.5 * (radii[0] + radii[1]) * (0.5 + 0.5 * wide)
        self._parts.append(entry)

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """The tables `parts` and `surfaces` of the ray caster."""
        return np.array(self._parts), np.array(self._surfaces)


def add_person(figure: Figure, person: Person, bones: Skeleton) -> None:
    """Add a person in a pose, with clothes, to a figure."""
    skin = figure.surface(person.skin, shine=0.02)
    _add_legs(figure, person, bones, skin)
    _add_shoes(figure, person, bones)
    _add_torso(figure, person, bones)
    _add_arms(figure, person, bones, skin)
    _add_head(figure, person, bones, skin)
    _add_bag(figure, person, bones)


def _add_legs(figure: Figure, person: Person, bones: Skeleton, skin: int) -> None:
    body, lower = person.body, person.outfit.lower
    across, thick = bones.pelvis_frame[:, 0], body.girth
    legs: dict[str, Any] = {"second": lower.second, "pattern": lower.pattern, "stripe": lower.stripe, "fold": 0.16}
    cloth = figure.surface(lower.material, **legs)
    length = 0.5 * (body.leg - 0.045) * body.height
    slack = lower.width
    hip = body.hip * body.height
    if lower.kind != "skirt":
        top = bones.pelvis + np.array([0.0, 0.05, 0.0])
        figure.part(top, bones.pelvis - np.array([0.0, 0.03, 0.0]), (0.86 * hip, hip), cloth, side=across, deep=0.72)
    for side in range(2):
        hip_joint, knee, ankle = bones.hips[side], bones.knees[side], bones.ankles[side]
        if lower.kind == "trousers":
            figure.part(
                hip_joint, knee, (0.088 * thick + 0.3 * slack, 0.062 * thick + slack), cloth, side=across, deep=1.04
            )
            cut = (lower.length - 0.5) * 2.0 * length
            hem = figure.surface(lower.material, **legs, hem=cut - 0.02)
            figure.part(knee, ankle, (0.062 * thick + slack, 0.044 + slack), hem, side=across, deep=1.05, high=cut)
        elif lower.kind == "shorts":
            cut = lower.length * 2.0 * length
            hem = figure.surface(lower.material, **legs, hem=cut - 0.025)
            figure.part(hip_joint, knee, (0.09 * thick + slack, 0.08 * thick + 1.4 * slack), hem, side=across, high=cut)
        figure.part(hip_joint, knee, (0.082 * thick, 0.056 * thick), skin, side=across)
        calf = knee + 0.3 * (ankle - knee)
        figure.part(knee, calf, (0.054 * thick, 0.055 * thick), skin, side=across)
        figure.part(calf, ankle, (0.055 * thick, 0.036), skin, side=across)
    if lower.kind == "skirt":
        _add_skirt(figure, person, bones, length)


def _stride_room(bones: Skeleton, drop: float, thigh: float) -> float:
    """Half the depth from front to back that legs of radius `thigh` need `drop` metres below the hips."""
    ahead = bones.pelvis_frame[:, 2]
    room = 0.0
    for knee in bones.knees:
        reach = abs(float((knee - bones.pelvis) @ ahead))
        room = max(room, thigh + 0.02 + reach * min(1.2, drop / max(0.2, float(bones.pelvis[1] - knee[1]))))
    return room


def _add_skirt(figure: Figure, person: Person, bones: Skeleton, length: float) -> None:
    """Add a cone from the waist to the hem that is wide enough for the stride."""
    body, lower = person.body, person.outfit.lower
    hip, drop = body.hip * body.height, 2.0 * length * lower.length
    end = bones.pelvis - np.array([0.0, drop + 0.05, 0.0])
    hem = max(1.02 * hip, 0.55 * hip + 0.1 * body.girth) + 4.0 * lower.width * drop
    room = max(0.85, _stride_room(bones, drop, 0.09 * body.girth) / hem)
    cloth = figure.surface(
        lower.material, second=lower.second, pattern=lower.pattern, stripe=lower.stripe, fold=0.2, hem=drop + 0.05
    )
    start = bones.pelvis + np.array([0.0, 0.08, 0.0])
    figure.part(
        start, end, (0.9 * hip, hem), cloth, side=bones.pelvis_frame[:, 0], deep=room, low=-0.09, high=drop + 0.08
    )


def _add_shoes(figure: Figure, person: Person, bones: Skeleton) -> None:
    shoes = person.outfit.shoes
    leather = figure.surface(shoes.material, shine=0.08)
    sole = figure.surface(shoes.sole_material)
    across = bones.pelvis_frame[:, 0]
    for ankle, toe, knee in zip(bones.ankles, bones.toes, bones.knees, strict=True):
        ahead = (toe - ankle) / np.linalg.norm(toe - ankle)
        heel, tip = ankle - 0.035 * ahead - [0, 0.030, 0], toe - 0.01 * ahead - [0, 0.020, 0]
        figure.part(heel, tip, (0.046, 0.037), leather, side=across, deep=0.95)
        drop = np.array([0.0, 0.024, 0.0])
        figure.part(heel - drop, tip - drop, (0.050, 0.042), sole, side=across, deep=0.02 * 25 * shoes.sole + 0.1)
        up = (knee - ankle) / np.linalg.norm(knee - ankle)
        shaft = 0.046 + (0.012 if shoes.height > 0.05 else 0.0)
        figure.part(ankle - 0.03 * up, ankle + (shoes.height - 0.01) * up, (0.044, shaft), leather, side=across,
                    high=shoes.height + 0.035)  # fmt: skip


def _add_torso(figure: Figure, person: Person, bones: Skeleton) -> None:
    body, upper = person.body, person.outfit.upper
    frame = (bones.torso_frame.T, bones.pelvis)
    across, rise, ahead = bones.torso_frame.T
    tall = float(np.linalg.norm(bones.chest - bones.pelvis))
    shoulder, hip = body.shoulder * body.height, body.hip * body.height
    waist = (0.80 * hip + 0.03) * (0.6 + 0.4 * body.girth)
    bulk = {"t-shirt": 0.0, "shirt": 0.003, "hooded": 0.014, "jacket": 0.018, "coat": 0.022}[upper.kind]
    look: dict[str, Any] = {
        "second": upper.second,
        "inner": upper.inner,
        "pattern": upper.pattern,
        "opening": upper.opening,
    }
    cloth = figure.surface(upper.material, **look, figure=upper.print, fold=0.15, hem=-upper.hem + 0.015)
    deep = 0.56 + 0.14 * body.girth
    chest = 0.78 * shoulder + 0.02 * body.girth + bulk
    middle, high = bones.pelvis + 0.42 * tall * rise, bones.pelvis + 0.78 * tall * rise
    shape: dict[str, Any] = {"side": across, "deep": deep, "frame": frame}
    figure.part(middle, high, (waist + bulk, chest), cloth, **shape)
    thigh = 0.088 * body.girth + 0.3 * person.outfit.lower.width
    flare = max(hip, 0.55 * hip + thigh) + bulk + 0.014 + 0.12 * max(0.0, upper.hem - 0.1)
    end = bones.pelvis - (upper.hem + 0.05) * rise
    room = max(0.76, _stride_room(bones, upper.hem, thigh) / flare)
    figure.part(middle, end, (waist + bulk, flare), cloth, side=across, deep=room, frame=frame, low=-upper.hem)
    if body.belly > 0.015:
        belly = bones.pelvis + 0.28 * tall * rise + (body.belly + 0.1 * waist) * ahead
        figure.part(belly, belly + 0.08 * rise, (0.8 * waist, 0.75 * waist), cloth, **shape)
    for side, joint in zip((-1, 1), bones.shoulders, strict=True):
        inner = bones.chest - 0.035 * rise + side * 0.2 * shoulder * across
        ball = 0.044 + 0.014 * body.girth + 0.7 * bulk
        figure.part(joint - side * 0.006 * across, inner, (ball, ball + 0.022), cloth, side=ahead, frame=frame)
    _add_collar(figure, person, bones, cloth)


def _add_collar(figure: Figure, person: Person, bones: Skeleton, cloth: int) -> None:
    """Add a collar around the neck, and a hood on the back."""
    upper = person.outfit.upper
    across, rise, ahead = bones.torso_frame.T
    if upper.collar > 0:
        trim = figure.surface(upper.second if upper.kind in ("shirt", "jacket") else upper.material, fold=0.05)
        start = bones.neck - 0.01 * rise
        figure.part(start, start + upper.collar * rise, (0.078, 0.070), trim, side=across, high=upper.collar)
    if upper.kind == "hooded":
        hood = bones.neck - 0.02 * rise - 0.055 * ahead
        figure.part(hood - 0.05 * across, hood + 0.05 * across, (0.062, 0.062), cloth, side=ahead, deep=1.2,
                    frame=(bones.torso_frame.T, bones.pelvis))  # fmt: skip


def _add_arms(figure: Figure, person: Person, bones: Skeleton, skin: int) -> None:
    body, upper = person.body, person.outfit.upper
    thick = body.girth
    bulk = {"t-shirt": 0.012, "shirt": 0.007, "hooded": 0.016, "jacket": 0.018, "coat": 0.02}[upper.kind]
    length = body.arm * body.height
    first, rest = 0.52 * length, 0.48 * length
    cut = upper.sleeve * length
    look: dict[str, Any] = {"second": upper.second, "pattern": upper.pattern, "fold": 0.18}
    ahead = bones.torso_frame[:, 2]
    for shoulder, elbow, wrist in zip(bones.shoulders, bones.elbows, bones.wrists, strict=True):
        radii = (0.044 * thick + 0.008, 0.036 * thick, 0.027)
        sleeve = figure.surface(upper.material, **look, hem=min(cut, NEVER) - 0.012)
        wide = (radii[0] + bulk, radii[1] + bulk + (0.01 if cut < first else 0.0))
        across = np.cross(elbow - shoulder, ahead)
        figure.part(shoulder, elbow, wide, sleeve, side=across, high=cut if cut < first else NEVER)
        if cut > first:
            cuff = figure.surface(upper.material, **look, hem=cut - first - 0.012)
            figure.part(elbow, wrist, (radii[1] + bulk, radii[2] + bulk + 0.004), cuff, side=across,
                        high=min(cut - first, rest))  # fmt: skip
        else:
            figure.part(shoulder, elbow, radii[:2], skin, side=across)
        if cut < 0.97 * length:
            figure.part(elbow, wrist, radii[1:], skin, side=across)
        reach = (wrist - elbow) / np.linalg.norm(wrist - elbow)
        figure.part(wrist + 0.02 * reach, wrist + 0.09 * reach, (0.038, 0.028), skin, side=ahead, deep=0.6)


def _add_head(figure: Figure, person: Person, bones: Skeleton, skin: int) -> None:
    body = person.body
    across, rise, ahead = bones.head_frame.T
    frame = (bones.head_frame.T, bones.head)
    size = body.head * body.height
    dark = Material((0.02, 0.015, 0.012), 0.12)
    face = figure.surface(person.skin, second=dark, number=at.FACE_PATTERN, shine=0.02)
    neck = 0.047 + 0.008 * body.girth
    figure.part(bones.neck - 0.03 * rise, bones.head - 0.02 * ahead, (neck, neck), skin, side=across)
    figure.part(bones.head, bones.head, (size, size), face, side=across, wide=0.70, deep=0.84, frame=frame)
    jaw = bones.head - 0.48 * size * rise + 0.012 * ahead
    figure.part(jaw, jaw, (0.52 * size, 0.52 * size), face, side=across, wide=0.94, deep=1.1, frame=frame)
    nose = bones.head - 0.12 * size * rise + 0.80 * size * ahead
    figure.part(nose + 0.012 * rise, nose - 0.012 * rise, (0.008, 0.013), skin, side=across)
    _add_hair(figure, person, bones, size)
    _add_hat(figure, person, bones, size)


def _add_hair(figure: Figure, person: Person, bones: Skeleton, size: float) -> None:
    hair = person.hair
    across, rise, ahead = bones.head_frame.T
    frame = (bones.head_frame.T, bones.head)
    back = bones.torso_frame[:, 2]
    strands = figure.surface(hair.material, fold=0.22, shine=0.05)
    puff = 0.05 * (hair.volume - 0.9)
    full = 1.06 if hair.style == "shaved" else 1.09 + puff
    crown = bones.head + 0.03 * size * rise - 0.07 * size * ahead
    line = (0.030, 0.052) if hair.style != "shaved" else (0.0, 0.065)
    low = -0.035 if hair.style in ("short", "shaved") else -0.075
    cap: dict[str, Any] = {"side": across, "frame": frame, "low": low, "face": line}
    figure.part(crown, crown, (size * full, size * full), strands, wide=0.76 + puff, deep=0.88, **cap)
    if hair.style in ("bob", "long"):
        long = 0.10 if hair.style == "bob" else 0.26
        top = bones.head - 0.25 * size * ahead - 0.1 * size * rise
        end = bones.head - (0.45 * size + long) * bones.torso_frame[:, 1] - (0.5 * size + 0.25 * long) * back
        width = (0.80 * size * hair.volume, 0.68 * size * hair.volume)
        figure.part(top, end, width, strands, side=across, deep=0.55)
    elif hair.style == "ponytail":
        knot = bones.head + 0.25 * size * rise - 0.95 * size * ahead
        end = knot - 0.24 * bones.torso_frame[:, 1] - 0.05 * back
        figure.part(knot, end, (0.042 * hair.volume, 0.026), strands, side=across)
    elif hair.style == "bun":
        knot = bones.head + 0.75 * size * rise - 0.65 * size * ahead
        figure.part(knot, knot, (0.056 * hair.volume, 0.05), strands, side=across)


def _add_hat(figure: Figure, person: Person, bones: Skeleton, size: float) -> None:
    hat = person.outfit.hat
    if hat.kind == "none":
        return
    across, rise, ahead = bones.head_frame.T
    frame = (bones.head_frame.T, bones.head)
    felt = figure.surface(hat.material, fold=0.06, hem=0.05)
    full = size * (1.17 if hat.kind == "beanie" else 1.13)
    crown = bones.head + 0.10 * size * rise - 0.04 * size * ahead
    figure.part(crown, crown, (full, full), felt, side=across, wide=0.80, deep=0.90, frame=frame, low=0.036)
    if hat.kind == "cap":
        peak = bones.head + 0.045 * rise + 0.98 * size * ahead
        figure.part(peak, peak - 0.015 * rise + 0.03 * ahead, (0.07, 0.06), felt, side=rise, wide=0.16, deep=1.05)
    elif hat.kind == "brimmed":
        ring, wide = bones.head + 0.045 * rise - 0.03 * size * ahead, 0.145 * hat.size
        figure.part(ring - 0.02 * ahead, ring + 0.02 * ahead, (wide, wide), felt, side=rise, wide=0.09)
    elif hat.kind == "beanie":
        knob = bones.head + 1.22 * size * rise - 0.05 * ahead
        figure.part(knob, knob, (0.028, 0.028), felt, side=across)


def _add_bag(figure: Figure, person: Person, bones: Skeleton) -> None:
    bag = person.outfit.bag
    if bag.kind == "none":
        return
    across, rise, ahead = bones.torso_frame.T
    cloth = figure.surface(bag.material, fold=0.10, shine=0.03)
    shoulder = person.body.shoulder * person.body.height
    depth = (0.56 + 0.14 * person.body.girth) * 0.8 * shoulder
    if bag.kind == "backpack":
        low = bones.pelvis + 0.13 * rise - (depth + 0.07) * ahead
        high = bones.chest - 0.13 * rise - (depth + 0.06) * ahead
        figure.part(low, high, (0.145 * bag.size, 0.125 * bag.size), cloth, side=across, deep=0.62)
        for side in (-1, 1):
            top = bones.chest + 0.055 * rise + side * 0.58 * shoulder * across
            under = bones.chest - 0.24 * rise + side * 0.80 * shoulder * across + 0.75 * depth * ahead
            front = bones.chest - 0.07 * rise + side * 0.60 * shoulder * across + (depth + 0.028) * ahead
            figure.part(top, front, (0.02, 0.02), cloth, side=across, deep=0.8)
            figure.part(front, under, (0.02, 0.016), cloth, side=across, deep=0.8)
    elif bag.kind == "shoulder bag":
        hip = bones.pelvis + bag.side * (person.body.hip * person.body.height + 0.07) * across
        low, high = hip - 0.10 * bag.size * rise, hip + 0.06 * rise
        figure.part(low, high, (0.15 * bag.size, 0.12 * bag.size), cloth, side=ahead, deep=0.36)
        other = bones.chest + 0.055 * rise - bag.side * 0.55 * shoulder * across
        for way in (-1, 1):
            near = bones.chest - 0.2 * rise + way * (depth + 0.035) * ahead
            figure.part(other, near, (0.018, 0.018), cloth, side=across)
            figure.part(near, high + way * 0.08 * ahead, (0.018, 0.018), cloth, side=across)
    else:
        hand = bones.wrists[0 if bag.side < 0 else 1] - np.array([0.0, 0.09, 0.0])
        low = hand - np.array([0.0, 0.26 * bag.size, 0.0])
        figure.part(hand - [0, 0.13, 0], low, (0.09, 0.135 * bag.size), cloth, side=ahead, deep=0.36)
        for way in (-0.06, 0.06):
            grip = hand - np.array([0.0, 0.16, 0.0]) + way * ahead
            figure.part(hand, grip, (0.009, 0.009), cloth, side=across)


def as_stranger(person: Person) -> Person:
    """The same person without a bag. A person at the edge carries none, because it would reach into the picture."""
    outfit = person.outfit
    return replace(person, outfit=replace(outfit, bag=replace(outfit.bag, kind="none")))
