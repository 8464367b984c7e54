"""Unusual and hostile pictures, tables and folders: each is read correctly or refused with one sentence."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.small import SECOND
from vireid import datasets
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.data.pictures import read_picture

NOISE = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)
RED = (200, 30, 40)


def encoded(kind: str, picture: Image.Image | None = None, **options) -> bytes:
    stream = io.BytesIO()
    (picture or Image.new("RGB", (20, 40), RED)).save(stream, kind, **options)
    return stream.getvalue()


def truncated() -> bytes:
    whole = encoded("JPEG", Image.fromarray(NOISE).resize((200, 400)))
    return whole[: len(whole) // 2]


def enormous() -> bytes:
    """Less than 100 bytes that declare 40,000 × 40,000 pixels, which are 4.8 GB decoded."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def turned() -> bytes:
    """Stored rotated, with an EXIF orientation that corrects it: the left half is red, the right half black."""
    lying = Image.new("RGB", (40, 20))
    lying.paste(RED, (0, 0, 40, 10))
    exif = Image.Exif()
    exif[0x0112] = 8
    return encoded("PNG", lying, exif=exif)


def animated() -> bytes:
    return encoded("GIF", save_all=True, append_images=[Image.new("RGB", (20, 40), "blue")])


def cmyk() -> bytes:
    return encoded("JPEG", Image.new("CMYK", (20, 40), (0, 255, 255, 0)))


def deep() -> bytes:
    return encoded("PNG", Image.fromarray(np.full((40, 20), 200 * 257, dtype=np.uint16)))


def palette() -> bytes:
    return encoded("PNG", Image.new("RGB", (20, 40), RED).quantize(4))


def clear() -> bytes:
    """Red at alpha 128 of 255, over black."""
    return encoded("PNG", Image.new("RGBA", (20, 40), (*RED, 128)))


def grey_and_clear() -> bytes:
    return encoded("PNG", Image.new("LA", (20, 40), (200, 51)))


def plain() -> bytes:
    return encoded("PNG")


LONG = "x" * 246 + ".png"
#   what it is                       file name            its bytes                         pixels, or the message
MATRIX = {
    "CMYK":                          ("a.jpg",             cmyk,                             (254, 0, 0)),
    "16 bits a pixel":               ("a.png",             deep,                             (200, 200, 200)),
    "RGB with alpha":                ("a.png",             clear,                            (100, 15, 20)),
    "grey with alpha":               ("a.png",             grey_and_clear,                   (40, 40, 40)),
    "a palette":                     ("a.png",             palette,                          RED),
    "an animation":                  ("a.gif",             animated,                         RED),
    "turned by EXIF":                ("a.png",             turned,                           RED),
    "a name that is not ASCII":      ("人 ñ ✓'\".png",     plain,                            RED),
    "a name with a line break":      ("a\nb.png",          plain,                            RED),
    "a name of 250 bytes":           (LONG,                plain,                            RED),
    "another kind than its name":    ("a.jpg",             plain,                            RED),
    "cut short":                     ("a.jpg",             truncated,                        "cut short"),
    "40,000 × 40,000 declared":      ("a.png",             enormous,                         "megapixels"),
    "empty":                         ("a.jpg",             bytes,                            "is empty"),
    "a web page":                    ("a.jpg",             lambda: b"<html>404</html>" * 9,  "not a picture"),
    "a program":                     ("a.png",             lambda: b"\x7fELF" + bytes(90),   "not a picture"),
}  # fmt: skip
READABLE = [name for name, (*_, wanted) in MATRIX.items() if not isinstance(wanted, str)]
UNREADABLE = [name for name in MATRIX if name not in READABLE]


@pytest.fixture
def tree(tmp_path):
    """A folder of own pictures: identities 1 to 4 to train, 5 to 8 to test, three pictures of each modality."""
    root = tmp_path / "data"
    for split, first in (("train", 1), ("test", 5)):
        for word in ("visible", "infrared"):
            for identity in range(first, first + 4):
                folder = root / split / word / str(identity)
                folder.mkdir(parents=True)
                for k in range(3):
                    seed = hash((split, word, identity, k)) % 2**32
                    noise = np.random.default_rng(seed).integers(0, 256, (40, 20, 3), dtype=np.uint8)
                    Image.fromarray(noise).save(folder / f"{k}.png")
    return root


def add(root: Path, case: str) -> Path:
    """Put the file of one case among the training pictures."""
    name, data, _ = MATRIX[case]
    folder = root / "train" / "visible" / "1"
    file = folder / name if not (folder / name).exists() else folder / f"{len(os.listdir(folder))}{name}"
    file.write_bytes(data())
    return file


