"""People: proportions, hair, skin, outfit and families of look-alikes; and the joints of a person in a pose.

Frames are right-handed and y points up. In the frame of a person, x points to one side and z to the front. A heading of
0 faces the camera, which is on the positive z axis of the world. Lengths are in metres, angles in radians.
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
FAMILY = 3  # people in a family of look-alikes


@dataclass(frozen=True)
class Body:
    """Proportions and gait.

    Attributes:
        height: in metres.
        leg: height of the hip joint, divided by the height of the body.
        shoulder, hip, arm, head: half the width of the shoulders, half the width of the hips, length of the arms and
            half the height of the head, all divided by the height of the body.
        girth: factor on the radii of all limbs.
        belly: how far the belly projects, in metres.
        stride, swing: amplitude of the legs and of the arms, in radians.
        stoop: how far the torso leans forward, in radians.
        toes: how far the feet point outwards, in radians.
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
    """The style (one of `HAIR`), a factor on the volume, and the material."""

    style: str
    volume: float
    material: Material


@dataclass(frozen=True)
class Person:
    """Everything about an identity that is the same in all pictures."""

    body: Body
    hair: Hair
    skin: Material
    outfit: Outfit


@dataclass(frozen=True)
class Pose:
    """The pose of a person at one moment. `arms` says what each arm does: `free`, `pocket` or `phone`."""

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
    """Draw all proportions independently. Medium values are somewhat more frequent than extreme ones."""
    draws = 0.7 * rng.random(len(BODY_RANGES)) + 0.3 * rng.random(len(BODY_RANGES))
    return Body(
        **{
            name: float(low + draw * (high - low))
            for (name, (low, high)), draw in zip(BODY_RANGES.items(), draws, strict=True)
        }
    )


def draw_hair(rng: np.random.Generator, strengths: Strengths) -> Hair:
    """Draw style and colour of the hair. Hair that is dark in visible light is often brighter in the near infrared."""
    style, volume, tone, red, shine = rng.random(5)
    light = 0.012 + 0.30 * tone**3
    visible = (light * (1.1 + 0.5 * red), light * (0.85 + 0.1 * red), light * 0.6)
    own = 0.10 + 0.45 * shine
    copy = float(np.dot(LUMA, visible))
    material = Material(visible, copy + strengths.sensor_gap * (own - copy))
    return Hair(HAIR[int(style * len(HAIR))], float(0.9 + 0.35 * volume), material)


def draw_skin(rng: np.random.Generator, strengths: Strengths) -> Material:
    """Draw a tone of skin. In the near infrared, all skin is bright and similar."""
    tone, warmth = rng.random(2)
    light = 0.07 + 0.42 * tone
    visible = (light * 1.25, light * (0.80 + 0.06 * warmth), light * (0.58 + 0.1 * warmth))
    copy = float(np.dot(LUMA, visible))
    return Material(visible, copy + strengths.sensor_gap * (0.48 + 0.1 * warmth - copy))


def draw_person(family: np.random.Generator, own: np.random.Generator, strengths: Strengths, *, member: int) -> Person:
    """Draw an identity. The members of a family of look-alikes differ in one or two local details only.

    Args:
        family: the random stream that `FAMILY` neighbouring identities share.
        own: this person's own random stream.
        strengths: `look_alikes` is the probability that these neighbours look alike.
        member: number of the person in the family, from 0 to FAMILY - 1.
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
    """The attributes of a person that both modalities show, each scaled to about 0..1.

    Colours and infrared reflectances are left out, because each is visible in one modality only. So are patterns and
    prints that only one modality shows. Kinds are encoded as one-hot groups.

    Returns:
        A float64, one dimension, of the same length for every person.
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
    """Draw a pose of walking or standing, with any heading. In an easy world, the range of headings is smaller."""
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
    """A 3×3 rotation by an angle about axis 0 (x), 1 (y) or 2 (z)."""
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


@dataclass(frozen=True)
class Skeleton:
    """The joints of a person in the world, and the frames of pelvis, torso and head.

    A joint is an array of length 3; a list holds the joints of both sides, -1 and 1. The columns of a frame are its
    axes x, y and z in the world.
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
    """The joints of a body in a pose, on the floor (y = 0) at `place` (x, z)."""
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
    """Hips, knees, ankles and toes for a pelvis at the origin. The knee of a leg that swings forward is bent."""
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
    """Shoulders, elbows and wrists. An arm swings against its leg unless the hand is in a pocket or holds a phone."""
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
