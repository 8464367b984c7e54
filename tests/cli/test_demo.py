"""The demo, on a smaller world and with a few steps: all it writes, and the figures in its report."""

from __future__ import annotations

import re
import sys

import pytest

from vireid.cli import demo
from vireid.cli.main import main
from vireid.data.size import Size

FEW = {"epochs": "1", "epoch_length": "3", "size": "64x32", "schedule.milestones": "[]", "crop.padding": "2"}


@pytest.fixture
def smaller(monkeypatch):
    """The demo's own settings, with fewer and smaller pictures and fewer steps."""
    chosen = dict(text.split("=", 1) for text in demo.SMALL)
    assert FEW.keys() <= chosen.keys()
    batch = {"identities_per_batch": "3", "visible_per_identity": "2", "infrared_per_identity": "2"}
    monkeypatch.setattr(demo, "SMALL", tuple(f"{name}={value}" for name, value in {**chosen, **FEW, **batch}.items()))
    monkeypatch.setattr(demo, "IDENTITIES", 20)
    monkeypatch.setattr(demo, "PICTURES", 2)
    monkeypatch.setattr(demo, "PICTURE_SIZE", Size(64, 32))


def captions(page: str) -> list[str]:
    return re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)


def test_the_report_shows_figures_of_both_networks_and_a_second_call_does_what_is_missing(
    smaller, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 0
    page = (out / "report.html").read_text()
    both = [text for text in captions(page) if "random-start:" in text and "pretrained:" in text]
    assert [sum(text.startswith(word) for text in both) for word in ("Grad-CAM", "Cosine", "t-SNE")] == [1, 1, 1]
    trained = {start: (out / start / "last.pt").stat().st_mtime_ns for start in demo.STARTS.values()}

    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed: the report says so
    (out / "report.html").unlink()
    assert main(["demo", "--out", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "Figures are left out: figures need matplotlib" in page
    assert not [text for text in captions(page) if "random-start:" in text]
    assert trained == {start: (out / start / "last.pt").stat().st_mtime_ns for start in demo.STARTS.values()}
    assert "untrained" in capsys.readouterr().out
