"""Own pictures given as a CSV file."""

from __future__ import annotations

import csv
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
        (HEADER + "a.png,1,0,visible\na.png,1,0,thermal\n", "line 3: unknown modality 'thermal'"),
        (HEADER + "a.png,1,0,\n", "line 2: unknown modality ''"),
        (HEADER + "a.png,,0,visible\n", "line 2: 'identity' is empty"),
        (HEADER + ",1,0,visible\n", "line 2: 'path' is empty"),
        (HEADER + "a.png,1,left,visible\n", "line 2: camera 'left' is not a number"),
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
    if all(line[1].isascii() and line[1].isdecimal() for line in lines):
        assert all(int(name) == number for name, number in pairs)
    else:
        assert sorted(pairs) == [(name, k) for k, name in enumerate(sorted({line[1] for line in lines}))]
