"""`vireid demo`: generate a world, train, evaluate and write a report, in minutes on two cores."""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.cli import console
from vireid.data.size import Size

if TYPE_CHECKING:
    from vireid.training.progress import Progress
    from vireid.training.run import Run

RECIPE = "agw:channel-augmentation"
LAYOUT = "sysu-mm01"
IDENTITIES = 150
PICTURES = 4
PICTURE_SIZE = Size(192, 96)
# Settings with which a network learns in minutes on two cores. All other fields have the recipe's own values. SGD at
# AGW's rates is for weights from ImageNet: from a random start it needs many times as many steps as Adam.
SMALL = (
    "trunk=tiny",
    "size=96x48",
    "crop.padding=4",
    "optimiser=Adam",
    "optimiser.lr=0.001",
    "epochs=10",
    "epoch_length=40",
    "schedule.warm_up_epochs=1",
    "schedule.milestones=[7,9]",
)
# The same training from two starts: `weights` → run directory.
STARTS = {"none": "random-start", "world": "pretrained"}
# Both runs side by side, in seconds. What else there is: vireid report demo/random-start demo/pretrained --data …
FIGURES = ("attention", "distances", "tsne")


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "demo",
        help="all steps on a small generated world, in minutes",
        description="Generate a small world, train a small network from two starts, evaluate it by every protocol of "
        "its layout, write an HTML report. It takes minutes on two CPU cores. A second call does only what is missing.",
    )
    verb.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where everything goes (demo)")
    verb.add_argument("--seed", type=console.count, default=0, metavar="S", help="of the world and of training")
    verb.set_defaults(verb_function=run)


def run(options: argparse.Namespace) -> None:
    """World, two trainings, evaluation, report."""
    from vireid.cli.evaluate import figures_of
    from vireid.evaluation.report import table
    from vireid.experiments.test import TestOptions, test
    from vireid.figures.page import write_page
    from vireid.training.progress import Terminal

    out, progress = options.out, Terminal()
    world, page = out / "world", out / "report.html"
    source, how = f"{LAYOUT}:{world}", {"workers": 0, "cache": out / "cache", "command": console.command()}
    sheet = generate(world, options.seed, progress)

    progress.say(f"2/4 training {RECIPE} with a small trunk, from a random start and from weights of this package")
    trained = [train_from(start, source, options, progress) for start in STARTS]

    progress.say("3/4 evaluating, and the first network before its first step")
    measured = [test(TestOptions(one.path, source, **how), progress) for one in trained]
    measured.append(test(TestOptions(trained[0].path, source, untrained=True, **how), progress))
    print(table([one.report for one in measured[1]]))

    progress.say("4/4 drawing figures and writing the report")
    shown = argparse.Namespace(data=source, figure=FIGURES, workers=0, cache=out / "cache")
    figures, notes = figures_of(trained, shown)
    write_page(page, trained, title="vireid demo", sheet=sheet, figures=figures, notes=notes)
    lines = [
        [one[0].report.protocol, *(f"{cell.report.rank1:.2f}" for cell in one), f"{one[0].report.chance_rank1:.2f}"]
        for one in zip(*measured, strict=True)
    ]
    print(console.table(["Rank-1 in percent", "random start", "pretrained¹", "untrained", "chance"], lines))
    print("¹ weights=world: trained on other generated people before, see docs/results/pretrained.md")
    print(f"\nreport: {page.resolve()}\nnext: vireid gallery demo --out {out}, a search with this network")


def train_from(start: str, source: str, options: argparse.Namespace, progress: Progress) -> Run:
    """Train from one start, or go on where a run stopped."""
    from vireid.experiments.train import TrainOptions, train

    directory = options.out / STARTS[start]
    changes = (*SMALL, f"weights={start}", f"seed={options.seed}")
    command = f"vireid train {RECIPE} --data {source} --run {directory} --set {' '.join(changes)}"
    progress.say(f"weights={start}: {directory}")
    how = {"workers": 0, "cache": options.out / "cache", "command": command}
    return train(TrainOptions(RECIPE, source, directory, set=changes, resume=True, **how), progress)


def generate(world: Path, seed: int, progress: Progress) -> bytes:
    """Write the world unless it is there, and return a contact sheet of it as PNG."""
    from vireid.synthesis.world import World, contact_sheet, write_world

    people = World(IDENTITIES, seed=seed)
    if not world.exists():
        progress.say(f"1/4 generating a world of {IDENTITIES} people: {world}")
        unfinished = world.with_name("world.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        with progress.bar("rendering") as advance:
            write_world(unfinished, people, layout=LAYOUT, size=PICTURE_SIZE, pictures=PICTURES, progress=advance)
        unfinished.rename(world)
    else:
        progress.say(f"1/4 the world is there already: {world}")
    buffer = io.BytesIO()
    contact_sheet(people, identities=6, per_modality=4).save(buffer, "PNG")
    return buffer.getvalue()
