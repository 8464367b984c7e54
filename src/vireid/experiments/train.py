"""`vireid train`: train a recipe on data, and write a run directory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vireid import datasets, plugins, recipes
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.records import Records, content_fingerprint
from vireid.data.settings import Count, Whole, options
from vireid.datasets.doctor import depth_notes
from vireid.experiments import validate
from vireid.experiments.embedding import Inference
from vireid.training import distributed
from vireid.training.configuration import as_assignments, changes, from_json, to_json, with_fields
from vireid.training.memory import advice_on_full_memory
from vireid.training.progress import Progress, Quiet
from vireid.training.run import DataFacts, Run, RunFacts, check_free, create, extend, held, open_run, surroundings
from vireid.training.settings_file import read_settings
from vireid.training.start import facts_of

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from vireid.data.batch import Batch
    from vireid.data.cache import PictureCache
    from vireid.data.loading import TrainingLoader

LESS_MEMORY = "--recompute (the same numbers), --set precision=bf16, size, identities_per_batch, visible_per_identity"
"""What a GPU needs less memory with."""


@options
class TrainOptions:
    """What `vireid train` is asked to do.

    Attributes:
        recipe: `RECIPE` or `RECIPE:ROW`. None with `resume`: everything that is not given is that of the run.
        data: `LAYOUT:PATH`.
        run: the run directory; new or empty, unless `resume`. A run that saved nothing counts as empty.
        set: changes of the configuration, as texts `field=value` or as a mapping.
        config: a YAML file of settings, which `set` changes further.
        resume: continue from the last checkpoint, or start if there is none.
        extend: `epochs=N`, a larger number of epochs for a run that is resumed, as text or as a mapping.
        fold: RegDB's fold, 1 to 10; None for the first.
        workers: loading processes.
        cache: folder for resized pictures.
        checkpoint_steps: number of steps between two checkpoints within an epoch; None for none.
        recompute: keep only the maps between residual blocks, and compute the others again for the gradient: the same
            numbers with less memory, and a step takes about a third longer.
        skip_unreadable: replace a picture that cannot be read by another one of its identity and modality.
        validate_every: number of epochs between two validations; the best epoch is kept as `best.pt`. None for none.
        validate_on: `val` (the default) or `test`.
        allow_overlap: train although people are in more than one split of the data; the run records it.
        tracker: `tensorboard`, `wandb` or `mlflow`, besides the run's own log.
        tracker_figures: whether the tracker gets figures, which show people, after each validation.
        command: the command that the run records.
    """

    recipe: str | None
    data: str | None
    run: Path
    set: tuple[str, ...] | dict[str, Any] = ()
    config: Path | None = None
    resume: bool = False
    extend: tuple[str, ...] | dict[str, Any] = ()
    fold: Whole | None = None
    workers: Whole = 2
    cache: Path | None = None
    checkpoint_steps: Count | None = None
    recompute: bool = False
    skip_unreadable: bool = False
    validate_every: int | None = None
    validate_on: Literal["val", "test"] | None = None
    allow_overlap: bool = False
    tracker: str | None = None
    tracker_figures: bool = True
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

    def network(
        self,
        progress: Progress = Quiet(),  # noqa: B008 has no state
        *,
        pretrained: bool = True,
        economical: bool = False,
    ) -> nn.Module:
        """The network before its first step, the same on every process. Its start depends on the configuration only.

        Without `pretrained` it has random values, for example because a checkpoint will give it all of its values.
        `economical` is the option `recompute`.
        """
        from vireid.networks.resnet import recompute
        from vireid.training.loop import seed_everything

        _, identities = self.records.labels()
        seed_everything(self.config.training.seed)
        network = recipes.build(self.recipe, self.config, len(identities), pretrained=pretrained, say=progress.say)
        if economical:
            recompute(network)
        return network


def train(asked: TrainOptions, progress: Progress = Quiet(), draw: validate.Draw | None = None) -> Run:  # noqa: B008 has no state
    """Train a recipe, and write a run directory.

    With several processes, every process calls this function. Only the main process writes, prints and draws. `draw`
    makes the images that a tracker gets after each validation.

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
            old = begun(asked) if main else None
        old = distributed.broadcast_object(old)  # the other machines do not need to see the run directory
        finished = resumed = False
        with distributed.raise_together():
            planned = plan(asked, old)
            if asked.tracker is not None:
                check_tracker(asked.tracker)  # before weights are downloaded
            if main:
                goes_on = check_directory(asked, planned.facts)
                there = Run(asked.run, planned.facts)
                finished, resumed = goes_on and there.finished, goes_on and there.checkpoint.exists()
        finished, resumed = distributed.broadcast_object((finished, resumed))
        if finished:
            return Run(asked.run, old or planned.facts, was_finished=True)
        how = {"pretrained": not resumed, "economical": asked.recompute}
        network = distributed.local_main_process_first(lambda: planned.network(progress, **how))
        with distributed.raise_together():
            training = planned.config.training
            accelerator = accelerator_for(training.precision, tracker=asked.tracker, folder=asked.run)
            pictures = Pictures.of(planned, asked)
            loader = pictures.loader(accelerator, progress)
            run = Run(asked.run, planned.facts)
            if main:
                lock.enter_context(held(asked.run))
                run = begin_run(asked, planned, progress)
                plugins.keep(run.path)
        show = partial(_show, accelerator, draw, progress) if draw and asked.tracker and asked.tracker_figures else None
        choose = _after_epoch(asked, planned, network, run, progress, show)
        with advice_on_full_memory(LESS_MEMORY):
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


