"""Pictures from people who are not trusted: the same pixels as elsewhere, or a refusal within known time."""

from __future__ import annotations

import hashlib
import random
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.gallery import hostile
from tests.gallery.hostile import HUGE, declared, exif, noise, png, saved, scans, segment, with_segments
from vireid import datasets
from vireid.data.modality import Modality
from vireid.data.pictures import read_picture
from vireid.gallery.containers import SCANS, examine
from vireid.gallery.untrusted import PIXELS, Refused, decode, guess

BOMBS = hostile.bombs()


def modes() -> dict[str, bytes]:
    """A file of each kind of pixels that the four formats have."""
    colour, grey, clear = noise(), noise()[..., 0], noise(channels=4)
    deep = np.random.default_rng(1).integers(0, 65536, (48, 40), np.uint16)
    palette = Image.fromarray(colour).quantize(17)
    return {
        "jpeg": saved(colour, "JPEG"),
        "jpeg 444": saved(colour, "JPEG", subsampling=0, quality=95),
        "jpeg grey": saved(grey, "JPEG"),
        "jpeg progressive": saved(colour, "JPEG", progressive=True),
        "jpeg cmyk": saved(Image.fromarray(clear, "CMYK"), "JPEG"),
        "jpeg rgb": saved(colour, "JPEG", keep_rgb=True),
        "jpeg with a profile": saved(colour, "JPEG", icc_profile=b"profile" * 20_000, comment=b"secret"),
        "jpeg restart": saved(colour, "JPEG", restart_marker_blocks=2),
        "png": saved(colour, "PNG"),
        "png grey": saved(grey, "PNG"),
        "png 16": saved(deep, "PNG"),
        "png alpha": saved(clear, "PNG"),
        "png grey alpha": saved(Image.fromarray(clear[..., :2], "LA"), "PNG"),
        "png palette": saved(palette, "PNG"),
        "png palette with a transparent colour": saved(palette, "PNG", transparency=3),
        "png palette with alpha": saved(palette, "PNG", transparency=bytes(range(0, 255, 15))),
        "png with a transparent colour": saved(colour, "PNG", transparency=(1, 2, 3)),
        "png 1 bit": saved(Image.fromarray(grey).convert("1"), "PNG"),
        "png with a profile": saved(colour, "PNG", icc_profile=b"profile" * 1000),
        "webp": saved(colour, "WEBP"),
        "webp lossless": saved(colour, "WEBP", lossless=True),
        "webp alpha": saved(clear, "WEBP", quality=50),
        "webp with all": saved(clear, "WEBP", icc_profile=b"profile", exif=exif(6), xmp=b"<x/>"),
        "bmp": saved(colour, "BMP"),
        "bmp grey": saved(grey, "BMP"),
        "bmp palette": saved(palette, "BMP"),
        "bmp 1 bit": saved(Image.fromarray(grey).convert("1"), "BMP"),
        "bmp alpha": saved(clear, "BMP"),
    }


def expected(data: bytes, folder: Path) -> np.ndarray:
    (folder / "picture").write_bytes(data)
    return read_picture(folder / "picture")


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in modes().items()])
def test_the_pixels_are_those_of_the_gallery(data: bytes, tmp_path: Path) -> None:
    found = decode(data)
    assert found.pixels.dtype == np.uint8 and found.pixels.flags.c_contiguous
    assert np.array_equal(found.pixels, expected(data, tmp_path))
    assert found.content == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", "<>")
