"""The generated world: who lives in it, a picture of anybody at any camera and moment, and data sets written to disk.

People, cameras and moments come from separate random streams, so that a person can be met again at another camera
and one factor can be switched off while everything else stays as it was.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.synthesis import layout as layouts
from vireid.synthesis.camera import Place, Sensor, develop, draw_place, draw_sensor, draw_view, metering, setting
from vireid.synthesis.figure import Figure, add_person, as_stranger
from vireid.synthesis.garment import Material, Strengths, draw_outfit
from vireid.synthesis.person import (
    FAMILY,
    Person,
    describe,
    draw_body,
    draw_hair,
    draw_person,
    draw_pose,
    draw_skin,
    skeleton,
)
from vireid.synthesis.render import render

PERSON_STREAM, FAMILY_STREAM, PLACE_STREAM, SENSOR_STREAM, MOMENT_STREAM, PLAN_STREAM = range(6)
FACTORS = ("colour_shortcut", "look_alikes", "one_sided_detail", "sensor_gap", "occlusion")
MARK = "GENERATED.json"  # `datasets.generated` looks for it
CHUNK = 24  # pictures a worker takes at a time
QUALITY = 90


@dataclass(frozen=True)
class World:
    """A generated world; everything in it follows from these few numbers.

    Attributes:
        identities: how many people live in it, at least 1.
        seed: 0 upwards.
        difficulty: 0..1, scales what a factor below leaves open, and the nuisance (pose, crop, light, noise, blur).
        colour_shortcut: 0..1, how vividly clothes tell people apart in visible pictures.
        look_alikes: 0..1, share of families whose members differ in one or two local things only.
        one_sided_detail: 0..1, share of prints and openings seen from one side only.
        sensor_gap: 0..1, how far infrared is from a grey copy of visible: reflectances, patterns, light, sensor.
        occlusion: 0..1, how often something hides or cuts a person.

    A factor of None follows the difficulty d: `colour_shortcut` as 1 - (1 - d)³ and `sensor_gap` as d, because they
    make the task what it is already in easy worlds; the others, and the nuisance, as d^1.3. The curves put the default
    where grey pixels find next to nobody across modalities and a small network still learns in minutes (docs/results).

    Raises:
        BadInput: a number is outside its range.
    """

    identities: int
    seed: int = 0
    difficulty: float = 0.5
    colour_shortcut: float | None = None
    look_alikes: float | None = None
    one_sided_detail: float | None = None
    sensor_gap: float | None = None
    occlusion: float | None = None

    def __post_init__(self) -> None:
        if not _is_whole(self.identities) or self.identities < 1:
            raise BadInput(f"world: identities is {self.identities!r}, it must be a whole number of at least 1")
        if not _is_whole(self.seed) or self.seed < 0:
            raise BadInput(f"world: seed is {self.seed!r}, it must be a whole number of at least 0")
        for name in ("difficulty", *FACTORS):
            value = getattr(self, name)
            if value is None and name != "difficulty":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise BadInput(f"world: {name} is {value!r}, it must be a number from 0 to 1")

    def strengths(self) -> Strengths:
        """Every factor's strength, the open ones filled in from the difficulty."""
        gentle = self.difficulty**1.3
        follows: dict[str, float] = dict.fromkeys(FACTORS, gentle)
        follows |= {"colour_shortcut": 1.0 - (1.0 - self.difficulty) ** 3, "sensor_gap": self.difficulty}
        given: dict[str, float] = {n: getattr(self, n) for n in FACTORS if getattr(self, n) is not None}
        return Strengths(**(follows | given), nuisance=gentle)

    def stream(self, *key: int) -> np.random.Generator:
        """The random stream of this key: the same for the same seed, independent of every other key's."""
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key)))


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


@lru_cache(maxsize=4096)
def person(world: World, identity: int) -> Person:
    """Who this identity (0 upwards) is.

    Raises:
        BadInput: the world has no such identity.
    """
    if not 0 <= identity < world.identities:
        raise BadInput(f"identity {identity} is not in this world; choices: 0 to {world.identities - 1}")
    family, member = divmod(identity, FAMILY)
    shared, own = world.stream(FAMILY_STREAM, family), world.stream(PERSON_STREAM, identity)
    return draw_person(shared, own, world.strengths(), member=member)


def attributes(world: World, identity: int) -> np.ndarray:
    """The true attributes of a person that both modalities can see; see `person.describe`.

    Returns:
        A float64, one dimension, each attribute scaled to about 0..1.

    Raises:
        BadInput: the world has no such identity.
    """
    return describe(person(world, identity))


