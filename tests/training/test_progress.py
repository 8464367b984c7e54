"""Progress for a person: nothing, lines, or bars on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from vireid.training.progress import Quiet, Terminal


def test_quiet_prints_nothing(capfd):
    with Quiet().bar("work") as advance:
        advance(1, 2)
        Quiet().say("text")
    assert capfd.readouterr() == ("", "")


def test_without_a_terminal_there_is_a_line_for_every_tenth(capfd):
    progress = Terminal()
    with progress.bar("outer") as outer, progress.bar("inner") as inner:
        for done in range(1001):
            outer(done, 1000)
        inner(0, 1)
        inner(1, 1)
        progress.say("a sentence")
    shown = capfd.readouterr()
    assert shown.out == ""
    lines = [f"outer: {done:,} of 1,000" for done in range(0, 1001, 100)]
    assert shown.err.splitlines() == [*lines, "inner: 0 of 1", "inner: 1 of 1", "a sentence"]


CODE = """
import time
from vireid.training.progress import Terminal
progress = Terminal()
for turn in range(2):
    with progress.bar("outer") as outer:
        outer(3, 10)
        with progress.bar("inner") as inner:
            inner(1, 2)
            progress.say("a sentence that stays")
            time.sleep(0.3)
        outer(10, 10)
try:
    with progress.bar("failing") as advance:
        raise KeyError
except KeyError:
    progress.say("the end")
"""


@pytest.mark.process
def test_on_a_terminal_bars_stand_below_each_other_and_sentences_stay():
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], stderr=terminal, stdout=subprocess.PIPE, env={**os.environ, "TERM": "xterm"}
    )
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(screen, 4096):
            shown += part
    except OSError:  # the other end is closed
        pass
    assert process.wait(timeout=60) == 0 and process.stdout is not None and process.stdout.read() == b""
    text = shown.decode()
    assert text.count("a sentence that stays") == 2 and text.rstrip().endswith("the end")
    for words in ("outer", "inner", "3/10", "1/2"):
        assert words in text
    assert "Traceback" not in text
