"""The curves of a training: what of the log is shown, and axes that can be read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vireid.cli.main import main
from vireid.figures.drawing import Look
from vireid.figures.kinds import DoesNotApply
from vireid.figures.kinds.training import curves, joined, training
from vireid.figures.of_runs import draw
from vireid.training.run import create, open_run


def line(epoch: int, terms: dict[str, float], trunk: float = 0.01, new: float = 0.1, **more) -> dict:
    """A line of a log, as the training loop writes it."""
    rates = {"trunk": trunk, "new": new}
    return {"epoch": epoch, "terms": terms, "total": sum(terms.values()), "lr": rates, "seconds": 1.0, **more}


def plain(found) -> dict[str, list[tuple[float, float]]]:
    return {name: list(zip(x.tolist(), y.tolist(), strict=True)) for name, (x, y) in found.items()}


def test_the_lines_of_a_log_by_hand():
    validation = {"on": "val", "rank1": 40.0, "rank10": 80.0, "map": 30.0, "minp": 20.0, "best_epoch": 2}
    log = [
        line(0, {"identity": 5.0, "triplet": 1.0}),
        line(1, {"identity": 4.0, "triplet": 0.5}, validation=validation),
    ]
    assert plain(curves(log)) == {
        "identity": [(1, 5.0), (2, 4.0)],
        "triplet": [(1, 1.0), (2, 0.5)],
        "sum of terms": [(1, 6.0), (2, 4.5)],
        "learning rate, trunk": [(1, 0.01), (2, 0.01)],
        "learning rate, new": [(1, 0.1), (2, 0.1)],
        "validation Rank-1, %": [(2, 40.0)],
        "validation mAP, %": [(2, 30.0)],
    }
    assert [name for name in curves(log, ["minp"]) if "validation" in name] == ["validation mINP, %"]
    assert "sum of terms" not in curves([line(0, {"identity": 5.0})])


def test_equal_rates_are_one_panel_if_they_are_equal_in_every_run():
    alike, apart = [curves([line(0, {"identity": 1.0}, trunk=rate)]) for rate in (0.1, 0.01)]
    rates = ["learning rate, trunk", "learning rate, new"]
    assert plain(joined({"a": alike})["a"]) == {"identity": [(1, 1.0)], "learning rate": [(1, 0.1)]}
    assert [[name for name in lines if "rate" in name] for lines in joined({"a": alike, "b": apart}).values()] == [
        rates,
        rates,
    ]


def test_two_trainings_with_validation_are_one_figure(worlds, runs, tmp_path):
    """The numbers are those of the logs; the second run has no validation."""
    data = f"llcm:{worlds['llcm']}"
    changes = ["trunk=tiny", "weights=none", "size=64x32", "epochs=2", "epoch_length=1", "identities_per_batch=3"]
    validated = ["--validate-every", "1", "--validate-on", "test"]
    command = ["train", "agw", "--data", data, "--run", str(tmp_path / "a"), "--workers", "0", *validated]
    assert main([*command, "--set", *changes]) == 0
    (figure,) = draw([tmp_path / "a", runs["llcm"]], names=["first", "second"], figures=["training"])
    log = [json.loads(text) for text in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    shown = figure.numbers["first"]
    assert shown["validation mAP, %"]["value"].tolist() == [one["validation"]["map"] for one in log]
    assert shown["sum of terms"]["value"].tolist() == [one["total"] for one in log]
    assert not any("validation" in name for name in figure.numbers["second"])
    assert "Validation: " in figure.caption and "first: agw, seed 0" in figure.caption
    made = figure.draw(Look())
    assert [axis.get_title() for axis in made.axes] == list(shown)
    assert [text.get_text() for text in made.legends[0].get_texts()] == ["first", "second"]
    styles = {(one.get_linestyle(), one.get_color()) for one in made.axes[0].lines}
    assert len(styles) == len({style for style, _ in styles}) == 2, "readable in grey"


def test_a_run_without_a_finished_epoch_has_no_curves(runs, tmp_path):
    begun = create(tmp_path / "begun", open_run(runs["llcm"]).facts)
    with pytest.raises(DoesNotApply, match="no epoch of these runs is finished"):
        draw([begun], figures=["training"])


# --- axes -------------------------------------------------------------------------------------------------------------


def drawn(values: list[float], *, logarithmic: bool):
    x = np.arange(1, len(values) + 1)
    shown = ["value"] if logarithmic else []
    made = training({"run": {"value": (x, np.array(values))}}, logarithmic=shown).draw(Look())
    made.draw_without_rendering()
    return made.axes[0]


def written(axis) -> list[str]:
    low, high = axis.get_ylim()
    return [text.get_text() for text in axis.get_yticklabels() if low <= text.get_position()[1] <= high]


def test_a_rate_is_written_where_it_stays():
    axis = drawn([0.01, 0.05, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001], logarithmic=True)
    assert axis.get_yscale() == "log"
    assert written(axis) == ["0.001", "0.01", "0.1"]


def test_a_rate_that_never_stays_is_written_at_its_ends():
    assert written(drawn([10 ** -(k / 7 + 2) for k in range(20)], logarithmic=True)) == ["1.931e-5", "0.01"]


@pytest.mark.parametrize("values", [[0.1], [0.1, 0.1, 0.1]])
def test_a_rate_that_does_not_change_needs_no_logarithm(values):
    assert drawn(values, logarithmic=True).get_yscale() == "linear"


def test_large_numbers_that_differ_little_are_written_in_full():
    axis = drawn([1234.5, 1234.6, 1234.9], logarithmic=False)
    assert len(set(written(axis))) == len(written(axis)) >= 2
    assert axis.yaxis.get_offset_text().get_text() == ""


def test_epochs_are_whole_numbers():
    axis = drawn([1.0, 0.5, 0.4], logarithmic=False)
    assert all(float(value).is_integer() for value in axis.get_xticks())
    assert axis.get_xlabel() == "epoch"
