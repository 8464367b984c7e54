"""The ray caster in NumPy, as a slow reference: all rays at once, one part after another, every formula written out.

It shares only the column names of `vireid.synthesis.render`.
"""

from __future__ import annotations

import numpy as np

from vireid.synthesis import render as at


def rays(setting: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The directions of h×w rays (h×w×3), and their places in the picture (h×w each, 0..1)."""
    down, across = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    left, top, wide, tall = setting[at.WINDOW : at.WINDOW + 4]
    forward, right, up = (setting[i : i + 3] for i in (at.FORWARD, at.RIGHT, at.UP))
    direction = forward + (left + across * wide)[..., None] * right - (top + down * tall)[..., None] * up
    return direction, across, down


def ball(o: np.ndarray, d: np.ndarray, radius: float) -> np.ndarray:
    """The smaller t with |o + t·d| = radius if it is positive, otherwise infinity."""
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - radius**2
    root = b * b - a * c
    t = (-b - np.sqrt(np.maximum(root, 0))) / a
    return np.where((root >= 0) & (t > 0), t, np.inf)


def tapered(o: np.ndarray, d: np.ndarray, length: float, start: float, end: float) -> np.ndarray:
    """The smallest t at which a ray o + t·d meets the hull of two balls on the y axis, or infinity."""
    up = np.array([0.0, length, 0.0])
    if length <= abs(start - end):
        return ball(o, d, start) if start >= end else ball(o - up, d, end)
    k = (start - end) / length
    # On the cone, sqrt(1 - k²)·ρ = start - k·y. With the ray inserted, the square is a t² + 2 b t + c = 0.
    c2 = 1 - k * k
    reach = start - k * o[..., 1]
    a = d[..., 0] ** 2 + d[..., 2] ** 2 - (k * d[..., 1]) ** 2 / c2
    b = o[..., 0] * d[..., 0] + o[..., 2] * d[..., 2] + k * d[..., 1] * reach / c2
    c = o[..., 0] ** 2 + o[..., 2] ** 2 - reach**2 / c2
    found = np.full(d.shape[:-1], np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        for sign in (-1, 1):
            t = (-b + sign * np.sqrt(b * b - a * c)) / a
            y = o[..., 1] + t * d[..., 1]
            good = (t > 0) & (y >= k * start) & (y <= length + k * end)
            found = np.where(good, np.minimum(found, t), found)
        t = ball(o, d, start)
        found = np.where(o[..., 1] + t * d[..., 1] <= k * start, np.minimum(found, t), found)
        t = ball(o - up, d, end)
        return np.where(o[..., 1] + t * d[..., 1] >= length + k * end, np.minimum(found, t), found)


def nearest(parts: np.ndarray, setting: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """For every ray, the first part that it meets (-1: none) and the distance along the ray."""
    direction, _, _ = rays(setting, height, width)
    eye = setting[at.CAMERA : at.CAMERA + 3]
    which, far = np.full((height, width), -1), np.full((height, width), np.inf)
    for index, part in enumerate(parts):
        linear = part[at.MAP : at.MAP + 9].reshape(3, 3)
        o = linear @ (eye - part[at.ORIGIN : at.ORIGIN + 3])
        t = tapered(np.broadcast_to(o, direction.shape), direction @ linear.T, *part[at.LENGTH : at.END + 1])
        with np.errstate(invalid="ignore"):
            x = framed(part, eye + t[..., None] * direction)
        kept = (x[..., 1] >= part[at.LOW]) & (x[..., 1] <= part[at.HIGH])
        kept &= ~((x[..., 2] > part[at.FACE_Z]) & (x[..., 1] < part[at.FACE_Y]))
        hit = kept & (t < far - at.TIE)
        which[hit], far[hit] = index, t[hit]
    return which, far


def framed(part: np.ndarray, point: np.ndarray) -> np.ndarray:
    """World points in the texture frame of a part."""
    turn = part[at.FRAME : at.FRAME + 9].reshape(3, 3)
    return (point - part[at.FRAME_ORIGIN : at.FRAME_ORIGIN + 3]) @ turn.T


def normals(part: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Unit normals in the world: those of the nearest ball or of the cone, multiplied by the transposed map."""
    linear = part[at.MAP : at.MAP + 9].reshape(3, 3)
    local = (point - part[at.ORIGIN : at.ORIGIN + 3]) @ linear.T
    length, start, end = part[at.LENGTH : at.END + 1]
    y = local[:, 1].copy()
    if length <= abs(start - end):
        local[:, 1] = y - (0 if start >= end else length)
    else:
        k = (start - end) / length
        cone = k * np.hypot(local[:, 0], local[:, 2]) / np.sqrt(1 - k * k)
        local[:, 1] = np.where(y > length + k * end, y - length, np.where(y > k * start, cone, y))
    normal = local @ linear
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def lamp(setting: np.ndarray, across: np.ndarray, down: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Light of the camera's lamp on a surface that faces it."""
    if setting[at.ACTIVE] == 0:
        return np.zeros_like(distance)
    spot = ((across - setting[at.SPOT_X]) ** 2 + (down - setting[at.SPOT_Y]) ** 2) / setting[at.SPOT_WIDTH] ** 2
    return setting[at.ACTIVE] * (0.25 + 0.75 * np.exp(-spot)) * (setting[at.REACH] / distance) ** 2


def rough(x: np.ndarray, y: np.ndarray, phase: float) -> np.ndarray:
    a = np.sin(2.3 * x + 1.7 * np.sin(1.9 * y + phase))
    b = np.sin(5.1 * y + 1.3 * np.sin(4.3 * x + 2 * phase))
    return 0.4 * a + 0.35 * b + 0.25 * np.sin(9.7 * x + 3.1 * phase) * np.sin(11.3 * y)


def wall_share(setting: np.ndarray, u: np.ndarray, y: np.ndarray) -> np.ndarray:
    kind, phase = setting[at.WALL_KIND], setting[at.WALL_PHASE]
    a, number = np.mod(u / setting[at.PANEL] + phase, 1), np.floor(u / setting[at.PANEL] + phase)
    if kind == 0:
        door = (a > 0.3) & (a < 0.62) & (y < 2.1) & (number % 3 == 0)
        window = (a > 0.25) & (a < 0.75) & (y > 1.3) & (y < 2.4) & (number % 3 == 1)
        edge = (y < 0.12) | (a < 0.02)
        return np.where(edge, 0.8, np.where(door, 1.0, np.where(window, 0.5, 0.0)))
    if kind == 1:
        course = y / 0.16
        brick = np.mod(u / 0.42 + 0.5 * np.mod(np.floor(course), 2), 1)
        return np.where((brick < 0.05) | (np.mod(course, 1) < 0.12), 0.8, 0.0)
    leaf = rough(6 * u, 6 * y, phase) + 0.6 * rough(17 * u, 15 * y, 3 + phase)
    return np.where(a < 0.08, 1.0, 0.5 + 0.5 * np.clip(leaf, -1, 1))


def background(setting: np.ndarray, direction: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """The colour (N×3) of floor or wall that N rays meet."""
    eye = setting[at.CAMERA : at.CAMERA + 3]
    with np.errstate(divide="ignore"):
        floor = np.where(direction[:, 1] < -1e-9, -eye[1] / direction[:, 1], np.inf)
        wall = np.where(direction[:, 2] < -1e-9, (setting[at.WALL_AT] - eye[2]) / direction[:, 2], np.inf)
    t = np.minimum(np.minimum(floor, wall), 200.0)
    point = eye + t[:, None] * direction
    light = lamp(setting, across, down, t * np.linalg.norm(direction, axis=1))[:, None]
    u, v, y = point[:, 0] + setting[at.SHIFT_X], point[:, 2] + setting[at.SHIFT_Z], point[:, 1]
    key, sky, ground = (setting[i : i + 3] for i in (at.KEY_LIGHT, at.SKY, at.GROUND))
    tile = setting[at.TILE]
    joint = (np.mod(u / tile, 1) < 0.04) | (np.mod(v / tile, 1) < 0.04)
    share = np.where(joint, 1.0, 0.15 * np.mod(np.floor(u / tile) + np.floor(v / tile), 2))[:, None]
    shade = 1 + setting[at.FLOOR_ROUGH] * rough(3 * u, 3 * v, setting[at.WALL_PHASE])
    feet = ((point[:, 0] - setting[at.FEET_X]) / 0.34) ** 2 + ((point[:, 2] - setting[at.FEET_Z]) / 0.30) ** 2
    shade = (shade * (1 - setting[at.SHADOW] * np.exp(-feet)))[:, None]
    one, two = setting[at.FLOOR : at.FLOOR + 3], setting[at.FLOOR_SECOND : at.FLOOR_SECOND + 3]
    on_floor = np.maximum(0, (one + share * (two - one)) * shade) * (
        sky + max(0, setting[at.KEY + 1]) * key + 0.6 * light
    )
    share = wall_share(setting, u, y)[:, None]
    shade = (1 + setting[at.WALL_ROUGH] * rough(1.7 * u, 1.7 * y, setting[at.WALL_PHASE]))[:, None]
    one, two = setting[at.WALL : at.WALL + 3], setting[at.WALL_SECOND : at.WALL_SECOND + 3]
    lit = 0.7 * sky + 0.3 * ground + max(0, setting[at.KEY + 2]) * key + light
    on_wall = np.maximum(0, (one + share * (two - one)) * shade) * lit
    return np.where((floor <= wall)[:, None], on_floor, on_wall)


def pattern(surface: np.ndarray, u: np.ndarray, v: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The share of the second material."""
    period, duty, phase = surface[at.PERIOD], surface[at.DUTY], surface[at.PHASE]
    a, b = np.mod(v / period + phase, 1), np.mod(u / period + phase, 1)
    f = 4 / period
    kind = int(surface[at.PATTERN])
    if kind == at.FACE_PATTERN:
        return face(x)
    wave = np.sin(f * u + 2.1 * np.sin(0.6 * f * v + 9 * phase)) + np.sin(1.1 * f * v + 1.3 * f * u)
    return np.array(
        [
            np.zeros_like(a),
            a < duty,
            b < duty,
            0.5 * ((a < duty) * 1.0 + (b < duty)),
            (a - 0.5) ** 2 + (b - 0.5) ** 2 < 0.25 * duty,
            v < 0.12 + 2 * period * phase,
            wave > 1.2 - 2 * duty,
        ][kind],
        dtype=float,
    )


def face(x: np.ndarray) -> np.ndarray:
    side, y = np.abs(x[:, 0]), x[:, 1]
    ellipses = [
        ((side - 0.03) ** 2 / 0.00017 + (y - 0.010) ** 2 / 0.00004 < 1, 1.0),
        ((side - 0.03) ** 2 / 0.00030 + (y - 0.030) ** 2 / 0.00001 < 1, 0.7),
        (side**2 / 0.00050 + (y + 0.058) ** 2 / 0.00003 < 1, 0.45),
        (side**2 / 0.00008 + (y + 0.022) ** 2 / 0.00003 < 1, 0.2),
    ]
    share = np.select([where for where, _ in ellipses], [value for _, value in ellipses], 0.0)
    return np.where(x[:, 2] < 0.03, 0.0, share)


def printed(surface: np.ndarray, x: np.ndarray) -> np.ndarray:
    kind, side = int(surface[at.PRINT_KIND]), surface[at.PRINT_SIDE]
    if kind == 0:
        return np.zeros(len(x), dtype=bool)
    a = (x[:, 0] * np.where(x[:, 2] >= 0, 1, -1) - surface[at.PRINT_X]) / surface[at.PRINT_SIZE]
    b = (x[:, 1] - surface[at.PRINT_Y]) / surface[at.PRINT_SIZE]
    ring = a**2 + b**2
    shapes = [
        ring < 1,
        (abs(a) < 1.4) & (abs(b) < 0.45),
        (ring > 0.42) & (ring < 1),
        ((abs(a) < 0.33) & (abs(b) < 1)) | ((abs(b) < 0.33) & (abs(a) < 1)),
        (abs(a) < 1.2) & (abs(b) < 1) & (np.mod(b * 1.5 + 10, 1) < 0.5),
    ]
    return shapes[kind - 1] & (side * x[:, 2] >= 0)


def clothed(surface: np.ndarray, x: np.ndarray, around: float) -> np.ndarray:
    """The reflectance (N×3) at N points of the texture frame."""
    angle = np.arctan2(x[:, 0], x[:, 2])
    base, second, inner, figure = (surface[i : i + 3] for i in (at.BASE, at.SECOND, at.INNER, at.PRINT))
    share = pattern(surface, angle * around, x[:, 1], x)[:, None]
    value = base + share * surface[at.CONTRAST] * (second - base)
    value = value + printed(surface, x)[:, None] * surface[at.PRINT_CONTRAST] * (figure - value)
    stripe = (np.abs(np.abs(angle) - np.pi / 2) * around < 0.018)[:, None]
    value = value + stripe * surface[at.STRIPE] * (second - value)
    value = value * np.where(np.abs(x[:, 1] - surface[at.HEM]) < 0.012, 0.72, 1.0)[:, None]
    edge = surface[at.OPENING] - np.abs(angle)[:, None]
    return np.where(edge > 0, inner * np.where(edge < 0.06, 0.65, 1.0), value)


def shaded(
    part: np.ndarray, surface: np.ndarray, setting: np.ndarray, point: np.ndarray, across: np.ndarray, down: np.ndarray
) -> np.ndarray:
    """The colour (N×3) of N points on one part."""
    x, around = framed(part, point), part[at.AROUND]
    u, v, phase = np.arctan2(x[:, 0], x[:, 2]) * around, x[:, 1], surface[at.FOLD_PHASE]
    one = np.sin(26 * v + 3 * np.sin(9 * u + phase) + phase)[:, None]
    two = np.sin(31 * u + 2.5 * np.sin(7 * v + 2 * phase))[:, None]
    tipped = one * part[at.FRAME + 3 : at.FRAME + 6] + two * part[at.FRAME : at.FRAME + 3]
    normal = normals(part, point) + surface[at.FOLD] * tipped
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    view = setting[at.CAMERA : at.CAMERA + 3] - point
    distance = np.linalg.norm(view, axis=1)
    facing = np.maximum(0, (normal * view).sum(1) / distance)[:, None]
    glow = lamp(setting, across, down, distance)[:, None]
    key, sky, ground = (setting[i : i + 3] for i in (at.KEY_LIGHT, at.SKY, at.GROUND))
    above = 0.5 + 0.5 * normal[:, 1:2]
    sun = np.maximum(0, normal @ setting[at.KEY : at.KEY + 3])[:, None]
    light = above * sky + (1 - above) * ground + sun * key + glow * facing
    return clothed(surface, x, around) * light + surface[at.SHINE] * facing**12 * (0.3 * sky + glow)


def render(parts: np.ndarray, surfaces: np.ndarray, setting: np.ndarray, height: int, width: int) -> np.ndarray:
    """The same as `vireid.synthesis.render.render`, H×W×3 float64."""
    tall, wide = at.SAMPLES * height, at.SAMPLES * width
    direction, across, down = rays(setting, tall, wide)
    which, far = nearest(parts, setting, tall, wide)
    colour = np.empty((tall, wide, 3))
    for index in range(-1, len(parts)):
        here = which == index
        if not here.any():
            continue
        if index < 0:
            colour[here] = background(setting, direction[here], across[here], down[here])
            continue
        point = setting[at.CAMERA : at.CAMERA + 3] + far[here][:, None] * direction[here]
        surface = surfaces[int(parts[index, at.SURFACE_INDEX])]
        colour[here] = shaded(parts[index], surface, setting, point, across[here], down[here])
    four = colour.reshape(height, 2, width, 2, 3).transpose(0, 2, 1, 3, 4).reshape(height, width, 4, 3)
    owners = which.reshape(height, 2, width, 2).transpose(0, 2, 1, 3).reshape(height, width, 4)
    same = (owners == owners[..., :1]).all(-1)[..., None]
    filled = np.where(owners[..., :1] < 0, four[..., 0, :], 0.5 * (four[..., 0, :] + four[..., 3, :]))
    return np.where(same, filled, four.mean(2))
