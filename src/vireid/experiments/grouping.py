"""Runs that differ in the seed only are one group. A group is called by the fields in which it differs from others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vireid import recipes
from vireid.evaluation.report import METRICS
from vireid.evaluation.spread import Paired, bootstrap, paired
from vireid.experiments.measurement import Measurement
from vireid.experiments.rows import Found, Ours, combined
from vireid.training.configuration import to_json
from vireid.training.run import Run, RunFacts

SHOWN = 6  # fields in a label; what is more is counted
BY_IDENTITY = ("rank1", "map")  # the metrics that a breakdown has for each identity


def fields_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration in JSON values as path → value. The value of a part is the name of its class.

    >>> fields_of({"type": "Config", "epochs": 3, "crop": None, "contrast": {"type": "KeyInstance", "top_k": 4}})
    {'epochs': 3, 'crop': None, 'contrast': 'KeyInstance', 'contrast.top_k': 4}
    """
    found: dict[str, Any] = {}
    for name, value in config.items():
        if name == "type":
            continue
        if isinstance(value, Mapping):
            found[f"{prefix}{name}"] = value.get("type")
            found |= fields_of(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths in which configurations differ, without the seed.

    A field of a part counts only if configurations with this part differ in it: where a part is null in one of them,
    only the part itself is named.

    >>> one, two = {"seed": 0, "crop": {"type": "PadCrop", "padding": 4}}, {"seed": 1, "crop": None}
    >>> differing([one, two]), differing([one, {"seed": 0, "crop": {"type": "PadCrop", "padding": 8}}])
    (['crop'], ['crop.padding'])
    """
    flat = [fields_of(config) for config in configs]
    paths = dict.fromkeys(path for one in flat for path in one if path != "seed")
    values = {path: {json.dumps(one[path]) for one in flat if path in one} for path in paths}
    return [path for path, seen in values.items() if len(seen) > 1]


def shown(value: Any) -> str:
    """A value as `--set` takes it.

    >>> shown(None), shown(0.001), shown([None, "shared"]), shown("SGD")
    ('null', '0.001', '[null,shared]', 'SGD')
    """
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(shown, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def label(values: Mapping[str, Any]) -> str:
    """Fields and values in one line; beyond the first six, they are only counted.

    >>> label({"crop": None, "epochs": 3})
    'crop=null, epochs=3'
    """
    told = [f"{path}={shown(value)}" for path, value in values.items()]
    more = [f"{len(told) - SHOWN} more"] if len(told) > SHOWN else []
    return ", ".join([*told[:SHOWN], *more])


@dataclass(frozen=True)
class Group:
    """Measurements of one protocol that differ in seed and fold only.

    Attributes:
        label: what is particular about the group, in words.
        values: the fields in which it differs from the other groups, with its values in JSON.
        found: the runs and measurements that count: one for each seed and fold.
        ours: their mean and spread.
        finished: whether all of the runs were trained to their last epoch when they were measured.
    """

    label: str
    values: Mapping[str, Any]
    found: tuple[Found, ...]
    ours: Ours
    finished: bool = True

    @classmethod
    def of(cls, label: str, values: Mapping[str, Any], found: Sequence[Found]) -> Group:
        """A group of measurements. Of several ones of a seed and fold, the newest one counts."""
        newest = {_place(run): (run, one) for run, one in sorted(found, key=lambda pair: pair[1].measured.started)}
        ours = combined(list(newest.values()), ())
        folds = ours.folds or (1,)
        used = tuple(newest[seed, fold] for seed in ours.seeds for fold in folds)
        return cls(label, values, used, ours, all(one.measured.finished for _, one in used))

    def by_seed(self, metric: str) -> dict[int, float]:
        """Seed → percent, the mean over its folds."""
        numbers: dict[int, list[float]] = {}
        for run, one in self.found:
            numbers.setdefault(run.facts.seed, []).append(getattr(one.report, metric))
        return {seed: sum(values) / len(values) for seed, values in numbers.items()}


@dataclass(frozen=True)
class Difference:
    """A group minus the first one.

    Attributes:
        first, second: the labels.
        metrics: metric → the difference over common seeds, in percentage points.
        identities: `rank1` and `map` → the 95 % interval of the difference from a bootstrap over the test identities;
            empty where a measurement has no breakdown, which has the results of single identities.
    """

    first: str
    second: str
    metrics: Mapping[str, Paired]
    identities: Mapping[str, tuple[float, float]]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The common seeds."""
        return next(iter(self.metrics.values())).seeds


def difference(first: Group, second: Group) -> Difference | None:
    """The second group minus the first one; None if they have no seed in common or were tested on other pictures."""
    pictures = [{_place(run)[1]: one.measured.fingerprint for run, one in group.found} for group in (first, second)]
    if pictures[0] != pictures[1]:
        return None
    numbers = {name: paired(first.by_seed(name), second.by_seed(name)) for name in METRICS}
    metrics = {name: one for name, one in numbers.items() if one is not None}
    if not metrics:
        return None
    intervals = {name: _over_identities(first, second, name) for name in BY_IDENTITY}
    kept = {name: one for name, one in intervals.items() if one is not None}
    return Difference(first.label, second.label, metrics, kept)


def from_first(groups: Sequence[Group]) -> list[Difference]:
    """Every finished group minus the first finished one."""
    finished = [group for group in groups if group.finished]
    found = [difference(finished[0], group) for group in finished[1:]]
    return [one for one in found if one is not None]


def _over_identities(first: Group, second: Group, metric: str) -> tuple[float, float] | None:
    """The interval of a difference, from a bootstrap over identities.

    The value of an identity is the mean over the seeds that both groups have. Its weight is the number of its queries.
    """
    members: dict[tuple[int, int], list[float]] = {}
    weights: dict[tuple[int, int], float] = {}
    others = {_place(run): one for run, one in first.found}
    for run, one in second.found:
        before = others.get(_place(run))
        if before is None:
            continue
        if before.breakdown is None or one.breakdown is None:
            return None
        old = {person.identity: getattr(person, metric) for person in before.breakdown.identities}
        for person in one.breakdown.identities:
            if person.identity in old:
                member = (_place(run)[1], person.identity)
                members.setdefault(member, []).append(getattr(person, metric) - old[person.identity])
                weights[member] = person.queries
    means = [sum(values) / len(values) for values in members.values()]
    return bootstrap(means, [weights[member] for member in members])


def _place(run: Run) -> tuple[int, int]:
    """Seed and fold."""
    return run.facts.seed, run.facts.data.fold or 1


def groups(found: Iterable[Found]) -> list[Group]:
    """Measurements of one protocol in groups, in the order in which they come.

    A group has one recipe, configuration, data set and way of measuring. Its label is the recipe with its row, if they
    are not the same for all, then the fields in which it differs from the other groups of the recipe (with a name, only
    those in which it differs from the row), and what is not plain about how it was measured.
    """
    together: dict[tuple[Any, ...], list[Found]] = {}
    for run, one in found:
        together.setdefault(_key(run, one), []).append((run, one))
    configs: dict[str, list[Mapping[str, Any]]] = {}
    for pairs in together.values():
        facts = pairs[0][0].facts
        configs.setdefault(facts.recipe, []).append(facts.config)
    paths = {recipe: differing(of_recipe) for recipe, of_recipe in configs.items()}
    names = {_named(pairs) for pairs in together.values()}
    made = []
    for pairs in together.values():
        facts = pairs[0][0].facts
        own = fields_of(facts.config)
        values = {path: own[path] for path in paths[facts.recipe] if path in own}
        name = "" if len(names) == 1 and values else _named(pairs)
        told = {path: value for path, value in values.items() if not name or not _said_by_name(facts, path, value)}
        made.append(Group.of(_label(name, pairs, told), values, pairs))
    return _distinguished(made)


def _said_by_name(facts: RunFacts, path: str, value: Any) -> bool:
    """Whether a value is that of the row, or of the paper's configuration, which the label names already."""
    base = recipes.recipe(facts.recipe)
    row = base.ROWS.get(facts.row) if facts.row else None
    config = fields_of(to_json(row.config if row else base.PAPER))
    return path in config and config[path] == value


def _key(run: Run, one: Measurement) -> tuple[Any, ...]:
    """Equal for measurements of one group."""
    data = run.facts.data
    # The pictures of a fold are its own, so they cannot tell data sets with folds apart.
    pictures = (data.root,) if data.fold is not None else (data.fingerprint, one.measured.fingerprint)
    epochs = None if one.measured.finished else one.measured.epochs
    return (run.facts.recipe, run.settings, tuple(one.marks), one.measured.untrained, epochs, *pictures)


def _named(pairs: Sequence[Found]) -> str:
    """The recipe with the row that all of these runs were started as, or the recipe alone."""
    names = dict.fromkeys(run.facts.name for run, _ in pairs)
    return next(iter(names)) if len(names) == 1 else pairs[0][0].facts.recipe


def _label(name: str, pairs: Sequence[Found], values: Mapping[str, Any]) -> str:
    _, one = pairs[0]
    measured = one.measured
    marks = [*(["untrained"] if measured.untrained else []), *one.marks]
    if not measured.finished:
        marks.append(f"unfinished: {measured.epochs} of {measured.planned} epochs")
    told = ": ".join(part for part in (name, label(values)) if part)
    return f"{told} ({', '.join(marks)})" if marks else told


def _distinguished(made: Sequence[Group]) -> list[Group]:
    """The groups, with the folder of the data in the label where labels would be equal; at last, the settings too."""
    found = list(made)
    for told in (lambda run: f"on {run.facts.data.root}", lambda run: f"settings {run.settings}"):
        labels = [group.label for group in found]
        found = [
            Group(f"{one.label}, {told(one.found[0][0])}", one.values, one.found, one.ours, one.finished)
            if labels.count(one.label) > 1
            else one
            for one in found
        ]
    return found
