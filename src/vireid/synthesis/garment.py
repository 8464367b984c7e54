"""Clothes: materials with a different reflectance in each modality, patterns, prints and garments.

The number of random values in a draw does not depend on the strengths. So if one factor is switched off, everything
else stays the same.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace

import numpy as np

PATTERNS = ("plain", "horizontal", "vertical", "checks", "dots", "blocks", "blotches")
PRINTS = ("none", "disc", "bar", "ring", "cross", "lines")
UPPERS = ("t-shirt", "shirt", "hooded", "jacket", "coat")
UPPER_SHARES = (0.26, 0.48, 0.69, 0.88, 1.0)  # of `UPPERS`, cumulative
LOWERS = ("trousers", "shorts", "skirt")
HATS = ("none", "cap", "beanie", "brimmed")
BAGS = ("none", "backpack", "shoulder bag", "handbag")
LUMA = np.array([0.2126, 0.7152, 0.0722])  # weights of the luminance


@dataclass(frozen=True)
class Strengths:
    """The strength of each factor of the world, 0 (absent) to 1, see `World`."""

    colour_shortcut: float
    look_alikes: float
    one_sided_detail: float
    sensor_gap: float
    occlusion: float
    nuisance: float


@dataclass(frozen=True)
class Material:
    """Reflectance in linear light, 0..1: three visible channels and an infrared one, which is independent of them."""

    visible: tuple[float, float, float]
    infrared: float

    def seen(self, infrared: bool) -> tuple[float, float, float]:
        """The three channels in this modality."""
        return (self.infrared, self.infrared, self.infrared) if infrared else self.visible


@dataclass(frozen=True)
class Pattern:
    """A repeated pattern in a second material.

    Attributes:
        kind: one of `PATTERNS`.
        period: length of one repeat in metres.
        duty: share of the second material.
        phase: offset in periods.
        visible, infrared: contrast in each modality, 0 (not visible) to 1.
    """

    kind: str
    period: float
    duty: float
    phase: float
    visible: float
    infrared: float


@dataclass(frozen=True)
class Print:
    """A figure on the chest or the back. `side` is 1 (front), -1 (back) or 0 (both)."""

    kind: str
    side: int
    across: float
    up: float
    size: float
    material: Material
    visible: float
    infrared: float


@dataclass(frozen=True)
class Upper:
    """An upper garment.

    Attributes:
        kind: one of `UPPERS`.
        sleeve: length as a share of the arm, 0.2..1.
        hem: metres below the hip.
        opening: half of the angle of an open front, in radians; 0 is closed.
        collar: height in metres.
        material, second, inner: of the garment, of its pattern, and of what an open front shows.
        pattern: its pattern.
        print: its print.
    """

    kind: str
    sleeve: float
    hem: float
    opening: float
    collar: float
    material: Material
    second: Material
    inner: Material
    pattern: Pattern
    print: Print


@dataclass(frozen=True)
class Lower:
    """A lower garment.

    Attributes:
        kind: one of `LOWERS`.
        length: as a share of the leg, 0.3..1.
        width: how wide it is around the leg, in metres of slack.
        stripe: contrast of a stripe at the side, 0 (none) to 1.
        material, second: of the garment, and of its pattern and stripe.
        pattern: its pattern.
    """

    kind: str
    length: float
    width: float
    stripe: float
    material: Material
    second: Material
    pattern: Pattern


@dataclass(frozen=True)
class Shoes:
    """Shoes. `height` is in metres above the ankle, and `sole` is the thickness of the sole in metres."""

    height: float
    sole: float
    material: Material
    sole_material: Material


@dataclass(frozen=True)
class Worn:
    """A hat or a bag. `kind` is one of `HATS` or `BAGS`, `size` a factor, and `side` -1 (left) or 1 (right)."""

    kind: str
    size: float
    side: int
    material: Material


@dataclass(frozen=True)
class Outfit:
    """All clothes of a person, and what the person carries."""

    upper: Upper
    lower: Lower
    shoes: Shoes
    hat: Worn
    bag: Worn


def draw_material(rng: np.random.Generator, strengths: Strengths) -> Material:
    """Draw a material. `colour_shortcut` scales its colour, `sensor_gap` the difference of infrared from luminance."""
    hue, saturation, value, neutral, shine = rng.random(5)
    if neutral < 0.25:  # black, white and grey clothes are common
        saturation, value = 0.12 * saturation, 0.08 + 0.87 * value
    else:
        saturation, value = 0.25 + 0.6 * saturation, 0.20 + 0.62 * value
    vivid = strengths.colour_shortcut
    srgb = colorsys.hsv_to_rgb(hue, saturation * vivid, 0.45 + (value - 0.45) * vivid)
    visible = tuple(float(channel**2.2) for channel in srgb)
    copy = float(np.dot(LUMA, visible))
    # Many dyes that are black in visible light are not in the near infrared, so most materials are medium or bright.
    own = 0.05 + 0.80 * shine**1.2
    return Material(visible, copy + strengths.sensor_gap * (own - copy))  # type: ignore[arg-type]


def contrasting(rng: np.random.Generator, first: Material, strengths: Strengths) -> Material:
    """Draw a second material that differs from `first` in both modalities."""
    second = draw_material(rng, strengths)
    light = float(np.dot(LUMA, second.visible))
    wanted = _away(light, float(np.dot(LUMA, first.visible)))
    shift = (wanted + 0.02) / (light + 0.02)
    visible = tuple(float(np.clip(channel * shift, 0.01, 0.9)) for channel in second.visible)
    return Material(visible, _away(second.infrared, first.infrared))  # type: ignore[arg-type]


def _away(value: float, other: float, by: float = 0.3) -> float:
    """`value`, moved so that it differs from `other` by at least `by`; 0.03 or more."""
    if abs(value - other) >= by:
        return value
    return other + by + 0.05 if other < 0.4 else max(0.03, other - by - 0.05)


def _contrasts(draw: float, gap: float) -> tuple[float, float]:
    """Contrast in each modality. If `gap` is 1, half of all patterns show in both modalities, the others in one."""
    visible = 1.0 - gap if draw > 0.75 else 1.0
    infrared = 1.0 - gap if 0.5 < draw <= 0.75 else 1.0
    return visible, infrared


def draw_pattern(rng: np.random.Generator, strengths: Strengths, *, plain: float) -> Pattern:
    """Draw a pattern with a period of 3 to 15 cm. `plain` is the share of clothes without a pattern."""
    none, kind, period, duty, phase, seen = rng.random(6)
    name = "plain" if none < plain else PATTERNS[1 + int(kind * (len(PATTERNS) - 1))]
    visible, infrared = _contrasts(seen, strengths.sensor_gap)
    return Pattern(name, float(0.03 * 5.0**period), float(0.3 + 0.3 * duty), float(phase), visible, infrared)


def draw_print(rng: np.random.Generator, ground: Material, strengths: Strengths) -> Print:
    """Draw a print. `one_sided_detail` is the share of prints on one side only."""
    none, kind, sided, which, across, up, size, seen = rng.random(8)
    name = "none" if none < 0.4 else PRINTS[1 + int(kind * (len(PRINTS) - 1))]
    side = (1 if which < 0.5 else -1) if sided < strengths.one_sided_detail else 0
    visible, infrared = _contrasts(seen, strengths.sensor_gap)
    material = contrasting(rng, ground, strengths)
    place = (float(0.16 * (across - 0.5)), float(0.30 + 0.10 * up), float(0.06 + 0.07 * size))
    return Print(name, side, *place, material, visible, infrared)


def draw_upper(rng: np.random.Generator, strengths: Strengths) -> Upper:
    """Draw an upper garment. Only jackets and coats can be open, and only if `one_sided_detail` is above 0."""
    kind = UPPERS[int(np.searchsorted(UPPER_SHARES, rng.random()))]
    sleeve, hem, opening, collar, is_open = rng.random(5)
    lengths = {
        "t-shirt": (0.25 + 0.25 * sleeve, 0.02 + 0.10 * hem),
        "shirt": (0.55 + 0.45 * sleeve, 0.04 + 0.13 * hem),
        "hooded": (0.90 + 0.10 * sleeve, 0.00 + 0.12 * hem),
        "jacket": (0.92 + 0.08 * sleeve, 0.00 + 0.16 * hem),
        "coat": (0.95 + 0.05 * sleeve, 0.22 + 0.33 * hem),
    }
    material = draw_material(rng, strengths)
    second, inner = contrasting(rng, material, strengths), contrasting(rng, material, strengths)
    stands_open = kind in ("jacket", "coat") and is_open < 0.75 * strengths.one_sided_detail
    return Upper(
        kind,
        *lengths[kind],
        opening=float(0.22 + 0.45 * opening) if stands_open else 0.0,
        collar=float(0.02 + 0.06 * collar) if collar > 0.4 else 0.0,
        material=material,
        second=second,
        inner=inner,
        pattern=draw_pattern(rng, strengths, plain=0.45),
        print=draw_print(rng, material, strengths),
    )


def draw_lower(rng: np.random.Generator, strengths: Strengths) -> Lower:
    """Draw trousers (two thirds), shorts or a skirt."""
    kind, length, width, stripe = rng.random(4)
    name = "trousers" if kind < 0.66 else "shorts" if kind < 0.83 else "skirt"
    lengths = {"trousers": 0.74 + 0.26 * length, "shorts": 0.32 + 0.2 * length, "skirt": 0.34 + 0.5 * length}
    material = draw_material(rng, strengths)
    return Lower(
        name,
        length=float(lengths[name]),
        width=float(0.004 + 0.03 * width),
        stripe=1.0 if stripe > 0.8 else 0.0,
        material=material,
        second=contrasting(rng, material, strengths),
        pattern=draw_pattern(rng, strengths, plain=0.7),
    )


def draw_shoes(rng: np.random.Generator, strengths: Strengths) -> Shoes:
    """Draw low shoes or boots, with a sole of another colour."""
    boots, height, sole = rng.random(3)
    material = draw_material(rng, strengths)
    sole_material = contrasting(rng, material, strengths)
    return Shoes(float(0.10 + 0.22 * height) if boots < 0.3 else 0.02, 0.012 + 0.025 * sole, material, sole_material)


def draw_worn(rng: np.random.Generator, strengths: Strengths, kinds: tuple[str, ...], *, none: float) -> Worn:
    """Draw a hat or a bag. A share `none` of all people has none."""
    absent, kind, size, side = rng.random(4)
    name = "none" if absent < none else kinds[1 + int(kind * (len(kinds) - 1))]
    return Worn(name, float(0.85 + 0.35 * size), 1 if side < 0.5 else -1, draw_material(rng, strengths))


def draw_outfit(rng: np.random.Generator, strengths: Strengths) -> Outfit:
    """Draw all clothes of a person."""
    return Outfit(
        upper=draw_upper(rng, strengths),
        lower=draw_lower(rng, strengths),
        shoes=draw_shoes(rng, strengths),
        hat=draw_worn(rng, strengths, HATS, none=0.7),
        bag=draw_worn(rng, strengths, BAGS, none=0.45),
    )


def _other(rng: np.random.Generator, choices: tuple[str, ...], current: str) -> str:
    rest = [choice for choice in choices if choice != current]
    return rest[int(rng.random() * len(rest))]


def _far(value: float, low: float, high: float) -> float:
    """The value in [low, high] that is half the range away from `value` (cyclic), which is a clear difference."""
    return low + (value - low + 0.5 * (high - low)) % (high - low)


def change_locally(outfit: Outfit, what: str, rng: np.random.Generator) -> Outfit:
    """Change one local detail of an outfit: one of `LOCAL_CHANGES`.

    Raises:
        KeyError: `what` is not one of them. (They are drawn by this package, never given by a user.)
    """
    upper, lower, shoes = outfit.upper, outfit.lower, outfit.shoes
    if what == "shoes":
        return replace(outfit, shoes=replace(shoes, height=0.02 if shoes.height > 0.1 else 0.14 + 0.16 * rng.random()))
    if what == "hat":
        return replace(outfit, hat=replace(outfit.hat, kind=_other(rng, HATS, outfit.hat.kind)))
    if what == "bag":
        return replace(outfit, bag=replace(outfit.bag, kind=_other(rng, BAGS, outfit.bag.kind)))
    if what == "print":
        # A local change must be visible in both modalities. Otherwise look-alikes would be equal in one of them.
        figure = replace(upper.print, kind=_other(rng, PRINTS, upper.print.kind), visible=1.0, infrared=1.0)
        return replace(outfit, upper=replace(upper, print=figure))
    if what == "collar":
        return replace(outfit, upper=replace(upper, collar=0.0 if upper.collar > 0 else 0.07))
    if what == "sleeve":
        return replace(outfit, upper=replace(upper, sleeve=_far(upper.sleeve, 0.25, 1.0)))
    if what == "leg length":
        low, high = {"trousers": (0.62, 1.0), "shorts": (0.3, 0.56), "skirt": (0.34, 0.84)}[lower.kind]
        return replace(outfit, lower=replace(lower, length=_far(lower.length, low, high)))
    raise KeyError(what)


LOCAL_CHANGES = ("shoes", "hat", "bag", "print", "collar", "sleeve", "leg length")
