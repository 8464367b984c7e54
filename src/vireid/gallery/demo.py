"""The pictures of `vireid gallery demo`: people in front of the demo's cameras whom the demo's network never saw.

The demo's world has a number of people. The people here are the ones after them in the same world: the cameras are the
same, and nobody of them was trained on. The first of them calibrate, the others are in the gallery, and the last ones
are in neither.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.data.stored import read_json, write_json, write_text
from vireid.synthesis.person import FAMILY
from vireid.synthesis.world import MARK, World, render_person

CAMERAS = {1: "entrance", 2: "hall", 3: "gate", 4: "yard", 5: "stairs", 6: "car park"}
INFRARED = (3, 6)
"""As in the layout sysu-mm01, which the demo's world has."""
CALIBRATE, GALLERY, QUESTIONS = "people", "cameras", "questions"
"""The folders: labelled people, the pictures to search in, and the pictures to search for."""
DAY = datetime(2026, 3, 2, tzinfo=UTC)
QUALITY = 90


@dataclass(frozen=True)
class Cast:
    """Who is where.

    Attributes:
        calibrate: people with labels.
        gallery: other people, whose pictures are searched.
        shots: pictures of each calibrating person and infrared camera; of each visible camera there is one.
        found: people of the gallery who are asked for.
        absent: how many people are asked for who are in no other picture.
    """

    calibrate: int = 80
    gallery: int = 60
    shots: int = 2
    found: int = 2
    absent: int = 1


@dataclass(frozen=True)
class Shot:
    """One picture: its file, who is on it, and which camera took it when."""

    path: str
    identity: int
    camera: int
    moment: int
    time: datetime | None

    @property
    def modality(self) -> Modality:
        """Of the camera."""
        return Modality.INFRARED if self.camera in INFRARED else Modality.VISIBLE


def write_pictures(folder: Path, world_folder: Path, cast: Cast, progress: Callable[[int, int], None]) -> None:
    """Write the three folders, all or nothing.

    Args:
        folder: the folder to make. `people/records.csv`, `cameras/cameras.csv` and `truth.json` describe the pictures.
        world_folder: the world that the network was trained on.
        cast: how many people.
        progress: called with the number of pictures done and of all.

    Raises:
        BadInput: there is no such world.
    """
    world, size = _world(world_folder, cast)
    shots = planned(world, cast)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for place in sorted({Path(shot.path).parent for shot in shots}):
        (unfinished / place).mkdir(parents=True)
    for done, _ in enumerate(_rendered([(unfinished, world, size, shot) for shot in shots]), 1):
        progress(done, len(shots))
    _write_tables(unfinished, shots)
    write_text(unfinished / CALIBRATE / MARK, json.dumps({"generated": True}) + "\n")
    unfinished.rename(folder)


def planned(world: World, cast: Cast) -> list[Shot]:
    """Every picture, in the order of the folders, cameras and times.

    The last people of the world are those of the demo. Files are numbered in the order of their times, and people pass
    in a random order, so a name says nothing about a person.
    """
    first = world.identities - cast.calibrate - cast.gallery - cast.absent
    labelled = range(first, first + cast.calibrate)
    searched = range(labelled.stop, labelled.stop + cast.gallery)
    absent = range(searched.stop, world.identities)
    draw = np.random.default_rng(world.seed)
    shots = []
    for camera, name in CAMERAS.items():
        each = cast.shots if camera in INFRARED else 1
        shots += _passing(f"{CALIBRATE}/{name}", camera, labelled, each, draw)
    for camera, name in CAMERAS.items():
        modality = "infrared" if camera in INFRARED else "visible"
        shots += _passing(f"{GALLERY}/{modality}/{name}", camera, searched, 1, draw)
    asked = [*draw.choice(searched, cast.found, replace=False).tolist(), *absent]
    camera = INFRARED[0]
    shots += [Shot(f"{QUESTIONS}/{n}.jpg", one, camera, cast.shots, None) for n, one in enumerate(asked, 1)]
    return shots


def _passing(folder: str, camera: int, people: Sequence[int], each: int, draw: np.random.Generator) -> Iterator[Shot]:
    """People who pass a camera in a random order: by day, or by night if it is an infrared one."""
    order = draw.permutation(np.repeat(people, each)).tolist()
    start = DAY + timedelta(hours=20 if camera in INFRARED else 8)
    seconds = np.sort(draw.integers(0, 10 * 3600, len(order))).tolist()
    seen: dict[int, int] = {}
    for number, (identity, second) in enumerate(zip(order, seconds, strict=True), 1):
        moment = seen[identity] = seen.get(identity, -1) + 1
        yield Shot(f"{folder}/{number:04d}.jpg", identity, camera, moment, start + timedelta(seconds=second))


def truth(folder: Path) -> dict[str, int]:
    """Path → person, of the pictures to search in and to search for."""
    return read_json(folder / "truth.json")


def _world(folder: Path, cast: Cast) -> tuple[World, Size]:
    """The demo's world with more people, and the size of its pictures."""
    if not (folder / MARK).is_file():
        raise BadInput(f"{folder} is not there: the gallery's demo goes on where vireid demo ends, so run that first")
    facts = read_json(folder / MARK)
    # From a new family on: nobody here looks like somebody who was trained on.
    trained = -(-facts["identities"] // FAMILY) * FAMILY
    people = trained + cast.calibrate + cast.gallery + cast.absent
    same = {name: facts[name] for name in World.__dataclass_fields__ if name != "identities"}
    return World(people, **same), Size.parse(facts["size"])


def _rendered(jobs: list[tuple[Path, World, Size, Shot]]) -> Iterator[None]:
    """Render the pictures, on all cores where processes can be forked."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if cores == 1 or sys.platform != "linux":
        yield from map(_render, jobs)
        return
    _render(jobs[0])  # compiles, which the processes then need not do
    with multiprocessing.get_context("fork").Pool(cores) as pool:
        yield from pool.imap_unordered(_render, jobs, chunksize=8)


def _render(job: tuple[Path, World, Size, Shot]) -> None:
    folder, world, size, shot = job
    seen = {"camera": shot.camera, "modality": shot.modality, "moment": shot.moment}
    picture = render_person(world, shot.identity, size=size, **seen)
    Image.fromarray(picture).save(folder / shot.path, quality=QUALITY)


def _write_tables(folder: Path, shots: Sequence[Shot]) -> None:
    """The table with labels, the table without, and who is really on each picture."""
    labelled, searched = io.StringIO(newline=""), io.StringIO(newline="")
    tables = csv.writer(labelled, lineterminator="\n"), csv.writer(searched, lineterminator="\n")
    tables[0].writerow(["path", "identity", "camera", "modality", "time"])
    tables[1].writerow(["path", "camera", "modality", "time"])
    people = {}
    for shot in shots:
        place, _, path = shot.path.partition("/")
        camera, word = CAMERAS[shot.camera], shot.modality.word
        if place == CALIBRATE and shot.time is not None:
            tables[0].writerow([path, shot.identity, camera, word, int(shot.time.timestamp())])
        elif shot.time is not None:
            tables[1].writerow([path, camera, word, f"{shot.time:%Y-%m-%dT%H:%M:%SZ}"])
        if place != CALIBRATE:
            people[shot.path] = shot.identity
    write_text(folder / CALIBRATE / "records.csv", labelled.getvalue())
    write_text(folder / GALLERY / "cameras.csv", searched.getvalue())
    write_json(folder / "truth.json", people)
