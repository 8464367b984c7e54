"""The parts of the report: verdict, fields that differ, cameras, people, failures and figures, in one plain file."""

from __future__ import annotations

import base64
import html
import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from tests.small import SECOND
from vireid.cli.main import main
from vireid.data.size import Size
from vireid.experiments.measurement import measurements, queries_of
from vireid.figures.charts import intervals
from vireid.figures.drawing import Figure
from vireid.figures.page import _fields_of_change, document, write_page
from vireid.figures.tables import render
from vireid.synthesis.world import World, write_world
from vireid.training.run import Run, open_run

SINGLE = "sysu-mm01/all/single"


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> tuple[list[Run], str]:
    """Three runs of two groups, tested on a world with more than ten test people, and the world."""
    folder = tmp_path_factory.mktemp("three")
    data = f"sysu-mm01:{folder / 'world'}"
    write_world(folder / "world", World(50, seed=1), layout="sysu-mm01", size=Size(64, 32), pictures=2, workers=1)
    for name, row, seed in (("agw-0", "agw", 0), ("agw-1", "agw", 1), ("caj-0", "agw:channel-augmentation", 0)):
        run = str(folder / name)
        assert (
            main(["train", row, "--data", data, "--run", run, "--workers", "0", "--set", *SECOND, f"seed={seed}"]) == 0
        )
        asked = ["--protocol", SINGLE, "--workers", "0", "--breakdown", str(folder / "b.json")]
        assert main(["test", run, "--data", data, *asked]) == 0
    return [open_run(folder / name) for name in ("agw-0", "agw-1", "caj-0")], data


@pytest.fixture(scope="module")
def page(three, tmp_path_factory) -> str:
    return write_page(tmp_path_factory.mktemp("page") / "page.html", three[0]).read_text("utf-8")


class Outline(HTMLParser):
    """Headings, cells of header rows without scope, pictures without text, duplicate ids, and everything loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.without_scope, self.without_text, self.scripts, self.loaded = 0, 0, 0, []
        self.ids, self.labels = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.without_scope += tag == "th" and found.get("scope") not in ("col", "row")
        self.without_text += tag == "img" and "alt" not in found
        self.scripts += tag == "script" or any(name.startswith("on") for name in found)
        self.loaded += [found[name] for name in ("src", "srcset") if name in found]
        self.loaded += [found["href"]] if tag == "link" else []
        self.ids += [found["id"]] if "id" in found else []
        self.labels += [found["aria-label"]] if found.get("role") == "region" else []


def plain(text: str) -> str:
    """What a reader sees, on one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text.rpartition("</style>")[2])).split())


def test_the_first_thing_is_which_group_is_better(page):
    text = plain(page)
    assert page.index('id="better"') < page.index('id="differences"') < page.index('id="numbers"')
    assert re.search(r"1\. agw(:channel-augmentation)? seeds? ", text) and re.search(r"2\. agw", text)
    assert re.search(r"is first by mAP \(mAP [\d.]+ %, Rank-1 [\d.]+ %\)\. (For these trainings, it|It is not) ", text)
    assert re.search(
        r"[−+][\d.]+ \[[−+][\d.]+, [−+][\d.]+\] (not certain|certain for these trainings) probability", text
    )


def test_the_tables_say_the_same_order(three):
    shown = render(document(three[0]), "text")
    assert f"{SINGLE}: agw" in shown and "is first by mAP" in shown


def test_differences_are_a_table_of_fields(page):
    part = plain(page[page.index('id="differences"') : page.index('id="numbers"')])
    assert "field agw:channel-augmentation agw" in part or "field agw agw:channel-augmentation" in part
    assert re.search(r"erasing (null ChannelErasing|ChannelErasing null)", part)
    assert "{" not in part, "no part is shown as a sentence of braces"


def test_a_changed_part_has_a_line_for_each_field():
    erasing = {"type": "ChannelErasing", "p": 0.5}
    assert _fields_of_change("erasing", None, erasing) == [
        ("erasing", "null", "ChannelErasing"),
        ("erasing.p", "–", "0.5"),
    ]
    assert _fields_of_change("erasing", {"type": "RandomErasing", "p": 0.5}, erasing) == [
        ("erasing", "RandomErasing", "ChannelErasing")
    ]


