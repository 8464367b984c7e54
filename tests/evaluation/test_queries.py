"""The result of each query: the report's numbers are its means, and what is kept comes back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vireid.data.errors import BadInput
from vireid.data.protocol import draw_trials, parse_protocol
from vireid.evaluation.breakdown import break_down
from vireid.evaluation.queries import Queries
from vireid.evaluation.scoring import Measured, evaluate


def evaluated(protocol="sysu-mm01/all/single", shift=0.0):
    """An evaluation of random features of 12 people before six cameras, and its columns."""
    generator = np.random.default_rng(0)
    identity = np.repeat(np.arange(1, 13), 18)
    camera = np.tile(np.repeat(np.arange(1, 7), 3), 12)
    modality = np.isin(camera, (3, 6)).astype(np.int64)
    centre = generator.normal(size=(12, 8))
    features = centre[identity - 1] + generator.normal(size=(len(identity), 8)) + shift * modality[:, None]
    rules = parse_protocol(protocol)
    trials = draw_trials(rules, identity, camera, modality)
    path = np.array([f"cam{c}/{i:04d}/{n}.jpg" for n, (i, c) in enumerate(zip(identity, camera, strict=True))])
    return evaluate(features, identity, rules, trials, Measured(), camera=camera), identity, camera, path


@pytest.mark.parametrize("protocol", ["sysu-mm01/all/single", "sysu-mm01/indoor/multi", "sysu-mm01/reverse/all/single"])
def test_the_report_is_the_mean_of_its_queries(protocol):
    evaluation, *columns = evaluated(protocol)
    found = Queries.of(evaluation, *columns)
    for metric in ("map", "rank1"):
        of_trials = np.nanmean(found.values(metric), axis=1)
        assert of_trials == pytest.approx([trial[metric] for trial in evaluation.report.trials], abs=1e-4)
    assert found.belong_to(evaluation.report)
    assert not found.belong_to(replace(evaluation.report, map=evaluation.report.map + 0.01))
    assert not found.belong_to(replace(evaluation.report, trials=evaluation.report.trials[:1]))


def test_single_queries_are_those_of_the_breakdown():
    evaluation, identity, camera, path = evaluated()
    found = Queries.of(evaluation, identity, camera, path)
    everything = {one.path: one for one in break_down(evaluation, identity, camera, path, worst=10_000).worst}
    assert sorted(everything) == sorted(found.path[np.isfinite(found.means("map"))])
    for place, name in enumerate(found.path):
        one = everything[str(name)]
        assert (one.identity, one.camera) == (found.identity[place], found.camera[place])
        assert found.means("map")[place] == pytest.approx(one.precision, abs=1e-4)
        assert found.ranks()[place] == pytest.approx(one.rank)


def test_a_query_that_counts_in_no_trial_has_no_result():
    evaluation, *columns = evaluated()
    found = Queries.of(evaluation, *columns)
    found.first[:, 0], found.precision[:, 0] = 0, np.nan
    assert np.isnan([found.means("map")[0], found.means("rank1")[0], found.ranks()[0]]).all()
    assert np.isfinite(found.means("map")[1:]).all()


def test_draws_are_told_apart_by_what_they_hold():
    evaluation, identity, camera, path = evaluated()
    found = Queries.of(evaluation, identity, camera, path)
    assert len(set(found.trials.tolist())) == len(evaluation.scores) == 10
    assert np.array_equal(Queries.of(evaluated(shift=1.0)[0], identity, camera, path).trials, found.trials)
    renamed = np.char.replace(path, "cam2", "cam9")
    assert not np.isin(Queries.of(evaluation, identity, camera, renamed).trials, found.trials).any()


def test_what_is_written_comes_back_and_other_files_are_refused(tmp_path):
    evaluation, *columns = evaluated()
    found, file = Queries.of(evaluation, *columns), tmp_path / "q.npz"
    found.write(file)
    again = Queries.read(file)
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    np.savez(tmp_path / "other.npz", path=found.path)
    (tmp_path / "text.npz").write_text("no archive")
    for other in ("other.npz", "text.npz", "none.npz"):
        with pytest.raises(BadInput, match=f"{other} does not hold the results of queries.*vireid test again"):
            Queries.read(tmp_path / other)
