"""`vireid train`: train a recipe on data, and write a run directory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vireid import datasets, recipes
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.records import Records
from vireid.data.settings import Count, Whole, options
from vireid.experiments import validate
from vireid.experiments.embedding import Inference
from vireid.training import distributed
from vireid.training.configuration import as_assignments, to_json, with_fields
from vireid.training.progress import Progress, Quiet
from vireid.training.run import DataFacts, Run, RunFacts, check_free, create, held, open_run, surroundings

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from vireid.data.batch import Batch
    from vireid.data.cache import PictureCache
    from vireid.data.loading import TrainingLoader


@options
class TrainOptions:
    """What `vireid train` is asked to do.

    Attributes:
        recipe: `RECIPE` or `RECIPE:ROW`.
        data: `LAYOUT:PATH`.
        run: the run directory; new or empty, unless `resume`.
        set: changes of the configuration, as texts `field=value` or as a mapping.
        resume: continue from the last checkpoint, or start if there is none.
        fold: RegDB's fold, 1 to 10.
        workers: loading processes.
        cache: folder for resized pictures.
        checkpoint_steps: number of steps between two checkpoints within an epoch; None for none.
        skip_unreadable: replace a picture that cannot be read by another one of its identity and modality.
        validate_every: number of epochs between two validations; the best epoch is kept as `best.pt`. None for none.
        validate_on: `val` (the default) or `test`.
        tracker: `tensorboard`, `wandb` or `mlflow`, besides the run's own log.
        command: the command that the run records.
    """

    recipe: str
    data: str
    run: Path
    set: tuple[str, ...] | dict[str, Any] = ()
    resume: bool = False
    fold: Whole = 1
    workers: Whole = 2
    cache: Path | None = None
    checkpoint_steps: Count | None = None
    skip_unreadable: bool = False
    validate_every: int | None = None
    validate_on: Literal["val", "test"] | None = None
    tracker: str | None = None
    command: str = ""


@dataclass(frozen=True)
class Plan:
    """The recipe and the data of a training, before the network is built.

    Attributes:
        recipe: the recipe's name.
        config: its configuration.
        records: the training pictures.
        validation: what is measured between epochs, or None.
        facts: the content of `run.json`.
    """

    recipe: str
    config: Any
    records: Records
    validation: validate.Validation | None
    facts: RunFacts

    def network(self) -> nn.Module:
        """The network before its first step, the same on every process. Its start depends on the configuration only."""
        from vireid.training.loop import seed_everything

        _, identities = self.records.labels()
        seed_everything(self.config.training.seed)
        return recipes.build(self.recipe, self.config, len(identities), pretrained=True)


def train(asked: TrainOptions, progress: Progress = Quiet()) -> Run:  # noqa: B008 has no state
    """Train a recipe, and write a run directory.

    With several processes, every process calls this function. Only the main process writes and prints.

    Raises:
        BadInput: an option, the recipe or the data cannot be used, the run directory is not free, or training fails
            (see `vireid.training.loop.train`). Files that were there before are kept.
    """
    from vireid.training.journal import check_tracker
    from vireid.training.loop import accelerator_for
    from vireid.training.loop import train as fit

    main = distributed.begin().is_main_process
    with distributed.main_process_speaks(), contextlib.ExitStack() as lock:
        with distributed.raise_together():
            planned = plan(asked)
            if asked.tracker is not None:
                check_tracker(asked.tracker)  # before weights are downloaded
            if main:
                check_directory(asked, planned.facts)
        network = distributed.local_main_process_first(planned.network)
        with distributed.raise_together():
            training = planned.config.training
            accelerator = accelerator_for(training.precision, tracker=asked.tracker, folder=asked.run)
            pictures = Pictures.of(planned, asked)
            loader = pictures.loader(accelerator, progress)
            run = Run(asked.run, planned.facts)
            if main:
                lock.enter_context(held(asked.run))
                goes_on = check_directory(asked, planned.facts)
                run = open_run(asked.run) if goes_on else create(asked.run, planned.facts)
        how = Inference(training.size, workers=asked.workers, cache=asked.cache)
        choose = planned.validation and validate.after_epoch(planned.validation, network, run, how, progress)
        fit(
            network,
            training,
            run,
            loader.batches,
            steps=loader.steps,
            accelerator=accelerator,
            pictures=pictures.once,
            resume=asked.resume,
            checkpoint_steps=asked.checkpoint_steps,
            after_epoch=choose,
            progress=progress,
        )
    return run


def plan(asked: TrainOptions) -> Plan:
    """Read the recipe and the data, and plan the training.

    Raises:
        BadInput: an unknown recipe, row, field or layout, or data that cannot be read.
    """
    recipe, row_name, row = recipes.find_row(asked.recipe)
    assignments = as_assignments(asked.set)
    config = with_fields(row.config, asked.set)
    layout, root = datasets.parse_source(asked.data)
    everything = datasets.read(layout, root, fold=asked.fold)
    epochs = config.training.epochs
    records, validation = validate.plan(everything, every=asked.validate_every, on=asked.validate_on, epochs=epochs)
    processes = distributed.begin().num_processes
    facts = RunFacts(
        recipe=recipe,
        row=row_name,
        set=assignments,
        seed=config.training.seed,
        config=to_json(config),
        command=asked.command,
        data=_data_facts(records),
        validation=validation.facts() if validation else None,
        processes=processes,
        normalisation=f"over the samples of {'all processes' if processes > 1 else 'the one process'}",
        **vars(surroundings()),
    )
    return Plan(recipe, config, records, validation, facts)


def _data_facts(records: Records) -> DataFacts:
    _, identities = records.labels()
    visible = int((records.modality == Modality.VISIBLE).sum())
    return DataFacts(
        layout=records.layout,
        root=str(Path(records.root).resolve()),
        fingerprint=records.fingerprint(),
        fold=records.fold,
        identities=len(identities),
        visible=visible,
        infrared=len(records) - visible,
        generated=datasets.generated(records.root),
    )


@dataclass(frozen=True)
class Pictures:
    """The training pictures and how they are loaded.

    Attributes:
        planned: what is trained.
        asked: the options.
        cache: resized pictures on disk, or None.
    """

    planned: Plan
    asked: TrainOptions
    cache: PictureCache | None

    @classmethod
    def of(cls, planned: Plan, asked: TrainOptions) -> Pictures:
        """The pictures of a plan. Opens the cache, if the options name one."""
        from vireid.data.cache import PictureCache

        size = planned.config.training.size
        return cls(planned, asked, PictureCache(asked.cache, planned.records, size) if asked.cache else None)

    def loader(self, accelerator: Accelerator, progress: Progress) -> TrainingLoader:
        """The loader of this process's share of each step."""
        from vireid.data.loading import TrainingLoader
        from vireid.data.sampling import ModalityBalancedSampler

        training, records = self.planned.config.training, self.planned.records
        labels, _ = records.labels()
        sampler = ModalityBalancedSampler(
            labels,
            records.modality,
            identities_per_batch=training.identities_per_batch,
            visible_per_identity=training.visible_per_identity,
            infrared_per_identity=training.infrared_per_identity,
            epoch_length=training.epoch_length,
            with_replacement=training.with_replacement,
            seed=training.seed,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )
        skipped: set[str] = set()

        def on_skip(path: str) -> None:
            if path not in skipped:
                skipped.add(path)
                progress.say(f"skipped, cannot be read: {path}")

        augmentation = self.planned.config.augmentation()
        return TrainingLoader(
            records,
            size=training.size,
            sampler=sampler,
            labels=labels,
            augment=augmentation,
            second_view=augmentation.second_view,
            seed=training.seed,
            rank=accelerator.process_index,
            workers=self.asked.workers,
            cache=self.cache,
            skip_unreadable=self.asked.skip_unreadable,
            on_skip=on_skip,
        )

    def once(self) -> Iterator[Batch]:
        """Each training picture once, in file order and without augmentation. A recipe's memory starts from them."""
        import torch

        from vireid.augment.normalise import normalise
        from vireid.data.batch import Batch
        from vireid.data.loading import inference_batches

        records = self.planned.records
        labels, _ = records.labels()
        identity, camera = torch.from_numpy(labels), torch.from_numpy(records.camera)
        size = self.planned.config.training.size
        for samples, images, modality in inference_batches(
            records, size=size, workers=self.asked.workers, cache=self.cache
        ):
            yield Batch(normalise(images), identity[samples], modality, camera[samples])


