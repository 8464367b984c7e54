"""The generated world: render any person at any camera and moment, and write whole data sets to disk.

People, cameras and moments have separate random streams. So the same person can be rendered at another camera, and one
factor can be switched off while everything else stays the same.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.settings import Count, Share, Whole, settings
from vireid.data.size import Size
from vireid.data.stored import write_text
from vireid.synthesis import layout as layouts
from vireid.synthesis import thermal
from vireid.synthesis.camera import (
    Place,
    Sensor,
    View,
    develop,
    draw_place,
    draw_sensor,
    draw_view,
    metering,
    setting,
)
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
from vireid.synthesis.render import SAMPLES, nearest, render

PERSON_STREAM, FAMILY_STREAM, PLACE_STREAM, SENSOR_STREAM, MOMENT_STREAM, PLAN_STREAM = range(6)
FACTORS = ("colour_shortcut", "look_alikes", "one_sided_detail", "sensor_gap", "occlusion")
UNFINISHED = "UNFINISHED"  # is in the folder until the world is complete
MARK = "GENERATED.json"  # `datasets.generated` looks for this file
CHUNK = 24  # pictures that a worker renders at a time
QUALITY = 90  # of JPEG files

# The people of these worlds trained the weights of `weights=world` (studies/pretrain.py). No data set may contain them.
PRETRAINING_SEEDS = range(900_000_000, 900_001_000)


@settings
class World:
    """A generated world. Everything in it is a function of these numbers.

    A factor of None follows the difficulty d. `colour_shortcut` is 1 - (1 - d)³ and `sensor_gap` is d, because these
    two make the task cross-modal, also in easy worlds. The other factors and the nuisance are d^1.3. With these curves
    and the default difficulty, grey pixels find almost no matches across modalities, and a small network still learns
    in minutes (docs/results).

    Raises (when an instance is made):
        BadInput: a number is outside its range.
    """

    identities: Count
    """ours: number of people in the world."""

    seed: Whole = 0
    """ours: the seed of all random streams."""

    difficulty: Share = 0.5
    """ours: scales the factors that are None, and the nuisance (pose, crop, light, noise, blur)."""

    colour_shortcut: Share | None = None
    """ours: how well the colours of clothes distinguish people in visible pictures."""

    look_alikes: Share | None = None
    """ours: share of families in which the members differ in one or two local details only."""

    one_sided_detail: Share | None = None
    """ours: share of prints and openings that are visible from one side only."""

    sensor_gap: Share | None = None
    """ours: how much infrared differs from a grey copy of visible, in reflectances, patterns, light and sensor."""

    occlusion: Share | None = None
    """ours: how often a person is occluded or cut off."""

    infrared: Literal["near", "thermal"] | None = None
    """ours: the kind of infrared camera. `near` lights the scene with a lamp of its own, as in SYSU-MM01 and LLCM;
    `thermal` sees heat, as in RegDB. null follows the layout that is written, and is `near` without one."""

    def strengths(self) -> Strengths:
        """The strength of every factor. Factors that are None get their value from the difficulty."""
        gentle = self.difficulty**1.3
        follows: dict[str, float] = dict.fromkeys(FACTORS, gentle)
        follows |= {"colour_shortcut": 1.0 - (1.0 - self.difficulty) ** 3, "sensor_gap": self.difficulty}
        given: dict[str, float] = {n: getattr(self, n) for n in FACTORS if getattr(self, n) is not None}
        return Strengths(**(follows | given), nuisance=gentle)

    def stream(self, *key: int) -> np.random.Generator:
        """The random stream of a key: the same for the same seed, and independent of the streams of other keys."""
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key)))


@lru_cache(maxsize=4096)
def person(world: World, identity: int) -> Person:
    """The person with this identity, counted from 0.

    Raises:
        BadInput: the world has no such identity.
    """
    if not 0 <= identity < world.identities:
        raise BadInput(f"identity {identity} is not in this world; choices: 0 to {world.identities - 1}")
    family, member = divmod(identity, FAMILY)
    shared, own = world.stream(FAMILY_STREAM, family), world.stream(PERSON_STREAM, identity)
    return draw_person(shared, own, world.strengths(), member=member)


def attributes(world: World, identity: int) -> np.ndarray:
    """The true attributes of a person that both modalities show, see `person.describe`.

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


