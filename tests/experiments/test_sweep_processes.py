"""`vireid sweep --jobs`: several processes, one that dies, and a sweep that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.outside import forgotten
from tests.small import SECOND
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.experiments.jobs import THREADS, cores_to_use
from vireid.experiments.sweep import SweepOptions, sweep
from vireid.training.run import held

SMALL = (*SECOND, "epochs=1", "epoch_length=1")
PROTOCOL = "sysu-mm01/all/single"
PLUGIN = """
import os
from vireid.recipes import agw

PAPER, ROWS = agw.PAPER, {}

def build(config, identities):
    assert os.environ["OMP_NUM_THREADS"] == os.environ["NUMBA_NUM_THREADS"] == "1"
    if config.training.seed == 1:
        os.kill(os.getpid(), 9)
    if config.training.seed == 2:
        raise RuntimeError("a fault of ours")
    return agw.build(config, identities)
"""


@pytest.mark.process
def test_a_process_that_dies_stops_its_own_training_only(worlds, tmp_path, capfd):
    (tmp_path / "mortal.py").write_text(PLUGIN)
    data = f"sysu-mm01:{worlds['sysu-mm01']}"
    before = {name: os.environ.get(name) for name in THREADS}
    command = ["sweep", "mortal", "--data", data, "--runs", str(tmp_path / "runs"), "--jobs", "2", "--workers", "0"]
    more = ["--over", "seed=0-2", "--protocol", PROTOCOL, "--json", str(tmp_path / "t.json")]
    with forgotten():
        code = main([*command, "--plugin", str(tmp_path / "mortal.py"), *more, "--set", *SMALL])
    printed = capfd.readouterr()
    assert code == 2, printed.err
    stored = json.loads((tmp_path / "t.json").read_text())
    assert stored["failed"] == {
        "mortal, seed 1": "its process was ended by SIGKILL",
        "mortal, seed 2": "RuntimeError: a fault of ours",
    }
    assert stored["combinations"][0]["measured"][PROTOCOL]["seeds"] == [0]
    assert "Traceback" in printed.err and "build" in printed.err, "a fault of ours is shown"
    assert {name: os.environ.get(name) for name in THREADS} == before

    # The same training in this process gives the same numbers, because both use one thread.
    asked = SweepOptions("agw", data, tmp_path / "alone", ("seed=0",), SMALL, (PROTOCOL,), workers=0)
    alone = sweep(asked).to_json()["combinations"][0]["measured"][PROTOCOL]
    assert cores_to_use() == 1
    assert alone["map"] == stored["combinations"][0]["measured"][PROTOCOL]["map"]


@pytest.mark.slow
@pytest.mark.process
def test_a_sweep_that_is_killed_leaves_no_process_and_goes_on(worlds, tmp_path, capsys):
    runs = tmp_path / "runs"
    words = ["sweep", "agw", "--data", f"sysu-mm01:{worlds['sysu-mm01']}", "--runs", str(runs), "--workers", "0"]
    words += ["--over", "optimiser.lr=0.1,0.01", "--protocol", PROTOCOL, "--set", *SECOND, "epochs=16"]
    with subprocess.Popen([sys.executable, "-m", "vireid.cli.main", *words, "--jobs", "2"]) as program:
        deadline = time.monotonic() + 240
        while len(list(runs.glob("**/last.pt"))) < 2:
            assert time.monotonic() < deadline and program.poll() is None
            time.sleep(0.05)
        program.send_signal(signal.SIGKILL)
    for run in sorted(file.parent for file in runs.glob("**/run.json")):
        free(run)
    assert len(list(runs.glob("**/run.json"))) == 2
    done = [len(log.read_text().splitlines()) for log in runs.glob("**/log.jsonl")]
    # One of them had just saved its first epoch. A process that lives on holds its run until the last epoch.
    assert min(done) < 16, "a process outlived the sweep and trained to the end"
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "2 trainings, 0 there already" in printed.err and printed.out.count("optimiser.lr") >= 1
    assert len(list(runs.glob("**/run.json"))) == 2, "the same runs go on"
    for log in runs.glob("**/log.jsonl"):
        assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == list(range(16))


def free(run):
    """Wait until no process holds a run."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with held(run):
                return
        except BadInput:
            assert time.monotonic() < deadline, "a process outlived the sweep"
            time.sleep(0.05)
