"""What a run inherits from the run that its weights came from: the people that it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vireid import datasets
from vireid.data.errors import BadInput
from vireid.data.records import Records
from vireid.training.run import DataFacts, Run


def overlap(records: Records, run: Run) -> tuple[str, ...]:
    """Warnings if test people were trained on before the run itself began.

    A network that was started from another run knows the people of that run, and of the runs before it. Which pictures
    these were is read again from where they were.

    Args:
        records: all records of the data set that is tested on.
        run: the run that is tested.
    """
    weights = run.facts.weights
    found = [_overlap(records, facts) for facts in dict.fromkeys(weights.trained_on)] if weights else []
    said = [f"the run started from weights that were trained on {sentence}" for sentence in found if sentence]
    return tuple(dict.fromkeys(said))


def _overlap(records: Records, facts: DataFacts) -> str | None:
    """What part of the test set an earlier run was trained on, in words; None if it was trained on none of it."""
    name = facts.layout + (f", fold {facts.fold}" if facts.fold else "")
    tested = records.where(split="test")
    if not len(tested):
        return None
    try:
        everything = datasets.read(facts.layout, facts.source or facts.root, fold=facts.fold or 1)
        training = datasets.training_records(everything)
    except BadInput:
        training = None
    if training is None or facts.fingerprint not in _fingerprints(training):
        if _published_apart(records, facts):
            return None
        return f"{name} ({facts.root}), which cannot be read as it was: whether its people are tested here is not known"
    wherever = _one_data_set(training, tested)
    trained_on = set(_files(training, wherever))
    tested_on = np.array([file in trained_on for file in _files(tested, wherever)])
    people = len(np.unique(tested.identity[tested_on]))
    if _same_numbers(training, tested):
        people = max(people, len(np.intersect1d(tested.identity, training.labelled().identity)))
    if not people:
        return None
    everyone = len(np.unique(tested.identity))
    return f"{name}, where {people} of the {everyone} test identities are training identities: the result is inflated"


def _fingerprints(training: Records) -> tuple[str, str]:
    """Those of a run that trained on all training records, and of one that held out the validation people."""
    return training.fingerprint(), training.take(training.split != "val").fingerprint()


def _files(records: Records, wherever: bool) -> list[str]:
    """The pictures of records: their paths in the data set, or the files."""
    root = Path() if wherever else Path(records.root).resolve()
    return [str(root / str(path)) for path in records.path]


def _one_data_set(training: Records, tested: Records) -> bool:
    """Whether equal paths are the same picture in any copy: only for the data sets that were published."""
    published = training.layout == tested.layout != "folder"
    return published and not datasets.generated(training.root) and not datasets.generated(tested.root)


def _same_numbers(training: Records, tested: Records) -> bool:
    """Whether equal identity numbers are the same person: two tables beside the same pictures, not numbered here."""
    both = (training, tested)
    beside = {(records.layout, Path(records.root).resolve()) for records in both}
    numbered = any("numbered in sorted order" in note and "identity" in note for r in both for note in r.notes)
    return len(beside) == 1 and training.layout == "folder" and not numbered


def _published_apart(records: Records, facts: DataFacts) -> bool:
    """Whether the training people of a layout are never its test people, whichever copy of it is read."""
    same_fold = facts.layout == records.layout and facts.fold == records.fold
    real = facts.generated == datasets.generated(records.root)
    return same_fold and real and facts.layout != "folder"