def checked(source: Path, capsys) -> dict:
    out = source.parent / "check.json" if source.is_dir() else source.with_suffix(".json")
    code = main(["data", "check", f"folder:{source}", "--decode", "--json", str(out)])
    assert "Traceback" not in capsys.readouterr().err
    found = json.loads(out.read_text())
    assert code == (2 if found["failures"] else 0) and bool(found["problems"]) == bool(found["failures"])
    return found


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", MATRIX)
def test_a_picture_is_read_right_or_refused_and_the_doctor_agrees(case, tree, capsys):
    file, wanted = add(tree, case), MATRIX[case][2]
    problems = [problem["path"] for problem in checked(tree, capsys)["problems"]]
    if isinstance(wanted, str):
        with pytest.raises(BadInput, match=wanted) as refused:
            read_picture(file)
        assert str(file) in str(refused.value) and "\n" not in str(refused.value)
        assert problems == [file.relative_to(tree).as_posix()]
    else:
        pixels = read_picture(file)
        assert pixels.shape == (40, 20, 3) and not problems
        assert np.abs(pixels[20, 5].astype(int) - wanted).max() <= 3


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_training_goes_on_without_them_only_when_asked_and_says_so(tree, tmp_path, capsys):
    bad = [add(tree, case) for case in UNREADABLE]
    for k in range(3):
        (tree / "train" / "visible" / "1" / f"{k}.png").unlink()  # so that each step of identity 1 meets them
    arguments = ["train", "agw", "--data", f"folder:{tree}", "--workers", "0", "--set", *SECOND, "epoch_length=20"]
    assert main([*arguments, "--run", str(tmp_path / "stops")]) == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vireid: ")]
    assert any(str(file) in sentence for file in bad)
    good = add(tree, "an animation")
    assert main([*arguments, "--run", str(tmp_path / "skips"), "--skip-unreadable"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped, cannot be read: ")]
    assert said and len(said) == len(set(said))
    assert all(any(line.endswith(file.name) for file in bad) for line in said)
    assert not any(line.endswith(good.name) for line in said)


def test_training_takes_every_readable_kind(tree, tmp_path, capsys):
    for case in READABLE:
        add(tree, case)
    arguments = ["train", "agw", "--data", f"folder:{tree}", "--workers", "0", "--run", str(tmp_path / "run")]
    assert main([*arguments, "--set", *SECOND, "epoch_length=8"]) == 0
    assert "skipped" not in capsys.readouterr().err


def folder_named_like_a_picture(root: Path) -> None:
    (root / "train/visible/1/folder.jpg").mkdir()


def circle_of_folders(root: Path) -> None:
    (root / "train/visible/1/up").symlink_to(root / "train", target_is_directory=True)


def link_to_itself(root: Path) -> None:
    (root / "train/visible/1/self.png").symlink_to(root / "train/visible/1/self.png")


def link_to_nothing(root: Path) -> None:
    (root / "train/visible/1/gone.png").symlink_to(root / "nowhere.png")


def pipe(root: Path) -> None:
    os.mkfifo(root / "train/visible/1/pipe.png")


#   what is in the folders                             what adds it         what the doctor names
TREES = {
    "a folder named like a picture":                   (folder_named_like_a_picture, None),
    "folders that are linked in a circle":             (circle_of_folders,           None),
    "a link to itself":                                (link_to_itself,              "self.png"),
    "a link to nothing":                               (link_to_nothing,             "gone.png"),
    "a pipe that nobody writes to":                    (pipe,                        "pipe.png"),
}  # fmt: skip


@pytest.mark.parametrize("case", TREES)
def test_a_tree_is_walked_once_and_to_its_end(case, tree, capsys):
    spoil, named = TREES[case]
    spoil(tree)
    found = checked(tree, capsys)
    problems = [problem["path"].rpartition("/")[2] for problem in found["problems"]]
    assert problems == ([named] if named else [])
    assert found["usable"] == 48


def test_a_path_of_three_thousand_bytes(tree, tmp_path, capsys):
    deep = tmp_path
    for _ in range(14):
        deep = deep / ("ü" * 100)
    deep.mkdir(parents=True)
    shutil.move(tree, deep / "data")
    assert len(os.fsencode(deep)) > 2800
    assert checked(deep / "data", capsys)["usable"] == 48
    assert len(datasets.read("folder", deep / "data")) == 48


HEAD = "path,identity,camera,modality,split"
LINE = "train/visible/1/0.png,1,1,visible,train"
GOOD = f"{HEAD}\n{LINE}\n"
#   what it is                        its text or bytes                                    records, or the message
TABLES = {
    "as it should be":                (GOOD,                                               1),
    "a byte order mark":              ("\ufeff" + GOOD,                                    1),
    "quotes round everything":        (f'"{HEAD}"\n"{LINE}"\n'.replace(",", '","'),        1),
    "a quote that is never closed":   (f'{HEAD}\n"{LINE}\n',                               "line 2"),
    "wrong columns":                  (f"file,person\n{LINE}\n",                           "lacks the columns path,"),
    "semicolons":                     (GOOD.replace(",", ";"),                             "lacks the columns"),
    "another encoding":               (GOOD.encode("utf-16"),                              "UTF-8"),
    "a line that is too short":       (f"{HEAD}\ntrain/visible/1/0.png,1\n",               "line 2"),
    "a line that is too long":        (f"{HEAD}\n{LINE},more,and,more\n",                  "line 2 has more cells"),
    "a zero byte":                    (f"{HEAD}\n{LINE}\0\n",                              "line 2"),
    "a cell of a megabyte":           (f"{HEAD}\n{'x' * 2**20},1,1,visible,train\n",       "larger than field limit"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_a_table_is_read_right_or_refused(case, tree, capsys):
    data, wanted = TABLES[case]
    file = tree / "people.csv"
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    if isinstance(wanted, int):
        assert len(datasets.read("folder", file)) == wanted
        return
    assert main(["data", "check", f"folder:{file}"]) == 2
    error = capsys.readouterr().err
    (sentence,) = [line for line in error.splitlines() if line.startswith("vireid: ")]
    assert "Traceback" not in error and wanted in sentence and "people.csv" in sentence and len(sentence) < 1000
