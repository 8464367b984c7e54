"""The ray caster: it draws tapered capsules and ellipsoids in front of a floor and a wall, in linear light.

Every part of a figure is one solid: the hull of two balls (a tapered capsule), stretched by an affine map. If both
balls are in the same place, it is an ellipsoid. To intersect it with a ray, one quadratic equation is solved for the
cone between the balls and one for each ball. There are two passes: the first finds the nearest part for each of the 2×2
rays of a pixel, the second computes the colours.

A scene consists of three float64 tables, so that the kernel and the slow reference of the tests read the same numbers:
`parts` (N×`PART`), `surfaces` (M×`SURFACE`) and `setting` (`SETTING`). The constants below are the offsets of the
columns.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# Columns of `parts`.
MAP, ORIGIN, LENGTH, START, END = 0, 9, 12, 13, 14  # world → part 3×3; ball centre; distance; radii of the two balls
FRAME, FRAME_ORIGIN = 15, 24  # world → texture frame 3×3 and its origin
LOW, HIGH, FACE_Z, FACE_Y = 27, 28, 29, 30  # solid: LOW <= y <= HIGH in the frame, except (z > FACE_Z and y < FACE_Y)
SURFACE_INDEX, AROUND = 31, 32  # index in `surfaces`; metres per radian around the part
PART = 33

# Columns of `surfaces`.
BASE, SECOND, INNER, PRINT = 0, 3, 6, 9  # four reflectances
PATTERN, PERIOD, DUTY, PHASE, CONTRAST = 12, 13, 14, 15, 16
FOLD, FOLD_PHASE, OPENING, SHINE = 17, 18, 19, 20
PRINT_KIND, PRINT_SIDE, PRINT_X, PRINT_Y, PRINT_SIZE, PRINT_CONTRAST = 21, 22, 23, 24, 25, 26
STRIPE, HEM = 27, 28  # contrast of a side stripe; frame y of a darker hem (large: none)
SURFACE = 29
FACE_PATTERN = 7  # a pattern number that garments do not use: eyes, eyebrows, nose and mouth

# Entries of `setting`.
CAMERA, FORWARD, RIGHT, UP = 0, 3, 6, 9
WINDOW = 12  # left, top, width, height of the picture on the image plane
KEY, KEY_LIGHT, SKY, GROUND = 16, 19, 22, 25  # direction to the light; light of key, sky and ground (3 channels each)
ACTIVE, SPOT_X, SPOT_Y, SPOT_WIDTH, REACH = 28, 29, 30, 31, 32  # the lamp beside an infrared camera
FLOOR, FLOOR_SECOND, TILE, FLOOR_ROUGH = 33, 36, 39, 40
WALL, WALL_SECOND, PANEL, WALL_ROUGH, WALL_AT = 41, 44, 47, 48, 49
SHIFT_X, SHIFT_Z, SHADOW, FEET_X, FEET_Z = 50, 51, 52, 53, 54
WALL_KIND, WALL_PHASE = 55, 56  # 0 panels, 1 bricks, 2 greenery
SETTING = 57

FAR = 1e9
TIE = 1e-9  # two limbs share the ball at their joint: the first part must win there, independently of rounding
SLACK = 1.000001  # factor on a squared radius, for a test that must not miss a hit
SAMPLES = 2  # rays per pixel and axis


@njit(cache=True, error_model="numpy")
def _ball(ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, radius: float) -> float:
    """Distance along the ray to the near side of a ball at the origin, or `FAR`."""
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    c = ox * ox + oy * oy + oz * oz - radius * radius
    root = b * b - a * c
    if root < 0.0:
        return FAR
    t = (-b - math.sqrt(root)) / a
    return t if t > 0.0 else FAR


@njit(cache=True, error_model="numpy")
def _meet(
    ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, length: float, start: float, end: float
) -> float:
    """Distance along the ray to the hull of a ball `start` at y=0 and a ball `end` at y=`length`, or `FAR`.

    The cone that touches both balls has normals of slope k = (start - end) / length: its points satisfy
    c·ρ + k·y = start with c² = 1 - k², between the touching circles y = k·start and y = length + k·end.
    """
    if length <= abs(start - end):
        if start >= end:
            return _ball(ox, oy, oz, dx, dy, dz, start)
        return _ball(ox, oy - length, oz, dx, dy, dz, end)
    k = (start - end) / length
    c2 = 1.0 - k * k
    bottom, top = k * start, length + k * end
    best = FAR
    edge = start - k * oy
    a = dx * dx + dz * dz - k * k * dy * dy / c2
    b = ox * dx + oz * dz + k * dy * edge / c2
    c = ox * ox + oz * oz - edge * edge / c2
    root = b * b - a * c
    if root >= 0.0 and abs(a) > 1e-12:
        root = math.sqrt(root)
        # Cameras are outside. So if the ray enters the cone between the circles, there it enters the hull.
        t = (-b - root) / a
        if a > 0.0 and t > 0.0 and bottom <= oy + t * dy <= top:
            return t
        for sign in (-1.0, 1.0):
            t = (-b + sign * root) / a
            y = oy + t * dy
            if 0.0 < t < best and bottom <= y <= top:
                best = t
    t = _ball(ox, oy, oz, dx, dy, dz, start)
    if t < best and oy + t * dy <= bottom:
        best = t
    t = _ball(ox, oy - length, oz, dx, dy, dz, end)
    if t < best and oy + t * dy >= top:
        best = t
    return best


@njit(cache=True, error_model="numpy")
def _bounds(part: np.ndarray, setting: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """First and last line and column of rays that can meet a part: the box around its two balls on the image plane."""
    # MAP holds the three axes of the part, each divided by its stretch. The largest stretch bounds every radius.
    stretch = 0.0
    for axis in range(3):
        norm = 0.0
        for entry in range(3):
            norm += part[MAP + 3 * axis + entry] ** 2
        stretch = max(stretch, 1.0 / math.sqrt(norm))
    left, right, top, bottom = FAR, -FAR, FAR, -FAR
    for ball in range(2):
        radius = (part[START] if ball == 0 else part[END]) * stretch
        depth = across = up = 0.0
        for axis in range(3):
            centre = part[ORIGIN + axis] + ball * part[LENGTH] * part[MAP + 3 + axis] - setting[CAMERA + axis]
            depth += centre * setting[FORWARD + axis]
            across += centre * setting[RIGHT + axis]
            up += centre * setting[UP + axis]
        if depth - radius < 0.05:
            return 0, height, 0, width
        near = radius * math.sqrt(depth * depth + across * across + up * up) / (depth * (depth - radius))
        left, right = min(left, across / depth - near), max(right, across / depth + near)
        top, bottom = min(top, -up / depth - near), max(bottom, -up / depth + near)
    x0 = (left - setting[WINDOW]) / setting[WINDOW + 2] * width
    x1 = (right - setting[WINDOW]) / setting[WINDOW + 2] * width
    y0 = (top - setting[WINDOW + 1]) / setting[WINDOW + 3] * height
    y1 = (bottom - setting[WINDOW + 1]) / setting[WINDOW + 3] * height
    return (
        int(min(max(y0, 0.0), height)),
        int(min(max(y1 + 1.0, 0.0), height)),
        int(min(max(x0, 0.0), width)),
        int(min(max(x1 + 1.0, 0.0), width)),
    )


@njit(cache=True, error_model="numpy")
def _apply(table: np.ndarray, at: int, x: float, y: float, z: float) -> tuple[float, float, float]:
    """The 3×3 matrix at offset `at` of a table, times a vector."""
    return (
        table[at] * x + table[at + 1] * y + table[at + 2] * z,
        table[at + 3] * x + table[at + 4] * y + table[at + 5] * z,
        table[at + 6] * x + table[at + 7] * y + table[at + 8] * z,
    )


@njit(cache=True, error_model="numpy")
def nearest(parts: np.ndarray, setting: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the first part that each ray meets.

    Args:
        parts: N×`PART` float64.
        setting: `SETTING` float64.
        height, width: number of rays (pixels times `SAMPLES`).

    Returns:
        which: height×width int16, the index in `parts`, or -1 if the ray meets no part.
        far: height×width float64, distance along the ray, in units of its direction, which is not normalised.
    """
    which = np.full((height, width), -1, dtype=np.int16)
    far = np.full((height, width), FAR)
    for index in range(len(parts)):
        part = parts[index]
        y0, y1, x0, x1 = _bounds(part, setting, height, width)
        cx, cy, cz = setting[CAMERA], setting[CAMERA + 1], setting[CAMERA + 2]
        ox, oy, oz = _apply(part, MAP, cx - part[ORIGIN], cy - part[ORIGIN + 1], cz - part[ORIGIN + 2])
        fx, fy, fz = _apply(part, MAP, setting[FORWARD], setting[FORWARD + 1], setting[FORWARD + 2])
        rx, ry, rz = _apply(part, MAP, setting[RIGHT], setting[RIGHT + 1], setting[RIGHT + 2])
        ux, uy, uz = _apply(part, MAP, setting[UP], setting[UP + 1], setting[UP + 2])
        # Most rays of the box pass beside a limb that is not upright. They do not meet the cylinder around both balls,
        # made a little larger than rounding can matter.
        wide = SLACK * max(part[START], part[END]) ** 2
        for line in range(y0, y1):
            up = -(setting[WINDOW + 1] + (line + 0.5) / height * setting[WINDOW + 3])
            for column in range(x0, x1):
                across = setting[WINDOW] + (column + 0.5) / width * setting[WINDOW + 2]
                dx, dz = fx + across * rx + up * ux, fz + across * rz + up * uz
                if (ox * dz - oz * dx) ** 2 > wide * (dx * dx + dz * dz):
                    continue
                dy = fy + across * ry + up * uy
                t = _meet(ox, oy, oz, dx, dy, dz, part[LENGTH], part[START], part[END])
                if t < far[line, column] - TIE and _solid(part, setting, across, up, t):
                    far[line, column] = t
                    which[line, column] = index
    return which, far


