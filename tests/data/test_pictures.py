"""Read one picture file: every kind of file, and every reason to refuse one."""

from __future__ import annotations

import io
import math
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from vireid.data import pictures
from vireid.data.errors import BadInput
from vireid.data.pictures import Scaling, deep_values, read_picture
from vireid.data.size import Size

NOISE = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def written(tmp_path):
    def write(data: bytes | Image.Image, name: str = "x.png", **options):
        file = tmp_path / name
        file.write_bytes(data) if isinstance(data, bytes) else data.save(file, **options)
        return file

    return write


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "ppm", "webp"])
def test_lossless_files_come_back_exactly(written, kind):
    options = {"lossless": True} if kind == "webp" else {}
    pixels = read_picture(written(Image.fromarray(NOISE), f"x.{kind}", **options))
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.flags.writeable
    assert np.array_equal(pixels, NOISE)


def test_the_extension_does_not_matter(written):
    assert np.array_equal(read_picture(written(encoded(Image.fromarray(NOISE), "PNG"), "x.jpg")), NOISE)


@pytest.mark.parametrize("name", ["lanczos", "bilinear", "area"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_resizing_is_pillows_horizontally_first(written, name, mode):
    filters = {"lanczos": Image.Resampling.LANCZOS, "bilinear": Image.Resampling.BILINEAR, "area": Image.Resampling.BOX}
    picture = Image.fromarray(NOISE).convert(mode)
    want = np.asarray(picture.convert("RGB").resize((16, 40), filters[name]).resize((16, 24), filters[name]))
    assert np.array_equal(read_picture(written(picture), Size(24, 16), resample=name), want)


def test_area_averages_by_hand(written):
    square = np.zeros((32, 32, 3), np.uint8)
    square[::2, ::2] = 100
    assert np.array_equal(
        read_picture(written(Image.fromarray(square)), Size(16, 16), resample="area"), np.full((16, 16, 3), 25)
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(written, orientation):
    turned = {
        1: NOISE,
        2: NOISE[:, ::-1],
        3: NOISE[::-1, ::-1],
        4: NOISE[::-1],
        5: NOISE.transpose(1, 0, 2),
        6: np.rot90(NOISE, -1),
        7: NOISE[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(NOISE),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(NOISE)
    assert np.array_equal(read_picture(written(picture, "x.png", exif=exif)), turned[orientation])
    jpeg = encoded(picture, "JPEG", exif=exif, quality=95)
    plain = np.asarray(Image.open(io.BytesIO(jpeg)))
    assert read_picture(written(jpeg)).shape == turned[orientation].shape
    if orientation == 3:
        assert np.array_equal(read_picture(written(jpeg)), plain[::-1, ::-1])


def test_grey_is_repeated(written):
    grey = NOISE[..., 0]
    for data in (encoded(Image.fromarray(grey), "PNG"), encoded(Image.fromarray(grey), "BMP")):
        assert np.array_equal(read_picture(written(data)), np.repeat(grey[..., None], 3, axis=2))
    black_and_white = Image.fromarray(((grey > 127) * 255).astype(np.uint8)).convert("1")
    assert set(np.unique(read_picture(written(black_and_white)))) == {0, 255}


@pytest.mark.parametrize("kind", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled_not_clipped(written, kind):
    deep = np.array([[0, 128, 129, 257, 32768, 65535]] * 2, dtype=np.uint16)
    file = written(encoded(Image.fromarray(deep), {"pgm": "PPM"}.get(kind, kind.upper())), f"x.{kind}")
    # v / 257 to the nearest: 128 / 257 = 0.498, 129 / 257 = 0.502, 32768 / 257 = 127.502
    assert read_picture(file)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


RULES = ("full", "percentile", "percentile:5-90", "window:1000-4095", "window:0.5-3.5")


def slowly(values, rule):
    """The rule in words, value by value."""
    name, _, numbers = rule.partition(":")
    low, high = map(float, numbers.split("-")) if numbers else ((1, 99) if name == "percentile" else (0, 65535))
    if name == "percentile":
        ordered = sorted(values)
        places = [q / 100 * (len(ordered) - 1) for q in (low, high)]
        pairs = [(ordered[math.floor(p)], ordered[math.ceil(p)], p - math.floor(p)) for p in places]
        low, high = (a + (b - a) * part for a, b, part in pairs)
    share = [min(max((v - low) / max(high - low, 1), 0), 1) for v in values]
    return [math.floor(255 * one + 0.5) for one in share]


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(0, 65535), min_size=2, max_size=40), rule=st.sampled_from(RULES))
def test_sixteen_bits_are_scaled_by_the_rule(values, rule):
    found = Scaling.parse(rule).apply(np.array(values))
    assert found.dtype == np.uint8
    # Where a value lies exactly between two grey levels, the last bit of a division decides.
    assert np.abs(found.astype(int) - slowly(values, rule)).max() <= 1
    assert (found == slowly(values, rule)).mean() > 0.9 or len(values) < 20


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("rule", RULES)
def test_a_scaling_changes_grey_pictures_with_16_bits_only(written, kind, rule):
    thermal = np.linspace(1000, 4095, 800).astype(np.uint16).reshape(40, 20)
    file = written(encoded(Image.fromarray(thermal), kind.upper()), f"x.{kind}")
    assert np.array_equal(read_picture(file, scaling=rule)[..., 0], Scaling.parse(rule).apply(thermal))
    for mode in ("RGB", "L", "RGBA", "LA", "P", "1"):
        other = written(Image.fromarray(NOISE).convert(mode), "y.png")
        assert np.array_equal(read_picture(other, scaling=rule), read_picture(other))


def test_what_the_rules_do_to_12_bits(written):
    thermal = np.linspace(0, 4095, 800).astype(np.uint16).reshape(40, 20)
    file = written(encoded(Image.fromarray(thermal), "PNG"))
    assert deep_values(file) == (0, 4095)
    assert read_picture(file).max() == 16  # nearly black
    for rule in ("window:0-4095", "percentile"):
        pixels = read_picture(file, scaling=rule)
        assert (pixels.min(), pixels.max()) == (0, 255) and 120 < pixels.mean() < 135
    assert deep_values(written(Image.fromarray(NOISE))) is None


@pytest.mark.parametrize(
    "rule",
    ["", "Full", "windows:0-1", "window", "window:5-5", "window:9-3", "window:0-65536", "percentile:0-101"],
)
def test_a_scaling_that_is_none(written, rule):
    with pytest.raises(BadInput, match=r"is not full, percentile, percentile:LOW-HIGH .* or window:LOW-HIGH"):
        read_picture(written(Image.fromarray(NOISE)), scaling=rule)


def test_sixteen_bit_colour(written):
    """Pillow cannot write such files: this PNG of two pixels is written by hand."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    values = struct.pack(">6H", 0, 0x8000, 0xFFFF, 0x1234, 0x00FF, 0xFF00)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(b"\0" + values)) + chunk(b"IEND", b"")
    want = np.array([0, 128, 255, 18, 0, 255])
    assert np.abs(read_picture(written(png)).reshape(-1).astype(int) - want).max() <= 1


def test_cmyk_palette_alpha_and_animation(written):
    picture = Image.fromarray(NOISE)
    cmyk = picture.convert("CMYK")
    assert np.array_equal(read_picture(written(cmyk, "x.tiff")), np.asarray(cmyk.convert("RGB")))
    jpeg = encoded(cmyk, "JPEG")
    assert np.array_equal(read_picture(written(jpeg)), np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")))
    palette = picture.quantize(16)
    assert np.array_equal(read_picture(written(palette)), np.asarray(palette.convert("RGB")))
    # Transparency over black: 200 at alpha 51 of 255 is 40.
    for mode, value in (("RGBA", (200, 100, 50, 51)), ("LA", (200, 51))):
        pixel = read_picture(written(Image.new(mode, (4, 4), value)))[0, 0]
        assert pixel.tolist() == ([40, 20, 10] if mode == "RGBA" else [40, 40, 40])
    clear = Image.new("P", (4, 4), 1)
    clear.putpalette([9, 9, 9, 200, 0, 0])
    assert read_picture(written(clear, transparency=1)).max() == 0
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("x.gif", "y.webp", "z.png"):
        options = {"lossless": True} if name == "y.webp" else {}
        file = written(frames[0], name, save_all=True, append_images=frames[1:], **options)
        assert read_picture(file)[0, 0].tolist() == [255, 0, 0]


jpegs = st.fixed_dictionaries(
    {
        "height": st.integers(1, 70),
        "width": st.integers(1, 50),
        "quality": st.integers(10, 95),
        "subsampling": st.sampled_from([0, 1, 2]),
        "progressive": st.booleans(),
        "grey": st.booleans(),
        "blur": st.floats(0.5, 3),
        "seed": st.integers(0, 2**31),
    }
)


@settings(max_examples=60, deadline=None)
@given(jpeg=jpegs)
def test_jpegs_are_pillows_bit_for_bit(jpeg, tmp_path_factory):
    """The pixels must not depend on the decoder."""
    noise = np.random.default_rng(jpeg["seed"]).integers(0, 256, (jpeg["height"] + 80, jpeg["width"] + 80, 3), np.uint8)
    picture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(jpeg["blur"]))
    picture = picture.crop((40, 40, 40 + jpeg["width"], 40 + jpeg["height"]))
    options = {"quality": jpeg["quality"], "progressive": jpeg["progressive"]}
    if jpeg["grey"]:
        picture = picture.convert("L")
    else:
        options["subsampling"] = jpeg["subsampling"]
    file = tmp_path_factory.mktemp("jpeg") / "x.jpg"
    picture.save(file, **options)
    assert np.array_equal(read_picture(file), np.asarray(Image.open(file).convert("RGB")))


def test_the_fast_decoder_is_used_where_it_agrees():
    pytest.importorskip("simplejpeg")
    picture = Image.fromarray(NOISE)
    fast = pictures._fast_jpeg(encoded(picture, "JPEG"))
    assert fast is not None and fast.shape == (40, 20, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    for slow in (
        encoded(picture, "JPEG", exif=exif),
        encoded(picture.convert("CMYK"), "JPEG"),
        encoded(picture, "JPEG")[:-200],
        encoded(picture, "PNG"),
    ):
        assert pictures._fast_jpeg(slow) is None


def test_a_decoder_that_disagrees_is_left_alone(monkeypatch):
    simplejpeg = pytest.importorskip("simplejpeg")
    exact = simplejpeg.decode_jpeg

    def rough(*args, **options):
        return exact(*args, **{**options, "fastdct": True, "fastupsample": True})

    monkeypatch.setattr(simplejpeg, "decode_jpeg", rough)
    pictures._trusted_decoder.cache_clear()
    try:
        assert pictures._trusted_decoder() is None
    finally:
        pictures._trusted_decoder.cache_clear()


def refusal(file, **options):
    with pytest.raises(BadInput) as refused:
        read_picture(file, **options)
    message = str(refused.value)
    assert str(file) in message and "\n" not in message
    return message


def test_files_that_are_no_pictures(written, tmp_path):
    assert "does not exist" in refusal(tmp_path / "gone.jpg")
    assert "is a folder" in refusal(tmp_path)
    assert "is empty" in refusal(written(b""))
    assert "not a picture in a known format" in refusal(written(b"<html></html>" * 20, "x.jpg"))
    assert "not a picture in a known format" in refusal(written(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"))
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "is not a file" in refusal(tmp_path / "pipe.jpg")
    assert "floating-point" in refusal(written(Image.fromarray(np.ones((3, 3), np.float32)), "x.tiff"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_pictures_cut_short(written, kind, part):
    whole = encoded(Image.fromarray(NOISE).resize((200, 200)), kind)
    refusal(written(whole[: int(len(whole) * part)]))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_declared_size_is_refused_before_decoding(written):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def png(width, height):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")

    assert "declares 8001×8000 pixels; at most 64 megapixels" in refusal(written(png(8001, 8000)))
    assert "cut short" in refusal(written(png(8000, 8000)))
    assert "declares more than 64 megapixels" in refusal(written(png(60000, 60000)))
    jpeg = bytearray(encoded(Image.fromarray(NOISE), "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 60000, 2000)
    assert "megapixels" in refusal(written(bytes(jpeg)))


def test_unknown_resampling(written):
    with pytest.raises(BadInput, match="unknown resample 'lanzcos'; did you mean 'lanczos'"):
        read_picture(written(Image.fromarray(NOISE)), resample="lanzcos")
