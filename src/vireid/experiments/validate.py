"""Choosing the best epoch while training: on validation identities, or on the test set with a warning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vireid import datasets
from vireid.data.errors import BadInput
from vireid.data.protocol import Protocol, Trial, default_protocols, draw_trials, parse_protocol
from vireid.data.records import Records
from vireid.evaluation.embedding import NetworkEmbedder
from vireid.evaluation.scoring import Measured, evaluate
from vireid.experiments.embedding import Inference, embed_records, used_samples
from vireid.training.run import Run, ValidationFacts

if TYPE_CHECKING:
    from torch import nn

    from vireid.training.progress import Progress

METRIC = "map"
_NOTES = {
    "val": "best.pt is the best epoch on validation identities, which are not trained on; no gallery is published for "
    "them, so the protocol's own draw is used on their pictures",
    "test": "best on test: best.pt is chosen by its result on the test set, which inflates that result",
}


@dataclass(frozen=True)
class Validation:
    """What is measured during training, and how often.

    Attributes:
        every: epochs between two measurements.
        on: the split that is measured: `val`, and its identities are not trained on, or `test`.
        rules: the protocol.
        records: the pictures to measure on.
        trials: the protocol's draws from them.
    """

    every: int
    on: str
    rules: Protocol
    records: Records
    trials: list[Trial]

    def facts(self) -> ValidationFacts:
        """The entry about validation in `run.json`."""
        return ValidationFacts(
            every=self.every,
            on=self.on,
            protocol=self.rules.name,
            metric=METRIC,
            identities=len(np.unique(self.records.labelled().identity)),
            pictures=len(self.records),
            fingerprint=self.records.fingerprint(),
            note=_NOTES[self.on],
        )


def plan(records: Records, *, every: int | None, on: str | None, epochs: int) -> tuple[Records, Validation | None]:
    """The records to train on, and what to measure.

    Args:
        records: all records of the data.
        every: `--validate-every`; None for no validation.
        on: `--validate-on`; None for `val`.
        epochs: number of epochs of the run.

    Raises:
        BadInput: the data have no validation identities or nothing else to train on, `every` is not from 1 to `epochs`,
            or `on` is given without `every`.
    """
    training = datasets.training_records(records)
    if every is None:
        if on is not None:
            raise BadInput(f"--validate-on {on} needs --validate-every N")
        return training, None
    on = on or "val"
    if not 1 <= every <= epochs:
        there = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        raise BadInput(f"--validate-every {every}: the run has {there}, choices: 1 to {epochs}")
    measured = records.where(split=on)
    if on == "val" and not len(measured):
        raise BadInput(
            f"{records.layout} at {records.root} has no validation identities; --validate-on test chooses on the test "
            "set, and says so in every report"
        )
    if on == "val":
        training = training.take(training.split != "val")
        if not len(training):
            raise BadInput(f"{records.root} has nothing to train on besides its validation identities")
    rules = parse_protocol(default_protocols(records.layout)[0])
    trials = draw_trials(rules, measured.identity, measured.camera, measured.modality)
    return training, Validation(every, on, rules, measured, trials)


@dataclass(frozen=True)
class Seen:
    """What was looked at after an epoch, for those who draw it.

    Attributes:
        run: the run.
        epoch: counted from 0.
        network: the network that is being trained. Nothing of it may be changed; draw with a copy.
        validation: the records and the protocol's draws from them.
        features: N×D float32, one for each record; zero for records that no draw uses.
        how: how the pictures were loaded.
    """

    run: Run
    epoch: int
    network: nn.Module
    validation: Validation
    features: np.ndarray
    how: Inference


Draw = Callable[[Seen], Mapping[str, np.ndarray]]
"""Makes images of what was seen: name → H×W×3 uint8. It raises nothing and leaves the training as it is. This room
does not know figures; `vireid.figures.live.Live` is such a function."""


def after_epoch(
    validation: Validation,
    network: nn.Module,
    run: Run,
    how: Inference,
    progress: Progress,
    show: Callable[[Seen], None] | None = None,
) -> Callable[[int], dict[str, Any]]:
    """The function that the training loop calls after each epoch, in the main process only.

    It measures the network, saves it as `best.pt` if it is the best so far, and returns the validation entry of the log
    line. It draws no random number and does not change the network, so it does not change the training. A resumed run
    reads the best result so far from `best.pt`. `show` is called with what each validation saw.
    """
    from vireid.training import checkpoint

    best: dict[str, Any] | None = checkpoint.load(run.best)["validation"] if run.best.exists() else None

    def measure(epoch: int) -> dict[str, Any]:
        nonlocal best
        if (epoch + 1) % validation.every:
            return {}
        features = _embedded(validation, network, how, progress)
        found = _measured(validation, features)
        if best is None or found[METRIC] > best[METRIC]:
            best = {"epoch": epoch + 1, METRIC: found[METRIC]}
            kept = {"validation": {**vars(validation.facts()), **found, **best}}
            reached = {"epoch": epoch + 1, "step": 0, "sums": {}}
            checkpoint.save(run.best, {"model": network.state_dict(), "progress": reached, **kept})
        where = "validation identities" if validation.on == "val" else "the test set (best on test)"
        progress.say(
            f"epoch {epoch + 1} on {where}: Rank-1 {found['rank1']:.2f}, mAP {found['map']:.2f}; best so far is epoch "
            f"{best['epoch']} with mAP {best[METRIC]:.2f}"
        )
        if show is not None:
            show(Seen(run, epoch, network, validation, features, how))
        return {"validation": {"on": validation.on, **found, "best_epoch": best["epoch"]}}

    return measure


def _embedded(validation: Validation, network: nn.Module, how: Inference, progress: Progress) -> np.ndarray:
    training = network.training
    network.eval()
    try:
        embed: Any = network.embed
        # The network as it is: it has changed since the last validation, and a copy would be of use once.
        embedder = NetworkEmbedder(embed, next(network.parameters()).device)
        samples = used_samples([validation.trials])
        return embed_records(embedder, validation.records, samples, replace(how, title="validating"), progress)
    finally:
        network.train(training)


def _measured(validation: Validation, features: np.ndarray) -> dict[str, float]:
    identity = validation.records.identity
    report = evaluate(features, identity, validation.rules, validation.trials, Measured()).report
    return {name: round(getattr(report, name), 6) for name in ("rank1", "rank10", "map", "minp")}