def test_the_orientation_is_that_of_the_gallery(orientation: int, kind: str, order: str, tmp_path: Path) -> None:
    settings = {"lossless": True} if kind == "WEBP" else {}
    data = saved(noise(), kind, exif=exif(orientation, order), **settings)
    wanted = expected(data, tmp_path)
    assert wanted.shape[:2] == ((40, 48) if 5 <= orientation <= 8 else (48, 40))
    assert np.array_equal(decode(data).pixels, wanted)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_in_xmp_counts_if_exif_states_none(kind: str, tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    settings = {"xmp": xmp}
    if kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        settings = {"pnginfo": text}
    data = saved(noise(), kind, **settings)
    assert decode(data).pixels.shape == (40, 48, 3)
    assert np.array_equal(decode(data).pixels, expected(data, tmp_path))


def test_a_jpeg_of_two_pictures_gives_the_first(tmp_path: Path) -> None:
    two = [Image.fromarray(noise(seed=n)) for n in range(2)]
    data = saved(two[0], "MPO", save_all=True, append_images=two[1:])
    assert np.array_equal(decode(data).pixels, expected(data, tmp_path))


@pytest.mark.parametrize("name", BOMBS)
def test_a_bad_file_is_refused_at_once(name: str) -> None:
    """Or it is harmless. Neither takes long, and no large memory is asked for."""
    status, data = BOMBS[name]
    tracemalloc.start()
    began = time.process_time()
    try:
        found = decode(data).pixels
        assert (status, found.shape) == (200, (48, 40, 3))
    except Refused as error:
        assert error.status == status, error.detail
        assert error.detail and error.detail.isprintable()
    finally:
        seconds, memory = time.process_time() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert seconds < 1.0
    assert memory < 3 * len(data) + 2**20


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_the_declared_size_is_checked_before_anything_is_decoded(kind: str) -> None:
    """The file has no pixels, so decoding would have said that it is damaged."""
    side = 16_000 if kind == "WEBP" else HUGE
    with pytest.raises(Refused, match="more than 20 megapixels") as refused:
        decode(declared(kind, side, side))
    assert refused.value.status == 413


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_the_limit_of_pixels_is_exact(kind: str) -> None:
    data = saved(noise(50, 40), kind)
    assert decode(data, pixels=2000).pixels.shape == (50, 40, 3)
    with pytest.raises(Refused) as refused:
        decode(data, pixels=1999)
    assert refused.value.status == 413


def test_a_file_that_states_two_sizes_is_judged_by_the_larger_one() -> None:
    jpeg = saved(noise(), "JPEG")
    at = jpeg.index(b"\xff\xc0")
    second = bytearray(jpeg[at : at + 19])
    second[5:9] = b"\x70\x00\x70\x00"
    with pytest.raises(Refused) as refused:
        decode(jpeg[:at] + bytes(second) + jpeg[at:])
    assert refused.value.status == 413
    webp = declared("WEBP", 40, 48)
    inner = webp.index(b"VP8 ") + 14
    with pytest.raises(Refused) as refused:
        decode(webp[:inner] + b"\xff\x3f\xff\x3f" + webp[inner + 4 :])
    assert refused.value.status == 413


def test_scans_up_to_the_limit_are_read() -> None:
    assert decode(scans(SCANS)).pixels.shape == (512, 512, 3)
    with pytest.raises(Refused, match=f"has {SCANS + 1} scans"):
        decode(scans(SCANS + 1))


def test_metadata_never_reach_the_decoder() -> None:
    secret = b"52.0907N 5.1214E"
    notes = segment(0xE1, b"Exif\0\0" + secret), segment(0xE2, b"ICC_PROFILE\0" + secret), segment(0xFE, secret)
    files = {
        "JPEG": with_segments(saved(noise(), "JPEG"), *notes, segment(0xED, secret)) + secret,
        "PNG": png(*(hostile.chunk(kind, secret) for kind in (b"tEXt", b"eXIf", b"iCCP", b"teSt")), hostile.idat()),
        "WEBP": saved(noise(), "WEBP", exif=b"Exif\0\0" + secret, xmp=secret, icc_profile=secret),
    }
    for kind, data in files.items():
        assert secret in data
        kept = examine(data)
        assert kept.format == kind and secret not in kept.data
        assert decode(data).pixels.shape == (48, 40, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_file_that_is_cut_anywhere_is_refused_or_whole(kind: str) -> None:
    data = saved(noise(), kind)
    whole = decode(data).pixels
    for length in [*range(80), *range(80, len(data), 37), *range(len(data) - 20, len(data))]:
        try:
            found = decode(data[:length]).pixels
        except Refused as error:
            assert error.status in (415, 422)
        else:
            assert np.array_equal(found, whole)  # only what stands behind the pixels is missing


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(modes())), st.randoms(use_true_random=False))
def test_damaged_files_are_decoded_or_refused(name: str, chance: random.Random) -> None:
    data = bytearray(modes_once()[name])
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(data)) if chance.random() < 0.5 else chance.randrange(min(64, len(data)))
        change = chance.randrange(3)
        if change == 0:
            data[at] = chance.randrange(256)
        elif change == 1:
            data[at:at] = chance.randbytes(chance.randint(1, 6))
        else:
            del data[at : at + chance.randint(1, 6)]
    try:
        found = decode(bytes(data)).pixels
    except Refused as error:
        assert error.status in (413, 415, 422)
    else:
        assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
        assert found.shape[0] * found.shape[1] <= PIXELS


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"BM", b""]), st.binary(max_size=300)
)
def test_any_bytes_are_decoded_or_refused(start: bytes, rest: bytes) -> None:
    with pytest.raises(Refused):
        decode(start + rest)


_MODES: dict[str, bytes] = {}


def modes_once() -> dict[str, bytes]:
    if not _MODES:
        _MODES.update(modes())
    return _MODES


@pytest.mark.parametrize("layout", ["sysu-mm01", "regdb", "llcm"])
def test_the_guess_is_right_on_generated_pictures(layout: str, worlds: dict[str, Path]) -> None:
    records = datasets.read(layout, worlds[layout])
    for n in range(len(records)):
        found = guess(decode(Path(records.file(n)).read_bytes()).pixels)
        assert found == Modality(int(records.modality[n])), records.file(n)


@pytest.mark.parametrize(
    "kind, quality", [("JPEG", 5), ("JPEG", 60), ("JPEG", 95), ("WEBP", 5), ("WEBP", 80), ("PNG", 0)]
)
def test_grey_pictures_are_infrared_however_they_were_saved(kind: str, quality: int) -> None:
    settings = {} if kind == "PNG" else {"quality": quality}
    for grey in (noise()[..., :1], np.zeros((48, 40, 1), np.uint8), np.full((48, 40, 1), 255, np.uint8)):
        assert guess(decode(saved(np.repeat(grey, 3, axis=2), kind, **settings)).pixels) == Modality.INFRARED


def test_a_picture_with_a_little_colour_is_visible() -> None:
    grey = np.repeat(noise(200, 200, 1), 3, axis=2)
    assert guess(grey) == Modality.INFRARED
    spot = grey.copy()
    spot[50:60, 50:60] = (200, 60, 60)
    assert guess(spot) == Modality.VISIBLE
    assert guess(np.tile(spot, (20, 20, 1))) == Modality.VISIBLE  # a part of a large picture's pixels is enough
    dusk = (noise(200, 200, 1) // 8 + np.array([0, 4, 12], np.uint8)).astype(np.uint8)
    assert guess(dusk) == Modality.VISIBLE
