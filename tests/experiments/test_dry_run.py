"""A dry run says what a training would be, takes real steps, and writes nothing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from tests.small import SECOND
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.experiments.plan import TIMED, Estimate, _time, dry_run
from vireid.experiments.train import TrainOptions
from vireid.training.run import open_run


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file and folder below, with its size and time."""
    return {one: (one.stat().st_size, one.stat().st_mtime_ns) for one in sorted(folder.rglob("*"))}


def asked(worlds, run, *changes, recipe="agw", **options) -> TrainOptions:
    options = {"workers": 0} | options
    return TrainOptions(recipe, f"sysu-mm01:{worlds['sysu-mm01']}", run, set=(*SECOND, *changes), **options)


def test_it_counts_what_the_training_has_and_writes_nothing(worlds, runs, tmp_path):
    before = files(worlds["sysu-mm01"]), files(tmp_path)
    found = dry_run(asked(worlds, tmp_path / "run", cache=tmp_path / "cache"))
    assert (files(worlds["sysu-mm01"]), files(tmp_path)) == before
    facts = open_run(runs["sysu-mm01"]).facts  # the training itself
    assert (found.config, found.data) == (facts.config, facts.data)
    assert (found.epochs, found.done, found.steps_per_epoch, found.pictures_per_step) == (2, 0, 3, 12)
    assert found.changed["epochs"] == (81, 2) and found.changed["size"] == ("288x144", "64x32")
    assert set(found.changed) == {assignment.partition("=")[0] for assignment in SECOND}
    assert found.warm_up == 1 and 2 <= found.timed <= TIMED and found.seconds_per_step > 0
    assert found.seconds == pytest.approx(6 * found.seconds_per_step) and found.seconds_per_fill is None
    assert any("--cache" in note for note in found.notes)


def test_parameters_are_those_of_the_network(worlds, tmp_path):
    from vireid import recipes
    from vireid.recipes import agw
    from vireid.training.configuration import from_json

    found = dry_run(asked(worlds, tmp_path / "run"))
    network = recipes.build("agw", from_json(agw.Config, found.config), found.data.identities, pretrained=False)
    assert found.parameters == sum(one.numel() for one in network.parameters())
    assert found.trained == sum(one.numel() for one in network.parameters() if one.requires_grad) < found.parameters


def test_a_memory_is_filled_from_some_pictures_and_its_time_is_counted(worlds, tmp_path):
    once = dry_run(asked(worlds, tmp_path / "run", recipe="peca"))
    assert once.fills == 1 and once.seconds_per_fill and once.seconds > 6 * once.seconds_per_step
    each = dry_run(asked(worlds, tmp_path / "run", "modality.refill=true", recipe="peca"))
    assert each.fills == 2 and "for the memory" in "\n".join(each.lines())


def test_steps_with_batches_that_were_loaded_ahead_are_not_counted():
    quick = itertools.chain([9.0], [0.1] * 4, [1.0] * 100)
    assert _time(quick, ahead=4) == (5, [1.0] * TIMED)
    slow = itertools.chain([30.0], [7.0] * 100)
    assert _time(slow, ahead=4) == (1, [7.0] * 3)
    very_slow = itertools.chain([300.0], [70.0] * 100)
    assert _time(very_slow, ahead=4) == (1, [70.0] * 2)


def test_a_resumed_run_needs_the_time_of_the_epochs_that_are_left(runs, worlds):
    run = runs["sysu-mm01"]
    before = files(run)
    found = dry_run(TrainOptions(None, None, run, resume=True, extend=("epochs=5",), workers=0))
    assert files(run) == before
    assert (found.epochs, found.done) == (5, 2) and found.seconds == pytest.approx(9 * found.seconds_per_step)
    assert found.changed["epochs"] == (81, 5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"recipe": "awg"}, "unknown recipe 'awg'"),
        ({"tracker": "tensorbord"}, "unknown tracker"),
    ],
)
def test_what_training_would_refuse_is_refused(options, sentence, worlds, tmp_path):
    with pytest.raises(BadInput, match=sentence):
        dry_run(asked(worlds, tmp_path / "run", **options))


def test_what_the_first_step_would_refuse_is_refused(runs, worlds, tmp_path):
    with pytest.raises(BadInput, match=r"became \w+ at epoch 0, step \d+; nothing was saved"):
        rates = ("optimiser.lr=1000", "optimiser.trunk_factor=1000", "schedule.warm_up_epochs=0")
        dry_run(asked(worlds, tmp_path / "run", *rates))
    with pytest.raises(BadInput, match="holds a run already"):
        dry_run(asked(worlds, runs["sysu-mm01"]))
    with pytest.raises(BadInput, match=r"crop.padding is 1000.*choices: 0 to 31"):
        dry_run(asked(worlds, tmp_path / "run", "crop.padding=1000"))


def test_the_command_prints_it_and_writes_only_the_file_that_was_asked_for(worlds, tmp_path, capsys):
    arguments = ["train", "agw", "--data", f"sysu-mm01:{worlds['sysu-mm01']}", "--run", str(tmp_path / "run")]
    arguments += ["--workers", "0", "--dry-run", "--json", str(tmp_path / "plan.json"), "--set", *SECOND]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for words in (
        "nothing is written",
        "epochs: 81 → 2",
        "10 people",
        "3 an epoch",
        "parameters:",
        "s a step",
        "in all",
    ):
        assert words in printed
    assert [one.name for one in tmp_path.iterdir()] == ["plan.json"]
    stored = json.loads((tmp_path / "plan.json").read_text())
    assert set(stored) == set(Estimate.__dataclass_fields__) and stored["config"]["trunk"] == "tiny"
    assert main([*arguments[:6], "--workers", "0", "--json", str(tmp_path / "x.json")]) == 2
    assert "--json needs --dry-run" in capsys.readouterr().err