def test_cameras_people_and_failures_are_those_of_the_queries(three, page):
    part = plain(page[page.index('id="pieces"') : page.index('id="runs"')])
    runs = {run.path.name: queries_of(run, measurements(run)[0]) for run in three[0]}
    caj = runs["caj-0"]
    for camera in (3, 6):
        of_camera = caj.camera == camera
        assert f"{caj.means('map')[of_camera].mean():.2f} {caj.means('rank1')[of_camera].mean():.2f}" in part
    groups = [(runs["agw-0"].means("map") + runs["agw-1"].means("map")) / 2, caj.means("map")]
    worst = np.argmin(np.mean(groups, axis=0))
    failures = part[part.index("Failures") :]
    assert failures.index(str(caj.path[worst])) < failures.index("rank "), "the worst one is the first line"
    person = min(np.unique(caj.identity), key=lambda one: np.mean([g[caj.identity == one].mean() for g in groups]))
    people = part[part.index("By person") :]
    assert re.match(rf"By person: mAP of \d+ test people person queries agw\S* agw\S* {person} ", people)


def test_the_page_is_one_file_without_script_that_a_screen_reader_can_walk_through(page):
    found = Outline(page)
    assert found.headings[0] == 1 and found.headings.count(1) == 1
    assert all(later <= before + 1 for before, later in zip(found.headings, found.headings[1:], strict=False))
    assert (found.without_scope, found.without_text, found.scripts) == (0, 0, 0)
    assert found.loaded and all(address.startswith("data:image/") for address in found.loaded)
    assert len(found.ids) == len(set(found.ids)) and len(found.labels) == len(set(found.labels))
    assert set(re.findall(r'href="#(\w+)"', page)) <= set(found.ids)
    assert "http" not in page.partition("</style>")[0]


def test_figures_stand_in_the_page_for_light_and_dark_with_their_captions(three, tmp_path):
    def draw(look):
        made = Canvas(figsize=(6, 3))
        made.add_subplot().set_facecolor(look.paper)
        return made

    one = Figure("cmc-all", "CMC of <two> runs.", {}, draw)
    text = write_page(tmp_path / "p.html", three[0], figures=[one], notes=["tsne is missing."]).read_text("utf-8")
    part = text[text.index('id="figures"') : text.index('id="runs"')]
    assert "CMC of &lt;two&gt; runs." in part and "tsne is missing." in part
    light, dark = (
        Image.open(io.BytesIO(base64.b64decode(re.search(rf'{name}="data:image/webp;base64,([^"]+)"', part)[1])))
        for name in ("img src", "srcset")
    )
    assert light.size == dark.size == (1200, 600), "the size for print would make pages of 150 MB"
    assert light.getpixel((600, 300))[0] > 200 > 100 > dark.getpixel((600, 300))[0]


def test_the_program_draws_the_figures_that_need_no_pictures(three, tmp_path, capsys):
    runs = [str(run.path) for run in three[0]]
    file = tmp_path / "r.html"
    assert main(["report", *runs, "--out", str(file)]) == 0
    text = file.read_text("utf-8")
    assert 'alt="figure training' in text and "tsne: pictures are needed: --data LAYOUT:PATH" in text


def test_without_matplotlib_the_report_says_what_is_missing(three, tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None\nfrom vireid.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    )
    file = tmp_path / "r.html"
    asked = [sys.executable, "-c", code, "report", str(three[0][0].path), "--out", str(file)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Figures are left out: figures need matplotlib" in plain(file.read_text("utf-8"))


def test_runs_without_results_of_queries_are_shown_and_not_compared(three, tmp_path):
    copies = [Path(shutil.copytree(run.path, tmp_path / run.path.name)) for run in three[0]]
    for copy in copies:
        shutil.rmtree(copy / "queries")
    text = plain(write_page(tmp_path / "p.html", [open_run(copy) for copy in copies]).read_text("utf-8"))
    assert "not compared: the results of its queries are not kept; run vireid test again" in text
    assert "is first by mAP" in text and "Cameras, people, failures" not in text


def test_a_chart_of_intervals_has_two_kinds_of_markers_in_their_places():
    chart = intervals({"a<b": {"mAP": (50.0, 40.0, 60.0), "Rank-1": (60.0, 50.0, 70.0)}}, x="%")
    assert "a&lt;b" in chart and "a<b" not in chart
    (circle, _), (triangle, _) = (re.findall(rf"<{shape} [^>]+>", chart) for shape in ("circle", "polygon"))
    lines = re.findall(r'<line class="line-\d" [^>]*x1="([\d.]+)" x2="([\d.]+)"', chart)
    centre = float(re.search(r'cx="([\d.]+)"', circle)[1])
    assert centre == pytest.approx(sum(map(float, lines[0])) / 2, abs=0.1), "50 is between 40 and 60"
    assert float(lines[1][0]) == pytest.approx(centre, abs=0.1), "the second interval begins at 50"
    assert 'fill="#fff"' in triangle and "stroke-dasharray" in chart