@njit(cache=True, error_model="numpy")
def _point(setting: np.ndarray, across: float, up: float, t: float) -> tuple[float, float, float]:
    """The world point at distance `t` along the ray through (across, up) of the image plane."""
    return (
        setting[CAMERA] + t * (setting[FORWARD] + across * setting[RIGHT] + up * setting[UP]),
        setting[CAMERA + 1] + t * (setting[FORWARD + 1] + across * setting[RIGHT + 1] + up * setting[UP + 1]),
        setting[CAMERA + 2] + t * (setting[FORWARD + 2] + across * setting[RIGHT + 2] + up * setting[UP + 2]),
    )


@njit(cache=True, error_model="numpy")
def _solid(part: np.ndarray, setting: np.ndarray, across: float, up: float, t: float) -> bool:
    """Whether the part has a surface at this point: between its two hems and outside its opening for the face."""
    px, py, pz = _point(setting, across, up, t)
    at = FRAME_ORIGIN
    _, y, z = _apply(part, FRAME, px - part[at], py - part[at + 1], pz - part[at + 2])
    return part[LOW] <= y <= part[HIGH] and not (z > part[FACE_Z] and y < part[FACE_Y])


@njit(cache=True, error_model="numpy")
def _normal(part: np.ndarray, x: float, y: float, z: float) -> tuple[float, float, float]:
    """The normal, in the world, at a world point on the surface of a part."""
    lx, ly, lz = _apply(part, MAP, x - part[ORIGIN], y - part[ORIGIN + 1], z - part[ORIGIN + 2])
    length, start, end = part[LENGTH], part[START], part[END]
    if length <= abs(start - end):
        ly -= 0.0 if start >= end else length
    else:
        k = (start - end) / length
        if ly > length + k * end:
            ly -= length
        elif ly > k * start:
            round_ = math.sqrt(lx * lx + lz * lz) / math.sqrt(1.0 - k * k)
            ly = k * round_
    nx = part[MAP] * lx + part[MAP + 3] * ly + part[MAP + 6] * lz
    ny = part[MAP + 1] * lx + part[MAP + 4] * ly + part[MAP + 7] * lz
    nz = part[MAP + 2] * lx + part[MAP + 5] * ly + part[MAP + 8] * lz
    norm = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
    return nx / norm, ny / norm, nz / norm


