"""What a figure is about: a run and, where pictures are needed, a data set and a protocol, with what follows from them.

Everything is computed when it is first asked for, and once. So eight figures of a run embed its pictures once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vireid.data.errors import BadInput
from vireid.figures.kinds import DoesNotApply
from vireid.training.progress import Progress, Quiet
from vireid.training.run import Run, open_run

if TYPE_CHECKING:
    from vireid.data.protocol import Protocol, Trial
    from vireid.data.records import Records
    from vireid.evaluation.scoring import Evaluation
    from vireid.model import Model


@dataclass(frozen=True)
class Where:
    """The pictures that figures are drawn from, and how they are embedded.

    Attributes:
        data: `LAYOUT:PATH`.
        protocol: name of the protocol; None for the first of the data's layout.
        checkpoint: `last` or `best`.
        untrained: the network as it was before its first step.
        fold: RegDB's fold; None for the one that the run was trained on.
        batch, workers, cache: see `vireid.experiments.embedding.Inference`.
    """

    data: str
    protocol: str | None = None
    checkpoint: str = "last"
    untrained: bool = False
    fold: int | None = None
    batch: int = 64
    workers: int = 2
    cache: Path | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """A run, and where pictures are needed, the data set it is shown on.

    Attributes:
        run: the run.
        name: what the run is called in figures; different for all runs of a figure.
        where: the pictures; None if only the run's directory is known.
        progress: where bars are shown.
    """

    run: Run
    name: str
    where: Where | None = None
    progress: Progress = Quiet()

    @property
    def place(self) -> Where:
        """The pictures.

        Raises:
            DoesNotApply: none were named.
        """
        if self.where is None:
            raise DoesNotApply("pictures are needed: --data LAYOUT:PATH")
        return self.where

    @cached_property
    def model(self) -> Model:
        """The network, in evaluation mode. Its parameters keep their gradients' setting."""
        from vireid.model import load

        return load(self.run, checkpoint=self.place.checkpoint, untrained=self.place.untrained)

    @cached_property
    def _drawn(self) -> tuple[Records, Protocol, list[Trial]]:
        from vireid import datasets
        from vireid.data.protocol import default_protocols
        from vireid.experiments.test import TestOptions, draw

        place = self.place
        layout, _ = datasets.parse_source(place.data)
        name = place.protocol or default_protocols(layout)[0]
        asked = TestOptions(self.run.path, place.data, protocols=(name,), fold=place.fold)
        records, drawn = draw(asked, self.run)
        if len(drawn) > 1:
            raise BadInput(f"figures are drawn by one protocol; {name} stands for {len(drawn)}")
        return records.where(split="test").with_scaling(self.run.facts.data.scaling), *drawn[0]

    @property
    def records(self) -> Records:
        """The test pictures, N records in the order of `features`."""
        return self._drawn[0]

    @property
    def rules(self) -> Protocol:
        """The protocol."""
        return self._drawn[1]

    @property
    def trials(self) -> list[Trial]:
        """The protocol's draws from `records`."""
        return self._drawn[2]

    @cached_property
    def samples(self) -> np.ndarray:
        """The positions in `records` that the protocol uses, ascending int64. Other pictures have features of zero."""
        from vireid.experiments.embedding import used_samples

        return used_samples([self.trials])

    @cached_property
    def features(self) -> np.ndarray:
        """N×D float32, of length one for `samples`: what the protocol compares."""
        from vireid.evaluation.embedding import fastest_device
        from vireid.experiments.embedding import Inference, embed_records

        place, model = self.place, self.model
        how = Inference(model.size, batch=place.batch, workers=place.workers, cache=place.cache, title=self.name)
        embedder = model.embedder(device=fastest_device(), pictures=len(self.samples), batch=place.batch)
        return embed_records(embedder, self.records, self.samples, how, self.progress)

    @cached_property
    def evaluation(self) -> Evaluation:
        """The protocol's result, query by query, for each of its draws."""
        from vireid.evaluation.scoring import Measured, evaluate

        records = self.records
        return evaluate(self.features, records.identity, self.rules, self.trials, Measured(), modality=records.modality)

    @property
    def generated(self) -> bool:
        """Whether the pictures, or without pictures those of the training, are a generated world's."""
        from vireid import datasets

        if self.where is None:
            return self.run.facts.data.generated
        return datasets.generated(self.records.root)

    def says(self, *, protocol: bool = True) -> str:
        """The sentences of a caption that every figure ends with: run, data, protocol, seed and checkpoint."""
        facts = self.run.facts
        kind = "generated pictures, not real ones" if self.generated else "pictures of the data set"
        if self.where is None:
            return f"{self.name}: {facts.name}, seed {facts.seed}, trained on {facts.data.layout} ({kind})."
        state = "before its first step" if self.where.untrained else f"{self.where.checkpoint} checkpoint"
        by = f", protocol {self.rules.name}" if protocol else ""
        epochs = "" if self.where.untrained else f", {self.model.epochs} epochs"
        return f"{self.name}: {facts.name}, seed {facts.seed}, {state}{epochs}. Data: {self.place.data}{by} ({kind})."


def known(
    where: Where,
    model: Model,
    drawn: tuple[Records, Protocol, list[Trial]],
    features: np.ndarray,
) -> Subject:
    """A subject whose network and features are there already: nothing is loaded or embedded again.

    Args:
        where: what captions say about the pictures; how they are loaded.
        model: the network, in evaluation mode.
        drawn: the records that are shown, the protocol, and its draws from them.
        features: N×D float32, one for each record; zero for records that no draw uses.
    """
    made = Subject(model.run, model.run.path.resolve().name, where)
    vars(made).update(model=model, _drawn=drawn, features=features)  # what the cached properties would compute
    return made


def subjects(
    runs: Sequence[str | Path | Run],
    where: Where | None = None,
    names: Sequence[str] = (),
    progress: Progress = Quiet(),  # noqa: B008 has no state
) -> list[Subject]:
    """Subjects of several runs on the same pictures.

    Args:
        runs: run directories.
        where: the pictures, or None.
        names: what the runs are called; by default, by what is particular to each, as in a report.
        progress: where bars are shown.

    Raises:
        BadInput: a run cannot be read, or there are not as many names as runs.
    """
    from vireid.figures.page import names_of

    opened = [one if isinstance(one, Run) else open_run(Path(one)) for one in runs]
    if names and len(names) != len(opened):
        raise BadInput(f"{len(opened)} runs have {len(names)} names")
    called: dict[Path, Any] = dict(zip((run.path for run in opened), names)) or names_of(  # noqa: B905 checked above
        opened, {run.path: [] for run in opened}
    )
    return [Subject(run, str(called[run.path]), where, progress) for run in opened]
