"""`vireid train`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vireid.cli import console
from vireid.data.errors import BadInput

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from vireid.cli.selection import Validation
    from vireid.data.batch import Batch
    from vireid.data.loading import TrainingLoader
    from vireid.data.records import Records


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "train",
        help="train a recipe",
        description="Train a recipe, or one row of its paper's "
        "tables. The run directory holds everything needed to explain, resume and test it.",
    )
    verb.add_argument("recipe", metavar="RECIPE[:ROW]", help="e.g. agw or agw:channel-augmentation; see vireid rows")
    verb.add_argument("--data", required=True, metavar="LAYOUT:PATH", help="e.g. sysu-mm01:/data/SYSU-MM01")
    verb.add_argument("--run", dest="directory", required=True, type=Path, metavar="DIR", help="the run directory")
    verb.add_argument("--resume", action="store_true", help="go on from the last checkpoint, or start if there is none")
    console.add_sets(verb, "change fields of the configuration, e.g. epochs=20 size=128x64 optimiser.lr=0.05")
    verb.add_argument("--trial", type=console.count, default=1, help="RegDB split, 1 to 10 (default 1)")
    console.add_loading(verb, "keep resized pictures here for later epochs and runs")
    verb.add_argument("--checkpoint-steps", type=console.count, metavar="N", help="also save every N steps")
    verb.add_argument("--skip-unreadable", action="store_true", help="replace pictures that cannot be read, and say so")
    verb.add_argument(
        "--validate-every",
        type=console.count,
        metavar="N",
        help="evaluate after every N epochs on validation identities, which are then not trained on, and keep best.pt",
    )
    verb.add_argument(
        "--validate-on", choices=("val", "test"), help="val (default); test chooses on the test set, and is flagged"
    )
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train and leave a run directory."""
    command = "vireid " + " ".join(sys.argv[1:])
    train(
        options.recipe,
        options.data,
        options.directory,
        sets=options.sets,
        resume=options.resume,
        trial=options.trial,
        workers=options.workers,
        cache=options.cache,
        checkpoint_steps=options.checkpoint_steps,
        skip_unreadable=options.skip_unreadable,
        validate_every=options.validate_every,
        validate_on=options.validate_on,
        command=command,
    )


def train(
    spec: str,
    source: str,
    directory: Path,
    *,
    sets: list[str],
    resume: bool = False,
    trial: int = 1,
    workers: int = 2,
    cache: Path | None = None,
    checkpoint_steps: int | None = None,
    skip_unreadable: bool = False,
    validate_every: int | None = None,
    validate_on: str | None = None,
    command: str = "",
) -> None:
    """Read, build, train: what `vireid train` does, for the other verbs that train.

    Under a launcher every process does this, and only the main one writes and speaks.

    Raises:
        BadInput: whatever the user can get wrong; nothing that was there before is lost.
    """
    from vireid.cli.selection import after_epoch
    from vireid.training import distributed
    from vireid.training.loop import train as fit
    from vireid.training.run import Run, create, held, open_run

    main = distributed.begin().is_main_process
    with distributed.one_voice(), contextlib.ExitStack() as lock:
        with distributed.agreed():
            choice = (validate_every, validate_on)
            recipe, config, records, validation, facts = read(
                spec, source, sets=sets, trial=trial, choice=choice, command=command
            )
            if main:
                check_directory(directory, facts, resume=resume)
        network = distributed.first_on_each_machine(lambda: build(recipe, config, records))
        with distributed.agreed():
            accelerator, loader, pictures = load(
                config, records, workers=workers, cache=cache, skip_unreadable=skip_unreadable
            )
            started = Run(directory, facts)
            if main:
                lock.enter_context(held(directory))
                goes_on = check_directory(directory, facts, resume=resume)
                started = open_run(directory) if goes_on else create(directory, facts)
        fit(
            network,
            config,
            started,
            loader.batches,
            steps=loader.steps,
            accelerator=accelerator,
            pictures=pictures,
            resume=resume,
            checkpoint_steps=checkpoint_steps,
            after_epoch=validation and after_epoch(validation, network, config, started, workers=workers, cache=cache),
        )
    if main:
        print(f"trained {spec} for {config.epochs} epochs: {directory}")


def read(
    spec: str, source: str, *, sets: list[str], trial: int, choice: tuple[int | None, str | None], command: str
) -> tuple[str, Any, Records, Validation | None, dict[str, Any]]:
    """The recipe's name, its configuration, the training rows, what to validate on, and what `run.json` says."""
    from vireid import datasets, recipes
    from vireid.cli.selection import plan
    from vireid.training.configuration import with_fields

    recipe, row_name, row = recipes.find_row(spec)
    config = with_fields(row.config, sets)
    layout, root = datasets.parse_source(source)
    everything = datasets.read(layout, root, trial=trial)
    records, validation = plan(everything, every=choice[0], on=choice[1], epochs=config.epochs)
    _, identities = records.labels()
    facts = {"recipe": recipe, "row": row_name, **describe(sets, config, records, len(identities), command)}
    facts["validation"] = validation.facts() if validation else None
    return recipe, config, records, validation, facts