@njit(cache=True, error_model="numpy")
def _share(surface: np.ndarray, u: float, v: float) -> float:
    """Share of the second material in the pattern, 0..1, at `u` metres around the part and `v` metres along it."""
    kind = int(surface[PATTERN])
    a = (v / surface[PERIOD] + surface[PHASE]) % 1.0
    b = (u / surface[PERIOD] + surface[PHASE]) % 1.0
    duty = surface[DUTY]
    if kind == 1:
        return 1.0 if a < duty else 0.0
    if kind == 2:
        return 1.0 if b < duty else 0.0
    if kind == 3:
        return 0.5 * ((1.0 if a < duty else 0.0) + (1.0 if b < duty else 0.0))
    if kind == 4:
        return 1.0 if (a - 0.5) ** 2 + (b - 0.5) ** 2 < 0.25 * duty else 0.0
    if kind == 5:
        return 1.0 if v < 0.12 + 2.0 * surface[PERIOD] * surface[PHASE] else 0.0
    if kind == 6:
        f = 4.0 / surface[PERIOD]
        wave = math.sin(f * u + 2.1 * math.sin(0.6 * f * v + 9.0 * surface[PHASE])) + math.sin(
            1.1 * f * v + 1.3 * f * u
        )
        return 1.0 if wave > 1.2 - 2.0 * duty else 0.0
    return 0.0


