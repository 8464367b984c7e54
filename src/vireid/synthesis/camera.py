"""Cameras: their places, backgrounds and light, and how their sensors turn light into pixels.

Place and sensor are drawn once for each camera, so cameras differ in place, exposure and tone. A `View` is drawn for
every picture. Visible cameras record coloured daylight or lamp light. Infrared cameras light the scene with their own
lamp: this light decreases with the distance, has a bright spot, and causes bloom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from vireid.synthesis import render as at
from vireid.synthesis.garment import LUMA


@dataclass(frozen=True)
class Place:
    """The place of a camera and the background. Both sensors of one camera number share it.

    Attributes:
        height: height of the camera in metres.
        distance: usual distance to people in metres.
        wall: distance from people to the wall in metres.
        outdoor: daylight instead of lamps.
        visible, infrared: colours of floor, second floor colour, wall and second wall colour, 4×3, for each modality.
        tile, panel: metres of one repeat of the floor and of the wall.
        rough: irregularity of floor and wall.
        kind: kind of wall: 0 panels, 1 bricks, 2 greenery.
        phase: phase of the wall's irregularity.
    """

    height: float
    distance: float
    wall: float
    outdoor: bool
    visible: np.ndarray
    infrared: np.ndarray
    tile: float
    panel: float
    rough: tuple[float, float]
    kind: int
    phase: float


@dataclass(frozen=True)
class Sensor:
    """How the sensor of one camera and modality turns light into pixels.

    Attributes:
        infrared: whether it is an infrared sensor.
        exposure: gain before the tone curve.
        gamma, contrast: shape of the tone curve.
        balance: gains of the three channels (white balance).
        saturation: of colours; 1 does not change them.
        blur: standard deviation in picture heights.
        noise: strength: a standard deviation, where white is 1.
        bloom, sharpen: strengths.
        spot: centre (across, down) and width of the lamp's bright spot in the picture.
        ambient: share of other infrared light.
    """

    infrared: bool
    exposure: float
    gamma: float
    contrast: float
    balance: tuple[float, float, float]
    saturation: float
    blur: float
    noise: float
    bloom: float
    sharpen: float
    spot: tuple[float, float, float]
    ambient: float


def draw_place(rng: np.random.Generator, nuisance: float) -> Place:
    """Draw a place. In an easier world, places are more similar."""
    height, distance, wall, outdoor, tile, panel, rough, kind, phase = rng.random(9)
    floor, back = 0.10 + 0.35 * rng.random(2), 0.12 + 0.5 * rng.random(2)
    tint = 1.0 + 0.5 * nuisance * (rng.random((4, 3)) - 0.5)
    other = rng.random((4, 1)) * [[0.5], [0.3], [0.6], [0.5]] + [[0.1], [0.08], [0.1], [0.05]]
    is_outdoor = bool(outdoor < 0.5)
    visible = np.array([[floor[0]], [floor[0] * 0.55], [back[0]], [back[1] * 0.6]]) * tint
    if is_outdoor and kind < 0.6:  # leaves are green in visible light and very bright in the near infrared
        visible[2:] = [[0.05, 0.10, 0.03], [0.16, 0.24, 0.09]] * tint[2:]
        other[2:] = [[0.30], [0.62]]
    return Place(
        height=float(2.2 + nuisance * (3.2 * height - 1.0)),
        distance=float(4.5 + nuisance * (5.0 * distance - 1.5)),
        wall=float(1.5 + 5.0 * wall * nuisance + (3.0 if is_outdoor else 0.0)),
        outdoor=is_outdoor,
        visible=visible,
        infrared=np.repeat(other, 3, axis=1),
        tile=float(0.3 + 0.9 * tile),
        panel=float(1.0 + 2.0 * panel),
        rough=(float(0.10 + 0.25 * rough), float(0.05 + 0.2 * rough)),
        kind=2 if is_outdoor and kind < 0.6 else 1 if kind < 0.75 else 0,
        phase=float(6.3 * phase),
    )


def draw_sensor(rng: np.random.Generator, nuisance: float, gap: float, *, infrared: bool) -> Sensor:
    """Draw a sensor. If the sensor gap is 0, an infrared sensor is a visible one without colour."""
    exposure, gamma, contrast, warm, saturation, blur, noise, bloom, sharpen, x, y, wide, ambient = rng.random(13)
    warmth = 0.28 * nuisance * (warm - 0.5)
    strange = gap if infrared else 0.0
    return Sensor(
        infrared=infrared,
        exposure=float(np.exp(0.9 * nuisance * (exposure - 0.5))),
        gamma=float(2.2 + 0.7 * nuisance * (gamma - 0.5)),
        contrast=float(0.25 + 0.9 * nuisance * (contrast - 0.35)),
        balance=(1.0, 1.0, 1.0) if infrared else (1.0 + warmth, 1.0, 1.0 - warmth),
        saturation=float(1.0 + 0.5 * nuisance * (saturation - 0.6)),
        blur=float(0.0010 + 0.0026 * nuisance * blur + 0.0012 * strange),
        noise=float(0.006 + 0.018 * nuisance * noise + 0.022 * strange * (0.4 + noise)),
        bloom=float(0.03 + strange * (0.15 + 0.35 * bloom)),
        sharpen=float(0.3 * sharpen + 0.7 * strange * sharpen),
        spot=(float(0.5 + 0.5 * (x - 0.5)), float(0.38 + 0.4 * (y - 0.5)), float(0.45 + 0.5 * wide)),
        ambient=float(0.04 + 0.22 * ambient),
    )


@dataclass(frozen=True)
class View:
    """What differs from picture to picture: the position of the person, the light, and the crop of a detector.

    Attributes:
        shift: offset of the floor and wall textures in metres.
        distance: distance of the camera in metres.
        roll: rotation of the camera in radians.
        light: direction to the key light, of length 1.
        key, sky: strengths of the key light and of the sky.
        exposure: factor.
        crop: offset of the centre (across, down) and zoom, in crop sizes, and a factor on the aspect ratio.
        blur, noise: factors.
        cut: share of the figure that is cut off at the feet.
    """

    shift: tuple[float, float]
    distance: float
    roll: float
    light: tuple[float, float, float]
    key: float
    sky: float
    exposure: float
    crop: tuple[float, float, float, float]
    blur: float
    noise: float
    cut: float


def draw_view(rng: np.random.Generator, place: Place, nuisance: float, occlusion: float) -> View:
    """Draw the view of one picture."""
    draws = rng.random(16)
    turn, lift = 2 * math.pi * draws[4], 0.5 + 0.9 * draws[5]
    cut = max(0.0, draws[14] - 0.78) if draws[15] < 0.6 * occlusion else 0.0
    return View(
        shift=(20.0 * draws[0], 20.0 * draws[1]),
        distance=float(place.distance * (1.0 + 0.5 * nuisance * (draws[2] - 0.4))),
        roll=float(0.07 * nuisance * (draws[3] - 0.5)),
        light=(math.cos(turn) * math.cos(lift), math.sin(lift), math.sin(turn) * math.cos(lift)),
        key=float(0.55 + nuisance * (1.5 * draws[6] - 0.55)) if place.outdoor else 0.35 + 0.4 * nuisance * draws[6],
        sky=float(0.75 + 0.3 * nuisance * (draws[7] - 0.5)),
        exposure=float(np.exp(0.45 * nuisance * (draws[8] - 0.5))),
        crop=(
            float(0.20 * nuisance * (draws[9] - 0.5)),
            float(0.14 * nuisance * (draws[10] - 0.5)),
            float(1.10 + 0.30 * nuisance * (draws[11] - 0.35)),
            float(1.0 + 0.25 * nuisance * (draws[12] - 0.5)),
        ),
        blur=float(1.0 + nuisance * (1.2 * draws[13] - 0.4)),
        noise=float(0.7 + 0.6 * draws[13]),
        cut=float(cut),
    )


def setting(place: Place, sensor: Sensor, view: View, points: np.ndarray, gap: float) -> np.ndarray:
    """The table `setting` of the ray caster: camera, crop window, light and background.

    Args:
        place, sensor, view: of the picture.
        points: N×3 joints of the person in metres; the crop is placed around them.
        gap: 0 lights an infrared picture like a visible one, 1 with the lamp of the camera only.

    Returns:
        `render.SETTING` float64.
    """
    numbers = np.zeros(at.SETTING)
    eye = np.array([0.0, place.height, view.distance])
    forward = np.array([0.0, 0.95 - place.height, -view.distance])
    forward /= np.linalg.norm(forward)
    right = np.array([math.cos(view.roll), math.sin(view.roll), 0.0])
    right -= (right @ forward) * forward
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    numbers[at.CAMERA : at.WINDOW] = *eye, *forward, *right, *up
    numbers[at.WINDOW : at.KEY] = _window(points, eye, forward, right, up, view)
    _light(numbers, place, sensor, view, gap)
    colours = place.infrared * gap + (1 - gap) * (place.visible @ LUMA)[:, None] if sensor.infrared else place.visible
    numbers[at.FLOOR : at.TILE] = colours[:2].ravel()
    numbers[at.WALL : at.PANEL] = colours[2:].ravel()
    numbers[at.TILE], numbers[at.PANEL] = place.tile, place.panel
    numbers[at.FLOOR_ROUGH], numbers[at.WALL_ROUGH] = place.rough
    numbers[at.WALL_AT], numbers[at.WALL_KIND], numbers[at.WALL_PHASE] = -place.wall, place.kind, place.phase
    numbers[at.SHIFT_X], numbers[at.SHIFT_Z] = view.shift
    feet = points[points[:, 1].argmin()]
    numbers[at.SHADOW], numbers[at.FEET_X], numbers[at.FEET_Z] = 0.55, 0.5 * feet[0], 0.5 * feet[2]
    return numbers


def _window(
    points: np.ndarray, eye: np.ndarray, forward: np.ndarray, right: np.ndarray, up: np.ndarray, view: View
) -> tuple[float, float, float, float]:
    """Left, top, width and height of the crop on the image plane, with the inaccuracy of a detector."""
    seen = points - eye
    depth = seen @ forward
    across, down = seen @ right / depth, -(seen @ up) / depth
    margin = 0.13 / float(depth.mean())
    top, bottom = down.min() - margin, down.max() + 0.6 * margin
    bottom -= view.cut * (bottom - top)
    tall = (bottom - top) * view.crop[2]
    broad = 0.5 * tall * view.crop[3]
    x = 0.5 * (across.min() + across.max()) + view.crop[0] * broad
    y = 0.5 * (top + bottom) + view.crop[1] * tall
    if view.cut > 0.0:
        y = min(y, bottom - 0.5 * tall)
    return float(x - 0.5 * broad), float(y - 0.5 * tall), float(broad), float(tall)


def _light(numbers: np.ndarray, place: Place, sensor: Sensor, view: View, gap: float) -> None:
    """Set the light: daylight or lamps for visible pictures; the camera's lamp and some ambient light for infrared."""
    warm = np.array([1.06, 1.0, 0.90]) if place.outdoor else np.array([1.03, 1.0, 0.94])
    cool = np.array([0.93, 1.0, 1.10]) if place.outdoor else np.ones(3)
    ground = 0.35 * view.sky * (place.visible[0] + 0.15)
    numbers[at.KEY : at.KEY_LIGHT] = view.light
    key, sky = view.key * warm, view.sky * cool
    if sensor.infrared:
        # With a larger gap, more of the light comes from the camera's lamp. Sunlight contains infrared, so some
        # ambient light remains.
        rest = 1.0 - gap * (1.0 - sensor.ambient)
        key, sky, ground = (np.full(3, rest * float(LUMA @ light)) for light in (key, sky, ground))
        distance = math.hypot(view.distance, place.height - 1.0)
        numbers[at.ACTIVE], numbers[at.REACH] = 1.15 * gap, distance
        numbers[at.SPOT_X : at.REACH] = sensor.spot
    numbers[at.KEY_LIGHT : at.SKY], numbers[at.SKY : at.GROUND], numbers[at.GROUND : at.ACTIVE] = key, sky, ground


