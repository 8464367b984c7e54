"""`vireid demo`: the whole way, on a generated world, in minutes on two cores."""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from vireid.cli import console
from vireid.data.size import Size

RECIPE = "agw:channel-augmentation"
LAYOUT = "sysu-mm01"
IDENTITIES = 150
PICTURES = 4
PICTURE_SIZE = Size(192, 96)
# A network that learns from nothing in minutes on two cores; everything else is the recipe's own. SGD at AGW's rates
# is for weights from ImageNet: from a random start it needs many times the steps that Adam does.
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
        help="the whole way in minutes",
        description="Generate a small world, train a small network, evaluate it by every protocol of its layout, "
        "write an HTML report. Minutes on two CPU cores. Run again, it keeps what is finished and does the rest.",
    )
    verb.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where everything goes (demo)")
    verb.add_argument("--seed", type=console.count, default=0, metavar="S", help="of the world and of training")
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """World, training, evaluation, report."""
    from vireid.cli.evaluate import test
    from vireid.cli.train import train
    from vireid.evaluation.report import table
    from vireid.figures.page import write_page
    from vireid.training.run import open_run

    out = options.out
    world, run_directory, page = out / "world", out / "run", out / "report.html"
    source = f"{LAYOUT}:{world}"
    sheet = generate(world, options.seed)

    _say(f"2/4 training {RECIPE} with a small trunk: {run_directory}")
    sets = [*SMALL, f"seed={options.seed}"]
    command = f"vireid train {RECIPE} --data {source} --run {run_directory} --set {' '.join(sets)}"
    train(RECIPE, source, run_directory, sets=sets, resume=True, workers=0, cache=out / "cache", command=command)

    _say("3/4 evaluating, and the same network before its first step")
    untrained = test(run_directory, source, untrained=True, workers=0, cache=out / "cache", command=command)
    trained = test(run_directory, source, workers=0, cache=out / "cache", command=command)
    print(table(trained))

    _say("4/4 writing the report")
    write_page(page, [open_run(run_directory)], title="vireid demo", sheet=sheet)
    for before, after in zip(untrained, trained, strict=True):
        print(
            f"{after.protocol:28} Rank-1 {after.rank1:6.2f} %   untrained {before.rank1:6.2f} %   "
            f"chance {after.chance_rank1:5.2f} %"
        )
    print(f"\nreport: {page.resolve()}")


def generate(world: Path, seed: int) -> bytes:
    """Write the world unless it is there, and return a contact sheet of it as PNG."""
    from vireid.synthesis.world import World, contact_sheet, write_world

    people = World(IDENTITIES, seed=seed)
    if not world.exists():
        _say(f"1/4 generating a world of {IDENTITIES} people: {world}")
        unfinished = world.with_name("world.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        with console.progress("rendering") as progress:
            write_world(unfinished, people, layout=LAYOUT, size=PICTURE_SIZE, pictures=PICTURES, progress=progress)
        unfinished.rename(world)
    else:
        _say(f"1/4 the world is there already: {world}")
    buffer = io.BytesIO()
    contact_sheet(people, identities=6, per_modality=4).save(buffer, "PNG")
    return buffer.getvalue()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