@njit(cache=True, error_model="numpy")
def _features(x: float, y: float, z: float) -> float:
    """Share of the dark second colour in a face, 0..1, at a point in the frame of the head (metres from its centre)."""
    if z < 0.03:
        return 0.0
    if (abs(x) - 0.030) ** 2 / 0.00017 + (y - 0.010) ** 2 / 0.00004 < 1.0:
        return 1.0
    if (abs(x) - 0.030) ** 2 / 0.00030 + (y - 0.030) ** 2 / 0.00001 < 1.0:
        return 0.7
    if x * x / 0.00050 + (y + 0.058) ** 2 / 0.00003 < 1.0:
        return 0.45
    if x * x / 0.00008 + (y + 0.022) ** 2 / 0.00003 < 1.0:
        return 0.2
    return 0.0


@njit(cache=True, error_model="numpy")
def _printed(surface: np.ndarray, x: float, y: float, z: float) -> bool:
    """Whether a point of the torso is on the print."""
    kind, side = int(surface[PRINT_KIND]), surface[PRINT_SIDE]
    if kind == 0 or side * z < 0.0:
        return False
    a = (x * (1.0 if z >= 0.0 else -1.0) - surface[PRINT_X]) / surface[PRINT_SIZE]
    b = (y - surface[PRINT_Y]) / surface[PRINT_SIZE]
    ring = a * a + b * b
    if kind == 1:
        return ring < 1.0
    if kind == 2:
        return abs(a) < 1.4 and abs(b) < 0.45
    if kind == 3:
        return 0.42 < ring < 1.0
    if kind == 4:
        return (abs(a) < 0.33 and abs(b) < 1.0) or (abs(b) < 0.33 and abs(a) < 1.0)
    return abs(a) < 1.2 and abs(b) < 1.0 and (b * 1.5 + 10.0) % 1.0 < 0.5


@njit(cache=True, error_model="numpy")
def _reflectance(
    surface: np.ndarray, y: float, angle: float, around: float, channel: int, share: float, printed: bool
) -> float:
    """Reflectance of one channel, 0..1, at a height y and an angle around the part."""
    if abs(angle) < surface[OPENING]:
        edge = surface[OPENING] - abs(angle)
        return surface[INNER + channel] * (0.65 if edge < 0.06 else 1.0)
    value = surface[BASE + channel]
    value += share * surface[CONTRAST] * (surface[SECOND + channel] - value)
    if printed:
        value += surface[PRINT_CONTRAST] * (surface[PRINT + channel] - value)
    if surface[STRIPE] > 0.0 and abs(abs(angle) - 0.5 * math.pi) * around < 0.018:
        value += surface[STRIPE] * (surface[SECOND + channel] - value)
    if abs(y - surface[HEM]) < 0.012:
        value *= 0.72
    return value


@njit(cache=True, error_model="numpy")
def _lit(setting: np.ndarray, nx: float, ny: float, nz: float, facing: float, lamp: float, channel: int) -> float:
    """Light at a surface: from sky and ground, depending on its inclination, the key light, and the camera's lamp."""
    sun = nx * setting[KEY] + ny * setting[KEY + 1] + nz * setting[KEY + 2]
    hemisphere = 0.5 + 0.5 * ny
    light = hemisphere * setting[SKY + channel] + (1.0 - hemisphere) * setting[GROUND + channel]
    return light + max(0.0, sun) * setting[KEY_LIGHT + channel] + lamp * max(0.0, facing)


@njit(cache=True, error_model="numpy")
def _lamp(setting: np.ndarray, fx: float, fy: float, distance: float) -> float:
    """Light of the infrared lamp at a place (fx, fy in 0..1) of the picture: a bright spot, over distance squared."""
    if setting[ACTIVE] == 0.0:
        return 0.0
    spot = ((fx - setting[SPOT_X]) ** 2 + (fy - setting[SPOT_Y]) ** 2) / setting[SPOT_WIDTH] ** 2
    return setting[ACTIVE] * (0.25 + 0.75 * math.exp(-spot)) * (setting[REACH] / distance) ** 2


