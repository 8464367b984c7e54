"""Own pictures given as a CSV file."""

from __future__ import annotations

import csv
import dataclasses
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid import datasets
from vireid.data.errors import BadInput

HEADER = "path,identity,camera,modality\n"


def write(root: Path, text: str | bytes, *files: str) -> Path:
    table = root / "records.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"x")
    return table


def refusal(root: Path) -> str:
    with pytest.raises(BadInput) as refused:
        datasets.read("folder", root)
    return str(refused.value)


def test_records_have_the_order_of_the_table(tmp_path):
    table = write(
        tmp_path,
        "modality,path,camera,time,identity,split\ninfrared,b/2.png,4,12.5,9,train\nVisible,a.png,cam3,,7,Test\n",
        "b/2.png",
        "a.png",
    )
    for source in (tmp_path, table):
        records = datasets.read("folder", source)
        assert records.root == tmp_path
        assert records.path.tolist() == ["b/2.png", "a.png"]
        assert records.identity.tolist() == [9, 7]
        assert records.camera.tolist() == [4, 3]
        assert records.modality.tolist() == [1, 0]
        assert records.split.tolist() == ["train", "test"]
        assert records.time is not None and records.time[0] == 12.5 and math.isnan(records.time[1])


def test_byte_order_mark_quotes_blanks_and_backslashes(tmp_path):
    text = (
        b'\xef\xbb\xbf"path", "Identity" ,camera,modality\r\n"a, b.png","7",,visible\r\n\r\nsub\\c.png,8,2,infrared\r\n'
    )
    write(tmp_path, text, "a, b.png", "sub/c.png")
    records = datasets.read("folder", tmp_path)
    assert records.path.tolist() == ["a, b.png", "sub/c.png"]
    assert records.camera.tolist() == [0, 2]
    assert records.split.tolist() == ["test", "test"]
    assert records.time is None
    assert any("no column 'split'" in note for note in records.notes)


def test_absolute_paths_below_the_root_become_relative(tmp_path):
    write(tmp_path, HEADER + f"{tmp_path}/a.png,1,0,visible\n", "a.png")
    assert datasets.read("folder", tmp_path).path.tolist() == ["a.png"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "file,identity,modality\na.png,1,visible\n",
            "lacks the columns path, camera; present: file, identity, modality",
        ),
        ("path;identity;camera;modality\n", "present: path;identity;camera;modality"),
        ("", "present: none"),
        (HEADER, "has no lines below its header"),
        ("path,identity,camera,modality,path\n", "the column 'path' more than once"),
        (HEADER + "a.png,1,0,visible\na.png,1,0,termal\n", "line 3: unknown modality 'termal'; did you mean 'thermal'"),
        (HEADER + "a.png,1,0,\n", "line 2: unknown modality ''"),
        (HEADER + ",1,0,visible\n", "line 2: 'path' is empty"),
        (HEADER.strip() + ",split\na.png,1,0,visible,tset\n", "unknown split 'tset'; did you mean 'test'"),
        (HEADER.strip() + ",time\na.png,1,0,visible,noon\n", "time 'noon' is not a number of seconds"),
        (HEADER + "gone.png,1,0,visible\na.png,1,0,visible\nlost.png,1,0,visible\n", "gone.png and 1 more (2 in all)"),
        (b"path,\xff\xfe", "is not a text file in UTF-8"),
    ],
)
def test_bad_tables(tmp_path, text, says):
    write(tmp_path, text, "a.png")
    message = refusal(tmp_path)
    assert says in message and "records.csv" in message and "\n" not in message


@pytest.mark.parametrize("word", ["Visible", "RGB", "vis", "colour", "Color"])
def test_the_words_for_visible_and_infrared(tmp_path, word):
    others = ("IR", "nir", "Thermal", "infrared")
    lines = [f"a.png,1,1,{word}", *(f"a.png,1,1,{other}" for other in others)]
    write(tmp_path, HEADER + "\n".join(lines), "a.png")
    assert datasets.read("folder", tmp_path).modality.tolist() == [0, 1, 1, 1, 1]


def test_cameras_are_numbers_or_names(tmp_path):
    def read(*cells: str):
        lines = [f"a.png,1,{cell},{'rgb' if n % 2 == 0 else 'ir'}" for n, cell in enumerate(cells)]
        write(tmp_path, HEADER + "\n".join(lines), "a.png")
        records = datasets.read("folder", tmp_path)
        return records.camera.tolist(), [note for note in records.notes if "camera" in note]

    assert read("3", "cam3", "C7", "", "") == ([3, 3, 7, 1, 0], [])
    named, notes = read("yard", "entrance", "yard", "cam3", "3", "03")
    assert named == [2, 1, 2, 0, 0, 0]
    assert notes == ["3 camera names were numbered in sorted order: 0 3, 1 entrance, 2 yard"]
    # The cameras that a table does not name must not be the same as one that it names.
    assert read("yard", "", "")[0] == [2, 0, 1]


