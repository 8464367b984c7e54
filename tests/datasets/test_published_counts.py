"""Generated data sets of full size: readers, doctor and protocols find the published counts."""

from __future__ import annotations

import pytest

from tests.small import LAYOUTS
from vireid import datasets
from vireid.data.protocol import draw_trials, parse_protocol
from vireid.data.size import Size
from vireid.synthesis.world import World, write_world

GALLERIES = {
    "sysu-mm01": {
        "sysu-mm01/all/single": (3803, 301),
        "sysu-mm01/all/multi": (3803, 3010),
        "sysu-mm01/indoor/single": (3803, 112),
        "sysu-mm01/indoor/multi": (3803, 1120),
    },
    "regdb": {"regdb/v2i": (2060, 2060), "regdb/i2v": (2060, 2060)},
    "llcm": {"llcm/i2v": (7166, 484), "llcm/v2i": (8680, 619), "llcm/v2i@swapped": (619, 8680)},
}


@pytest.mark.rare
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_doctor_finds_exactly_the_published_counts(layout, tmp_path):
    root = tmp_path / layout
    write_world(root, World(1), layout=layout, size=Size(16, 8), published_counts=True)
    checkup = datasets.check(layout, root)
    assert checkup.differences == []
    # SYSU-MM01 holds 42 identities that none of its lists names; two pictures of 16×8 pixels can coincide.
    strange = [problem for problem in checkup.problems if problem.kind not in ("unlisted", "duplicate")]
    assert not strange, strange[:5]
    test = datasets.read(layout, root).where(split="test")
    for name, (queries, gallery) in GALLERIES[layout].items():
        trials = draw_trials(parse_protocol(name), test.identity, test.camera, test.modality)
        assert {(len(trial.query), len(trial.gallery)) for trial in trials} == {(queries, gallery)}, name
