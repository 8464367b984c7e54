"""Which people of a data set a run was trained on, by itself or by the runs that it started from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vireid import datasets
from vireid.data.errors import BadInput
from vireid.data.records import Records, content_fingerprint
from vireid.training.run import DataFacts, Run


@dataclass(frozen=True)
class Trained:
    """What is known of the people of a data set.

    Attributes:
        people: identity numbers of the data set, ascending: the people who were trained on.
        unknown: a sentence for each training of which this could not be found out.
    """

    people: np.ndarray
    unknown: tuple[str, ...]


def trained_people(records: Records, run: Run) -> Trained:
    """Find the people of a data set who were trained on.

    A person was trained on if one of its pictures was, or if it has the number of a training person and numbers are
    comparable. They are for two readings of one data set: the same pictures, wherever they are; or any copy of a
    layout that was published, in all of its folds; or two tables in one folder, whose people were not numbered here.
    The training pictures are looked for in the data set itself, and where they were.

    Args:
        records: all records of the data set, of all splits.
        run: a run, or the run that an exported model came from.
    """
    weights = run.facts.weights
    earlier = weights.trained_on if weights else ()
    people, unknown = [np.empty(0, np.int64)], []
    if weights and not earlier:
        unknown.append(f"started from the weights {weights.file}: whom they were trained on is not known")
    for facts in dict.fromkeys((run.facts.data, *earlier)):
        found = _trained(records, facts)
        if found is None:
            unknown.append(
                f"trained on {_name(facts)} ({facts.root}), which is not there any more or was changed: whether the "
                "people here were trained on is not known"
            )
        else:
            people.append(found)
    return Trained(np.unique(np.concatenate(people)), tuple(dict.fromkeys(unknown)))


def overlap(records: Records, run: Run) -> tuple[str, ...]:
    """Warnings if test people were trained on before a run itself began.

    A network that was started from another run knows the people of that run, and of the runs before it.

    Args:
        records: all records of the data set that is tested on.
        run: the run that is tested.
    """
    weights = run.facts.weights
    tested = np.unique(records.where(split="test").labelled().identity)
    said = []
    for facts in dict.fromkeys(weights.trained_on if weights and len(tested) else ()):
        found = _trained(records, facts)
        before = f"the run started from weights that were trained on {_name(facts)}"
        if found is None:
            said.append(
                f"{before} ({facts.root}), which cannot be read as it was: whether its people are tested here is not "
                "known"
            )
        elif people := len(np.intersect1d(tested, found)):
            said.append(
                f"{before}, where {people} of the {len(tested)} test identities are training identities: the result is "
                "inflated"
            )
    return tuple(dict.fromkeys(said))


def _name(facts: DataFacts) -> str:
    return facts.layout + (f", fold {facts.fold}" if facts.fold else "")


def _trained(records: Records, facts: DataFacts) -> np.ndarray | None:
    """The identity numbers that one training knows; None if that cannot be found out."""
    training = next(_training(records, facts), None)
    if training is not None:
        found = [_by_picture(records, training)]
        if _one_numbering(records, training):
            found.append(np.intersect1d(records.labelled().identity, training.identity))
        return np.concatenate(found)
    if _apart(records, facts):
        return np.empty(0, np.int64)
    numbers = np.array(facts.people, np.int64)
    if _published(records) and records.layout == facts.layout and not facts.generated:
        if not len(numbers):
            numbers = _usual_training(records, facts)
        return np.intersect1d(records.labelled().identity, numbers)
    beside = facts.layout == "folder" == records.layout and Path(facts.root) == Path(records.root).resolve()
    if beside and len(numbers) and not _numbered_here(records):
        return np.intersect1d(records.labelled().identity, numbers)
    return None


def _training(records: Records, facts: DataFacts) -> Iterator[Records]:
    """The training pictures, read again, if they are as they were: here first, then in their own place."""
    places = [(records.layout, records.root)] if records.layout == facts.layout else []
    if records.layout == facts.layout and records.fold == facts.fold:
        yield from _known_parts(records, facts)
        places = []
    for layout, root in [*places, (facts.layout, facts.source or facts.root)]:
        try:
            yield from _known_parts(datasets.read(layout, root, fold=facts.fold or 1), facts)
        except BadInput:
            continue


def _known_parts(records: Records, facts: DataFacts) -> Iterator[Records]:
    """`training_parts` of a data set; none of a table of test pictures."""
    try:
        training = datasets.training_records(records)
    except BadInput:
        return
    yield from training_parts(training, facts)


def training_parts(training: Records, facts: DataFacts) -> Iterator[Records]:
    """The training records of a data set, with or without its validation people, if they are those of a run."""
    for part in (training, training.take(training.split != "val")):
        same = len(part) and part.fingerprint() == facts.fingerprint
        if same and facts.content in ("", content_fingerprint(part)):  # older runs have no content
            yield part


def _by_picture(records: Records, training: Records) -> np.ndarray:
    """The people of whom a picture was trained on."""
    wherever = _published(records) and _published(training) and records.layout == training.layout
    trained = set(_files(training, wherever))
    return np.unique(records.labelled().identity[[file in trained for file in _files(records.labelled(), wherever)]])


def _files(records: Records, wherever: bool) -> list[str]:
    """The pictures: their paths in the data set, or the files."""
    root = Path() if wherever else Path(records.root).resolve()
    return [str(root / str(path)) for path in records.path]


def _one_numbering(records: Records, training: Records) -> bool:
    """Whether equal identity numbers are one person."""
    if records.layout != training.layout:
        return False
    if _published(records) and _published(training):
        return True
    if Path(records.root).resolve() != Path(training.root).resolve():
        return False
    return records.layout != "folder" or not (_numbered_here(records) or _numbered_here(training))


def _published(records: Records) -> bool:
    """Whether this is a copy of a published data set: each copy has the same people and numbers."""
    return records.layout != "folder" and not datasets.generated(records.root)


def _apart(records: Records, facts: DataFacts) -> bool:
    """Whether people cannot be the same: those of two published data sets, and generated people and real ones."""
    if "folder" in (records.layout, facts.layout):
        return False
    return facts.generated == _published(records) or (_published(records) and records.layout != facts.layout)


def _numbered_here(records: Records) -> bool:
    """Whether the reader gave numbers to people with names: another table would give them other numbers."""
    return any("numbered in sorted order" in note and "identity" in note for note in records.notes)


def _usual_training(records: Records, facts: DataFacts) -> np.ndarray:
    """The training people of a published layout, of a run that did not record them: all, if any were held out."""
    try:
        fold = facts.fold or 1
        everything = records if fold == (records.fold or 1) else datasets.read(records.layout, records.root, fold=fold)
        return np.unique(datasets.training_records(everything).identity)
    except BadInput:
        return np.empty(0, np.int64)