def build(recipe: str, config: Any, records: Records) -> nn.Module:
    """The network as it starts; a function of the configuration alone, so the same on every process."""
    from vireid import recipes
    from vireid.training.loop import seed_everything

    _, identities = records.labels()
    seed_everything(config.seed)
    return recipes.build(recipe, config, len(identities), pretrained=True)


def load(
    config: Any, records: Records, *, workers: int, cache: Path | None, skip_unreadable: bool
) -> tuple[Accelerator, TrainingLoader, Callable[[], Iterator[Batch]]]:
    """The accelerator, the loader of this process's rows, and every picture once."""
    from vireid.data.cache import PictureCache
    from vireid.data.loading import TrainingLoader
    from vireid.data.sampling import ModalityBalancedSampler
    from vireid.training.loop import accelerator_for

    accelerator = accelerator_for(config.precision)
    labels, _ = records.labels()
    sampler = ModalityBalancedSampler(
        labels,
        records.modality,
        identities_per_batch=config.identities_per_batch,
        visible_per_identity=config.visible_per_identity,
        infrared_per_identity=config.infrared_per_identity,
        epoch_length=config.epoch_length,
        seed=config.seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    kept = PictureCache(cache, records, config.size) if cache else None
    skipped: set[str] = set()
    loader = TrainingLoader(
        records,
        size=config.size,
        sampler=sampler,
        labels=labels,
        augment=config.augmentation(),
        seed=config.seed,
        rank=accelerator.process_index,
        workers=workers,
        cache=kept,
        skip_unreadable=skip_unreadable,
        on_skip=lambda path: _say_once(path, skipped),
    )
    return accelerator, loader, lambda: every_picture(records, labels, config.size, workers=workers, cache=kept)


def every_picture(records: Any, labels: Any, size: Any, *, workers: int, cache: Any) -> Iterator[Batch]:
    """Each training picture once, in file order, without augmentation: where a recipe's memory starts from."""
    import torch

    from vireid.augment.normalise import normalise
    from vireid.data.batch import Batch
    from vireid.data.loading import inference_batches

    identity, camera = torch.from_numpy(labels), torch.from_numpy(records.camera)
    for rows, images, modality in inference_batches(records, size=size, workers=workers, cache=cache):
        yield Batch(normalise(images), identity[rows], modality, camera[rows])


def describe(sets: list[str], config: Any, records: Any, identities: int, command: str) -> dict[str, Any]:
    """What `run.json` says besides the recipe's name."""
    from vireid import datasets
    from vireid.data.modality import Modality
    from vireid.training import distributed
    from vireid.training.configuration import to_json
    from vireid.training.run import surroundings

    processes = distributed.begin().num_processes
    visible = int((records.modality == Modality.VISIBLE).sum())
    return {
        "set": sets,
        "seed": config.seed,
        "config": to_json(config),
        "command": command,
        "data": {
            "layout": records.layout,
            "root": str(Path(records.root).resolve()),
            "fingerprint": records.fingerprint(),
            "trial": records.trial,
            "identities": identities,
            "visible": visible,
            "infrared": len(records) - visible,
            "generated": datasets.generated(records.root),
        },
        "processes": processes,
        "normalisation": "over the rows of all processes" if processes > 1 else "over the rows of the one process",
        **surroundings(),
    }


def check_directory(directory: Path, facts: dict[str, Any], *, resume: bool) -> bool:
    """Whether there is a run to go on with; asked before the network is built and its weights are fetched.

    Raises:
        BadInput: the run there was made with another configuration or other data, or something is in the way.
    """
    from vireid.training.run import check_free, open_run

    if not (resume and (directory / "run.json").exists()):
        check_free(directory)
        return False
    old = open_run(directory).facts
    for name in ("recipe", "config"):
        if old[name] != facts[name]:
            changed = [key for key in facts["config"] if facts["config"][key] != old["config"].get(key)]
            what = f"recipe '{old['recipe']}'" if name == "recipe" else f"other values of {', '.join(changed)}"
            raise BadInput(f"{directory} was begun with {what}; give the same ones to --resume, or another --run")
    was, now = ({name: (run.get("validation") or {}).get(name) for name in ("every", "on")} for run in (old, facts))
    if was != now:
        began = f"--validate-every {was['every']} --validate-on {was['on']}" if was["every"] else "no --validate-every"
        raise BadInput(f"{directory} was begun with {began}; give the same to --resume, or another --run")
    if old["data"]["fingerprint"] != facts["data"]["fingerprint"]:
        raise BadInput(
            f"{directory} was begun on other data (fingerprint {old['data']['fingerprint']}, trial "
            f"{old['data']['trial']}; now {facts['data']['fingerprint']}, trial {facts['data']['trial']})"
        )
    return True


def _say_once(path: str, said: set[str]) -> None:
    if path not in said:
        said.add(path)
        print(f"skipped, cannot be read: {path}", file=sys.stderr)
