from __future__ import annotations

import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.evaluation import draw_from_folders
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.protocol import (
    LAYOUTS,
    default_protocols,
    draw_trials,
    parse_protocol,
    protocol_names,
    read_permutation,
)

INFRARED = (3, 6)


def columns(cells):
    """Columns from {(camera, identity): number of pictures}, sorted by camera, as the folders of SYSU-MM01."""
    camera, identity = [], []
    for (cam, number), pictures in sorted(cells.items()):
        camera += [cam] * pictures
        identity += [number] * pictures
    modality = [int(cam in INFRARED) for cam in camera]
    return np.array(identity), np.array(camera), np.array(modality)


def sysu_cells():
    """Cells with SYSU-MM01's published counts: identities and pictures of each camera's test part."""
    # Which identities a camera saw is not published; these sets give the published number of valid indoor queries.
    seen = {
        1: range(1, 57),
        2: range(1, 57),
        3: [*range(1, 55), *range(58, 97)],
        4: range(3, 97),
        5: range(1, 96),
        6: range(1, 97),
    }
    pictures = {1: 1374, 2: 1565, 3: 1883, 4: 1918, 5: 1918, 6: 1920}
    least = {1: 13, 2: 18, 3: 20, 4: 20, 5: 20, 6: 20}
    counts = {(camera, number): least[camera] for camera, numbers in seen.items() for number in numbers}
    for camera, numbers in seen.items():
        extra = pictures[camera] - least[camera] * len(numbers)
        order = list(numbers)
        if camera == 3:  # 8 of the 23 further pictures show identities that camera 1 saw as well
            order = [*order[:8], *order[54:69]]
        for i in range(abs(extra)):
            counts[camera, order[i % len(order)]] += 1 if extra > 0 else -1
    return counts


def test_the_names_of_each_layout():
    # Those of a gallery of both modalities are in test_mixed.py.
    names = {layout: [name for name in protocol_names(layout) if "/mixed/" not in name] for layout in LAYOUTS}
    assert names["regdb"] == ["regdb/v2i", "regdb/i2v"]
    assert set(names["llcm"]) == {
        "llcm/i2v",
        "llcm/v2i",
        "llcm/v2i@swapped",
        "llcm/i2v@full",
        "llcm/v2i@full",
    }
    assert len(names["sysu-mm01"]) == 12 + 4
    assert set(protocol_names()) == {name for layout in LAYOUTS for name in protocol_names(layout)}
    assert default_protocols("sysu-mm01") == [
        "sysu-mm01/all/single",
        "sysu-mm01/all/multi",
        "sysu-mm01/indoor/single",
        "sysu-mm01/indoor/multi",
    ]
    for name in protocol_names():
        assert parse_protocol(name).name == name


def test_an_unknown_name_says_which_was_meant():
    with pytest.raises(BadInput, match=r"did you mean 'sysu-mm01/all/single'.*regdb/v2i"):
        parse_protocol("sysu-mm01/al/single")
    with pytest.raises(BadInput, match="unknown layout 'market'"):
        protocol_names("market")


@pytest.mark.parametrize(
    ("name", "gallery"),
    [
        ("sysu-mm01/all/single", 301),
        ("sysu-mm01/all/multi", 3010),
        ("sysu-mm01/indoor/single", 112),
        ("sysu-mm01/indoor/multi", 1120),
    ],
)
def test_sysu_mm01_has_the_published_sizes(name, gallery):
    identity, camera, modality = columns(sysu_cells())
    trials = draw_trials(name, identity, camera, modality)
    assert len(trials) == 10
    for trial in trials:
        assert len(trial.query) == 3803
        assert len(trial.gallery) == gallery
        assert len(np.unique(trial.gallery)) == gallery
        assert (np.diff(trial.gallery) > 0).all()
        assert set(modality[trial.query]) == {1} and set(modality[trial.gallery]) == {0}
        pairs, counts = np.unique(
            np.stack([identity[trial.gallery], camera[trial.gallery]]), axis=1, return_counts=True
        )
        assert set(counts) == {10 if "multi" in name else 1}
        assert pairs.shape[1] == (301 if "/all/" in name else 112)
        assert set(zip(camera[trial.query], trial.query_key, strict=True)) == {(3, 2), (6, 6)}
        keys = dict(zip(camera[trial.gallery].tolist(), trial.gallery_key.tolist(), strict=True))
        assert keys == ({1: 1, 2: 2, 4: 4, 5: 5} if "/all/" in name else {1: 1, 2: 2})
    left = {key: set(identity[trial.gallery[trial.gallery_key != key]].tolist()) for key in (2, 6)}
    valid = sum(number in left[key] for number, key in zip(identity[trial.query], trial.query_key, strict=True))
    assert valid == (3803 if "/all/" in name else 2208)


