"""What a thermal camera sees, as the one of RegDB: heat that surfaces give off, instead of light that they reflect.

Skin is bright and cloth is darker, the thicker the darker. Things that are not warmed by the body are about as cold as
the background. Patterns and prints do not show, because dye has no temperature. There are no shadows, because nothing
is lit. `heat`, 0 to 1, mixes the picture of a camera that sees light (0) with the thermal one (1).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vireid.synthesis import render as at
from vireid.synthesis.camera import Sensor, View
from vireid.synthesis.garment import Material, Worn
from vireid.synthesis.person import Person

# Brightness between the coldest background (0) and skin (1) in an indoor scene of about 20 °C. The order is physical:
# thin cloth lets more heat through than thick cloth. The numbers are ours.
SKIN, HAIR, FACE_CONTRAST = 0.86, 0.50, 0.15
UPPER = {"t-shirt": 0.58, "shirt": 0.53, "hooded": 0.43, "jacket": 0.37, "coat": 0.31}
LOWER = {"trousers": 0.42, "shorts": 0.46, "skirt": 0.40}
INNER, HAT, SHOES, SOLE, BAG = 0.60, 0.38, 0.27, 0.22, 0.17
OWN = 0.24  # how much two garments of one kind differ: fabric and fit
FLOOR, WALL = (0.10, 0.12), (0.08, 0.15)
GLOW = 0.9  # heat seen from a surface of brightness 1; the rest depends on the angle
GRAZING = 0.15  # surfaces seen at a grazing angle look colder


def share(gap: float) -> float:
    """How much of the picture is heat, 0 to 1, for a sensor gap of 0 to 1: all of it at the default gap of 0.5 already.

    >>> share(0.0), share(0.25), share(0.5), share(1.0)
    (0.0, 0.5, 1.0, 1.0)
    """
    return min(1.0, 2.0 * gap)


def warmed(person: Person, heat: float) -> Person:
    """The person with temperatures in the place of infrared reflectances.

    The body warms what it wears: what a garment is made of and how it fits is different for each, and is drawn with the
    person, as its infrared reflectance.
    """

    def warm(material: Material, level: float) -> Material:
        value = level + OWN * (material.infrared - 0.45)
        return replace(material, infrared=material.infrared + heat * (max(0.02, value) - material.infrared))

    def plain(worn: Worn, level: float) -> Worn:
        return replace(worn, material=warm(worn.material, level))

    upper, lower, shoes = person.outfit.upper, person.outfit.lower, person.outfit.shoes
    cloth, legs = warm(upper.material, UPPER[upper.kind]), warm(lower.material, LOWER[lower.kind])
    outfit = replace(
        person.outfit,
        upper=replace(
            upper,
            material=cloth,
            second=_like(upper.second, cloth, heat),
            inner=warm(upper.inner, INNER),
            pattern=replace(upper.pattern, infrared=upper.pattern.infrared * (1.0 - heat)),
            print=replace(upper.print, infrared=upper.print.infrared * (1.0 - heat)),
        ),
        lower=replace(
            lower,
            material=legs,
            second=_like(lower.second, legs, heat),
            pattern=replace(lower.pattern, infrared=lower.pattern.infrared * (1.0 - heat)),
        ),
        shoes=replace(shoes, material=warm(shoes.material, SHOES), sole_material=warm(shoes.sole_material, SOLE)),
        hat=plain(person.outfit.hat, HAT),
        bag=plain(person.outfit.bag, BAG),
    )
    skin = replace(person.skin, infrared=person.skin.infrared + heat * (SKIN - person.skin.infrared))
    hair = replace(person.hair, material=warm(person.hair.material, HAIR))
    return Person(person.body, hair, skin, outfit)


def _like(second: Material, first: Material, heat: float) -> Material:
    """The second colour of a garment: it is as warm as the first one."""
    return replace(second, infrared=second.infrared + heat * (first.infrared - second.infrared))


def glow(numbers: np.ndarray, heat: float) -> None:
    """Turn the light of a scene (a table `setting`, changed in place) into heat: the same from all sides, no lamp."""
    rest = 1.0 - heat
    ahead = -numbers[at.FORWARD : at.FORWARD + 3]
    numbers[at.KEY : at.KEY_LIGHT] = rest * numbers[at.KEY : at.KEY_LIGHT] + heat * ahead
    numbers[at.KEY_LIGHT : at.SKY] = rest * numbers[at.KEY_LIGHT : at.SKY] + heat * GRAZING
    for place in (at.SKY, at.GROUND):
        numbers[place : place + 3] = rest * numbers[place : place + 3] + heat * GLOW
    numbers[at.ACTIVE], numbers[at.SHADOW] = rest * numbers[at.ACTIVE], rest * numbers[at.SHADOW]
    for place, levels in ((at.FLOOR, FLOOR), (at.WALL, WALL)):
        for offset, level in zip((0, 3), levels, strict=True):
            own = numbers[place + offset : place + offset + 3]
            # Real floors and walls keep a trace of what they are: dark ones are a little warmer.
            numbers[place + offset : place + offset + 3] = rest * own + heat * (level + 0.06 * (0.4 - own))


def thermal_sensor(sensor: Sensor, heat: float) -> Sensor:
    """A thermal sensor of the same camera: fewer pixels, so more blur, and no bloom; its curve is close to linear."""
    return replace(
        sensor,
        gamma=sensor.gamma + heat * (1.25 - sensor.gamma),
        contrast=sensor.contrast * (1.0 - 0.5 * heat),
        blur=sensor.blur + 0.0035 * heat,
        bloom=sensor.bloom * (1.0 - heat),
        sharpen=sensor.sharpen * (1.0 - 0.5 * heat),
    )


def gain(view: View, heat: float, usual: float) -> float:
    """The exposure gain. A thermal camera shows its range of temperatures and does not depend on the light."""
    return (1.0 - heat) * usual + heat * 1.05 / view.exposure**0.5
