"""Facts for a run directory, where a test does not care what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vireid.training.run import DataFacts, RunFacts, ValidationFacts, surroundings

DATA = DataFacts("sysu-mm01", "/data", "abc", None, 6, 24, 24, True)
VALIDATION = ValidationFacts(2, "val", "sysu-mm01/all/single", "map", 2, 12, "def", "chosen on validation identities")


def some_facts(**changes: Any) -> RunFacts:
    """The facts of a run of AGW, with changes."""
    facts = RunFacts(
        recipe="agw",
        row=None,
        set=("epochs=2",),
        seed=0,
        config={"type": "Config", "epochs": 2, "optimiser": {"type": "SGD", "lr": 0.1, "trunk_factor": 0.1}},
        command="vireid train agw",
        data=DATA,
        validation=None,
        processes=1,
        normalisation="over the samples of the one process",
        **vars(surroundings()),
    )
    return replace(facts, **changes)