@given(
    st.dictionaries(
        st.tuples(st.integers(1, 6), st.integers(1, 12)), st.integers(1, 4), min_size=4, max_size=40
    ).filter(lambda cells: any(c in (1, 4) for c, _ in cells)),
    st.sampled_from(["all", "indoor"]),
)
@settings(max_examples=40, deadline=None)
def test_the_single_shot_draw_is_agws(cells, mode):
    cells = {**cells, (1, 7): 2, (6, 7): 1}
    identity, camera, modality = columns(cells)
    path = [
        f"cam{cam}/{number:04d}/{file:04d}.jpg"
        for (cam, number), pictures in sorted(cells.items())
        for file in range(1, pictures + 1)
    ]
    shuffled = random.Random(5)
    folders = {}
    for cam, number in cells:
        names = [f"{file:04d}.jpg" for file in range(1, cells[cam, number] + 1)]
        shuffled.shuffle(names)
        folders[f"cam{cam}", f"{number:04d}"] = names
    cameras = ["cam1", "cam2", "cam4", "cam5"] if mode == "all" else ["cam1", "cam2"]
    identities = {number for _, number in folders}
    for t, trial in enumerate(draw_trials(f"sysu-mm01/{mode}/single", identity, camera, modality)):
        expected = draw_from_folders(folders, cameras, identities, t)
        assert sorted(path[sample] for sample in trial.gallery) == sorted(expected)


def test_the_draw_leaves_pythons_own_generator_alone():
    identity, camera, modality = columns({(1, 1): 5, (6, 1): 1})
    random.seed(3)
    expected = random.random()
    random.seed(3)
    first = draw_trials("sysu-mm01/all/single", identity, camera, modality)
    assert random.random() == expected
    again = draw_trials("sysu-mm01/all/single@agw", identity, camera, modality)
    assert [trial.gallery.tolist() for trial in first] == [trial.gallery.tolist() for trial in again]
    # random.Random(t).choice over five files, for t = 0..9.
    assert [trial.gallery[0] for trial in first] == [random.Random(t).choice(range(5)) for t in range(10)]


def test_multi_shot_takes_what_there_is():
    identity, camera, modality = columns({(1, 1): 3, (2, 1): 12, (6, 1): 1})
    for trial in draw_trials("sysu-mm01/indoor/multi", identity, camera, modality):
        assert np.bincount(camera[trial.gallery]).tolist() == [0, 3, 10]


def test_reverse_asks_with_visible_pictures():
    identity, camera, modality = columns(sysu_cells())
    trial = draw_trials("sysu-mm01/reverse/all/single", identity, camera, modality)[0]
    assert len(trial.query) == 1374 + 1565 + 1918 + 1918
    assert len(trial.gallery) == 93 + 96
    trial = draw_trials("sysu-mm01/reverse/indoor/multi", identity, camera, modality)[0]
    assert len(trial.query) == 1374 + 1565
    assert len(trial.gallery) == 930
    assert set(trial.gallery_key) == {2}


def llcm_columns():
    """484 visible and 619 infrared (identity, camera) cells, 8,680 and 7,166 pictures, as published."""
    samples = []
    for modality, cells, pictures, cameras in ((0, 484, 8680, range(1, 10)), (1, 619, 7166, (1, 2, 4, 5, 6, 7, 8, 9))):
        # Each of the 351 identities at one camera; then second cameras until the cells are used up.
        pairs = [(number, cameras[number % len(cameras)]) for number in range(1, 352)]
        pairs += [(number, cameras[(number + 1) % len(cameras)]) for number in range(1, cells - 351 + 1)]
        for i in range(pictures):
            number, camera = pairs[i % cells]
            samples.append((modality, number, camera))
    samples.sort()
    modality, identity, camera = np.array(samples).T
    return identity, camera, modality


def test_llcm_has_the_published_sizes():
    identity, camera, modality = llcm_columns()
    sizes = {
        "llcm/i2v": (7166, 484, 10),
        "llcm/v2i": (8680, 619, 10),
        "llcm/v2i@swapped": (619, 8680, 10),
        "llcm/i2v@full": (7166, 8680, 1),
        "llcm/v2i@full": (8680, 7166, 1),
    }
    for name, (queries, gallery, count) in sizes.items():
        trials = draw_trials(name, identity, camera, modality)
        assert len(trials) == count
        for trial in trials:
            assert (len(trial.query), len(trial.gallery)) == (queries, gallery)
        if name.endswith("@full"):
            assert (trials[0].query_key == -1).all()
            continue
        same = trials[0].query_key[:, None] == trials[0].gallery_key
        pair = identity * 100 + camera
        assert (same == (pair[trials[0].query][:, None] == pair[trials[0].gallery])).all()


