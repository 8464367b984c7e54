"""`vireid gallery demo`: calibrate, build, search and serve on generated people, after `vireid demo`."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from vireid.cli import console
from vireid.data.errors import BadInput

RUN, WORLD = "pretrained", "world"
"""What is needed of `vireid demo`."""
STEPS = 5


def register(nouns: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = nouns.add_parser(
        "demo",
        help="all of this on generated people, in a minute or two",
        description="After vireid demo: generate people whom its network never saw, calibrate it with some of them, "
        "build an index of the others, search for three pictures, and serve the index to a browser. Each step is a "
        "command that is printed. A second call does only what is missing.",
    )
    verb.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="the folder of vireid demo (demo)")
    verb.add_argument("--port", type=console.count, default=8000, metavar="N", help="of the service (8000)")
    verb.add_argument("--no-serve", action="store_true", help="end after the searches")
    verb.set_defaults(verb_function=run)


def run(options: argparse.Namespace) -> None:
    """Pictures, calibration, index, searches, service."""
    model, place = options.out / RUN, options.out / "gallery"
    check_model(model)
    make_pictures(place, options.out / WORLD)

    step(2, "measure what a cosine says for this network, with the people who have labels")
    if calibrated(model):
        print(f"done already: {model / 'calibration.json'}")
    else:
        vireid("gallery", "calibrate", model, "--data", f"folder:{place / 'people'}")

    step(3, "build an index of the other pictures; another call embeds only new and changed ones")
    index = place / "index"
    vireid("gallery", "build", index, "--model", model, place / "cameras" / "cameras.csv")

    step(4, "search for the person of an infrared picture, in both kinds of pictures")
    for question in sorted((place / "questions").glob("*.jpg")):
        search(index, question, place)

    step(5, "search in a browser")
    serve = ["gallery", "serve", index, "--port", options.port]
    if options.no_serve:
        print(f"$ {written(serve)}")
        return
    print("stop it with Ctrl-C")
    vireid(*serve)


def step(number: int, what: str) -> None:
    """Say what comes next."""
    print(f"\n{number}/{STEPS} {what}", flush=True)


def written(words: list[object]) -> str:
    """A command as it can be copied."""
    return shlex.join(["vireid", *map(str, words)])


def vireid(*words: object) -> None:
    """Print a command and run it.

    Raises:
        SystemExit: it failed, and has said why.
    """
    from vireid.cli.main import main

    print(f"$ {written(list(words))}", flush=True)
    if code := main([str(word) for word in words]):
        raise SystemExit(code)


def check_model(model: Path) -> None:
    """Check that `vireid demo` was run.

    Raises:
        BadInput: there is no finished run.
    """
    from vireid.training.run import open_run

    if not (model / "run.json").is_file() or not open_run(model).finished:
        raise BadInput(
            f"{model} is no finished run: the gallery's demo goes on where vireid demo ends, so run "
            f"'vireid demo --out {model.parent}' first"
        )


def make_pictures(place: Path, world: Path) -> None:
    """Write the pictures unless they are there."""
    from vireid.gallery.demo import Cast, write_pictures
    from vireid.training.progress import Terminal

    cast = Cast()
    step(1, f"generate people whom the network never saw: {place}")
    if not place.exists():
        with Terminal().bar("rendering") as advance:
            write_pictures(place, world, cast, advance)
    print(f"  people/     {cast.calibrate} people with labels: records.csv says who is on which picture")
    print(f"  cameras/    {cast.gallery} other people, no labels: cameras.csv has path, camera, modality and time")
    asked = cast.found + cast.absent
    print(f"  questions/  {asked} infrared pictures to search for; the person of the last one is in no other picture")


def calibrated(model: Path) -> bool:
    """Whether there is a calibration of this checkpoint."""
    from vireid.gallery.index import calibration_beside, load_model

    try:
        return calibration_beside(model, load_model(model).fingerprint) is not None
    except BadInput:  # it is of an earlier training
        return False


def search(index: Path, question: Path, place: Path) -> None:
    """Search, and say whether the right person was found. Here it is known."""
    from vireid.gallery.demo import truth

    results = place / "results"
    results.mkdir(exist_ok=True)
    answer, sheet = results / f"{question.stem}.json", results / f"{question.stem}.png"
    print()
    vireid("gallery", "search", index, question, "--top", 5, "--sheet", sheet, "--json", answer)
    people = truth(place)
    wanted = people[f"questions/{question.name}"]
    there = sum(person == wanted for path, person in people.items() if path.startswith("cameras/"))
    matches = json.loads(answer.read_text(encoding="utf-8"))["matches"]
    ranks = [match["rank"] for match in matches if people.get(f"cameras/{match['path']}") == wanted]
    if not there:
        print("→ in truth: this person is in no picture of the gallery")
    elif ranks:
        right = f"rank {ranks[0]} is" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))} are"
        print(f"→ in truth: {there} pictures show this person, and {right} right")
    else:
        print(f"→ in truth: {there} pictures show this person, and none of these {len(matches)} is right")
