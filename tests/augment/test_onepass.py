"""The pass that makes several changes together, and the compiled loops, against one torch expression after another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid.augment import pipeline as module
from vireid.augment.colour import GREY, ChannelExchange, Grey
from vireid.augment.erasing import ChannelErasing, RandomErasing
from vireid.augment.geometry import Flip, MultiScaleCrop, PadCrop
from vireid.augment.normalise import normalise
from vireid.augment.onepass import OnePass, collects
from vireid.augment.pipeline import Pipeline


class Darker:
    """An operation with `draw` and `change` only, as a newcomer writes it."""

    def draw(self, count, *, size, generator):
        return torch.rand(count, generator=generator).tolist()

    def change(self, image, drawn):
        image.copy_(image * drawn)


GEOMETRY = [Flip(), PadCrop(3), PadCrop(2, fill=77), MultiScaleCrop(area=(0.3, 1), aspect=(0.3, 2.0)), Darker()]
BEFORE = [Grey(), ChannelExchange("rgb_grey"), ChannelExchange(), Darker()]
AFTER = [*BEFORE, ChannelErasing(p=0.9, fill="random_per_channel"), RandomErasing(p=0.9), RandomErasing(fill="noise")]


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def _plain(pipeline, images, modality, generator):
    """The same pipeline in torch only: no compiled loops, and no pass collects anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vireid.augment.geometry.loops_for", lambda image: None)
        patch.setattr(module, "_in_one_pass", lambda image, source, before, after: None)
        return pipeline(images, modality, generator)


def _some(operations):
    return st.lists(st.sampled_from(operations), max_size=4).map(tuple)


@settings(max_examples=80, deadline=None)
@given(
    pipeline=st.builds(Pipeline, _some(GEOMETRY), _some(AFTER), _some(AFTER), _some(BEFORE)),
    size=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    modality=st.lists(st.integers(0, 2), max_size=6),
    seed=st.integers(0, 2**31),
)
def test_the_bits_of_one_step_after_another(pipeline, size, modality, seed):
    images = torch.randint(256, (len(modality), 3, *size), dtype=torch.uint8, generator=_generator(seed))
    kinds = torch.tensor(modality, dtype=torch.int64)
    before = images.clone()
    generators = _generator(seed), _generator(seed)
    found = pipeline(images, kinds, generators[0])
    assert torch.equal(found, _plain(pipeline, images, kinds, generators[1]))
    assert torch.equal(images, before)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


@pytest.mark.parametrize("before", [(), (Grey(0.0),), (Grey(1.0),)], ids=["bytes", "through 0..1", "grey"])
def test_every_value_of_a_byte(before):
    # All triples of some bytes, and every byte in each channel.
    images = torch.randint(256, (1, 3, 256, 64), dtype=torch.uint8, generator=_generator(0))
    images[0, :, :, 0] = torch.arange(256)
    pipeline, visible = Pipeline(visible_before=before), torch.zeros(1, dtype=torch.int64)
    found = pipeline(images, visible, _generator(0))
    assert torch.equal(found, _plain(pipeline, images, visible, _generator(0)))


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    target=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    seed=st.integers(0, 2**31),
)
def test_a_cut_is_resized_to_the_bits_of_torch(size, target, seed):
    image = torch.randint(256, (3, *target), dtype=torch.uint8, generator=_generator(seed))
    cut = (0, 0, min(size[0], target[0]), min(size[1], target[1]))
    found, view = image.clone(), torch.empty(3, target[0], target[1] + 1, dtype=torch.uint8)[..., :-1].copy_(image)
    MultiScaleCrop().change(found, cut)
    MultiScaleCrop().change(view, cut)
    assert torch.equal(found, view)


def test_a_view_and_other_types_are_changed_too():
    image = torch.randint(256, (3, 9, 7), dtype=torch.uint8, generator=_generator(0))
    for operation, drawn in ((Flip(), True), (PadCrop(3, fill=5), (6, 1)), (MultiScaleCrop(), (1, 2, 6, 4))):
        expected = image.clone()
        operation.change(expected, drawn)
        wide = torch.zeros(3, 9, 14, dtype=torch.uint8)
        view = wide[..., ::2].copy_(image)
        operation.change(view, drawn)
        assert torch.equal(view, expected) and not wide[..., 1::2].any()
        if not isinstance(operation, MultiScaleCrop):
            number = image.float()
            operation.change(number, drawn)
            assert torch.equal(number, expected.float())


def test_what_the_operations_of_papers_leave_for_after_the_pass():
    # Nothing is left of AGW's, CAJ's and WRIM-Net's operations. Only noise and luminance after normalisation are.
    image, source = torch.empty(3, 8, 4), torch.zeros(3, 8, 4, dtype=torch.uint8)
    box, colour = (1, 1, 3, 2), torch.ones(3, 1, 1)

    def left(before, after):
        return module._in_one_pass(image, source, before, after)

    erased, exchanged = (ChannelErasing(), (box, colour)), (ChannelExchange(), 1)
    noise, grey = (RandomErasing(fill="noise"), (box, torch.ones(3, 3, 2))), (ChannelExchange("rgb_grey"), GREY)
    assert left([], [erased, exchanged, (RandomErasing(), (box, colour))]) == []
    assert left([(Grey(), True)], [erased]) == left([(Grey(), False), (ChannelExchange(), 2)], []) == []
    assert left([], [erased, noise, exchanged]) == [noise, exchanged]
    assert left([], [exchanged, grey]) == [grey]
    assert left([(Darker(), 0.5)], [erased]) is None
    assert left([(ChannelExchange(), 1), (Grey(), True)], []) is None


def test_by_hand():
    onepass = OnePass(before=False)
    assert not onepass.fill((0, 0, 1, 1), (1.0, 2.0, 3.0))  # a colour is a normalised value
    onepass.normalised = True
    assert onepass.fill((0, 1, 1, 1), (1.0, 2.0, 3.0)) and onepass.copy_channel(2)
    assert onepass.fill((1, 0, 1, 1), (4.0, 5.0, 6.0)) and not onepass.luminance()
    source = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)
    image = torch.empty(3, 2, 2)
    onepass.write(image.numpy(), source.numpy())
    blue = normalise(source[None])[0, 2]
    # The first rectangle was there when blue was copied, the second was not.
    lines = [[blue[0, 0], torch.tensor(3.0), torch.tensor(value), blue[1, 1]] for value in (4.0, 5.0, 6.0)]
    expected = torch.stack([torch.stack(line) for line in lines])
    assert torch.equal(image, expected.reshape(3, 2, 2))


def test_a_class_that_replaces_only_change_is_not_asked():
    class Bright(RandomErasing):
        def change(self, image, drawn):
            image.fill_(9.0)

    class Again(Bright):
        pass

    onepass, entry = OnePass(before=False), ((0, 0, 0, 0), torch.zeros(3, 1, 1))
    assert collects(RandomErasing(), onepass, entry)
    assert not collects(Bright(), onepass, entry) and not collects(Again(), onepass, entry)
    assert not collects(Darker(), onepass, 0.5)
    images, modality = torch.zeros(2, 3, 8, 4, dtype=torch.uint8), torch.tensor([0, 1])
    found = Pipeline(visible=(Bright(),), infrared=(Grey(0.0),))(images, modality, _generator(0))
    assert (found[0] == 9).all() and torch.equal(found[1], normalise(images[:1])[0])