def _after_epoch(
    asked: TrainOptions,
    planned: Plan,
    network: nn.Module,
    run: Run,
    progress: Progress,
    show: Callable[[validate.Seen], None] | None,
) -> Callable[[int], dict[str, Any]] | None:
    """What is done after each epoch; nothing without validation."""
    if planned.validation is None:
        return None
    how = Inference(planned.config.training.size, workers=asked.workers, cache=asked.cache)
    return validate.after_epoch(planned.validation, network, run, how, progress, show)


def _show(accelerator: Accelerator, draw: validate.Draw, progress: Progress, seen: validate.Seen) -> None:
    """Send images of what a validation saw to the tracker."""
    from vireid.training.journal import track_images

    track_images(accelerator, draw(seen), seen.epoch, progress)


def begun(asked: TrainOptions) -> RunFacts | None:
    """The facts of the run that is resumed; None if a new one begins.

    Raises:
        BadInput: the run cannot be read, or something is missing that only a run to resume could say.
    """
    there = asked.resume and (asked.run / "run.json").exists()
    if not there:
        if asked.extend:
            need = f"but {asked.run} holds no run" if asked.resume else "which --resume says"
            raise BadInput(f"--extend is for a run that is resumed, {need}")
        if asked.recipe is None:
            raise BadInput(f"there is no RECIPE, and {asked.run} holds no run to --resume; give RECIPE and --data")
        if asked.data is None:
            raise BadInput("there are no pictures to train on; give --data LAYOUT:PATH")
        return None
    return open_run(asked.run).facts


def plan(asked: TrainOptions, old: RunFacts | None = None) -> Plan:
    """Read the recipe and the data, and plan the training.

    Args:
        asked: the options.
        old: from `begun`.

    Raises:
        BadInput: an unknown recipe, row, field or layout, a file that cannot be read, or data that cannot be read.
    """
    command = asked.command or _call(asked)
    if old is not None and asked.recipe is None:
        command, asked = old.command, _completed(asked, old)
    recipe, row_name, assignments, config = _configuration(asked, old)
    layout, root = datasets.parse_source(str(asked.data))
    everything = datasets.read(layout, root, fold=1 if asked.fold is None else asked.fold)
    shared = everything.refuse_overlap(asked.allow_overlap)
    epochs = config.training.epochs
    records, validation = validate.plan(everything, every=asked.validate_every, on=asked.validate_on, epochs=epochs)
    processes, weights = distributed.begin().num_processes, config.training.weights
    facts = RunFacts(
        recipe=recipe,
        row=row_name,
        set=assignments,
        seed=config.training.seed,
        config=to_json(config),
        command=command,
        data=replace(_data_facts(records, root), shared=shared),
        validation=validation.facts() if validation else None,
        processes=processes,
        normalisation=f"over the samples of {'all processes' if processes > 1 else 'the one process'}",
        weights=old.weights if old and old.config.get("weights") == weights else facts_of(weights),
        plugins=plugins.facts(),
        **vars(surroundings([Path(str(recipes.recipe(recipe).__file__))])),
    )
    return Plan(recipe, config, records, validation, facts)


def _completed(asked: TrainOptions, old: RunFacts) -> TrainOptions:
    """The options, with those that were not given as they were for the run."""
    found: dict[str, Any] = {}
    if asked.data is None:
        found["data"] = f"{old.data.layout}:{old.data.source or old.data.root}"
    if asked.fold is None:
        found["fold"] = old.data.fold
    if old.data.shared:
        found["allow_overlap"] = True
    if old.validation is not None and asked.validate_every is None and asked.validate_on is None:
        found |= {"validate_every": old.validation.every, "validate_on": old.validation.on}
    return replace(asked, **found)