@pytest.mark.parametrize(("name", "query"), [("regdb/v2i", 0), ("regdb/i2v", 1), ("folder/v2i", 0), ("folder/i2v", 1)])
def test_regdb_and_own_folders_use_every_picture(name, query):
    identity = np.repeat(np.arange(206), 20)
    modality = np.tile(np.repeat([0, 1], 10), 206)
    trials = draw_trials(name, identity, np.ones_like(identity), modality)
    assert len(trials) == 1
    assert trials[0].query.tolist() == np.flatnonzero(modality == query).tolist()
    assert trials[0].gallery.tolist() == np.flatnonzero(modality != query).tolist()
    assert (trials[0].query_key == -1).all() and (trials[0].gallery_key == -1).all()
    assert parse_protocol(name).cmc == "image"


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ({(1, 1): 2, (2, 1): 2}, "no queries: there are no infrared pictures of cameras 3, 6"),
        ({(3, 1): 2, (6, 1): 2}, "no gallery: there are no visible pictures of cameras 1, 2, 4, 5"),
        ({(1, 1): 2, (6, 2): 2}, "not one query has a true match"),
        ({(2, 1): 2, (3, 1): 2}, "not one query has a true match"),  # the only match is from the query's own room
    ],
)
def test_a_test_set_that_cannot_be_used(cells, sentence):
    with pytest.raises(BadInput, match=sentence):
        draw_trials("sysu-mm01/all/single", *columns(cells))


def test_cameras_and_modalities_must_agree():
    with pytest.raises(BadInput, match="sample 1 has camera 7; the cameras of sysu-mm01 are 1 to 6"):
        draw_trials("sysu-mm01/all/single", np.ones(2), np.array([1, 7]), np.array([0, 1]))
    with pytest.raises(BadInput, match="sample 1 has camera 3, which is infrared in sysu-mm01, but modality 0"):
        draw_trials("sysu-mm01/all/single", np.ones(2), np.array([1, 3]), np.array([0, 0]))
    with pytest.raises(BadInput, match="columns of one length"):
        draw_trials("regdb/v2i", np.ones(2), np.ones(3), np.ones(2))


def permutations(cells):
    generator = np.random.default_rng(0)
    return {
        pair: np.stack([generator.permutation(pictures) + 1 for _ in range(10)]) for pair, pictures in cells.items()
    }


def nested(tables, cameras=6, identities=12):
    cells = np.empty((cameras, 1), dtype=object)
    for camera in range(cameras):
        inner = np.empty((1, identities), dtype=object)
        for number in range(identities):
            inner[0, number] = tables.get((camera + 1, number + 1), np.empty((0, 0)))
        cells[camera, 0] = inner
    return cells


CELLS = {(1, 3): 12, (2, 3): 14, (4, 3): 11, (1, 12): 10, (6, 3): 2, (6, 12): 1}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "uint8", "uint16"])
def test_the_official_file_is_read_as_scipy_wrote_it(tmp_path, compressed, dtype):
    io = pytest.importorskip("scipy.io")
    tables = permutations(CELLS)
    file = tmp_path / "rand_perm_cam.mat"
    variables = {"other": "text", "rand_perm_cam": nested({k: v.astype(dtype) for k, v in tables.items()})}
    io.savemat(file, variables, do_compression=compressed)
    found = read_permutation(file)
    assert set(found) == set(tables)
    for pair, table in tables.items():
        assert found[pair].dtype == np.int64
        assert (found[pair] == table).all()


@pytest.mark.parametrize(("shot", "count"), [("single", 1), ("multi", 10)])
def test_the_official_draw_takes_the_first_of_each_line(shot, count):
    identity, camera, modality = columns(CELLS)
    tables = permutations(CELLS)
    trials = draw_trials(f"sysu-mm01/all/{shot}@official", identity, camera, modality, permutation=tables)
    for t, trial in enumerate(trials):
        expected = []
        for pair in ((1, 3), (2, 3), (4, 3), (1, 12)):
            files = [k for k in range(len(camera)) if (camera[k], identity[k]) == pair]
            expected += [files[i - 1] for i in tables[pair][t][:count]]
        assert trial.gallery.tolist() == sorted(expected)


