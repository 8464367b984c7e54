"""`vireid train` and `vireid folds`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.cli import console
from vireid.cli.settings import HelpOnRecipe
from vireid.data.errors import BadInput

if TYPE_CHECKING:
    from vireid.evaluation.report import Report
    from vireid.experiments.train import TrainOptions


def register(verbs: argparse._SubParsersAction) -> None:
    """Add both verbs."""
    _add_train(verbs)
    _add_folds(verbs)


def _add_train(verbs: argparse._SubParsersAction) -> None:
    train = verbs.add_parser(
        "train",
        help="train a recipe",
        description="Train a recipe, or one row of its paper's tables. The run directory holds everything that is "
        "needed to explain, resume and test it.",
        add_help=False,
        epilog="The fields of a recipe in short: vireid train RECIPE --help; in full: vireid fields RECIPE",
    )
    train.add_argument(
        "-h", "--help", action=HelpOnRecipe, nargs="?", metavar="RECIPE", help="this help, and the fields of a recipe"
    )
    train.add_argument(
        "recipe",
        nargs="?",
        metavar="RECIPE[:ROW]",
        help="e.g. agw or agw:channel-augmentation; see vireid rows. With --resume: default as in the run",
    )
    train.add_argument("--data", metavar="LAYOUT:PATH", help="e.g. sysu-mm01:/data/SYSU-MM01")
    train.add_argument("--run", type=Path, metavar="DIR", help="the run directory")
    train.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint, or start if there is none; --resume --run DIR alone goes on as begun",
    )
    train.add_argument("--extend", metavar="epochs=N", help="with --resume: train up to this larger number of epochs")
    train.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML; vireid fields --yaml prints them")
    console.add_set(train, "change fields of the configuration, e.g. epochs=20 size=128x64 optimiser.lr=0.05")
    console.add_fold(train, "RegDB's fold, 1 to 10 (default 1)")
    console.add_loading(train, "keep resized pictures here for later epochs and runs")
    train.add_argument(
        "--dry-run", action="store_true", help="say what would be trained and how long it takes; write nothing"
    )
    console.add_json(train, "with --dry-run: write all of it as JSON")
    _add_course(train)
    train.set_defaults(verb_function=run_train, all_processes=True)


def _add_course(train: argparse.ArgumentParser) -> None:
    """Options about what happens while it trains."""
    train.add_argument("--checkpoint-steps", type=console.count, metavar="N", help="also save every N steps")
    train.add_argument(
        "--recompute", action="store_true", help="less GPU memory for the same numbers; a step takes a third longer"
    )
    train.add_argument(
        "--skip-unreadable", action="store_true", help="replace pictures that cannot be read, and say so"
    )
    train.add_argument(
        "--validate-every",
        type=console.count,
        metavar="N",
        help="evaluate after every N epochs on validation identities, which are then not trained on, and keep best.pt",
    )
    train.add_argument(
        "--validate-on", choices=("val", "test"), help="val (default); test chooses on the test set, and is flagged"
    )
    train.add_argument("--allow-overlap", action="store_true", help="train although people are in more than one split")
    train.add_argument(
        "--tracker",
        metavar="NAME",
        help="also log to tensorboard, wandb or mlflow; with --validate-every it gets figures too",
    )
    train.add_argument(
        "--no-tracker-figures", dest="tracker_figures", action="store_false", help="the tracker gets numbers only"
    )


def _add_folds(verbs: argparse._SubParsersAction) -> None:
    folds = verbs.add_parser(
        "folds",
        aliases=["trials"],
        help="train and test one model per RegDB fold",
        description="Train and test one model for each of RegDB's ten folds, and print mean ± standard deviation over "
        "them. A second call goes on where the first one stopped.",
    )
    folds.add_argument("recipe", metavar="RECIPE[:ROW]", help="e.g. agw; see vireid rows")
    console.add_data(folds, "regdb:/data/RegDB")
    folds.add_argument("--runs", required=True, type=Path, metavar="DIR", help="one run directory per fold goes here")
    folds.add_argument("--folds", "--trials", dest="folds", metavar="1-10", help="which, e.g. 1-10 (all) or 1,3,5-7")
    folds.add_argument("--jobs", type=console.count, default=1, metavar="N", help="folds at once (default 1)")
    console.add_set(folds, "change fields of the configuration, of every fold alike")
    console.add_loading(folds)
    console.add_json(folds, "write every fold and the summary as JSON")
    folds.set_defaults(verb_function=run_folds)


def run_train(options: argparse.Namespace) -> None:
    """Train and leave a run directory, or with `--dry-run` only say what would be done."""
    from vireid.experiments.train import TrainOptions, train
    from vireid.figures.live import Live
    from vireid.training.distributed import begin
    from vireid.training.progress import Terminal

    needed = {"RECIPE": options.recipe, "--data": options.data} if not options.resume else {}
    if missing := [name for name, given in {**needed, "--run": options.run}.items() if given is None]:
        raise BadInput(f"vireid train needs {', '.join(missing)}; 'vireid train --help' lists what it takes")
    same = ("recipe", "data", "run", "config", "resume", "fold", "workers", "cache", "checkpoint_steps")
    more = (
        "recompute",
        "skip_unreadable",
        "validate_every",
        "validate_on",
        "allow_overlap",
        "tracker",
        "tracker_figures",
    )
    given = {name: getattr(options, name) for name in (*same, *more)}
    extend = () if options.extend is None else (options.extend,)
    asked = TrainOptions(**given, set=tuple(options.set), extend=extend, command=console.command())
    if options.dry_run:
        show_estimate(asked, options.json)
        return
    if options.json is not None:
        raise BadInput("--json needs --dry-run; what a training run leaves is run.json in its directory")
    progress = Terminal()
    run = train(asked, progress, Live(progress))
    if begin().is_main_process:
        epochs = run.facts.config["epochs"]
        many = f"{run.facts.name} for {epochs} {'epoch' if epochs == 1 else 'epochs'}"
        if run.was_finished:
            print(f"{run.path} is finished: trained {many}; --extend epochs=N would train it further")
        else:
            print(f"trained {many}: {run.path}")


def show_estimate(asked: TrainOptions, file: Path | None) -> None:
    """What the training would be, and how long it would take."""
    from vireid.data.stored import as_json
    from vireid.experiments.plan import dry_run
    from vireid.training.progress import Terminal

    found = dry_run(asked, Terminal())
    print("\n".join(found.lines()))
    console.write_json(file, as_json(found))


def run_folds(options: argparse.Namespace) -> None:
    """Do what is not done yet, then print and write everything."""
    from vireid.evaluation.report import SHORT
    from vireid.experiments.folds import FoldOptions, run_folds
    from vireid.training.progress import Terminal

    done = run_folds(
        FoldOptions(
            recipe=options.recipe,
            data=options.data,
            runs=options.runs,
            folds=options.folds,
            set=tuple(options.set),
            jobs=options.jobs,
            workers=options.workers,
            cache=options.cache,
            command=console.command(),
        ),
        Terminal(),
    )
    for fold in done.folds:
        print("\n".join(f"fold {fold.number}: {_line(report)}" for report in fold.reports))
    lines = [
        [protocol, *(f"{numbers[name]['mean']:.2f} ± {numbers[name]['std']:.2f}" for name in SHORT)]
        for protocol, numbers in done.summary.items()
    ]
    many = len(done.folds)
    print(console.table([f"mean over {many} {'folds' if many > 1 else 'fold'}", *SHORT.values()], lines))
    console.write_json(options.json, done.to_json())


def _line(report: Report) -> str:
    from vireid.evaluation.report import SHORT

    return f"{report.protocol}  " + "  ".join(f"{short} {getattr(report, name):.2f}" for name, short in SHORT.items())