@dataclass(frozen=True)
class _Scene:
    """What a picture shows, and the camera that takes it.

    Attributes:
        tables: `parts` and `surfaces` of the ray caster.
        own: the first parts, as many as this, are the person. Those of passers-by and of things come after them.
        setting: the table `setting` of the ray caster.
        gain: exposure gain.
        sensor, view: of the picture.
        rng: draws the noise.
    """

    tables: tuple[np.ndarray, np.ndarray]
    own: int
    setting: np.ndarray
    gain: float
    sensor: Sensor
    view: View
    rng: np.random.Generator


def render_person(
    world: World, identity: int, *, camera: int, modality: Modality | int, moment: int, size: Size | tuple[int, int]
) -> np.ndarray:
    """Render one picture of a person.

    Args:
        world: the world.
        identity: the person, counted from 0.
        camera: the number of the camera, counted from 1. A number has the same place in both modalities.
        modality: visible or infrared.
        moment: counted from 0. The same moment at another camera or in another modality is a different situation.
        size: height and width in pixels.

    Returns:
        height×width×3 uint8; the three channels of an infrared picture are equal.

    Raises:
        BadInput: the world has no such identity, or the modality is neither visible nor infrared.
    """
    scene = _scene(world, identity, camera, modality, moment)
    channels = 1 if scene.sensor.infrared else 3
    light = render(*scene.tables, scene.setting, int(size[0]), int(size[1]), channels)
    return develop(light, scene.sensor, scene.view, scene.rng, gain=scene.gain)


def render_mask(
    world: World, identity: int, *, camera: int, modality: Modality | int, moment: int, size: Size | tuple[int, int]
) -> np.ndarray:
    """Where the person is in the picture that `render_person` gives for the same arguments.

    Args:
        world, identity, camera, modality, moment, size: see `render_person`.

    Returns:
        height×width float32, the share of each pixel that the person covers, 0 to 1 in steps of ¼. What stands in front
        of the person, other people and the shadow on the floor do not belong to it.

    Raises:
        BadInput: as `render_person`.
    """
    scene, (height, width) = _scene(world, identity, camera, modality, moment), size
    which, _ = nearest(scene.tables[0], scene.setting, SAMPLES * int(height), SAMPLES * int(width))
    own = (which >= 0) & (which < scene.own)
    return own.reshape(int(height), SAMPLES, int(width), SAMPLES).mean(axis=(1, 3), dtype=np.float32)


def _scene(world: World, identity: int, camera: int, modality: Modality | int, moment: int) -> _Scene:
    """The scene of one picture, see `render_person`."""
    if modality not in (Modality.VISIBLE, Modality.INFRARED):
        raise BadInput(f"modality {modality!r} cannot be rendered; choices: visible, infrared")
    infrared = modality == Modality.INFRARED
    who, strengths = person(world, identity), world.strengths()
    place, sensor = _camera(world, camera, infrared)
    gap = strengths.sensor_gap
    heat = thermal.share(gap) if infrared and world.infrared == "thermal" else 0.0
    if heat:
        who, sensor = thermal.warmed(who, heat), thermal.thermal_sensor(sensor, heat)
    rng = world.stream(MOMENT_STREAM, int(modality), camera, identity, moment)
    view = draw_view(rng, place, strengths.nuisance, strengths.occlusion)
    bones = skeleton(who.body, draw_pose(rng, who.body, strengths.nuisance))
    figure = Figure(infrared=infrared, face=1.0 - heat * (1.0 - thermal.FACE_CONTRAST))
    add_person(figure, who, bones)
    own = len(figure.tables()[0])
    _add_occluders(figure, rng, strengths, heat=heat)
    numbers = setting(place, sensor, view, bones.points(), gap)
    gain = metering(numbers)
    if heat:
        thermal.glow(numbers, heat)
        gain = thermal.gain(view, heat, gain)
    return _Scene(figure.tables(), own, numbers, gain, sensor, view, rng)


def _add_occluders(figure: Figure, rng: np.random.Generator, strengths: Strengths, *, heat: float) -> None:
    """Sometimes add another person at the edge, or a post, a bin or a bench in front of the person.

    `heat` is how far they are seen by their temperature, 0 to 1.
    """
    passer, side, ahead, thing, x, tall, wide, bright, shine = rng.random(9)
    if passer < 0.4 * strengths.occlusion:
        body, look = draw_body(rng), draw_outfit(rng, strengths)
        stranger = thermal.warmed(Person(body, draw_hair(rng, strengths), draw_skin(rng, strengths), look), heat)
        at = ((0.52 + 0.22 * ahead) * (1 if side < 0.5 else -1), 1.1 * (ahead - 0.7))
        add_person(figure, as_stranger(stranger), skeleton(body, draw_pose(rng, body, 1.0), place=at))
    if thing < 0.32 * strengths.occlusion:
        shown = (1.0 - heat) * (0.1 + 0.5 * shine) + heat * (0.08 + 0.08 * shine)
        surface = figure.surface(Material((0.5 * bright, 0.45 * bright, 0.4 * bright), shown))
        sideways = np.array([1.0, 0.0, 0.0])
        middle = np.array([0.7 * (x - 0.5), 0.0, 0.75])
        if tall < 0.4:
            figure.part(middle, middle + np.array([0.0, 3.0, 0.0]), (0.05 + 0.04 * wide,) * 2, surface, side=sideways)
        else:
            high = 0.35 + 0.5 * wide
            figure.part(middle, middle + np.array([0.0, high, 0.0]), (0.24, 0.22), surface, side=sideways, high=high)


