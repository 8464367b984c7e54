"""Each setting and option reaches the pictures that a step sees."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from tests.small import SECOND
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.experiments.train import Pictures, TrainOptions, plan, train
from vireid.experiments.trainings import Pictures as TrainedOn
from vireid.experiments.trainings import Training
from vireid.networks import memory
from vireid.training import checkpoint
from vireid.training.loop import accelerator_for
from vireid.training.progress import Quiet
from vireid.training.run import open_run


def loaded(worlds, tmp_path, *changes, **options):
    asked = TrainOptions(
        "agw", f"regdb:{worlds['regdb']}", tmp_path / "run", set=(*SECOND, *changes), workers=0, **options
    )
    planned = plan(asked)
    loader = Pictures.of(planned, asked).loader(accelerator_for("off"), Quiet())
    return planned, loader, next(iter(loader.batches(0)))


def test_the_same_options_load_the_same_pictures(worlds, tmp_path):
    (_, _, one), (_, _, other) = (loaded(worlds, tmp_path) for _ in range(2))
    assert torch.equal(one.images, other.images) and torch.equal(one.identity, other.identity)
    assert len(one) == 12 and one.seed == other.seed


#   what is changed                        what changes in the first batch
CHANGES = {
    "seed=1":                              lambda a, b: a.seed != b.seed and not torch.equal(a.images, b.images),
    "size=32x16":                          lambda a, b: b.images.shape[2:] == (32, 16),
    "identities_per_batch=2":              lambda a, b: len(b) == 8 and len(b.identity.unique()) == 2,
    "visible_per_identity=1":              lambda a, b: b.modality.tolist().count(0) == 3,
    "infrared_per_identity=1":             lambda a, b: b.modality.tolist().count(1) == 3,
    "flip.p=1":                            lambda a, b: torch.equal(a.identity, b.identity),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_setting_reaches_the_batch(change, worlds, tmp_path):
    _, _, plain = loaded(worlds, tmp_path)
    _, _, changed = loaded(worlds, tmp_path, change)
    assert CHANGES[change](plain, changed)
    assert plain.images.shape != changed.images.shape or not torch.equal(plain.images, changed.images)


def test_the_seed_decides_which_pictures_even_without_augmentation(worlds, tmp_path):
    still = ("flip.p=0", "crop.padding=0")
    drawn = [loaded(worlds, tmp_path, f"seed={seed}", *still)[2].images.sum((1, 2, 3)) for seed in (0, 1)]
    assert not torch.equal(*(values.sort().values for values in drawn))


def test_epoch_length_fold_and_cache_are_passed_on(worlds, tmp_path):
    planned, loader, first = loaded(worlds, tmp_path, "epoch_length=7")
    assert loader.steps == 7 and planned.facts.data.fold == 1
    other, _, _ = loaded(worlds, tmp_path, fold=2)
    assert other.facts.data.fold == 2 and other.facts.data.fingerprint != planned.facts.data.fingerprint
    assert set(other.records.identity) != set(planned.records.identity)
    _, _, cached = loaded(worlds, tmp_path, "epoch_length=7", cache=tmp_path / "cache")
    assert torch.equal(first.images, cached.images) and any((tmp_path / "cache").iterdir())


def test_every_training_picture_comes_once_for_a_memory(worlds, tmp_path):
    asked = TrainOptions("peca", f"regdb:{worlds['regdb']}", tmp_path / "run", set=SECOND, workers=0)
    planned = plan(asked)
    batches = list(Pictures.of(planned, asked).once())
    labels, _ = planned.records.labels()
    assert np.array_equal(torch.cat([b.identity for b in batches]).numpy(), labels)
    assert np.array_equal(torch.cat([b.modality for b in batches]).numpy(), planned.records.modality)
    assert all(b.images.dtype == torch.float32 and abs(float(b.images.mean())) < 3 for b in batches)
    assert all(b.images.min() < 0 for b in batches)  # normalised


def test_a_tracker_is_asked_for_by_name(worlds, tmp_path):
    import vireid

    small = dict(assignment.split("=") for assignment in SECOND) | {"epochs": 1, "epoch_length": 1}
    source = f"regdb:{worlds['regdb']}"
    vireid.train("agw", data=source, run=tmp_path / "tracked", set=small, workers=0, tracker="tensorboard")
    vireid.train("agw", data=source, run=tmp_path / "plain", set=small, workers=0)
    assert list((tmp_path / "tracked" / "tensorboard").glob("**/events.*"))
    assert not (tmp_path / "plain" / "tensorboard").exists()
    with pytest.raises(vireid.BadInput, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        vireid.train("agw", data=source, run=tmp_path / "none", set=small, workers=0, tracker="tensorbord")


# --- settings from a file ---------------------------------------------------------------------------------------------


def small(worlds, run, *changes, layout="sysu-mm01", recipe="agw", **options) -> TrainOptions:
    """One step an epoch."""
    changes = (*SECOND, "epoch_length=1", *changes)
    return TrainOptions(recipe, f"{layout}:{worlds[layout]}", run, set=changes, **({"workers": 0} | options))


def test_set_wins_over_the_file_and_the_run_records_what_differs_from_the_row(worlds, tmp_path):
    (tmp_path / "mine.yaml").write_text("epochs: 7\noptimiser: {type: Adam, lr: 0.5}\nerasing: ChannelErasing\n")
    planned = plan(small(worlds, tmp_path / "run", "epochs=3", "optimiser=SGD", config=tmp_path / "mine.yaml"))
    config = planned.config
    assert config.training.epochs == 3 and config.erasing is not None
    assert (config.training.optimiser.lr, type(config.training.optimiser).__name__) == (0.1, "SGD")  # SGD's own rate
    own = [text for text in planned.facts.set if text.partition("=")[0] not in " ".join(SECOND)]
    assert "epochs=3" in planned.facts.set and own == ["erasing=ChannelErasing"]


def test_a_file_of_the_row_itself_changes_nothing(worlds, tmp_path):
    from vireid.recipes import find_row
    from vireid.training.settings_file import settings_text

    spec = "agw:channel-augmentation"
    (tmp_path / "mine.yaml").write_text(settings_text(find_row(spec)[2].config, spec))
    source = f"sysu-mm01:{worlds['sysu-mm01']}"
    with_file = plan(TrainOptions(spec, source, tmp_path / "run", config=tmp_path / "mine.yaml"))
    without = plan(TrainOptions(spec, source, tmp_path / "run"))
    assert with_file.facts.config == without.facts.config and with_file.facts.set == ()


def test_a_mistake_in_a_file_names_the_file(worlds, tmp_path):
    (tmp_path / "mine.yaml").write_text("epoch: 3")
    with pytest.raises(BadInput, match=r"^--config .*mine\.yaml: unknown field 'epoch'; did you mean 'epochs'"):
        plan(small(worlds, tmp_path / "run", config=tmp_path / "mine.yaml"))


# --- runs that failed, go on, are finished, are extended --------------------------------------------------------------


TOO_FAST = ("optimiser.lr=1000", "optimiser.trunk_factor=1000", "schedule.warm_up_epochs=0")


@pytest.mark.parametrize("resume", [False, True])
def test_a_start_that_failed_leaves_the_directory_free(resume, worlds, tmp_path):
    with pytest.raises(BadInput, match=r"term '\w+' became \w+ at epoch 0, step \d+; nothing was saved yet"):
        train(small(worlds, tmp_path / "run", "epoch_length=30", *TOO_FAST))
    (tmp_path / "run" / "notes.txt").write_text("do not lose")
    run = train(small(worlds, tmp_path / "run", "seed=3", resume=resume))
    assert open_run(run.path).facts.seed == 3 and len(run.epochs()) == 2 and run.checkpoint.exists()
    assert (run.path / "notes.txt").read_text() == "do not lose"


def test_resume_alone_goes_on_as_the_run_was_begun(worlds, tmp_path):
    """Fold, validation, pictures and settings come from run.json."""
    source = ("epochs=3", "seed=4")
    begun = {"layout": "regdb", "fold": 2, "validate_every": 1, "validate_on": "test"}
    whole = train(small(worlds, tmp_path / "whole", *source, **begun))
    shutil.copytree(whole.path, tmp_path / "copy")
    state = train(small(worlds, tmp_path / "short", "epochs=1", "seed=4", **begun)).checkpoint
    shutil.copy(state, tmp_path / "copy" / "last.pt")  # as if it had been stopped after one epoch
    (tmp_path / "copy" / "best.pt").unlink()
    log = (tmp_path / "copy" / "log.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "copy" / "log.jsonl").write_text(log[0])
    before = (tmp_path / "copy" / "run.json").read_text()
    run = train(TrainOptions(None, None, tmp_path / "copy", resume=True, workers=0))
    assert not run.was_finished and (run.path / "run.json").read_text() == before
    assert same_weights(run, whole) and len(run.epochs()) == 3 and run.best.exists()


def same_weights(one, other) -> bool:
    a, b = (checkpoint.load(run.checkpoint) for run in (one, other))
    return a["model"].keys() == b["model"].keys() and all(
        torch.equal(a["model"][key], b["model"][key]) for key in b["model"]
    )


def test_a_finished_run_is_said_to_be_finished_and_is_not_touched(runs, tmp_path, capsys):
    shutil.copytree(runs["sysu-mm01"], tmp_path / "run", ignore=shutil.ignore_patterns("reports"))
    before = {one.name: one.stat().st_mtime_ns for one in (tmp_path / "run").iterdir()}
    assert main(["train", "--resume", "--run", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'run'} is finished: trained agw for 2 epochs; --extend epochs=N" in printed
    assert {one.name: one.stat().st_mtime_ns for one in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("recipe", ["agw", "peca"])
def test_an_extended_run_equals_one_of_so_many_epochs_from_the_start(recipe, worlds, tmp_path):
    """The rate depends on the epoch, not on how many there are. So nothing of the longer run differs."""
    options = ("schedule.milestones=[1,3]", "epoch_length=2")
    whole = train(small(worlds, tmp_path / "whole", *options, "epochs=4", recipe=recipe))
    train(small(worlds, tmp_path / "run", *options, recipe=recipe))
    run = train(TrainOptions(None, None, tmp_path / "run", resume=True, extend={"epochs": 4}, workers=0))
    assert same_weights(run, whole)
    facts = open_run(run.path).facts
    assert facts.config == whole.facts.config and run.settings == whole.settings
    assert facts.set[-1] == "epochs=4" and [text for text in facts.set if text.startswith("epochs=")] == ["epochs=4"]
    (one,) = facts.extensions
    assert (one.before, one.after, one.same) == (2, 4, True) and "extend={'epochs': 4}" in one.command
    # Once more is no second extension: the run is finished.
    again = train(TrainOptions(None, None, tmp_path / "run", resume=True, extend=("epochs=4",), workers=0))
    assert again.was_finished and len(open_run(run.path).facts.extensions) == 1
    for asked, sentence in (
        ("epochs=3", "has 4 epochs already"),
        ("seed=3", "only epochs=N"),
        ("epochs=x", "'epochs'"),
    ):
        with pytest.raises(BadInput, match=sentence):
            train(TrainOptions(None, None, tmp_path / "run", resume=True, extend=(asked,)))


def test_a_run_of_another_warm_up_than_from_the_start_is_marked_and_does_not_stand_for_it(worlds, tmp_path):
    share = ("schedule.warm_up_epochs=2", "schedule.warm_up_at_most=0.5")
    asked = small(worlds, tmp_path / "run", *share)
    train(asked)
    train(TrainOptions(None, None, tmp_path / "run", resume=True, extend=("epochs=4",), workers=0))
    whole = train(small(worlds, tmp_path / "whole", *share, "epochs=4"))
    run = open_run(tmp_path / "run")
    assert not same_weights(run, whole) and not run.facts.extensions[0].same
    pictures = TrainedOn.of(str(asked.data), 1)
    wanted = Training("agw", None, (), whole.facts.config, pictures, ())
    assert wanted.fits(whole) and not wanted.fits(run)


def test_what_cannot_be_resumed_or_extended_is_one_sentence(worlds, tmp_path):
    for asked, sentence in (
        (TrainOptions(None, None, tmp_path / "no", resume=True), "holds no run to --resume"),
        (TrainOptions("agw", None, tmp_path / "no", resume=True), "give --data LAYOUT:PATH"),
        (small(worlds, tmp_path / "no", extend=("epochs=4",)), "--extend is for a run that is resumed, which --resume"),
        (small(worlds, tmp_path / "no", resume=True, extend=("epochs=4",)), "holds no run"),
    ):
        with pytest.raises(BadInput, match=sentence):
            train(asked)
    assert not (tmp_path / "no").exists()


def test_the_recorded_command_is_the_call_or_the_arguments_of_the_program(worlds, tmp_path):
    source = f"sysu-mm01:{worlds['sysu-mm01']}"
    options = TrainOptions("agw", source, tmp_path / "run", set=SECOND, workers=0)
    facts = plan(options).facts
    rebuilt = eval(
        facts.command.removeprefix("vireid.experiments.train.train(").removesuffix(")"), {"TrainOptions": TrainOptions}
    )
    assert rebuilt == options
    arguments = ["train", "agw", "--data", source, "--run", str(tmp_path / "a b"), "--workers", "0", "--set", *SECOND]
    assert main([*arguments, "epochs=1", "epoch_length=1"]) == 0
    told = json.loads((tmp_path / "a b" / "run.json").read_text())["command"]
    assert told.startswith("vireid train agw --data ") and f"--run '{tmp_path / 'a b'}'" in told


def test_the_help_of_train_lists_the_fields_of_a_recipe(capsys):
    for arguments in (["train", "peca", "--help"], ["train", "--help", "peca"], ["train", "-h", "peca:table3/m1"]):
        with pytest.raises(SystemExit):
            main(arguments)
        printed = capsys.readouterr().out
        assert printed.startswith("usage: vireid train") and "the fields of peca" in printed
        line = next(line for line in printed.splitlines() if line.startswith("  optimiser.lr "))
        assert line.split(None, 2)[1:] in (
            ["0.1", "a number above 0 and up to 1000"],
            ["(with", "optimiser=SGD) a number above 0 and up to 1000"],
        )
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "--set and --config:" not in capsys.readouterr().out
    assert main(["train", "--help", "pecca"]) == 2 and "did you mean 'peca'" in capsys.readouterr().err


def test_recompute_changes_no_number_and_no_record(runs, worlds, tmp_path, monkeypatch):
    """The run with `--recompute` is the run without, bit for bit, and its `run.json` does not know."""
    calls, checkpointed = [], memory.checkpoint
    monkeypatch.setattr(memory, "checkpoint", lambda *given, **how: calls.append(1) or checkpointed(*given, **how))
    command = ["train", "agw", "--data", f"llcm:{worlds['llcm']}", "--run", str(tmp_path / "run"), "--workers", "0"]
    assert main([*command, "--recompute", "--set", *SECOND]) == 0
    assert calls
    one, other = (checkpoint.load(path / "last.pt")["model"] for path in (tmp_path / "run", runs["llcm"]))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert open_run(tmp_path / "run").facts.config == open_run(runs["llcm"]).facts.config
