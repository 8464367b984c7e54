"""`vireid sweep`: train and test every combination of some values of fields, and compare the combinations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vireid import datasets, recipes
from vireid.data.errors import BadInput
from vireid.data.protocol import default_protocols, parse_protocol
from vireid.data.settings import Count, Whole, options
from vireid.data.stored import as_json
from vireid.evaluation.report import expanded
from vireid.experiments.folds import chosen
from vireid.experiments.grouping import Difference, Group, fields_of, from_first
from vireid.experiments.jobs import carry_out
from vireid.experiments.measurement import Measurement
from vireid.experiments.reproduce import NOT_APPLICABLE, applicable
from vireid.experiments.rows import protocol_of
from vireid.experiments.trainings import Pictures, Training, distinct, numbers
from vireid.recipes import Row
from vireid.training.configuration import as_assignments, digest, full_path, to_json, with_fields
from vireid.training.progress import Progress, Quiet
from vireid.training.run import Run

Done = tuple[Run, list[Measurement]]
"""A run with its measurements by every protocol."""
CLOSED_BY = {"[": "]", "{": "}", "(": ")"}


@options
class SweepOptions:
    """What `vireid sweep` is asked to do.

    Attributes:
        recipe: `RECIPE` or `RECIPE:ROW`.
        data: `LAYOUT:PATH`.
        runs: folder of the run directories. Runs that are there are used, whatever their directories are called.
        over: what is varied, as texts `field=value,value`, such as `miim=null,Mining`. Values in brackets stay whole.
            The seed takes ranges: `seed=0-2`.
        set: changes of every combination's configuration, as texts `field=value` or as a mapping.
        protocols: names of protocols, or a layout for its usual ones; if empty, those of the data's layout.
        folds: RegDB's folds, such as `1-3`; None for the first one.
        jobs: how many are trained at once, each in a process of its own.
        workers: loading processes of each training.
        cache: folder for resized pictures.
        command: the command that the runs record.
    """

    recipe: str
    data: str
    runs: Path
    over: tuple[str, ...]
    set: tuple[str, ...] | dict[str, Any] = ()
    protocols: tuple[str, ...] = ()
    folds: str | None = None
    jobs: Count = 1
    workers: Whole = 2
    cache: Path | None = None
    command: str = ""


@dataclass(frozen=True)
class Combination:
    """One value of each field that is varied, the seed left out.

    Attributes:
        values: field → value as the user wrote it; None where the field does not apply, because it belongs to a part
            that this combination is without.
        config: the configuration in JSON values, with the first seed.
        trainings: one for each seed and fold.
    """

    values: Mapping[str, str | None]
    config: Mapping[str, Any]
    trainings: tuple[Training, ...]

    @property
    def label(self) -> str:
        """What the combination is called."""
        told = [f"{name}={value}" for name, value in self.values.items() if value is not None]
        return ", ".join(told) or self.trainings[0].spec


@dataclass(frozen=True)
class Plan:
    """What a sweep trains.

    Attributes:
        fields: the fields that are varied, the seed left out.
        combinations: in the order of the values, the last field fastest.
        protocols: names of the protocols.
        notes: what a reader has to know.
    """

    fields: tuple[str, ...]
    combinations: tuple[Combination, ...]
    protocols: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep.

    Attributes:
        recipe: `RECIPE` or `RECIPE:ROW`.
        planned: the combinations.
        groups: protocol → what was measured: label of a combination → its group. A combination of which nothing could
            be measured is missing.
        failed: title of a training → why it stopped.
        notes: what a reader has to know.
    """

    recipe: str
    planned: Plan
    groups: Mapping[str, Mapping[str, Group]]
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def differences(self, protocol: str) -> list[Difference]:
        """Every combination minus the first one; nothing if the first one was not measured."""
        first, measured = self.planned.combinations[0].label, self.groups[protocol]
        return from_first(list(measured.values())) if first in measured else []

    @property
    def generated(self) -> bool:
        """Whether anything was measured on a generated world."""
        return any(group.ours.generated for measured in self.groups.values() for group in measured.values())

    def to_json(self) -> dict[str, Any]:
        """What `--json` writes."""
        return {
            "recipe": self.recipe,
            "fields": list(self.planned.fields),
            "combinations": [
                {
                    "values": dict(one.values),
                    "config": dict(one.config),
                    "measured": {
                        protocol: measured[one.label].ours.to_json()
                        for protocol, measured in self.groups.items()
                        if one.label in measured
                    },
                }
                for one in self.planned.combinations
            ],
            "differences": {name: [as_json(one) for one in self.differences(name)] for name in self.groups},
            "failed": dict(self.failed),
            "notes": list(self.notes),
        }


