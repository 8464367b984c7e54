"""Choosing the best epoch while training: on validation identities, or on the test set with a warning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vireid import datasets
from vireid.data.errors import BadInput
from vireid.data.protocol import Protocol, Trial, default_protocols, draw_trials, parse_protocol
from vireid.data.records import Records
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


def after_epoch(
    validation: Validation, network: nn.Module, run: Run, how: Inference, progress: Progress
) -> Callable[[int], dict[str, Any]]:
    """The function that the training loop calls after each epoch, in the main process only.

    It measures the network, saves it as `best.pt` if it is the best so far, and returns the validation entry of the log
    line. It draws no random number and does not change the network, so it does not change the training. A resumed run
    reads the best result so far from `best.pt`.
    """
    from vireid.training import checkpoint

    best: dict[str, Any] | None = checkpoint.load(run.best)["validation"] if run.best.exists() else None

    def measure(epoch: int) -> dict[str, Any]:
        nonlocal best
        if (epoch + 1) % validation.every:
            return {}
        found = _measured(validation, network, how, progress)
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
        return {"validation": {"on": validation.on, **found, "best_epoch": best["epoch"]}}

    return measure


def _measured(validation: Validation, network: nn.Module, how: Inference, progress: Progress) -> dict[str, float]:
    records, training = validation.records, network.training
    network.eval()
    try:
        how = replace(how, device=next(network.parameters()).device, title="validating")
        embed: Any = network.embed
        samples = used_samples([validation.trials])
        features = embed_records(embed, network, records, samples, how, progress)
    finally:
        network.train(training)
    report = evaluate(features, records.identity, validation.rules, validation.trials, Measured()).report
    return {name: round(getattr(report, name), 6) for name in ("rank1", "rank10", "map", "minp")}
