"""Which measurement stands beside a printed number: the newest plain one of the same row and protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.facts import some_facts
from vireid.evaluation.report import METRICS, Report
from vireid.experiments.measurement import Circumstances, Measurement
from vireid.experiments.rows import ours, plain_measurements, rows
from vireid.training.run import Run, create

FACTS = replace(some_facts(), recipe="agw", row="sysu-mm01/all")


def measurement(protocol="sysu-mm01/all/single@agw", rank1=50.0, started="2026-01-01", **changes) -> Measurement:
    numbers = dict.fromkeys(METRICS, rank1)
    report = Report(
        protocol, **numbers, trials=(), std=dict.fromkeys(METRICS, 0.0), valid_queries=1, queries=1, gallery=1, seed=3
    )
    where = {name: getattr(FACTS, name) for name in ("versions", "git_commit", "hardware")}
    values = {"checkpoint": "last", "untrained": False, "embedding": "neck", "generated": True, **changes}
    measured = Circumstances("c", 2, root="r", fingerprint="f", started=started, **where, **values)
    return Measurement(report, measured)


def pair(facts=FACTS, **values):
    return Run(Path("runs/x"), facts), measurement(**values)


def test_the_newest_of_the_row_and_protocol_is_taken():
    found = [
        pair(rank1=1.0, started="2026-01-02"),
        pair(rank1=2.0, started="2026-01-03"),
        pair(rank1=3.0, started="2026-01-01"),
        pair(rank1=4.0, started="2026-01-09", protocol="sysu-mm01/indoor/single"),
        pair(rank1=5.0, started="2026-01-09", facts=replace(FACTS, row="regdb/v2i")),
        pair(rank1=6.0, started="2026-01-09", facts=replace(FACTS, recipe="peca")),
    ]
    one = ours(found, "agw", "sysu-mm01/all", "sysu-mm01/all/single")
    assert one is not None and one.metrics["rank1"] == 2.0 and one.protocol == "sysu-mm01/all/single@agw"
    assert (one.seed, one.generated, one.run, one.set) == (3, True, "runs/x", FACTS.set)
    assert ours(found, "agw", "sysu-mm01/all", "sysu-mm01/all/multi") is None
    free = ours(found, "agw", "sysu-mm01/all", None)
    assert free is not None and free.metrics["rank1"] == 4.0  # a row without printed numbers has no protocol
    assert one.to_json()["rank1"] == 2.0 and "metrics" not in one.to_json()


@pytest.mark.parametrize("change", [{"untrained": True}, {"embedding": "pooled"}, {"checkpoint": "best"}])
def test_only_plain_measurements_are_found(tmp_path, change):
    run = create(tmp_path / "deep" / "run", FACTS)
    measurement(**change).keep(run)
    assert plain_measurements(tmp_path) == []
    measurement(rank1=7.0).keep(run)
    ((where, one),) = plain_measurements(tmp_path)
    assert where.path == run.path and one.report.rank1 == 7.0
    (row,) = [row for row in rows("agw", runs=tmp_path) if row.name == "sysu-mm01/all"]
    assert row.ours is not None and row.ours.metrics["rank1"] == 7.0 and row.row.published["rank1"] == 47.5
    assert all(other.ours is None for other in rows("agw", runs=tmp_path) if other.name != "sysu-mm01/all")
