"""How contenders are measured: in turns, after a comparison, and what a line says of them."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from vireid.bench import measure
from vireid.bench.growth import exponent, grown
from vireid.bench.measure import Line, Missing, Spent, Timed, close, counted, interleaved, need
from vireid.bench.run import Bench


@pytest.fixture(autouse=True)
def without_rest(monkeypatch):
    monkeypatch.setattr(measure, "REST", 0)


class Machine:
    """Two clocks that contenders move on by themselves: each takes the next of its own seconds, and half of them as
    processor time."""

    def __init__(self, seconds: dict[str, list[float]]) -> None:
        self.now, self.calls = 0.0, []
        self._left = {name: iter(own) for name, own in seconds.items()}

    def contender(self, name: str):
        def run() -> str:
            self.calls.append(name)
            self.now += next(self._left[name])
            return name

        return run

    def measured(self, rounds: int, others: tuple[str, ...] = (), **how) -> Timed:
        contenders = {name: self.contender(name) for name in self._left}
        beside = {name: contenders.pop(name) for name in others}
        return interleaved(contenders, rounds, others=beside, clock=lambda: Spent(self.now, self.now / 2), **how)


def timed(base: tuple[float, ...], ours: tuple[float, ...]) -> Timed:
    return Timed({name: tuple(Spent(s, 10 * s) for s in own) for name, own in (("base", base), ("ours", ours))})


def test_contenders_take_turns_and_the_first_call_of_each_does_not_count():
    machine = Machine({"base": [100, 1, 2, 9], "ours": [200, 3, 4, 9]})
    found = machine.measured(3)
    assert machine.calls == ["base", "ours", "base", "ours", "ours", "base", "base", "ours"]
    assert found.spent == {
        "base": ((1, 0.5), (2, 1.0), (9, 4.5)),
        "ours": ((3, 1.5), (4, 2.0), (9, 4.5)),
    }


def test_several_calls_in_a_round_give_the_seconds_of_one():
    machine = Machine({"base": [100, 1, 3], "ours": [100, 4, 8]})
    assert machine.measured(1, calls=2).spent == {"base": ((2, 1),), "ours": ((6, 3),)}


def test_contenders_that_disagree_are_not_measured():
    machine = Machine({"base": [1] * 3, "same": [1] * 3, "ours": [1] * 3})
    with pytest.raises(RuntimeError, match="'ours' computes something else than 'base'"):
        machine.measured(2, agree=lambda wanted, found: found != "ours")
    assert machine.calls == ["base", "same", "ours"]


def test_others_are_measured_and_not_compared():
    machine = Machine({"base": [1] * 3, "limit": [1] * 3})
    found = machine.measured(2, others=("limit",), agree=lambda wanted, found: False)
    assert len(found.spent["limit"]) == 2


@pytest.mark.parametrize(
    ("wanted", "found", "agrees"),
    [
        (100.0, 100.9, True),
        (100.0, 101.1, False),
        (np.array([1.0, 100.0]), np.array([1.9, 100.0]), True),
        (np.ones(2), np.ones((2, 2)), False),
        (torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16), True),
        ((1.0, np.ones(2)), (1.0, np.full(2, 2.0)), False),
        (1.0, float("nan"), False),
        (0.0, 0.0, True),
    ],
)
def test_results_are_close_if_they_differ_by_a_small_part_of_the_largest(wanted, found, agrees):
    assert close(0.01)(wanted, found) is agrees


def test_a_ratio_is_the_median_of_the_rounds_so_a_slow_round_does_not_count():
    rounds = timed((1.0, 100.0, 2.0), (3.0, 200.0, 5.0))
    line = rounds.line("", baseline="base", ours="ours", goal=2.4, larger=False)
    assert (line.ratio, line.reached) == (2.5, False)
    assert line.ratios == (3.0, 2.0, 2.5)
    assert rounds.line("", baseline="base", ours="ours", goal=2.5, larger=False).reached is True
    assert rounds.line("", baseline="base", ours="ours", larger=False).reached is None
    speed = rounds.line("", baseline="base", ours="ours", goal=0.4)
    assert speed.ratio == pytest.approx(0.4)  # of 1/3, 1/2 and 2/5
    assert (speed.reached, rounds.line("", baseline="base", ours="ours", goal=0.41).reached) == (True, False)


def test_a_limit_may_be_a_contender():
    rounds = Timed({**timed((4.0, 4.0), (2.0, 2.0)).spent, "copy": (Spent(1, 0.5), Spent(1, 0.5))})
    assert rounds.line("", baseline="base", ours="ours", limit="copy").limit == 4
    assert rounds.line("", baseline="base", ours="ours", limit="copy", clock="cpu").limit == 80
    assert rounds.line("", baseline="base", ours="ours", limit="copy", larger=False).limit == 0.25
    assert rounds.line("", baseline="base", ours="ours", limit=3.0).limit == 3


def test_a_rate_is_of_the_clock_of_the_line():
    line = counted(timed((1.0,), (2.0,)).line("", baseline="base", ours="ours", clock="cpu"), 60, "pictures")
    assert line.rate == pytest.approx(3)


def test_a_goal_can_be_a_rate():
    fixed = timed((1.0, 2.0), (2.0, 2.0)).with_fixed("30 a second", 3.0)
    assert fixed.line("", baseline="30 a second", ours="ours", goal=1.0).ratios == (1.5, 1.5)


def test_the_time_of_a_growing_work_has_an_exponent():
    assert exponent([1, 10, 100], [2.0, 200.0, 20_000.0]) == pytest.approx(2)
    calls = []
    sizes = {n: lambda n=n: calls.append(n) for n in (10, 20)}
    line = grown(Bench(None, rounds=1), "work", sizes, unit="rows")  # type: ignore[arg-type]
    assert calls == [10, 20, 10, 20]
    assert (line.baseline, line.ours, line.larger) == ("10 rows", "20 rows", False)
    assert line.figures["sizes"] == [10, 20]
    assert line.figures["exponent"] == pytest.approx(np.log2(line.figures["seconds"][1] / line.figures["seconds"][0]))


def test_processor_time_includes_processes_that_have_ended(monkeypatch):
    ended = itertools.count(0, 5)
    times = type(measure.os.times())
    monkeypatch.setattr(measure.os, "times", lambda: times((0, 0, next(ended), 1, 0)))
    first, second = measure.now(), measure.now()
    assert 5 <= second.cpu - first.cpu < 6


def test_what_does_not_fit_is_missing_with_the_sizes(tmp_path):
    need(memory=1e9, disk=0, folder=tmp_path, free=1.2e9)
    with pytest.raises(Missing, match=r"needs 2\.3 GB of memory, and 2\.2 GB are free"):
        need(memory=2e9, disk=0, folder=tmp_path, free=2.2e9)
    with pytest.raises(Missing, match="GB are free"):
        need(memory=0, disk=1e18, folder=tmp_path)


def test_a_line_comes_back_from_its_json():
    line = counted(
        timed((2.0, 4.0), (1.0, 8.0)).line("w", baseline="base", ours="ours", goal=2.0, larger=False), 3, "rows"
    )
    line = replace(line, figures={"cosine": 0.5}, notes=("one",), area="losses", quick=True)
    assert Line.from_json(json.loads(json.dumps(line.to_json()))) == line