def test_camera_names_keep_the_camera_rule_of_a_protocol(tmp_path):
    from vireid.data.protocol import Side, draw_trials, parse_protocol

    cameras = ["gate", "yard", "gate", "yard"]
    lines = [f"{n}.png,anna,{name},{'rgb' if n < 2 else 'ir'}" for n, name in enumerate(cameras)]
    write(tmp_path, HEADER + "\n".join(lines), *(f"{n}.png" for n in range(4)))
    records = datasets.read("folder", tmp_path)
    rules = dataclasses.replace(parse_protocol("folder/v2i"), exclusion="identity-camera")
    (trial,) = draw_trials(rules, records.identity, records.camera, records.modality)
    excluded = trial.query_key[:, None] == trial.gallery_key[None, :]
    assert excluded.tolist() == [[True, False], [False, True]]  # the infrared picture of the same camera
    only_gate = dataclasses.replace(rules, gallery=Side(rules.gallery.modality, cameras=(0,)))
    assert draw_trials(only_gate, records.identity, records.camera, records.modality)[0].gallery.tolist() == [2]


def test_unlabelled_people(tmp_path):
    cells = ["-1", "", "Unlabelled", "ben", "anna"]
    lines = [f"a.png,{cell},1,visible,train" for cell in cells]
    write(tmp_path, HEADER.strip() + ",split\n" + "\n".join(lines), "a.png")
    records = datasets.read("folder", tmp_path)
    assert records.identity.tolist() == [-1, -1, -1, 1, 0]
    assert records.notes[:2] == (
        "2 identity names were numbered in sorted order",
        "3 unlabelled pictures are not trained on, and are neither queries nor in a gallery",
    )
    assert "-1" not in records.notes[2]  # nobody is an identity of one modality
    assert datasets.training_records(records).identity.tolist() == [1, 0]
    write(tmp_path, HEADER.strip() + ",split\n" + "\n".join(lines[:3]), "a.png")
    with pytest.raises(BadInput, match="no pictures to train on"):
        datasets.training_records(datasets.read("folder", tmp_path))


def test_a_scaling_is_stated_beside_the_table(tmp_path):
    table = write(tmp_path, HEADER + "a.png,1,1,visible\n", "a.png")
    assert datasets.read("folder", table).scaling == "full"
    for text, wanted in (("scaling: percentile\n", "percentile"), ("scaling: window:0-4095", "window:0-4095")):
        (tmp_path / "pictures.yaml").write_text(text)
        assert datasets.read("folder", table).scaling == datasets.read("folder", tmp_path).scaling == wanted
    for text, says in (
        ("scaling: dark", "scaling 'dark' is not full"),
        ("scale: full", "unknown entry in .*pictures.yaml 'scale'; did you mean 'scaling'"),
        ("percentile", "holds no entries"),
        ("scaling: [", "is not YAML"),
    ):
        (tmp_path / "pictures.yaml").write_text(text)
        with pytest.raises(BadInput, match=says) as refused:
            datasets.read("folder", table)
        assert "pictures.yaml" in str(refused.value) and "\n" not in str(refused.value)


def test_another_table_is_pointed_at(tmp_path):
    write(tmp_path, HEADER, "people.csv")
    (tmp_path / "records.csv").unlink()
    assert "to read the table people.csv, give the path of that file" in refusal(tmp_path)


names = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="/\\."), min_size=1, max_size=6
)


@settings(max_examples=40, deadline=None)
@given(
    lines=st.lists(
        st.tuples(
            names,
            names,
            st.integers(0, 999),
            st.sampled_from(["visible", "infrared"]),
            st.sampled_from(["train", "val", "test"]),
        ),
        min_size=1,
        max_size=8,
    ),
    mark=st.booleans(),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_whatever_is_written_is_read_back(lines, mark, quoting):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with open(root / "records.csv", "w", encoding="utf-8-sig" if mark else "utf-8", newline="") as stream:
            writer = csv.writer(stream, quoting=quoting)
            writer.writerow(["path", "identity", "camera", "modality", "split"])
            for name, *rest in lines:
                writer.writerow([f"p{name}.png", *rest])
                (root / f"p{name}.png").write_bytes(b"x")
        records = datasets.read("folder", root)
    assert records.path.tolist() == [f"p{name}.png" for name, *_ in lines]
    assert records.camera.tolist() == [line[2] for line in lines]
    assert records.split.tolist() == [line[4] for line in lines]
    assert [("visible", "infrared")[m] for m in records.modality] == [line[3] for line in lines]
    # The same name is the same number and the other way round, in sorted order unless all are numbers already.
    pairs = {(line[1], int(i)) for line, i in zip(lines, records.identity, strict=True)}
    if unlabelled := {pair for pair in pairs if pair[0].lower() in ("-1", "unlabelled", "unlabeled")}:
        assert {number for _, number in unlabelled} == {-1}
        return
    if all(line[1].isascii() and line[1].isdecimal() for line in lines):
        assert all(int(name) == number for name, number in pairs)
    else:
        assert sorted(pairs) == [(name, k) for k, name in enumerate(sorted({line[1] for line in lines}))]