@njit(cache=True, error_model="numpy")
def _rough(x: float, y: float, phase: float) -> float:
    """A smooth irregular function of about -1 to 1: the sum of three waves."""
    a = math.sin(2.3 * x + 1.7 * math.sin(1.9 * y + phase))
    b = math.sin(5.1 * y + 1.3 * math.sin(4.3 * x + 2.0 * phase))
    return 0.4 * a + 0.35 * b + 0.25 * math.sin(9.7 * x + 3.1 * phase) * math.sin(11.3 * y)


@njit(cache=True, error_model="numpy")
def _behind(setting: np.ndarray, across: float, up: float, fx: float, fy: float, out: np.ndarray) -> None:
    """Write the colour of the floor or the wall behind the person to `out`."""
    dx, dy, dz = _point(setting, across, up, 1.0)
    dx, dy, dz = dx - setting[CAMERA], dy - setting[CAMERA + 1], dz - setting[CAMERA + 2]
    floor = -setting[CAMERA + 1] / dy if dy < -1e-9 else FAR
    wall = (setting[WALL_AT] - setting[CAMERA + 2]) / dz if dz < -1e-9 else FAR
    t = min(floor, wall, 200.0)
    x, y, z = _point(setting, across, up, t)
    distance = t * math.sqrt(dx * dx + dy * dy + dz * dz)
    lamp = _lamp(setting, fx, fy, distance)
    u = x + setting[SHIFT_X]
    if floor <= wall:
        v = z + setting[SHIFT_Z]
        a, b = (u / setting[TILE]) % 1.0, (v / setting[TILE]) % 1.0
        share = (
            1.0
            if a < 0.04 or b < 0.04
            else 0.15 * ((math.floor(u / setting[TILE]) + math.floor(v / setting[TILE])) % 2)
        )
        shade = 1.0 + setting[FLOOR_ROUGH] * _rough(3.0 * u, 3.0 * v, setting[WALL_PHASE])
        feet = ((x - setting[FEET_X]) / 0.34) ** 2 + ((z - setting[FEET_Z]) / 0.30) ** 2
        shade *= 1.0 - setting[SHADOW] * math.exp(-feet)
        for channel in range(len(out)):
            colour = setting[FLOOR + channel] + share * (setting[FLOOR_SECOND + channel] - setting[FLOOR + channel])
            light = setting[SKY + channel] + max(0.0, setting[KEY + 1]) * setting[KEY_LIGHT + channel]
            out[channel] = max(0.0, colour * shade) * (light + 0.6 * lamp)
        return
    share = _wall_share(setting, u, y)
    shade = 1.0 + setting[WALL_ROUGH] * _rough(1.7 * u, 1.7 * y, setting[WALL_PHASE])
    for channel in range(len(out)):
        colour = setting[WALL + channel] + share * (setting[WALL_SECOND + channel] - setting[WALL + channel])
        light = 0.7 * setting[SKY + channel] + 0.3 * setting[GROUND + channel]
        light += max(0.0, setting[KEY + 2]) * setting[KEY_LIGHT + channel]
        out[channel] = max(0.0, colour * shade) * (light + lamp)


@njit(cache=True, error_model="numpy")
def _wall_share(setting: np.ndarray, u: float, y: float) -> float:
    """Share of the second colour of a wall: panels with doors, windows and a skirting board, or bricks, or greenery."""
    panel, phase = setting[PANEL], setting[WALL_PHASE]
    kind = int(setting[WALL_KIND])
    if kind == 0:
        a = (u / panel + phase) % 1.0
        if y < 0.12 or a < 0.02:
            return 0.8
        if 0.3 < a < 0.62 and y < 2.1 and (math.floor(u / panel + phase) % 3) == 0:
            return 1.0
        return 0.5 if 0.25 < a < 0.75 and 1.3 < y < 2.4 and (math.floor(u / panel + phase) % 3) == 1 else 0.0
    if kind == 1:
        course = math.floor(y / 0.16)
        a = (u / 0.42 + 0.5 * (course % 2)) % 1.0
        return 0.8 if a < 0.05 or (y / 0.16) % 1.0 < 0.12 else 0.0
    leaf = _rough(6.0 * u, 6.0 * y, phase) + 0.6 * _rough(17.0 * u, 15.0 * y, 3.0 + phase)
    trunk = (u / panel + phase) % 1.0
    if trunk < 0.08:
        return 1.0
    return 0.5 + 0.5 * max(-1.0, min(1.0, leaf))


