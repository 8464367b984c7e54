"""Resizing compared with Pillow, one axis at a time, and with the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vireid.data.resampling import resize, write_planes
from vireid.data.size import Size

FILTERS = {"lanczos": Image.Resampling.LANCZOS, "bilinear": Image.Resampling.BILINEAR, "area": Image.Resampling.BOX}


def two_steps(pixels, size, name):
    """Pillow, horizontally first. It is called for one axis at a time, so it cannot choose the order."""
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture = picture.resize((size.width, picture.height), FILTERS[name]).resize(
        (size.width, size.height), FILTERS[name]
    )
    return np.asarray(picture).reshape(size.height, size.width, -1)


@settings(max_examples=120, deadline=None)
@given(
    source=st.tuples(st.integers(1, 90), st.integers(1, 60)),
    target=st.tuples(st.integers(1, 90), st.integers(1, 60)),
    channels=st.sampled_from([1, 3]),
    name=st.sampled_from(sorted(FILTERS)),
    seed=st.integers(0, 2**31),
    extreme=st.booleans(),
)
def test_pillows_bits(source, target, channels, name, seed, extreme):
    pixels = np.random.default_rng(seed).integers(0, 256, (*source, channels), dtype=np.uint8)
    if extreme:  # overshoot at both ends
        pixels = np.where(pixels < 128, 0, 255).astype(np.uint8)
    size = Size(*target)
    assert np.array_equal(resize(pixels, size, name), two_steps(pixels, size, name))


@pytest.mark.parametrize("source", [(400, 160), (320, 110), (128, 64), (480, 190)])
@pytest.mark.parametrize("target", [(288, 144), (384, 144), (256, 128)])
def test_the_fields_sizes(source, target):
    pixels = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    assert np.array_equal(resize(pixels, Size(*target), "lanczos"), two_steps(pixels, Size(*target), "lanczos"))


def test_the_same_size_is_the_same_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(resize(pixels, Size(20, 30), "lanczos"), pixels)


def test_a_flat_picture_stays_flat():
    pixels = np.full((37, 23, 3), 201, dtype=np.uint8)
    for name in FILTERS:
        assert (resize(pixels, Size(64, 16), name) == 201).all()


def test_by_hand():
    """Triangle, 4 → 2: centres 1 and 3, half width 2, so pixel 0 sees (.75, .75, .25) / 1.75 of 10, 40, 90."""
    line = np.array([10, 40, 90, 200], dtype=np.uint8).reshape(1, 4, 1)
    # (0.75 · 10 + 0.75 · 40 + 0.25 · 90) / 1.75 = 34.29; (0.25 · 40 + 0.75 · 90 + 0.75 · 200) / 1.75 = 130.0
    assert resize(line, Size(1, 2), "bilinear").ravel().tolist() == [34, 130]


@given(size=st.tuples(st.integers(1, 30), st.integers(1, 30)), seed=st.integers(0, 2**31))
@settings(deadline=None)
def test_planes_are_the_transposed_picture(size, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    planes = np.empty((3, *size), np.uint8)
    write_planes(planes, pixels)
    assert np.array_equal(planes, pixels.transpose(2, 0, 1))
