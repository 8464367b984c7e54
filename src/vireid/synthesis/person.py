"""Who a person is: proportions, hair, outfit, family of look-alikes; and how they stand: gait and pose to joints.

Frames are right-handed with y up. In a person's own frame x runs to one side and z to where they face; a heading of
0 faces the camera, which stands on the positive z axis of the world. Lengths are metres, angles radians.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vireid.synthesis.garment import (
    BAGS,
    HATS,
    LOCAL_CHANGES,
    LOWERS,
    LUMA,
    PATTERNS,
    PRINTS,
    UPPERS,
    Material,
    Outfit,
    Strengths,
    change_locally,
    draw_outfit,
)

HAIR = ("shaved", "short", "bob", "long", "ponytail", "bun")
FAMILY = 3  # members of a family of look-alikes


@dataclass(frozen=True)
class Body:
    """Proportions and gait.

    Attributes:
        height: metres.
        leg: height of the hip joint over the body height.
        shoulder, hip, arm, head: half shoulder width, half hip width, arm length and head half-height over height.
        girth: factor on all limb radii; `belly`: metres the belly stands out.
        stride, swing: amplitude of legs and arms; `stoop`: forward lean; `toes`: how far the feet turn out.
    """

    height: float
    leg: float
    shoulder: float
    hip: float
    arm: float
    head: float
    girth: float
    belly: float
    stride: float
    swing: float
    stoop: float
    toes: float


BODY_RANGES = {
    "height": (1.52, 1.94),
    "leg": (0.465, 0.53),
    "shoulder": (0.094, 0.119),
    "hip": (0.083, 0.106),
    "arm": (0.315, 0.36),
    "head": (0.062, 0.072),
    "girth": (0.82, 1.25),
    "belly": (0.0, 0.07),
    "stride": (0.25, 0.55),
    "swing": (0.1, 0.6),
    "stoop": (-0.02, 0.16),
    "toes": (-0.05, 0.4),
}


@dataclass(frozen=True)
class Hair:
    """Style (one of `HAIR`), a volume factor, and what it is made of."""

    style: str
    volume: float
    material: Material


@dataclass(frozen=True)
class Person:
    """Everything about an identity that lasts from picture to picture."""

    body: Body
    hair: Hair
    skin: Material
    outfit: Outfit


@dataclass(frozen=True)
class Pose:
    """How a person happens to stand at one moment; `arms` names what each arm does."""

    heading: float
    phase: float
    stride: float
    swing: float
    twist: float
    nod: float
    gaze: float
    arms: tuple[str, str]
    elbows: tuple[float, float]


def draw_body(rng: np.random.Generator) -> Body:
    """Proportions drawn one by one, a little more often middling than extreme."""
    draws = 0.7 * rng.random(len(BODY_RANGES)) + 0.3 * rng.random(len(BODY_RANGES))
    return Body(
        **{
            name: float(low + draw * (high - low))
            for (name, (low, high)), draw in zip(BODY_RANGES.items(), draws, strict=True)
        }
    )


def draw_hair(rng: np.random.Generator, strengths: Strengths) -> Hair:
    """Style and colour; hair that is dark to the eye is often middling in the near infrared."""
    style, volume, tone, red, shine = rng.random(5)
    light = 0.012 + 0.30 * tone**3
    visible = (light * (1.1 + 0.5 * red), light * (0.85 + 0.1 * red), light * 0.6)
    own = 0.10 + 0.45 * shine
    copy = float(np.dot(LUMA, visible))
    material = Material(visible, copy + strengths.sensor_gap * (own - copy))
    return Hair(HAIR[int(style * len(HAIR))], float(0.9 + 0.35 * volume), material)


def draw_skin(rng: np.random.Generator, strengths: Strengths) -> Material:
    """Skin tone; in the near infrared all skin is bright and much alike."""
    tone, warmth = rng.random(2)
    light = 0.07 + 0.42 * tone
    visible = (light * 1.25, light * (0.80 + 0.06 * warmth), light * (0.58 + 0.1 * warmth))
    copy = float(np.dot(LUMA, visible))
    return Material(visible, copy + strengths.sensor_gap * (0.48 + 0.1 * warmth - copy))


def draw_person(family: np.random.Generator, own: np.random.Generator, strengths: Strengths, *, member: int) -> Person:
    """An identity: alone, or one of a family that shares body and clothes but for one or two local things.

    Args:
        family: stream shared by the `FAMILY` neighbours of one family.
        own: this person's own stream.
        strengths: `look_alikes` is the chance that the family really is one.
        member: 0..FAMILY-1, the place in the family.
    """
    is_family = family.random() < strengths.look_alikes
    order = family.permutation(len(LOCAL_CHANGES) + 1)
    source = family if is_family else own
    person = Person(
        draw_body(source), draw_hair(source, strengths), draw_skin(source, strengths), draw_outfit(source, strengths)
    )
    if not is_family or member == 0:
        return person
    both = own.random() < 0.5
    for index in order[2 * member - 2 : 2 * member if both else 2 * member - 1]:
        person = _change(person, ("hair", *LOCAL_CHANGES)[index], own)
    return person


def _change(person: Person, what: str, rng: np.random.Generator) -> Person:
    if what == "hair":
        rest = [style for style in HAIR if style != person.hair.style]
        return replace(person, hair=replace(person.hair, style=rest[int(rng.random() * len(rest))]))
    return replace(person, outfit=change_locally(person.outfit, what, rng))


def describe(person: Person) -> np.ndarray:
    """The attributes that both modalities can see, each scaled to about 0..1.

    Colours and infrared reflectances are left out (each is seen by one modality), and so are patterns and prints that
    only one modality sees. Kinds stand as one-hot groups.

    Returns:
        A float64, one dimension, the same length for everybody.
    """
    body, outfit = person.body, person.outfit
    upper, lower = outfit.upper, outfit.lower
    numbers = [(getattr(body, name) - low) / (high - low) for name, (low, high) in BODY_RANGES.items()]
    numbers += [upper.sleeve, 2 * upper.hem, upper.opening, 10 * upper.collar, lower.length, 20 * lower.width]
    numbers += [3 * outfit.shoes.height, lower.stripe, person.hair.volume - 0.5]
    pattern, figure = upper.pattern, upper.print
    shared_pattern = pattern.kind if min(pattern.visible, pattern.infrared) > 0.5 else "plain"
    shared_print = figure.kind if min(figure.visible, figure.infrared) > 0.5 else "none"
    numbers += [5 * pattern.period if shared_pattern != "plain" else 0.0]
    numbers += [0.5 * figure.side if shared_print != "none" else 0.0]
    groups = (
        (HAIR, person.hair.style),
        (UPPERS, upper.kind),
        (LOWERS, lower.kind),
        (HATS, outfit.hat.kind),
        (BAGS, outfit.bag.kind),
        (PATTERNS, shared_pattern),
        (PRINTS, shared_print),
    )
    hot = [float(name == chosen) for names, chosen in groups for name in names]
    return np.array([*numbers, *hot])


def draw_pose(rng: np.random.Generator, body: Body, nuisance: float) -> Pose:
    """A moment of walking or standing, headed anywhere (within a narrower range in an easy world)."""
    heading, phase, walking, swing, twist, nod, gaze = rng.random(7)
    arms, elbows = rng.random(2), rng.random(2)
    spread = min(1.0, 0.2 + 1.2 * nuisance)
    stride = body.stride * (0.08 + 0.1 * swing if walking < 0.25 else 0.6 + 0.6 * swing)
    doing = ["phone" if draw < 0.07 else "pocket" if draw < 0.2 else "free" for draw in arms]
    return Pose(
        heading=float(2 * np.pi * (heading - 0.5) * spread),
        phase=float(2 * np.pi * phase),
        stride=float(stride),
        swing=float(body.swing * stride / body.stride),
        twist=float(0.3 * (twist - 0.5)),
        nod=float(0.35 * (nod - 0.35)),
        gaze=float(1.2 * (gaze - 0.5)),
        arms=(doing[0], doing[1]),
        elbows=(float(elbows[0]), float(elbows[1])),
    )


def turn(axis: int, angle: float) -> np.ndarray:
    """A 3×3 rotation about axis 0 (x), 1 (y) or 2 (z)."""
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


@dataclass(frozen=True)
class Skeleton:
    """Joints in the world (each a length-3 array, or a pair of them, sides -1 and 1) and the frames that carry them.

    `pelvis_frame`, `torso_frame` and `head_frame` have the own axes x, y, z as columns.
    """

    pelvis: np.ndarray
    chest: np.ndarray
    neck: np.ndarray
    head: np.ndarray
    hips: list[np.ndarray]
    knees: list[np.ndarray]
    ankles: list[np.ndarray]
    toes: list[np.ndarray]
    shoulders: list[np.ndarray]
    elbows: list[np.ndarray]
    wrists: list[np.ndarray]
    pelvis_frame: np.ndarray
    torso_frame: np.ndarray
    head_frame: np.ndarray

    def points(self) -> np.ndarray:
        """All joints, N×3."""
        pairs = self.hips + self.knees + self.ankles + self.toes + self.shoulders + self.elbows + self.wrists
        return np.array([self.pelvis, self.chest, self.neck, self.head, *pairs])


def skeleton(body: Body, pose: Pose, *, place: tuple[float, float] = (0.0, 0.0)) -> Skeleton:
    """Stand a body on the floor (y = 0) at `place` (x, z), in a pose."""
    tall = body.height
    pelvis_frame = turn(1, pose.heading)
    torso_frame = pelvis_frame @ turn(1, pose.twist) @ turn(0, body.stoop)
    hips, knees, ankles, toes = _legs(body, pose, pelvis_frame)
    lowest = min(ankle[1] for ankle in ankles) - 0.045 * tall
    lift = np.array([place[0], -lowest, place[1]])
    chest = torso_frame @ np.array([0.0, (0.815 - body.leg) * tall, 0.0])
    shoulders, elbows, wrists = _arms(body, pose, torso_frame, chest)
    neck = chest + torso_frame @ np.array([0.0, 0.02 * tall, 0.005])
    head_frame = pelvis_frame @ turn(1, pose.twist + pose.gaze) @ turn(0, 0.5 * body.stoop + pose.nod)
    head = neck + torso_frame @ np.array([0, 0.035 * tall, 0.01]) + head_frame @ np.array([0, body.head * tall, 0.012])
    moved = {
        name: [joint + lift for joint in pair]
        for name, pair in (
            ("hips", hips),
            ("knees", knees),
            ("ankles", ankles),
            ("toes", toes),
            ("shoulders", shoulders),
            ("elbows", elbows),
            ("wrists", wrists),
        )
    }
    return Skeleton(
        pelvis=lift.copy(),
        chest=chest + lift,
        neck=neck + lift,
        head=head + lift,
        pelvis_frame=pelvis_frame,
        torso_frame=torso_frame,
        head_frame=head_frame,
        **moved,
    )


def _legs(body: Body, pose: Pose, frame: np.ndarray) -> tuple[list[np.ndarray], ...]:
    """Hips, knees, ankles and toes around a pelvis at the origin; the knee bends while its leg swings forward."""
    length = (body.leg - 0.045) * body.height
    hips, knees, ankles, toes = [], [], [], []
    for side in (-1, 1):
        phase = pose.phase + (0.0 if side > 0 else np.pi)
        thigh = pose.stride * np.sin(phase)
        shank = thigh - (0.05 + 1.4 * pose.stride * max(0.0, np.cos(phase)))
        hip = np.array([side * 0.55 * body.hip * body.height, 0.0, 0.0])
        knee = hip + 0.52 * length * np.array([side * 0.01, -np.cos(thigh), np.sin(thigh)])
        ankle = knee + 0.48 * length * np.array([-side * 0.01, -np.cos(shank), np.sin(shank)])
        pitch = min(0.0, 0.6 * shank)
        ahead = np.array([side * np.sin(body.toes), 0.0, np.cos(body.toes)])
        toe = ankle + 0.105 * body.height * (ahead * np.cos(pitch) + np.array([0.0, np.sin(pitch) - 0.2, 0.0]))
        for joints, joint in zip((hips, knees, ankles, toes), (hip, knee, ankle, toe), strict=True):
            joints.append(frame @ joint)
    return hips, knees, ankles, toes


def _arms(body: Body, pose: Pose, frame: np.ndarray, chest: np.ndarray) -> tuple[list[np.ndarray], ...]:
    """Shoulders, elbows and wrists; arms swing against the legs unless a hand is in a pocket or holds a telephone."""
    length = body.arm * body.height
    shoulders, elbows, wrists = [], [], []
    for index, side in enumerate((-1, 1)):
        swing = -pose.swing * np.sin(pose.phase + (0.0 if side > 0 else np.pi))
        bend, out, inward = 0.15 + 0.5 * pose.elbows[index], 0.13 + 0.05 * body.girth, 0.0
        if pose.arms[index] == "phone":
            swing, bend, inward = 0.55, 1.9, -0.35
        elif pose.arms[index] == "pocket":
            swing, bend, out, inward = -0.25, 0.75, 0.28, -0.30
        shoulder = chest + frame @ np.array([side * body.shoulder * body.height, -0.012 * body.height, 0.0])
        upper = np.array([side * out, -np.cos(swing), np.sin(swing)])
        lower = np.array([side * (out + inward), -np.cos(swing + bend), np.sin(swing + bend)])
        elbow = shoulder + 0.52 * length * (frame @ (upper / np.linalg.norm(upper)))
        shoulders.append(shoulder)
        elbows.append(elbow)
        wrists.append(elbow + 0.48 * length * (frame @ (lower / np.linalg.norm(lower))))
    return shoulders, elbows, wrists
