"""`vireid train` and `vireid folds`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.cli import console

if TYPE_CHECKING:
    from vireid.evaluation.report import Report


def register(verbs: argparse._SubParsersAction) -> None:
    """Add both verbs."""
    train = verbs.add_parser(
        "train",
        help="train a recipe",
        description="Train a recipe, or one row of its paper's tables. The run directory holds everything that is "
        "needed to explain, resume and test it.",
        epilog="The fields of a recipe, with types, choices and sources: vireid fields RECIPE",
    )
    train.add_argument("recipe", metavar="RECIPE[:ROW]", help="e.g. agw or agw:channel-augmentation; see vireid rows")
    console.add_data(train)
    train.add_argument("--run", required=True, type=Path, metavar="DIR", help="the run directory")
    train.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint, or start if there is none"
    )
    console.add_set(train, "change fields of the configuration, e.g. epochs=20 size=128x64 optimiser.lr=0.05")
    console.add_fold(train, "RegDB's fold, 1 to 10 (default 1)", default=1)
    console.add_loading(train, "keep resized pictures here for later epochs and runs")
    train.add_argument("--checkpoint-steps", type=console.count, metavar="N", help="also save every N steps")
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
    train.add_argument("--tracker", metavar="NAME", help="also log to tensorboard, wandb or mlflow")
    train.set_defaults(verb_function=run_train)

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
    console.add_set(folds, "change fields of the configuration, of every fold alike")
    console.add_loading(folds)
    console.add_json(folds, "write every fold and the summary as JSON")
    folds.set_defaults(verb_function=run_folds)


def run_train(options: argparse.Namespace) -> None:
    """Train and leave a run directory."""
    from vireid.experiments.train import TrainOptions, train
    from vireid.training.distributed import begin
    from vireid.training.progress import Terminal

    asked = TrainOptions(
        recipe=options.recipe,
        data=options.data,
        run=options.run,
        set=tuple(options.set),
        resume=options.resume,
        fold=options.fold,
        workers=options.workers,
        cache=options.cache,
        checkpoint_steps=options.checkpoint_steps,
        skip_unreadable=options.skip_unreadable,
        validate_every=options.validate_every,
        validate_on=options.validate_on,
        tracker=options.tracker,
        command=console.command(),
    )
    run = train(asked, Terminal())
    if begin().is_main_process:
        epochs = run.facts.config["epochs"]
        print(f"trained {asked.recipe} for {epochs} {'epoch' if epochs == 1 else 'epochs'}: {run.path}")


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