@lru_cache(maxsize=256)
def _camera(world: World, camera: int, infrared: bool) -> tuple[Place, Sensor]:
    strengths = world.strengths()
    place = draw_place(world.stream(PLACE_STREAM, camera), strengths.nuisance)
    stream = world.stream(SENSOR_STREAM, camera, int(infrared))
    return place, draw_sensor(stream, strengths.nuisance, strengths.sensor_gap, infrared=infrared)


def render_person(
    world: World, identity: int, *, camera: int, modality: Modality | int, moment: int, size: Size | tuple[int, int]
) -> np.ndarray:
    """Photograph a person.

    Args:
        identity: 0 upwards. camera: its number, 1 upwards; one number has one place, whatever the modality.
        modality: visible or infrared.
        moment: 0 upwards; moments of different cameras or modalities are never the same moment.
        size: height and width in pixels.

    Returns:
        height×width×3 uint8; infrared pictures have three equal channels.

    Raises:
        BadInput: no such identity, or the modality is neither visible nor infrared.
    """
    if modality not in (Modality.VISIBLE, Modality.INFRARED):
        raise BadInput(f"modality {modality!r} cannot be photographed; choices: visible, infrared")
    infrared = modality == Modality.INFRARED
    who, strengths = person(world, identity), world.strengths()
    place, sensor = _camera(world, camera, infrared)
    rng = world.stream(MOMENT_STREAM, int(modality), camera, identity, moment)
    view = draw_view(rng, place, strengths.nuisance, strengths.occlusion)
    bones = skeleton(who.body, draw_pose(rng, who.body, strengths.nuisance))
    figure = Figure(infrared=infrared)
    add_person(figure, who, bones)
    _add_occluders(figure, rng, strengths)
    numbers = setting(place, sensor, view, bones.points(), strengths.sensor_gap)
    light = render(*figure.tables(), numbers, int(size[0]), int(size[1]))
    return develop(light, sensor, view, rng, gain=metering(numbers))


def _add_occluders(figure: Figure, rng: np.random.Generator, strengths: Strengths) -> None:
    """Now and then a passer-by at the edge, or a post, a bin or a bench before the person."""
    passer, side, ahead, thing, x, tall, wide, bright, shine = rng.random(9)
    if passer < 0.4 * strengths.occlusion:
        body, look = draw_body(rng), draw_outfit(rng, strengths)
        stranger = Person(body, draw_hair(rng, strengths), draw_skin(rng, strengths), look)
        at = ((0.52 + 0.22 * ahead) * (1 if side < 0.5 else -1), 1.1 * (ahead - 0.7))
        add_person(figure, as_stranger(stranger), skeleton(body, draw_pose(rng, body, 1.0), place=at))
    if thing < 0.32 * strengths.occlusion:
        surface = figure.surface(Material((0.5 * bright, 0.45 * bright, 0.4 * bright), 0.1 + 0.5 * shine))
        sideways = np.array([1.0, 0.0, 0.0])
        middle = np.array([0.7 * (x - 0.5), 0.0, 0.75])
        if tall < 0.4:
            figure.part(middle, middle + np.array([0.0, 3.0, 0.0]), (0.05 + 0.04 * wide,) * 2, surface, side=sideways)
        else:
            high = 0.35 + 0.5 * wide
            figure.part(middle, middle + np.array([0.0, high, 0.0]), (0.24, 0.22), surface, side=sideways, high=high)


def plan(world: World, layout: str, *, pictures: int | None = None, published_counts: bool = False) -> layouts.Plan:
    """Every picture and text file of a data set, without rendering.

    Args:
        layout: `sysu-mm01`, `regdb` or `llcm`.
        pictures: per identity and camera; None for the layout's usual number (10, 10, 8).
        published_counts: ignore `world.identities` and `pictures` and plan exactly the published numbers.

    Raises:
        BadInput: unknown layout, too few identities for it, or an impossible number of pictures.
    """
    rng = world.stream(PLAN_STREAM, layouts.LAYOUTS.index(layout) if layout in layouts.LAYOUTS else 0)
    return layouts.make_plan(layout, world.identities, pictures=pictures, published=published_counts, rng=rng)


