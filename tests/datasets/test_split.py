"""Divide people into splits: each person has one, test people have both modalities, and the layout reads the table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid import datasets
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.datasets.split import SplitOptions, divide


def write(root: Path, people: dict[str, tuple[int, int]], order: int = 0) -> Path:
    """A table of people with a number of visible and infrared pictures each."""
    root.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, numbers in people.items():
        for word, number in zip(("rgb", "thermal"), numbers, strict=True):
            for n in range(number):
                lines.append([f"{word}-{name}-{n}.png", name, "entrance" if n else "cam2", word, "kept, with a comma"])
                (root / lines[-1][0]).write_bytes(b"x")
    lines = [lines[k] for k in np.random.default_rng(order).permutation(len(lines))]
    with open(root / "people.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["path", "identity", "camera", "modality", "weather"], *lines])
    return root / "people.csv"


def people_of(records, split):
    return set(records.where(split=split).labelled().identity.tolist())


@settings(max_examples=25, deadline=None)
@given(
    numbers=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30),
    shares=st.sampled_from([(0.5, 0.1, 0.4), (0.5, 0, 0.5), (0, 0, 1), (0.34, 0.33, 0.33), (1, 0, 0)]),
    seed=st.integers(0, 3),
)
def test_each_person_has_one_split_and_the_shares_hold(numbers, shares, seed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    given_people = {f"p{n}": both for n, both in enumerate(numbers) if sum(both)}
    if not given_people:
        return
    table = write(folder, given_people)
    paired = sum(min(both) > 0 for both in given_people.values())
    asked = SplitOptions(table, folder / "split.csv", *shares, seed=seed)
    if any(share and share * paired < 1 for share in shares):
        with pytest.raises(BadInput, match="leaves fewer than 2"):
            divide(asked)
        assert not (folder / "split.csv").exists()
        return
    try:
        divide(asked)
    except BadInput as error:
        assert "leaves fewer than 2" in str(error)
        assert any(share and share * paired < 2 for share in shares)
        return
    before, after = datasets.read("folder", table), datasets.read("folder", folder / "split.csv")
    for column in ("path", "identity", "camera", "modality"):
        assert (getattr(after, column) == getattr(before, column)).all()
    assert not len(after.shared_identities())
    both = {n for n in set(after.identity.tolist()) if len(set(after.modality[after.identity == n].tolist())) == 2}
    for split, share in zip(("train", "val", "test"), shares, strict=True):
        assert abs(len(people_of(after, split) & both) - share * len(both)) < 1
        assert split == "train" or people_of(after, split) <= both


def test_the_seed_and_the_people_decide_and_the_order_of_the_lines_does_not(tmp_path):
    people = {f"p{n}": (2, 1) for n in range(20)}

    def test_people(order, seed):
        table = write(tmp_path / str(order), people, order)
        divide(SplitOptions(table, table.with_name("out.csv"), seed=seed))
        return people_of(datasets.read("folder", table.with_name("out.csv")), "test")

    assert test_people(0, 0) == test_people(1, 0)
    assert len(test_people(0, 0)) == 8
    assert len({frozenset(test_people(0, seed)) for seed in range(4)}) > 1


def test_unlabelled_and_lonely_pictures_are_not_tested(tmp_path):
    table = write(tmp_path, {**{f"p{n}": (1, 1) for n in range(4)}, "lonely": (3, 0), "unlabelled": (1, 2)})
    done = divide(SplitOptions(table, tmp_path / "out.csv", 0, 0, 1))
    assert done.notes == (
        "1 people have pictures of one modality only and are put into train",
        "3 unlabelled pictures are put into train, and are not trained on",
    )
    assert done.splits["test"] == {"people": 4, "visible": 4, "infrared": 4}
    assert done.splits["train"] == {"people": 1, "visible": 4, "infrared": 2}
    assert (datasets.read("folder", tmp_path / "out.csv").identity == -1).sum() == 3


def test_other_columns_are_kept_and_paths_lead_to_the_same_files(tmp_path):
    table = write(tmp_path / "data", {f"p{n}": (1, 1) for n in range(8)})
    (tmp_path / "elsewhere").mkdir()
    for out in (tmp_path / "above.csv", tmp_path / "elsewhere" / "out.csv"):
        divide(SplitOptions(table, out, 0.5, 0, 0.5))
        records = datasets.read("folder", out)
        assert {records.file(n).resolve() for n in range(16)} == set((tmp_path / "data").resolve().glob("*.png"))
        with open(out, newline="") as stream:
            lines = list(csv.reader(stream))
        assert lines[0] == ["path", "identity", "camera", "modality", "weather", "split"]
        assert {line[4] for line in lines[1:]} == {"kept, with a comma"}
        assert all(Path(line[0]).is_absolute() == (out.name == "out.csv") for line in lines[1:])


def test_two_folders_without_a_split(picture, tmp_path, capsys):
    for word in ("rgb", "ir"):
        for name in ("anna", "ben", "cleo", "dora"):
            picture(tmp_path / "own" / word / name / "c3_x.png", 0)
    out, told = tmp_path / "own" / "records.csv", tmp_path / "told.json"
    shares = ["--train", "0.5", "--val", "0", "--test", "0.5"]
    assert main(["data", "split", str(tmp_path / "own"), "--out", str(out), *shares, "--json", str(told)]) == 0
    assert json.loads(told.read_text())["splits"]["test"] == {"people": 2, "visible": 2, "infrared": 2}
    assert "train       2        2         2" in capsys.readouterr().out
    records = datasets.read("folder", tmp_path / "own")
    assert len(people_of(records, "train")) == len(people_of(records, "test")) == 2
    assert set(records.camera.tolist()) == {3} and not len(records.shared_identities())
    assert {line.split(",")[1] for line in out.read_text().splitlines()[1:]} == {"anna", "ben", "cleo", "dora"}


def test_what_cannot_be_divided(tmp_path):
    table = write(tmp_path / "data", {f"p{n}": (1, 1) for n in range(4)})
    before = table.read_bytes()
    for asked, says in (
        (SplitOptions(table, table), "is the table that is read"),
        (SplitOptions(table, tmp_path / "out.csv"), "4 people with pictures of both modalities, which leaves fewer"),
        (SplitOptions(table, tmp_path / "out.csv", 0.5, 0.1, 0.5), "add up to 1.1, not to 1"),
        (SplitOptions(tmp_path / "gone.csv", tmp_path / "out.csv"), "gone.csv does not exist"),
    ):
        with pytest.raises(BadInput, match=says):
            divide(asked)
    (tmp_path / "data" / "pictures.yaml").write_text("scaling: percentile")
    with pytest.raises(BadInput, match="states scaling 'percentile'"):
        divide(SplitOptions(table, tmp_path / "out.csv", 0.5, 0, 0.5))
    divide(SplitOptions(table, tmp_path / "data" / "out.csv", 0.5, 0, 0.5))
    assert not (tmp_path / "out.csv").exists() and table.read_bytes() == before
