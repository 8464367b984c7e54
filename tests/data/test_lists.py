"""Protocols that are given by lists of their queries and gallery."""

from __future__ import annotations

import numpy as np
import pytest

from vireid.data.errors import BadInput
from vireid.data.lists import read_lists
from vireid.data.protocol import Protocol, Side, draw_trials, parse_protocol

PATH = np.array([f"c{camera}/{person}_{n}.png" for camera in (1, 2, 3) for person in (7, 8) for n in (0, 1)])
CAMERA = np.repeat([1, 2, 3], 4)
IDENTITY = np.tile([7, 7, 8, 8], 3)
MODALITY = (CAMERA == 3).astype(int)


def written(folder, text, **lists):
    """A protocol file, and list files beside it."""
    for name, content in lists.items():
        (folder / f"{name}.csv").write_text(content, encoding="utf-8")
    (folder / "night gate.yaml").write_text(text, encoding="utf-8")
    return f"lists:{folder / 'night gate.yaml'}"


def trial_of(protocol, **more):
    (trial,) = draw_trials(protocol, IDENTITY, CAMERA, MODALITY, path=PATH, **more)
    return trial


def test_the_lists_choose_the_pictures_whatever_their_modality(tmp_path):
    name = written(
        tmp_path,
        "query: q.csv\ngallery: g.csv\nexclude: camera\n",
        q="c1/7_0.png\n\nc3/8_1.png\n",
        g="role,PATH\nx,c2/7_1.png\ny,c3/8_0.png\nz,c2/8_0.png\n",
    )
    trial = trial_of(name)
    assert PATH[trial.query].tolist() == ["c1/7_0.png", "c3/8_1.png"]
    assert PATH[trial.gallery].tolist() == ["c2/7_1.png", "c2/8_0.png", "c3/8_0.png"]
    assert trial.query_key.tolist() == [1, 3] and trial.gallery_key.tolist() == [2, 2, 3]
    rules = parse_protocol(name)
    assert (rules.layout, rules.cmc, rules.exclusion, rules.trials) == ("", "image", "camera", 1)
    assert "exclude: camera" in rules.note


@pytest.mark.parametrize(
    ("rule", "equal"), [("none", []), ("camera", [0, 1, 2]), ("identity-camera", [0, 1])], ids=lambda value: str(value)
)
def test_what_each_exclusion_excludes(tmp_path, rule, equal):
    """Of a query of person 7 at camera 1: all pictures of its camera, or only those of the person too."""
    text = f"query: [c1/7_0.png]\ngallery: g.csv\nexclude: {rule}\n"
    gallery = (
        ["c1/7_1.png", "c1/8_0.png", "c2/7_0.png"] if rule == "none" else ["c1/7_0.png", "c1/7_1.png", "c1/8_0.png"]
    )
    trial = trial_of(written(tmp_path, text, g="\n".join([*gallery, "c3/7_1.png"])))
    excluded = (trial.gallery_key == trial.query_key[0]) & (trial.query_key[0] != -1)
    assert np.flatnonzero(excluded).tolist() == equal


def test_the_name_says_which_rules_and_lists_they_are(tmp_path):
    one = read_lists(written(tmp_path, "query: [a]\ngallery: [b, c]\n").removeprefix("lists:"))
    assert one.name.startswith("lists/night-gate-")
    same = written(tmp_path, "gallery: g.csv\nquery: [a]\nexclude: none\n", g="path\nc\nb\n")
    assert parse_protocol(same).name == one.name
    for other in ("query: [a]\ngallery: [b]\n", "query: [a]\ngallery: [b, c]\nexclude: camera\n",
                  "query: [a]\ngallery: [b, c]\ntracklets: min\n"):  # fmt: skip
        assert parse_protocol(written(tmp_path, other)).name != one.name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("query: [a]\n", "has no entry 'gallery'"),
        ("query: [a]\ngallery: [a]\n", "'a' is a query and in the gallery"),
        ("query: [a, a]\ngallery: [b]\n", "names 'a' twice"),
        ("query: []\ngallery: [b]\n", "names no query picture"),
        ("query: 3\ngallery: [b]\n", "query cannot be '3'"),
        ("query: none.csv\ngallery: [b]\n", "none.csv cannot be read: No such file"),
        ("query: [a]\ngallery: [b]\nexclude: cameras\n", "did you mean 'camera'"),
        ("query: [a]\ngallery: [b]\ntracklet: min\n", "unknown entry in .* 'tracklet'; did you mean 'tracklets'"),
        ("- a\n", "needs the entries query and gallery"),
        ("query: [a\n", "is not YAML"),
        ("query: [a]\ngallery: [b]\n", "'b' of its gallery is not among the test pictures|'a' of its queries"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, text, says):
    with pytest.raises(BadInput, match=says):
        trial_of(written(tmp_path, text))


def test_what_the_pictures_lack_is_said(tmp_path):
    name = written(tmp_path, "query: [c1/7_0.png]\ngallery: [c2/7_0.png]\n")
    with pytest.raises(BadInput, match="the pictures have no paths"):
        draw_trials(name, IDENTITY, CAMERA, MODALITY)
    name = written(tmp_path, "query: [c1/7_0.png]\ngallery: [c2/7_0.png]\ntracklets: min\n")
    with pytest.raises(BadInput, match="no column 'tracklet'"):
        trial_of(name)
    with pytest.raises(BadInput, match="cannot rank tracklets and draw single pictures"):
        Protocol("x/y", "x", Side(None), Side(None, drawn=1), tracklets="min")


def test_tracklets_are_of_one_person_camera_and_modality(tmp_path):
    """One number for all pictures, except two that are in no tracklet."""
    tracklet = np.zeros(12, dtype=int)
    tracklet[[4, 5]] = -1
    gallery = "\n".join(PATH[4:])
    name = written(tmp_path, "query: q.csv\ngallery: g.csv\ntracklets: average\n", q="\n".join(PATH[:4]), g=gallery)
    trial = trial_of(name, tracklet=tracklet)
    assert [own.tolist() for own in trial.query_sets] == [[0, 1], [2, 3]]
    assert [own.tolist() for own in trial.gallery_sets] == [[4], [5], [6, 7], [8, 9], [10, 11]]
    assert trial.query.tolist() == [0, 2] and trial.gallery.tolist() == [4, 5, 6, 8, 10]
    assert trial.pictures.tolist() == list(range(12))
