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

RECIPE = "agw:channel-augmentation"
LAYOUT = "sysu-mm01"
IDENTITIES = 150
PICTURES = 4
PICTURE_SIZE = Size(192, 96)
# A network that learns from a random start in minutes on two cores. All other fields have the recipe's own values. SGD
# at AGW's rates is for weights from ImageNet: from a random start it needs many times as many steps as Adam.
SMALL = (
    "trunk=tiny",
    "weights=none",
    "size=96x48",
    "crop.padding=4",
    "optimiser=Adam",
    "optimiser.lr=0.001",
    "epochs=16",
    "epoch_length=50",
    "schedule.warm_up_epochs=1",
    "schedule.milestones=[11,14]",
)


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "demo",
        help="all steps on a small generated world, in minutes",
        description="Generate a small world, train a small network, evaluate it by every protocol of its layout, "
        "write an HTML report. It takes minutes on two CPU cores. A second call does only what is missing.",
    )
    verb.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where everything goes (demo)")
    verb.add_argument("--seed", type=console.count, default=0, metavar="S", help="of the world and of training")
    verb.set_defaults(verb_function=run)


def run(options: argparse.Namespace) -> None:
    """World, training, evaluation, report."""
    from vireid.evaluation.report import table
    from vireid.experiments.test import TestOptions, test
    from vireid.experiments.train import TrainOptions, train
    from vireid.figures.page import write_page
    from vireid.training.progress import Terminal

    out, progress = options.out, Terminal()
    world, directory, page = out / "world", out / "run", out / "report.html"
    source, cache = f"{LAYOUT}:{world}", out / "cache"
    sheet = generate(world, options.seed, progress)

    progress.say(f"2/4 training {RECIPE} with a small trunk: {directory}")
    changes = (*SMALL, f"seed={options.seed}")
    command = f"vireid train {RECIPE} --data {source} --run {directory} --set {' '.join(changes)}"
    how = {"workers": 0, "cache": cache, "command": command}
    trained = train(TrainOptions(RECIPE, source, directory, set=changes, resume=True, **how), progress)

    progress.say("3/4 evaluating, and the same network before its first step")
    before = test(TestOptions(directory, source, untrained=True, **how), progress)
    after = test(TestOptions(directory, source, **how), progress)
    print(table([one.report for one in after]))

    progress.say("4/4 writing the report")
    write_page(page, [trained], title="vireid demo", sheet=sheet)
    for untrained, report in zip((one.report for one in before), (one.report for one in after), strict=True):
        print(
            f"{report.protocol:28} Rank-1 {report.rank1:6.2f} %   untrained {untrained.rank1:6.2f} %   "
            f"chance {report.chance_rank1:5.2f} %"
        )
    print(f"\nreport: {page.resolve()}")


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