def _configuration(asked: TrainOptions, old: RunFacts | None) -> tuple[str, str | None, tuple[str, ...], Any]:
    """The names of recipe and row, what is changed in the row, and the configuration."""
    if asked.recipe is None and old is not None:
        plugins.require(Run(asked.run, old))
        recipe, row_name, told = old.recipe, old.row, old.set
        start = from_json(type(recipes.recipe(recipe).PAPER), old.config)
    else:
        recipe, row_name, row = recipes.find_row(str(asked.recipe))
        start, told = row.config, ()
    config = start
    if asked.config is not None:
        try:
            config = with_fields(config, read_settings(asked.config))
        except BadInput as error:
            where = f"--config {asked.config}"
            raise BadInput(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    config = with_fields(config, asked.set)
    given = changes(start, config) if asked.config is not None else as_assignments(asked.set)
    told = (*told, *given)
    if longer := _extension(asked):
        config = with_fields(config, longer)
        told = (*(text for text in told if not text.startswith("epochs=")), *longer)
    return recipe, row_name, told, config


def _extension(asked: TrainOptions) -> tuple[str, ...]:
    """What `--extend` changes, which is the number of epochs."""
    given = as_assignments(asked.extend)
    if other := [text for text in given if text.partition("=")[0].strip() != "epochs"]:
        raise BadInput(f"--extend '{other[0]}': only epochs=N can be extended; other changes need a new run")
    return given


def _call(asked: TrainOptions) -> str:
    """The call from Python that these options come from, without those that are as usual."""
    usual = {f.name: f.default for f in fields(asked) if f.default is not MISSING}
    given = {f.name: getattr(asked, f.name) for f in fields(asked)}
    shown = (
        f"{name}={str(value) if isinstance(value, Path) else value!r}"
        for name, value in given.items()
        if name not in usual or value != usual[name]
    )
    return f"vireid.experiments.train.train(TrainOptions({', '.join(shown)}))"


def _data_facts(records: Records, source: Path) -> DataFacts:
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
        source=str(source.resolve()),
        content=content_fingerprint(records),
        scaling=records.scaling,
        people=tuple(identities.tolist()),
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
            pinned=accelerator.device.type == "cuda",
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


def begin_run(asked: TrainOptions, planned: Plan, progress: Progress) -> Run:
    """The run to train, in a directory that this process has locked: a new one, or the one that is resumed."""
    if not check_directory(asked, planned.facts):
        for note in depth_notes(planned.records):
            progress.say(f"note: {note}")
        return create(asked.run, planned.facts)
    run, epochs = open_run(asked.run), planned.config.training.epochs
    before = run.facts.config["epochs"]
    if epochs == before:
        return run
    same = planned.config.training.schedule.warm_up_at_most is None
    unlike = "" if same else f"; its warm-up was that of {before} epochs, as it would not be in a run of {epochs}"
    progress.say(f"extended from {before} to {epochs} epochs; the schedule is kept as it is{unlike}")
    return extend(run, planned.facts.config, asked.command or _call(asked), same=same)


def check_directory(asked: TrainOptions, facts: RunFacts) -> bool:
    """Whether the directory holds a run that can be resumed. False: a new run can begin there.

    `train` checks this twice: before the network is built and its weights are downloaded, and again when the directory
    is locked.

    Raises:
        BadInput: the run there has another recipe, configuration, validation or data, or the directory is not empty.
    """
    directory = asked.run
    if not (asked.resume and (directory / "run.json").exists()) or not open_run(directory).saved:
        check_free(directory)
        return False
    old = open_run(directory).facts
    plugins.check_resumed(directory, old, facts)
    if old.recipe != facts.recipe:
        raise BadInput(
            f"{directory} was begun with recipe '{old.recipe}'; give the same one to --resume, or another --run"
        )
    changed = [name for name, value in facts.config.items() if value != old.config.get(name)]
    if asked.extend and "epochs" in changed:
        changed.remove("epochs")
        if facts.config["epochs"] < old.config["epochs"]:
            raise BadInput(f"--extend: {directory} has {old.config['epochs']} epochs already; give a larger number")
    if changed or old.config.keys() != facts.config.keys():
        what = ", ".join(changed) or "another version's fields"
        raise BadInput(
            f"{directory} was begun with other values of {what}; give the same ones to --resume, or another --run"
        )
    was, now = ((v.every, v.on) if v else None for v in (old.validation, facts.validation))
    if was != now:
        began = f"--validate-every {was[0]} --validate-on {was[1]}" if was else "no --validate-every"
        raise BadInput(f"{directory} was begun with {began}; give the same to --resume, or another --run")
    if old.data.scaling != facts.data.scaling:
        raise BadInput(
            f"{directory} was begun with scaling '{old.data.scaling}', and the data now state '{facts.data.scaling}'"
        )
    if old.data.fingerprint != facts.data.fingerprint:
        raise BadInput(
            f"{directory} was begun on other data (fingerprint {old.data.fingerprint}, fold {old.data.fold}; now "
            f"{facts.data.fingerprint}, fold {facts.data.fold})"
        )
    if old.data.content and old.data.content != facts.data.content:
        raise BadInput(
            f"{directory} was begun on other pictures: files in {facts.data.root} have changed since (content "
            f"{old.data.content}, now {facts.data.content}); put them back, or begin a new run in another --run"
        )
    return True