# --- the plan ---------------------------------------------------------------------------------------------------------


def split_values(text: str) -> list[str]:
    """Split at commas that are not inside brackets, braces or quotes.

    >>> split_values("[4,8],[6]"), split_values("null,Mining"), split_values("'a,b',c")
    (['[4,8]', '[6]'], ['null', 'Mining'], ["'a,b'", 'c'])

    Raises:
        BadInput: a bracket is not closed or was not opened, or a value is missing.
    """
    found, waiting = [""], []
    for sign in text:
        if waiting and waiting[-1] in "\"'":
            waiting = waiting[:-1] if sign == waiting[-1] else waiting
        elif sign in CLOSED_BY:
            waiting.append(CLOSED_BY[sign])
        elif sign in "\"'" and not found[-1].strip():
            waiting.append(sign)
        elif waiting and sign == waiting[-1]:
            waiting.pop()
        elif sign in CLOSED_BY.values():
            raise BadInput(f"'{text}' closes a bracket '{sign}' that was not opened")
        elif sign == "," and not waiting:
            found.append("")
            continue
        found[-1] += sign
    if waiting:
        raise BadInput(f"'{text}' has no closing {waiting[-1]}")
    values = [value.strip() for value in found]
    if not all(values):
        raise BadInput(f"'{text}' has an empty value between its commas; nothing is written null")
    return list(dict.fromkeys(values))


def axes(over: Sequence[str]) -> dict[str, list[str]]:
    """Field → the values that are swept.

    >>> axes(["miim=null,Mining", "seed=0-2"])
    {'miim': ['null', 'Mining'], 'seed': ['0', '1', '2']}

    Raises:
        BadInput: a text has another form, or a field is given twice.
    """
    found: dict[str, list[str]] = {}
    for text in over:
        name, equals, values = text.partition("=")
        name = name.strip()
        if not equals or not name or not values.strip():
            raise BadInput(f"--over '{text}' is not FIELD=VALUE,VALUE, such as optimiser.lr=0.1,0.01 or seed=0-2")
        if name in found:
            raise BadInput(f"--over names '{name}' twice; give all of its values at once: {name}=A,B")
        if name == "seed":
            found[name] = [str(seed) for seed in numbers(values, "--over seed", 0, None, "seeds are from 0")]
        else:
            found[name] = split_values(values)
    return found


def plan(asked: SweepOptions) -> Plan:
    """The combinations with the trainings that they need. Nothing is trained.

    Raises:
        BadInput: there is no such recipe, row, field or protocol, a value cannot be used, a field applies to no
            combination, or the data or folds cannot be used.
    """
    _, row_name, row = recipes.find_row(asked.recipe)
    swept, given = axes(asked.over), as_assignments(asked.set)
    _check_fields(row, swept, given)
    seeds = swept.pop("seed", None)
    base, pictures = _base(asked, row_name)
    made: dict[str, Combination] = {}
    refused: list[dict[str, str]] = []
    told: list[str] = []
    for values in itertools.product(*swept.values()):
        one, notes = _combination(row, base, dict(zip(swept, values, strict=True)), given)
        refused.append({note.partition("=")[0]: note.partition(NOT_APPLICABLE)[2] for note in notes})
        if digest(one.config) not in made:
            made[digest(one.config)] = _with_trainings(one, pictures, seeds)
            told += [f"{one.label}: {note}" for note in notes]
    if nowhere := [name for name in refused[0] if all(name in each for each in refused)]:
        raise BadInput(refused[0][nowhere[0]])
    told += [f"every combination: {', '.join(given)}"] if given else []
    return Plan(tuple(swept), tuple(made.values()), base.protocols, tuple(told))


