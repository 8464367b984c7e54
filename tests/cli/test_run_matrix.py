"""Run directories, checkpoints and outputs in every state they can be found in: one sentence, exit 2, nothing lost."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.small import SECOND
from vireid.cli.main import main


class Hostile:
    """Unpickled without care, this runs a program."""

    def __reduce__(self):
        return os.system, ("touch hostile-was-run",)


def hostile_torch(file: Path) -> None:
    torch.save({"format": "vireid-checkpoint-1", "model": Hostile(), "progress": {"epoch": 1}}, file)


def hostile_pickle(file: Path) -> None:
    file.write_bytes(pickle.dumps(Hostile()))


def of_another_recipe(file: Path) -> None:
    state = torch.load(file, weights_only=True)
    state["model"] = {f"other.{name}": value for name, value in state["model"].items()}
    torch.save(state, file)


def of_another_width(file: Path) -> None:
    state = torch.load(file, weights_only=True)
    state["model"]["classifier.weight"] = torch.zeros(999, 3)
    torch.save(state, file)


def without_weights(file: Path) -> None:
    state = torch.load(file, weights_only=True)
    del state["model"]
    torch.save(state, file)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def removed(file: Path) -> None:
    file.unlink()


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


#   what the checkpoint is                what was done to it      what the sentence says
CHECKPOINTS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "a hostile checkpoint":               (hostile_torch,          ["not a vireid checkpoint"]),
    "a hostile pickle":                   (hostile_pickle,         ["not a vireid checkpoint"]),
    "another recipe's":                   (of_another_recipe,      ["does not fit", "agw"]),
    "another data set's":                 (of_another_width,       ["does not fit", "classifier"]),
    "without weights":                    (without_weights,        ["does not fit"]),
    "cut short":                          (cut,                    ["not a vireid checkpoint", "cut short"]),
    "empty":                              (emptied,                ["not a vireid checkpoint"]),
    "not there":                          (removed,                ["no checkpoint at"]),
    "a folder":                           (a_folder,               ["no checkpoint at"]),
}  # fmt: skip


@pytest.fixture
def run(runs, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(runs["sysu-mm01"], copy, ignore=shutil.ignore_patterns("reports", "tensorboard"))
    return copy


LONGER = ("--resume", "--extend", "epochs=9")


def sentence(capsys) -> str:
    error = capsys.readouterr().err
    (found,) = [line for line in error.splitlines() if line.startswith("vireid: ")]
    assert "Traceback" not in error
    return found


def training(world, run, *options):
    arguments = ["train", "agw", "--data", f"sysu-mm01:{world}", "--run", str(run), "--workers", "0"]
    return [*arguments, *options, "--set", *SECOND]


def measuring(world, run, *options):
    protocol = ["--protocol", "sysu-mm01/all/single"]
    return ["test", str(run), "--data", f"sysu-mm01:{world}", "--workers", "0", *protocol, *options]


@pytest.mark.parametrize("verb", ["test", "resume"])
@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_used(case, verb, run, worlds, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    spoil, words = CHECKPOINTS[case]
    spoil(run / "last.pt")
    world = worlds["sysu-mm01"]
    before = (run / "last.pt").read_bytes() if (run / "last.pt").is_file() else None
    if verb == "resume" and case == "not there":
        assert main(training(world, run, "--resume")) == 0  # nothing was saved yet: begin
        return
    # The run is finished, so it is made longer: otherwise there would be nothing to do.
    assert main(measuring(world, run) if verb == "test" else training(world, run, *LONGER)) == 2
    said = sentence(capsys)
    assert "last.pt" in said and all(word in said for word in (words if verb == "test" else words[:1])), said
    assert not (tmp_path / "hostile-was-run").exists()
    assert before is None or (run / "last.pt").read_bytes() == before


#   what is in the way of writing              the command, in a folder with a file called `file`
OUTPUTS = {
    "a run directory below a file":            lambda world, run: training(world, "file/run"),
    "a run directory that is a file":          lambda world, run: training(world, "file"),
    "a cache below a file":                    lambda world, run: training(world, "new", "--cache", "file/cache"),
    "JSON below a file":                       lambda world, run: measuring(world, run, "--json", "file/r.json"),
    "a page below a file":                     lambda world, run: ["report", str(run), "--out", "file/page.html"],
    "a world below a file":                    lambda world, run: ["data", "synthesise", "file/w", "--layout", "regdb"],
    "a demo below a file":                     lambda world, run: ["demo", "--out", "file/demo"],
    "folds below a file":                      lambda world, run: ["folds", "agw", "--data", f"regdb:{world}",
                                                                   "--runs", "file/runs", "--set", *SECOND],
}  # fmt: skip


@pytest.mark.parametrize("case", OUTPUTS)
def test_an_output_that_cannot_be_written(case, run, runs, worlds, monkeypatch, tmp_path, capsys):
    """Below a file nobody may write, not even the superuser."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    if "page" in case:
        assert main(measuring(worlds["sysu-mm01"], run)) == 0
    world = worlds["regdb" if case.startswith("folds") else "sysu-mm01"]
    assert main(OUTPUTS[case](world, run)) == 2
    assert "file" in sentence(capsys)
    assert (tmp_path / "file").read_text() == "in the way"


def test_reports_that_cannot_be_kept_are_still_printed(run, worlds, capsys):
    (run / "reports").write_text("in the way")
    assert main(measuring(worlds["sysu-mm01"], run)) == 0
    shown = capsys.readouterr()
    assert "sysu-mm01/all/single" in shown.out and "is not kept" in shown.err


@pytest.mark.process
def test_a_run_in_use_by_another_process_is_left_alone(run, worlds, capsys):
    code = (
        "import sys, time; from pathlib import Path; from vireid.training.run import held\n"
        "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(100)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        assert main(training(worlds["sysu-mm01"], run, *LONGER)) == 2
        assert "in use by another process" in sentence(capsys)
    finally:
        other.kill()
        other.wait()


def smaller_files() -> None:
    """From here on no file of this process grows past 1 MB, as on a disk that is almost full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))


@pytest.mark.process
@pytest.mark.parametrize("began", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_disk_that_is_full_while_training_keeps_what_was_saved(began, run, worlds, tmp_path):
    directory = run if began else tmp_path / "new"
    before = (run / "last.pt").read_bytes()
    assert len(before) > 10**6
    arguments = [*training(worlds["sysu-mm01"], directory, "--resume")]
    if began:
        shortened = torch.load(run / "last.pt", weights_only=True)
        shortened["progress"] = {"epoch": 1, "step": 0, "sums": {}}
        torch.save(shortened, run / "last.pt")
        before = (run / "last.pt").read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "vireid.cli.main", *arguments], capture_output=True, text=True, preexec_fn=smaller_files
    )
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("vireid: ")]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "cannot save checkpoint" in said and "is kept" in said
    assert sorted(file.name for file in directory.glob("last.pt*")) == (["last.pt"] if began else [])
    assert not began or (run / "last.pt").read_bytes() == before