def test_the_official_draw_needs_a_file_that_fits():
    arrays = columns(CELLS)
    with pytest.raises(BadInput, match=r"needs the official permutation.*rand_perm_cam.mat"):
        draw_trials("sysu-mm01/all/single@official", *arrays)
    tables = permutations(CELLS)
    del tables[2, 3]
    with pytest.raises(BadInput, match="no camera 2, identity 3"):
        draw_trials("sysu-mm01/all/single@official", *arrays, permutation=tables)
    with pytest.raises(BadInput, match=r"for 13 pictures of identity 3 at camera 2.*there are 14"):
        draw_trials("sysu-mm01/all/single@official", *arrays, permutation={**tables, **permutations({(2, 3): 13})})


def test_a_file_that_is_not_the_official_one(tmp_path):
    io = pytest.importorskip("scipy.io")
    file = tmp_path / "rand_perm_cam.mat"
    with pytest.raises(BadInput, match="cannot be read"):
        read_permutation(file)
    file.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(100))
    with pytest.raises(BadInput, match="level 5"):
        read_permutation(file)
    io.savemat(file, {"rand_perm": np.ones((2, 2))})
    with pytest.raises(BadInput, match="no cell array named rand_perm_cam"):
        read_permutation(file)
    for wrong, says in (
        (np.full((10, 3), 2), "camera 1, identity 1 has a line that is not a permutation"),
        (np.array([[1, np.nan]]), "camera 1, identity 1 has a line that is not a permutation"),
    ):
        io.savemat(file, {"rand_perm_cam": nested({(1, 1): wrong})})
        with pytest.raises(BadInput, match=says):
            read_permutation(file)
    io.savemat(file, {"rand_perm_cam": np.array([[np.ones((2, 2)), None]], dtype=object)[:, :1]})
    with pytest.raises(BadInput, match="camera 1 is not a cell array"):
        read_permutation(file)
    io.savemat(file, {"rand_perm_cam": nested({(1, 1): np.full((10, 3), 2)})})
    with pytest.raises(BadInput, match="camera 1, identity 1 has a line that is not a permutation"):
        read_permutation(file)


def test_a_hostile_official_file_is_refused_before_it_fills_the_memory_or_the_stack(tmp_path):
    """Kilobytes that unpack to gigabytes, cell arrays nested deeper than a stack, and a file that is too large."""
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    flags = struct.pack("<4I", 6, 8, 1, 0) + struct.pack("<2I2i", 5, 8, 1, 1)
    name = struct.pack("<2I", 1, 13) + b"rand_perm_cam".ljust(16, b"\0")
    cell = flags + struct.pack("<2I", 1, 0)
    levels = 20_000
    inner = b"".join(struct.pack("<2I", 14, (len(cell) + 8) * (levels - k)) + cell for k in range(levels))
    inner += struct.pack("<2I", 14, 0)
    deep = struct.pack("<2I", 14, len(flags) + len(name) + len(inner)) + flags + name + inner
    packed = zlib.compress(deep)
    bomb = zlib.compress(bytes(2**25))
    for content, says in (
        (deep, "cells nested deeper than 4"),
        (struct.pack("<2I", 15, len(packed)) + packed, "cells nested deeper than 4"),
        (struct.pack("<2I", 15, len(bomb)) + bomb, "unpacks to over 16 MiB"),
        (bytes(2**24), "is larger than 16 MiB"),
        (b"", "no cell array named rand_perm_cam"),
    ):
        (tmp_path / "rand_perm_cam.mat").write_bytes(header + content)
        with pytest.raises(BadInput, match=says) as refused:
            read_permutation(tmp_path / "rand_perm_cam.mat")
        assert "\n" not in str(refused.value)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_official_file_never_escapes_as_another_error(tmp_path_factory, data):
    io = pytest.importorskip("scipy.io")
    folder = tmp_path_factory.mktemp("damaged")
    compressed = data.draw(st.booleans())
    io.savemat(folder / "good.mat", {"rand_perm_cam": nested(permutations(CELLS))}, do_compression=compressed)
    raw = bytearray((folder / "good.mat").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(128, len(raw) - 5))
        raw[at : at + 4] = struct.pack(
            "<I", data.draw(st.sampled_from([0, 1, 5, 14, 15, 255, 2**16, 2**31, 2**32 - 1]))
        )
    (folder / "bad.mat").write_bytes(raw[: data.draw(st.sampled_from([len(raw), len(raw) // 2]))])
    try:
        read_permutation(folder / "bad.mat")
    except BadInput as error:
        assert "rand_perm_cam" in str(error) and "\n" not in str(error)


def test_sides_have_a_modality_and_a_number_of_drawn_pictures():
    assert parse_protocol("llcm/i2v").query.modality is Modality.INFRARED
    assert parse_protocol("llcm/v2i@swapped").query.drawn == 1