@njit(cache=True)
def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a picture (H×W×C float32) with a Gaussian of `sigma` pixels. Edges are repeated."""
    if sigma < 0.15:
        return picture
    reach = math.ceil(2.5 * sigma)
    weights = np.zeros(2 * reach + 1, dtype=np.float32)
    for i in range(-reach, reach + 1):
        weights[i + reach] = math.exp(-0.5 * (i / sigma) ** 2)
    weights /= weights.sum()
    height, width, channels = picture.shape
    row = width * channels  # numbers of a line, channels side by side
    source, first, second = picture.reshape(height, row), np.zeros((height, row), np.float32), np.zeros_like(picture)
    for y in range(height):
        for i in range(-reach, reach + 1):
            other, weight = min(max(y + i, 0), height - 1), weights[i + reach]
            for x in range(row):
                first[y, x] += weight * source[other, x]
    result = second.reshape(height, row)
    for y in range(height):
        for i in range(-reach, reach + 1):
            weight, shift = weights[i + reach], i * channels
            low, high = min(max(0, -shift), row), max(min(row, row - shift), 0)  # of this part, the source is inside
            for x in range(low):
                result[y, x] += weight * first[y, x % channels]
            for x in range(low, high):
                result[y, x] += weight * first[y, x + shift]
            for x in range(max(low, high), row):
                result[y, x] += weight * first[y, row - channels + x % channels]
    return second


def metering(numbers: np.ndarray) -> float:
    """The exposure gain that brings the light of a scene (a table `setting`) to the usual level."""
    level = (
        numbers[at.SKY : at.GROUND].mean() + 0.35 * numbers[at.KEY_LIGHT : at.SKY].mean() + 0.75 * numbers[at.ACTIVE]
    )
    return float(1.1 / level)


def develop(light: np.ndarray, sensor: Sensor, view: View, rng: np.random.Generator, *, gain: float) -> np.ndarray:
    """Turn linear light into pixels: exposure, bloom, blur, tone curve, sharpening and noise.

    Args:
        light: H×W×C float32, linear light of 0 or more; of an infrared sensor only the first channel is read.
        sensor, view: of the picture.
        rng: draws the noise.
        gain: exposure gain, see `metering`.

    Returns:
        H×W×3 uint8; the three channels of an infrared sensor are equal.
    """
    height = len(light)
    if sensor.infrared:
        light = light[:, :, :1]
    else:
        grey = light @ LUMA.astype(np.float32)
        light = np.maximum(grey[:, :, None] + sensor.saturation * (light - grey[:, :, None]), 0.0)
        light = light * np.array(sensor.balance, dtype=np.float32)
    # The exposure is set for the whole scene and not for the crop, so a person in black stays black.
    metered = light * np.float32(gain * sensor.exposure * view.exposure)
    glow = np.minimum(np.maximum(metered - np.float32(0.75), 0.0), 3.0)
    small = glow[::4, ::4] if min(glow.shape[:2]) >= 32 else glow
    halo = blurred(np.ascontiguousarray(small), 0.022 * height / (4 if small is not glow else 1))
    if small is not glow:
        halo = halo.repeat(4, axis=0)[:height].repeat(4, axis=1)[:, : light.shape[1]]
    sigma = sensor.blur * view.blur * height
    picture = blurred(np.ascontiguousarray(metered + np.float32(sensor.bloom) * halo), sigma)
    tone = np.clip(picture, 0.0, 1.0) ** np.float32(1.0 / sensor.gamma)
    tone = tone + np.float32(sensor.contrast) * (tone * tone * (3.0 - 2.0 * tone) - tone)
    if sensor.sharpen > 0.05:
        tone = tone + np.float32(sensor.sharpen) * (tone - blurred(tone, 1.2 * sigma + 0.002 * height))
    amount = np.float32(sensor.noise * view.noise) * (1.3 - tone)
    tone = tone + amount * rng.standard_normal(tone.shape, dtype=np.float32)
    byte = np.clip(np.rint(255.0 * tone), 0, 255).astype(np.uint8)
    return np.repeat(byte, 3, axis=2) if sensor.infrared else byte