def plan(
    world: World,
    layout: str,
    *,
    pictures: int | None = None,
    published_counts: bool = False,
    tested: int | None = None,
) -> layouts.Plan:
    """Plan every picture and text file of a data set, without rendering.

    Args:
        world: the world.
        layout: `sysu-mm01`, `regdb` or `llcm`.
        pictures: number of pictures per identity and camera; None for the usual number of the layout (10, 10, 8).
        published_counts: plan exactly the published numbers, and ignore `world.identities` and `pictures`.
        tested: number of test identities; None for the published proportion.

    Raises:
        BadInput: the layout is unknown, it cannot have this number of identities or of test identities, or `pictures`
            is out of its range.
    """
    rng = world.stream(PLAN_STREAM, layouts.LAYOUTS.index(layout) if layout in layouts.LAYOUTS else 0)
    return layouts.make_plan(
        layout, world.identities, pictures=pictures, published=published_counts, rng=rng, tested=tested
    )


def write_world(
    root: Path,
    world: World,
    *,
    layout: str,
    size: Size = Size(288, 144),  # noqa: B008 — a named tuple, it cannot change
    pictures: int | None = None,
    published_counts: bool = False,
    tested: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Write a generated data set in one of the published layouts.

    The files are the same, byte for byte, for any number of workers. The lists of the layout are written last and
    appear all at once, so no reader takes a world for complete before it is. The same call repeated after an
    interruption completes the world.

    Args:
        root: an empty or new folder, or one that the same call began to fill.
        world: the world.
        layout, pictures, published_counts, tested: see `plan`.
        size: height and width of the pictures. Small pictures are fast, also with `published_counts`.
        workers: number of processes; None for one per usable core.
        progress: called with the number of pictures done and the number of all pictures.

    Returns:
        The counts of `layout.Plan.summary`, with `root`, `size` and `seed`.

    Raises:
        BadInput: the folder is not empty or cannot be written, the size or `workers` is too small, the seed is
            reserved, or `plan` raises it.
    """
    root, size = Path(root), Size(*size)
    _check_call(world, size, workers)
    chosen = plan(world, layout, pictures=pictures, published_counts=published_counts, tested=tested)
    usual = "thermal" if layout == "regdb" else "near"
    peopled = replace(world, identities=chosen.identities, infrared=world.infrared or usual)
    asked = {"pictures": pictures, "published_counts": published_counts, "tested": tested}
    mark = _mark(peopled, layout, size, asked)
    _check_free(root, begun := f"{mark}{len(chosen.pictures)} pictures\n")
    chunks = [
        (root, peopled, size, chosen.pictures[start : start + CHUNK]) for start in range(0, len(chosen.pictures), CHUNK)
    ]
    done = 0
    try:
        root.mkdir(parents=True, exist_ok=True)
        write_text(root / UNFINISHED, begun)
        (root / MARK).write_bytes(mark.encode())
        for folder in sorted({(root / picture.path).parent for picture in chosen.pictures}):
            folder.mkdir(parents=True, exist_ok=True)
        for count in _each(chunks, workers or _usable_cores()):
            done += count
            if progress is not None:
                progress(done, len(chosen.pictures))
        _write_lists(root, chosen.texts)
        (root / UNFINISHED).unlink()
    except OSError as error:
        raise BadInput(f"cannot write a world to '{root}': {error.strerror}") from error
    return chosen.summary() | {"root": str(root), "size": str(size), "seed": world.seed}


def _check_call(world: World, size: Size, workers: int | None) -> None:
    """Check the arguments of `write_world`.

    Raises:
        BadInput: the seed is reserved, or the size or `workers` is too small.
    """
    if world.seed in PRETRAINING_SEEDS:
        raise BadInput(
            f"seeds {PRETRAINING_SEEDS.start} to {PRETRAINING_SEEDS.stop - 1} are reserved: their people trained the "
            "weights of weights=world"
        )
    if min(size) < 8:
        raise BadInput(f"size {size} is too small for a picture of a person; at least 8x8")
    if workers is not None and workers < 1:
        raise BadInput(f"workers is {workers}; it must be at least 1")


def _check_free(root: Path, begun: str) -> None:
    """Check that a folder is new or empty, or that the same call began to fill it.

    Raises:
        BadInput: it is neither.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    unfinished = root / UNFINISHED
    if not unfinished.is_file():
        raise BadInput(f"'{root}' is not an empty folder; a generated world needs a new or empty folder")
    if unfinished.read_text(encoding="utf-8", errors="replace") != begun:
        raise BadInput(
            f"'{root}' holds an unfinished world of other settings; "
            "repeat the command that began it, or remove the folder"
        )


def _write_lists(root: Path, texts: Mapping[str, str]) -> None:
    """Write the text files of a layout. They are in one folder, which appears when all of them are in it."""
    (folder,) = {Path(name).parent for name in texts}
    unfinished = root / f"{folder}.unfinished"
    for left in (unfinished, root / folder):
        shutil.rmtree(left, ignore_errors=True)
    unfinished.mkdir()
    for name, text in texts.items():
        (unfinished / Path(name).name).write_bytes(text.encode())
    os.replace(unfinished, root / folder)


def _mark(world: World, layout: str, size: Size, asked: Mapping[str, int | bool | None]) -> str:
    """The text of a file that marks the folder as generated, so that its numbers are not taken for real ones.

    It holds everything that the pictures are a function of: `masks` plans and renders them again.
    """
    facts = {"generated": True, "layout": layout, "size": str(size), **asdict(world), "plan": asked}
    return json.dumps(facts, indent=2) + "\n"


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _each(chunks: list[tuple], workers: int) -> Iterator[int]:
    """Write all chunks, in this process or in several, and yield the number of pictures of each."""
    if min(workers, len(chunks)) <= 1:
        yield from map(_write_chunk, chunks)
        return
    # A forked worker does not import anything again. Other systems must start a new Python.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    _compile()
    with context.Pool(min(workers, len(chunks))) as pool:
        yield from pool.imap_unordered(_write_chunk, chunks)


def _compile() -> None:
    """Compile (or load) the ray caster once, so that the worker processes do not all compile it."""
    render_person(World(1), 0, camera=1, modality=Modality.INFRARED, moment=0, size=(8, 8))


def _write_chunk(chunk: tuple[Path, World, Size, tuple[layouts.Picture, ...]]) -> int:
    """Render and write some pictures, and return their number."""
    root, world, size, taken = chunk
    for picture in taken:
        pixels = render_person(
            world, picture.identity, camera=picture.camera, modality=picture.modality, moment=picture.moment, size=size
        )
        (root / picture.path).write_bytes(encoded(pixels, picture.path, picture.modality))
    return len(taken)


def encoded(pixels: np.ndarray, name: str, modality: Modality) -> bytes:
    """Encode a picture without metadata: as JPEG with three channels, or as BMP, which is greyscale for infrared."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if name.endswith(".bmp"):
        (image.convert("L") if modality == Modality.INFRARED else image).save(buffer, "BMP")
    else:
        image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def contact_sheet(
    world: World, *, identities: int = 8, per_modality: int = 4, size: Size | tuple[int, int] = (192, 96)
) -> Image.Image:
    """Render an overview: one line of pictures per person, visible pictures left, infrared ones right.

    Args:
        world: the world.
        identities: number of people.
        per_modality: number of pictures per person and modality, each of another camera.
        size: height and width of a picture.

    Raises:
        BadInput: the world has fewer identities.
    """
    if identities > world.identities:
        raise BadInput(
            f"a contact sheet of {identities} identities needs a world of as many or more, not {world.identities}"
        )
    height, width = size
    gap = max(2, width // 24)
    across = 2 * per_modality * (width + gap) + 3 * gap
    sheet = np.full((identities * (height + gap) + gap, across, 3), 255, dtype=np.uint8)
    for identity in range(identities):
        for column in range(2 * per_modality):
            modality = Modality(column // per_modality)
            camera = 1 + column % per_modality + per_modality * int(modality)
            pixels = render_person(world, identity, camera=camera, modality=modality, moment=identity, size=size)
            top, left = gap + identity * (height + gap), gap + column * (width + gap) + 2 * gap * int(modality)
            sheet[top : top + height, left : left + width] = pixels
    return Image.fromarray(sheet)
