"""Choosing the best epoch while training: on validation identities, and never on the test set without saying so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vireid.cli.evaluate import embed, used_rows
from vireid.data.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

    from vireid.data.protocol import Trial
    from vireid.data.records import Records
    from vireid.training.run import Run

METRIC = "map"


@dataclass(frozen=True)
class Validation:
    """What is measured after how many epochs.

    Attributes:
        every: epochs between two measurements.
        on: `val`, identities that are then not trained on, or `test`.
        protocol: whose rules are applied to these rows.
        records: the rows.
        trials: the protocol's own draws from them.
    """

    every: int
    on: str
    protocol: str
    records: Records
    trials: list[Trial]

    def facts(self) -> dict[str, Any]:
        """What `run.json` says about it."""
        import numpy as np

        said = {
            "val": "best.pt is the best epoch on validation identities, which are not trained on; no gallery is "
            "published for them, so the protocol's own draw is used on their pictures",
            "test": "best on test: best.pt is chosen by its result on the test set, which inflates that result",
        }
        return {
            "every": self.every,
            "on": self.on,
            "protocol": self.protocol,
            "metric": METRIC,
            "identities": len(np.unique(self.records.identity)),
            "pictures": len(self.records),
            "fingerprint": self.records.fingerprint(),
            "note": said[self.on],
        }


def plan(records: Records, *, every: int | None, on: str | None, epochs: int) -> tuple[Records, Validation | None]:
    """The rows to train on, and what to measure.

    Args:
        records: all rows of the data.
        every: `--validate-every`; None for no validation.
        on: `--validate-on`; None for `val`.
        epochs: how many the run has.

    Raises:
        BadInput: the data have no validation identities, or nothing would ever be measured.
    """
    from vireid import datasets
    from vireid.data.protocol import default_protocols, draw_trials

    if every is None:
        if on is not None:
            raise BadInput(f"--validate-on {on} needs --validate-every N")
        return datasets.training_rows(records), None
    on = on or "val"
    if not 1 <= every <= epochs:
        raise BadInput(f"--validate-every {every}: the run has {epochs} epochs, choices: 1 to {epochs}")
    rows = records.where(split=on)
    if on == "val" and not len(rows):
        raise BadInput(
            f"{records.layout} at {records.root} has no validation identities; --validate-on test chooses on the test "
            "set, and says so in every report"
        )
    train = datasets.training_rows(records)
    if on == "val":
        train = train.take(train.split != "val")
        if not len(train):
            raise BadInput(f"{records.root} has nothing to train on besides its validation identities")
    protocol = default_protocols(records.layout)[0]
    trials = draw_trials(protocol, rows.identity, rows.camera, rows.modality)
    return train, Validation(every, on, protocol, rows, trials)


def after_epoch(
    validation: Validation, network: nn.Module, config: Any, run: Run, *, workers: int, cache: Path | None
) -> Callable[[int], dict[str, Any]]:
    """The function that the training loop calls after each epoch, in the main process alone.

    It measures the network as it stands, keeps it as `best.pt` if nothing before was better, and returns what the log
    line should say. It draws no random number and leaves nothing behind in the network, so training goes on as if it
    had not been called. A run that was killed and resumed finds its best so far in `best.pt`.
    """
    best = _best_so_far(run)

    def measure(epoch: int) -> dict[str, Any]:
        nonlocal best
        if (epoch + 1) % validation.every:
            return {}
        from vireid.training import checkpoint

        found = _measured(validation, network, config, workers=workers, cache=cache)
        if best is None or found[METRIC] > best[METRIC]:
            best = {"epoch": epoch + 1, METRIC: found[METRIC]}
            kept = {"validation": {**validation.facts(), **found, **best}}
            progress = {"epoch": epoch + 1, "step": 0, "sums": {}}
            checkpoint.save(run.best, {"model": network.state_dict(), "progress": progress, **kept})
        where = "validation identities" if validation.on == "val" else "the test set (best on test)"
        print(
            f"epoch {epoch + 1} on {where}: Rank-1 {found['rank1']:.2f}, mAP {found['map']:.2f}; best so far is epoch "
            f"{best['epoch']} with mAP {best[METRIC]:.2f}",
            file=sys.stderr,
        )
        return {"validation": {"on": validation.on, **found, "best_epoch": best["epoch"]}}

    return measure


def _best_so_far(run: Run) -> dict[str, Any] | None:
    from vireid.training import checkpoint

    return checkpoint.load(run.best)["validation"] if run.best.exists() else None


def _measured(
    validation: Validation, network: nn.Module, config: Any, *, workers: int, cache: Path | None
) -> dict[str, float]:
    from vireid.evaluation.scoring import score

    records, training = validation.records, network.training
    network.eval()
    try:
        how = {"size": config.size, "workers": workers, "cache": cache, "title": "validating"}
        how["device"] = next(network.parameters()).device
        embed_images: Any = network.embed
        features = embed(embed_images, network, records, used_rows({"": validation.trials}), **how)
    finally:
        network.train(training)
    report = score(features, records.identity, records.camera, records.modality, protocol=validation.protocol)
    return {name: round(getattr(report, name), 6) for name in ("rank1", "rank10", "map", "minp")}