def write_world(
    root: Path,
    world: World,
    *,
    layout: str,
    size: Size = Size(288, 144),  # noqa: B008 — a named tuple, it cannot change
    pictures: int | None = None,
    published_counts: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Write a generated data set in one of the published layouts; the same bytes whatever the number of workers.

    Args:
        root: an empty or new folder.
        layout, pictures, published_counts: see `plan`.
        size: of every picture; any will do with `published_counts`, small ones are quick.
        workers: processes; None for one per usable core.
        progress: called with pictures done and pictures in all.

    Returns:
        Counts, see `layout.Plan.summary`, with the `root`, `size` and `seed` used.

    Raises:
        BadInput: the folder is not empty or cannot be written, or what `plan` raises.
    """
    root, size = Path(root), Size(*size)
    chosen = plan(world, layout, pictures=pictures, published_counts=published_counts)
    if min(size) < 8:
        raise BadInput(f"size {size} is too small for a picture of a person; at least 8x8")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise BadInput(f"'{root}' is not an empty folder; a generated world is written into a new one only")
    if workers is not None and workers < 1:
        raise BadInput(f"workers is {workers}, it must be at least 1")
    peopled = replace(world, identities=chosen.identities)
    mark = _mark(peopled, layout, size)
    chunks = [
        (root, peopled, size, chosen.pictures[start : start + CHUNK]) for start in range(0, len(chosen.pictures), CHUNK)
    ]
    done = 0
    try:
        for folder in sorted({(root / name).parent for name in (*chosen.texts, *(p.path for p in chosen.pictures))}):
            folder.mkdir(parents=True, exist_ok=True)
        for name, text in {**chosen.texts, MARK: mark}.items():
            (root / name).write_bytes(text.encode())
        for count in _each(chunks, workers or _usable_cores()):
            done += count
            if progress is not None:
                progress(done, len(chosen.pictures))
    except OSError as error:
        raise BadInput(f"cannot write a world to '{root}': {error.strerror}") from error
    return chosen.summary() | {"root": str(root), "size": str(size), "seed": world.seed}


def _mark(world: World, layout: str, size: Size) -> str:
    """What the world's folder says of itself, so that nobody takes its numbers for a real data set's."""
    facts = {"generated": True, "layout": layout, "size": str(size), **asdict(world)}
    return json.dumps(facts, indent=2) + "\n"


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _each(chunks: list[tuple], workers: int) -> Iterator[int]:
    """Write every chunk, here or in other processes."""
    if min(workers, len(chunks)) <= 1:
        yield from map(_write_chunk, chunks)
        return
    # Forked workers need not import anything again; elsewhere Python has to start afresh.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    _write_warm()
    with context.Pool(min(workers, len(chunks))) as pool:
        yield from pool.imap_unordered(_write_chunk, chunks)


def _write_warm() -> None:
    """Compile (or load) the ray caster once, before several processes would do so side by side."""
    render_person(World(1), 0, camera=1, modality=Modality.INFRARED, moment=0, size=(8, 8))


def _write_chunk(chunk: tuple[Path, World, Size, tuple[layouts.Picture, ...]]) -> int:
    root, world, size, taken = chunk
    for picture in taken:
        pixels = render_person(
            world, picture.identity, camera=picture.camera, modality=picture.modality, moment=picture.moment, size=size
        )
        (root / picture.path).write_bytes(encoded(pixels, picture.path, picture.modality))
    return len(taken)


def encoded(pixels: np.ndarray, name: str, modality: Modality) -> bytes:
    """A picture file's bytes: JPEG with three channels, or BMP, greyscale where infrared; no metadata."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if name.endswith(".bmp"):
        (image.convert("L") if modality == Modality.INFRARED else image).save(buffer, "BMP")
    else:
        image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def contact_sheet(
    world: World, *, identities: int = 8, per_modality: int = 4, size: Size | tuple[int, int] = (192, 96)
) -> Image.Image:
    """People in rows, visible pictures to the left, infrared ones to the right, each from another camera.

    Raises:
        BadInput: the world has fewer identities.
    """
    if identities > world.identities:
        raise BadInput(f"a contact sheet of {identities} identities needs a world of as many, not {world.identities}")
    height, width = size
    gap = max(2, width // 24)
    across = 2 * per_modality * (width + gap) + 3 * gap
    sheet = np.full((identities * (height + gap) + gap, across, 3), 255, dtype=np.uint8)
    for row in range(identities):
        for column in range(2 * per_modality):
            modality = Modality(column // per_modality)
            camera = 1 + column % per_modality + per_modality * int(modality)
            pixels = render_person(world, row, camera=camera, modality=modality, moment=row, size=size)
            top, left = gap + row * (height + gap), gap + column * (width + gap) + 2 * gap * int(modality)
            sheet[top : top + height, left : left + width] = pixels
    return Image.fromarray(sheet)