@njit(cache=True, error_model="numpy")
def _person(
    part: np.ndarray,
    surface: np.ndarray,
    setting: np.ndarray,
    across: float,
    up: float,
    t: float,
    lamp_at: tuple[float, float],
    out: np.ndarray,
) -> None:
    """Write the colour of the point where a ray meets a part to `out`."""
    px, py, pz = _point(setting, across, up, t)
    nx, ny, nz = _normal(part, px, py, pz)
    at = FRAME_ORIGIN
    x, y, z = _apply(part, FRAME, px - part[at], py - part[at + 1], pz - part[at + 2])
    around = part[AROUND]
    angle = math.atan2(x, z)
    u = angle * around
    fold = surface[FOLD]
    if fold > 0.0:  # folds tilt the normal, so they are visible in any light
        phase = surface[FOLD_PHASE]
        one = math.sin(26.0 * y + 3.0 * math.sin(9.0 * u + phase) + phase)
        two = math.sin(31.0 * u + 2.5 * math.sin(7.0 * y + 2.0 * phase))
        nx += fold * (one * part[FRAME + 3] + two * part[FRAME])
        ny += fold * (one * part[FRAME + 4] + two * part[FRAME + 1])
        nz += fold * (one * part[FRAME + 5] + two * part[FRAME + 2])
        norm = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
        nx, ny, nz = nx / norm, ny / norm, nz / norm
    vx, vy, vz = setting[CAMERA] - px, setting[CAMERA + 1] - py, setting[CAMERA + 2] - pz
    distance = math.sqrt(vx * vx + vy * vy + vz * vz)
    facing = (nx * vx + ny * vy + nz * vz) / distance
    lamp = _lamp(setting, lamp_at[0], lamp_at[1], distance)
    share = _features(x, y, z) if int(surface[PATTERN]) == FACE_PATTERN else _share(surface, u, y)
    printed = _printed(surface, x, y, z)
    gloss = surface[SHINE] * max(0.0, facing) ** 12
    for channel in range(len(out)):
        value = _reflectance(surface, y, angle, around, channel, share, printed)
        light = _lit(setting, nx, ny, nz, facing, lamp, channel)
        out[channel] = value * light + gloss * (0.3 * setting[SKY + channel] + lamp)


@njit(cache=True, error_model="numpy")
def render(
    parts: np.ndarray, surfaces: np.ndarray, setting: np.ndarray, height: int, width: int, channels: int = 3
) -> np.ndarray:
    """Draw a scene.

    Args:
        parts: N×`PART` float64.
        surfaces: M×`SURFACE` float64.
        setting: `SETTING` float64. The constants of this file are the columns of the three tables.
        height, width: size in pixels.
        channels: 3, or 1 for the first one alone: those of an infrared scene are equal.

    Returns:
        height×width×channels float32, linear light of 0 or more, the mean of up to `SAMPLES`² rays per pixel.
    """
    which, far = nearest(parts, setting, SAMPLES * height, SAMPLES * width)
    picture = np.zeros((height, width, channels), dtype=np.float32)
    colour, total = np.zeros(channels), np.zeros(channels)
    for line in range(height):
        for column in range(width):
            y, x = SAMPLES * line, SAMPLES * column
            same = which[y, x] == which[y, x + 1] == which[y + 1, x] == which[y + 1, x + 1]
            total[:] = 0.0
            # At outlines, all four rays are needed. If one part fills the pixel, two rays on the diagonal smooth its
            # texture. The background needs only one ray, because the sensor blurs it anyway.
            step = 1 if not same else 3 if which[y, x] >= 0 else 4
            for sample in range(0, SAMPLES * SAMPLES, step):
                i, j = y + sample // SAMPLES, x + sample % SAMPLES
                fx, fy = (j + 0.5) / (SAMPLES * width), (i + 0.5) / (SAMPLES * height)
                across = setting[WINDOW] + fx * setting[WINDOW + 2]
                up = -(setting[WINDOW + 1] + fy * setting[WINDOW + 3])
                index = which[i, j]
                if index < 0:
                    _behind(setting, across, up, fx, fy, colour)
                else:
                    part = parts[index]
                    surface = surfaces[int(part[SURFACE_INDEX])]
                    _person(part, surface, setting, across, up, far[i, j], (fx, fy), colour)
                total += colour
            for channel in range(channels):
                picture[line, column, channel] = total[channel] / ((3 + step) // step)
    return picture