def check_directory(asked: TrainOptions, facts: RunFacts) -> bool:
    """Whether the directory holds a run that can be resumed. False: a new run can begin there.

    `train` checks this twice: before the network is built and its weights are downloaded, and again when the directory
    is locked.

    Raises:
        BadInput: the run there has another recipe, configuration, validation or data, or the directory is not empty.
    """
    directory = asked.run
    if not (asked.resume and (directory / "run.json").exists()):
        check_free(directory)
        return False
    old = open_run(directory).facts
    if old.recipe != facts.recipe:
        raise BadInput(
            f"{directory} was begun with recipe '{old.recipe}'; give the same one to --resume, or another --run"
        )
    changed = [name for name, value in facts.config.items() if value != old.config.get(name)]
    if changed or old.config.keys() != facts.config.keys():
        what = ", ".join(changed) or "another version's fields"
        raise BadInput(
            f"{directory} was begun with other values of {what}; give the same ones to --resume, or another --run"
        )
    was, now = ((v.every, v.on) if v else None for v in (old.validation, facts.validation))
    if was != now:
        began = f"--validate-every {was[0]} --validate-on {was[1]}" if was else "no --validate-every"
        raise BadInput(f"{directory} was begun with {began}; give the same to --resume, or another --run")
    if old.data.fingerprint != facts.data.fingerprint:
        raise BadInput(
            f"{directory} was begun on other data (fingerprint {old.data.fingerprint}, fold {old.data.fold}; now "
            f"{facts.data.fingerprint}, fold {facts.data.fold})"
        )
    return True