def _base(asked: SweepOptions, row: str | None) -> tuple[Training, list[Pictures]]:
    """What all trainings share, and the pictures of each fold."""
    layout, _ = datasets.parse_source(asked.data)
    protocols = tuple(expanded(asked.protocols) or default_protocols(layout))
    for name in protocols:
        if (found := parse_protocol(name).layout) not in ("", layout):
            raise BadInput(f"protocol {name} is for layout {found}, the data are {layout}")
    folds = [1] if asked.folds is None else chosen(asked.folds, layout, datasets.folds(layout))
    pictures = [Pictures.of(asked.data, fold) for fold in folds]
    recipe = asked.recipe.partition(":")[0]
    return Training(recipe, row, (), {}, pictures[0], protocols), pictures


def _check_fields(row: Row, swept: Mapping[str, Sequence[str]], given: Sequence[str]) -> None:
    """Refuse an unknown field, and one that is both varied and set."""
    fixed = {full_path(row.config, text.partition("=")[0].strip()) for text in given}
    for name in swept:
        if full_path(row.config, name) in fixed:
            raise BadInput(f"'{name}' is given by --over and by --set; leave out one of them")


def _combination(
    row: Row, base: Training, values: Mapping[str, str], given: Sequence[str]
) -> tuple[Combination, tuple[str, ...]]:
    """A combination whose one training has no seed yet, and the changes that do not apply to it, as notes."""
    kept, notes = applicable(row, [*given, *(f"{name}={value}" for name, value in values.items())])
    own = {name: value if f"{name}={value}" in kept else None for name, value in values.items()}
    config = to_json(with_fields(row.config, kept))
    return Combination(own, config, (replace(base, set=kept, config=config),)), notes


def _with_trainings(one: Combination, pictures: Sequence[Pictures], seeds: Sequence[str] | None) -> Combination:
    """The combination with a training for each seed and fold."""
    (only,) = one.trainings
    unseeded = tuple(text for text in only.set if not text.startswith("seed="))
    made = [
        replace(only, set=(*unseeded, f"seed={seed}"), config={**one.config, "seed": seed}, pictures=each)
        for seed in ([one.config["seed"]] if seeds is None else map(int, seeds))
        for each in pictures
    ]
    return Combination(one.values, made[0].config, tuple(made))


# --- the work ---------------------------------------------------------------------------------------------------------


def sweep(asked: SweepOptions, progress: Progress = Quiet()) -> Sweep:  # noqa: B008 has no state
    """Train and test every combination, and compare.

    Combinations of equal configuration are one. A training that is there already is used, and one that was stopped goes
    on. If a training fails, the others are still carried out.

    Raises:
        BadInput: as `plan`.
    """
    planned = plan(asked)
    trainings = distinct([one for combination in planned.combinations for one in combination.trainings])
    titles = {
        one.key: one.title(combination.label) for combination in planned.combinations for one in combination.trainings
    }
    how = {"workers": asked.workers, "cache": asked.cache, "command": asked.command}
    outcome = carry_out(asked.recipe, trainings, titles, asked.runs, how, progress, at_once=asked.jobs, breakdown=True)
    groups = {protocol: _groups(planned, protocol, outcome.done) for protocol in planned.protocols}
    failed = {titles[key]: reason for key, reason in outcome.failed.items()}
    return Sweep(asked.recipe, planned, groups, failed, planned.notes)


def _groups(planned: Plan, protocol: str, done: Mapping[str, Done]) -> dict[str, Group]:
    """Label of a combination → what was measured for it by one protocol."""
    name = protocol.removesuffix("@agw")
    groups: dict[str, Group] = {}
    for combination in planned.combinations:
        trained = [done[one.key] for one in combination.trainings if one.key in done]
        found = [(run, one) for run, measured in trained for one in measured if protocol_of(one) == name]
        if found:
            groups[combination.label] = Group.of(combination.label, _json_values(combination), found)
    return groups


def _json_values(combination: Combination) -> dict[str, Any]:
    """Field → value in JSON, of the fields that are varied and apply."""
    flat = fields_of(combination.config)
    return {
        name: flat.get(name, flat.get(name.partition(".")[2], value))
        for name, value in combination.values.items()
        if value is not None
    }
