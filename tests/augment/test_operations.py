"""Augmentations: `change` with known numbers against a loop over pixels, and `draw` against its distribution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import augment as oracle
from vireid.augment.colour import GREY, UNCHANGED, ChannelExchange, Grey
from vireid.augment.erasing import CAJ, ChannelErasing, RandomErasing, draw_boxes
from vireid.augment.geometry import Flip, MultiScaleCrop, PadCrop
from vireid.augment.normalise import MEAN, STD, normalise
from vireid.augment.operation import changed
from vireid.data.errors import BadInput

OPERATIONS = [
    Flip(),
    PadCrop(3),
    PadCrop(2, fill=7),
    MultiScaleCrop(),
    ChannelExchange(),
    ChannelExchange("rgb_unchanged_grey"),
    Grey(),
    RandomErasing(),
    RandomErasing(fill="noise"),
    ChannelErasing(),
    ChannelErasing(fill="random_per_channel"),
    ChannelErasing(fill="zero"),
]
SIZE = (12, 6)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _bytes(count: int = 4) -> torch.Tensor:
    return torch.randint(256, (count, 3, *SIZE), dtype=torch.uint8, generator=_generator(5))


def _floats(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, *SIZE, generator=_generator(6))


@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
def test_the_result_depends_on_images_and_generator_only(operation):
    images = _floats(16)
    before = images.clone()
    found = operation(images, generator=_generator())
    assert found.shape == images.shape and found.dtype == images.dtype
    assert torch.equal(images, before)
    assert found.data_ptr() != images.data_ptr()
    assert torch.equal(found, operation(images, generator=_generator()))
    assert not torch.equal(found, operation(images, generator=_generator(1)))
    assert not torch.equal(found, images)


@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
def test_each_sample_has_its_own_draw(operation):
    drawn = operation.draw(64, size=(32, 16), generator=_generator())
    assert len(drawn) == 64
    # The entries differ, so the samples do not share one draw.
    assert len({str(entry) for entry in drawn}) > 1
    assert list(operation.draw(0, size=(32, 16), generator=_generator())) == []


@pytest.mark.parametrize("images", [_bytes(2), _floats(2)], ids=["uint8", "float"])
def test_flip(images):
    assert torch.equal(changed(Flip(), images, [True, False]), torch.stack([images[0].flip(2), images[1]]))
    assert torch.equal(Flip(0.0)(images, generator=_generator()), images)
    assert torch.equal(Flip(1.0)(images, generator=_generator()), images.flip(3))


@given(top=st.integers(0, 8), left=st.integers(0, 8), fill=st.integers(0, 255))
@settings(max_examples=30, deadline=None)
def test_pad_crop(top, left, fill):
    image = _bytes(1)
    expected = oracle.pad_crop(image[0], top, left, 4, fill)
    assert torch.equal(changed(PadCrop(4, fill=fill), image, [(top, left)])[0], expected)


def test_pad_crop_with_padding_larger_than_the_picture():
    image = _bytes(1)
    for corner in ((0, 0), (0, 20), (20, 20), (10, 10)):
        assert torch.equal(
            changed(PadCrop(10), image[..., :8, :6], [corner])[0], oracle.pad_crop(image[0, :, :8], *corner, 10, 0)
        )


def test_pad_crop_reaches_every_shift():
    drawn = torch.tensor(PadCrop(2).draw(2000, size=SIZE, generator=_generator()))
    assert set(drawn[:, 0].tolist()) == set(drawn[:, 1].tolist()) == set(range(5))


@pytest.mark.parametrize("box", [(0, 0, *SIZE), (1, 2, 9, 3), (11, 5, 1, 1)])
def test_multi_scale_crop(box):
    image = _floats(1)
    expected = oracle.crop_resize(image[0], *box)
    torch.testing.assert_close(changed(MultiScaleCrop(), image, [box])[0].double(), expected, rtol=0, atol=1e-5)
    image = _bytes(1)
    expected = oracle.crop_resize(image[0], *box)
    # For uint8 the interpolation is in fixed point, and the result is rounded.
    torch.testing.assert_close(changed(MultiScaleCrop(), image, [box])[0].double(), expected, rtol=0, atol=1.01)


@pytest.mark.parametrize("size", [(384, 144), (288, 144), (64, 32)])
def test_multi_scale_crop_draws_within_its_ranges(size):
    boxes = torch.tensor(MultiScaleCrop().draw(2000, size=size, generator=_generator()))
    top, left, height, width = boxes.unbind(1)
    assert (boxes >= 0).all() and (top + height <= size[0]).all() and (left + width <= size[1]).all()
    wvalues = (height == size[0]) & (width == size[1])
    assert wvalues.float().mean() < 0.05
    area, aspect = height * width / (size[0] * size[1]), width / height
    slack = 1.5 / min(size)
    assert (area[~wvalues] > 0.7 - 2 * slack).all() and (aspect[~wvalues] > 0.30 - slack).all()
    assert (aspect[~wvalues] < 0.45 + slack).all()
    assert (top.max() > 0) and (left.max() > 0)


def test_multi_scale_crop_that_cannot_fit_is_the_wvalues_picture():
    assert MultiScaleCrop(aspect=(50.0, 60.0)).draw(2, size=SIZE, generator=_generator()) == [[0, 0, *SIZE]] * 2


@pytest.mark.parametrize("case", [0, 1, 2, UNCHANGED, GREY])
def test_exchange(case):
    image = _floats(1)
    found = changed(ChannelExchange(), image, [case])[0]
    torch.testing.assert_close(found, oracle.exchange(image[0], case))
    image = _bytes(1)
    expected = oracle.exchange(image[0].float(), case).round().to(torch.uint8)
    assert torch.equal(changed(ChannelExchange(), image, [case])[0], expected)


def test_after_normalisation_grey_pictures_change():
    # Red, green and blue are normalised with different constants, so the three channels are no longer equal.
    infrared = normalise(_bytes(32)[:, :1].expand(-1, 3, -1, -1))
    for operation in (ChannelExchange(), Grey(1.0)):
        assert (operation(infrared, generator=_generator()) - infrared).abs().max() > 0.05


def test_grey_by_hand():
    # Luminance of (1, 2, 3): 0.2989 + 1.1740 + 0.3420 = 1.8149.
    image = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(Grey(1.0)(image, generator=_generator()), torch.full((1, 3, 1, 1), 1.8149))


@pytest.mark.parametrize(
    ("operation", "shares"),
    [
        (ChannelExchange(), {0: 1 / 4, 1: 1 / 4, 2: 1 / 4, UNCHANGED: 1 / 4}),
        (ChannelExchange("rgb_unchanged_grey"), {0: 1 / 4, 1: 1 / 4, 2: 1 / 4, UNCHANGED: 1 / 8, GREY: 1 / 8}),
        (ChannelExchange("rgb"), {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}),
        (ChannelExchange("rgb_grey"), {0: 1 / 4, 1: 1 / 4, 2: 1 / 4, GREY: 1 / 4}),
        (Grey(0.3), {True: 0.3, False: 0.7}),
        (Flip(0.2), {True: 0.2, False: 0.8}),
    ],
    ids=repr,
)
def test_outcomes_have_their_probabilities(operation, shares):
    drawn = operation.draw(8000, size=SIZE, generator=_generator())
    assert set(drawn) == set(shares)
    chi_square = sum((drawn.count(case) - 8000 * share) ** 2 / (8000 * share) for case, share in shares.items())
    # The 99.9 % quantile for four degrees of freedom. No case here has more.
    assert chi_square < 18.47


@pytest.mark.parametrize("operation", [ChannelExchange(), ChannelExchange("rgb_unchanged_grey"), Grey(1.0)], ids=repr)
def test_grey_pictures_do_not_change_before_normalisation(operation):
    grey = _floats(32)[:, :1].expand(-1, 3, -1, -1)
    # The sum of the luminance weights is 0.9999.
    torch.testing.assert_close(operation(grey, generator=_generator()), grey.contiguous(), rtol=1.01e-4, atol=1e-6)
    grey = _bytes(32)[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(operation(grey, generator=_generator()), grey)


@pytest.mark.parametrize("size", [(288, 144), (32, 16), (16, 16), (3, 2)])
def test_erased_rectangles(size):
    boxes = draw_boxes(4000, size=size, p=0.5, area=(0.02, 0.4), aspect=(0.3, 1 / 0.3), generator=_generator())
    top, left, height, width = boxes.unbind(1)
    assert (boxes >= 0).all() and (top + height <= size[0]).all() and (left + width <= size[1]).all()
    assert (height < size[0]).all() and (width < size[1]).all()
    erased = height > 0
    assert torch.equal(erased, width > 0)
    assert erased.float().mean().item() == pytest.approx(0.5, abs=0.03)
    if min(size) > 100:
        share = (height * width)[erased] / (size[0] * size[1])
        assert 0.019 < share.min() < 0.03 and 0.35 < share.max() < 0.41
        ratio = height[erased] / width[erased]
        assert 0.28 < ratio.min() < 0.4 and 3.0 < ratio.max() < 3.5
        # Rectangles reach all four sides of the picture.
        assert top[erased].min() == left[erased].min() == 0
        assert (top + height).max() == size[0] and (left + width).max() == size[1]


def test_erasing_that_cannot_fit_does_nothing():
    images = _floats()
    assert torch.equal(RandomErasing(p=1.0, aspect=(1e3, 2e3))(images, generator=_generator()), images)
    # The settings refuse an area above 1. `draw_boxes` takes one, and it never fits.
    boxes = draw_boxes(4, size=SIZE, p=1.0, area=(2.0, 3.0), aspect=(0.3, 1 / 0.3), generator=_generator())
    assert not boxes[:, 2:].any()


def test_erase_with_known_draws():
    images = _floats(2)
    drawn = [((1, 2, 4, 3), torch.tensor([1.0, 2.0, 3.0])[:, None, None]), ((0, 0, 0, 0), torch.ones(3, 1, 1))]
    for operation in (RandomErasing(), ChannelErasing()):
        found = changed(operation, images, drawn)
        assert torch.equal(found[0], oracle.erase(images[0], 1, 2, 4, 3, [1.0, 2.0, 3.0]))
        assert torch.equal(found[1], images[1])


def _erased(operation, count=500):
    """The values inside the rectangles, 3×pixels for each picture that has one."""
    marked = torch.full((count, 3, 32, 16), float("inf"))
    found = operation(marked, generator=_generator())
    return [image[:, image[0].isfinite()] for image in found if image.isfinite().any()]


def test_values_inside_the_rectangles():
    inside = _erased(ChannelErasing())
    assert all(torch.equal(values, torch.tensor(CAJ)[:, None].expand_as(values)) for values in inside)
    for operation in (ChannelErasing(fill="zero"), RandomErasing()):
        assert not any(values.any() for values in _erased(operation))
    noise = torch.cat(_erased(RandomErasing(fill="noise")), 1)
    assert noise.mean().item() == pytest.approx(0, abs=0.02) and noise.std().item() == pytest.approx(1, abs=0.02)
    inside = _erased(ChannelErasing(fill="random_per_channel"))
    assert all(torch.equal(values, values[:, :1].expand_as(values)) for values in inside)
    colours = torch.stack([values[:, 0] for values in inside]) * torch.tensor(STD) + torch.tensor(MEAN)
    assert colours.min() > -1e-6 and colours.max() < 1 + 1e-6
    torch.testing.assert_close(colours.mean(0), torch.full((3,), 0.5), rtol=0, atol=0.06)
    assert colours.var(0).mean().item() == pytest.approx(1 / 12, rel=0.15)


def test_unknown_fill_names_the_choices():
    with pytest.raises(BadInput, match="'black'; it takes one of mean, noise"):
        RandomErasing(fill="black")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="'caj'; it takes one of caj_const, random_per_channel, zero"):
        ChannelErasing(fill="caj")  # type: ignore[arg-type]


def test_normalise():
    images = _bytes(2)
    found = normalise(images)
    assert found.dtype == torch.float32
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        expected = [oracle.normalise(value, mean, std) for value in images[:, channel].flatten().tolist()]
        torch.testing.assert_close(found[:, channel].flatten(), torch.tensor(expected), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(normalise(images.float() / 255), found, rtol=1e-5, atol=1e-6)
    # By hand: white in red is (1 - 0.485) / 0.229 = 2.2489.
    assert normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))[0, 0].item() == pytest.approx(2.2489, abs=1e-4)
