"""The order of operations in a pipeline. The result depends on the arguments only."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from vireid.augment.colour import ChannelExchange, Grey
from vireid.augment.erasing import ChannelErasing, RandomErasing
from vireid.augment.geometry import Flip, MultiScaleCrop, PadCrop
from vireid.augment.normalise import normalise
from vireid.augment.pipeline import Pipeline

CAJ = Pipeline(
    geometry=(PadCrop(4), Flip()),
    visible=(ChannelErasing(), ChannelExchange()),
    infrared=(ChannelErasing(),),
)
WRIM = Pipeline(
    geometry=(MultiScaleCrop(), Flip()),
    visible_before=(Grey(),),
    visible=(RandomErasing(fill="noise"),),
    infrared=(Grey(), RandomErasing()),
)
MODALITY = torch.tensor([0, 1, 1, 0, 0, 2, 1, 0])


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(count: int = 8, height: int = 32, width: int = 16) -> torch.Tensor:
    return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=_generator(7))


def _shuffled(images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """A plain function: a random order of the channels for each sample."""
    return torch.stack([image[torch.randperm(3, generator=generator)] for image in images])


@pytest.mark.parametrize(
    "pipeline",
    [Pipeline(), CAJ, WRIM, Pipeline(visible_before=(_shuffled,), infrared=(_shuffled,))],
    ids=["nothing", "caj", "wrim", "plain functions"],
)
def test_the_result_depends_on_the_arguments_only(pipeline):
    images = _images()
    before = images.clone()
    found = pipeline(images, MODALITY, _generator())
    assert found.shape == images.shape and found.dtype == torch.float32
    assert torch.equal(found, pipeline(images, MODALITY, _generator()))
    assert torch.equal(images, before)
    if pipeline != Pipeline():
        assert not torch.equal(found, pipeline(images, MODALITY, _generator(1)))


def test_the_default_only_normalises():
    images = _images()
    assert torch.equal(Pipeline()(images, MODALITY, _generator()), normalise(images))


def test_the_order_given_is_the_order_applied():
    # The same operations, one after another on the whole batch, with the same generator.
    images, generator = _images(), _generator()
    visible, infrared = MODALITY == 0, MODALITY == 1
    expected = normalise(Flip()(PadCrop(4)(images, generator=generator), generator=generator))
    expected[visible] = ChannelErasing()(expected[visible], generator=generator)
    expected[visible] = ChannelExchange()(expected[visible], generator=generator)
    expected[infrared] = ChannelErasing()(expected[infrared], generator=generator)
    assert torch.equal(CAJ(images, MODALITY, _generator()), expected)


def test_visible_before_comes_before_the_normalisation():
    images = _images()
    visible = MODALITY == 0
    expected = images.float() / 255
    expected[visible] = Grey(1.0)(expected[visible], generator=_generator())
    found = Pipeline(visible_before=(Grey(1.0),))(images, MODALITY, _generator())
    torch.testing.assert_close(found, normalise(expected), rtol=1e-5, atol=1e-6)
    # Grey comes before normalisation. Afterwards the channels differ, because their mean and deviation differ.
    assert not torch.equal(found[visible][:, 0], found[visible][:, 1])


@dataclass(frozen=True)
class Stamp:
    """Writes `value` plus the place in its draw into the first line of each picture."""

    value: float

    def draw(self, count, *, size, generator):
        return list(range(count))

    def change(self, image, drawn):
        image[:, 0, 0] = self.value + drawn


def test_each_modality_gets_its_own_operations_in_order_of_its_samples():
    found = Pipeline(visible=(Stamp(100), Stamp(200)), infrared=(Stamp(300),))(_images(), MODALITY, _generator())
    plain = normalise(_images())
    assert found[:, 0, 0, 0].tolist() == [200, 300, 301, 201, 202, plain[5, 0, 0, 0].item(), 302, 203]
    assert torch.equal(found[:, :, 1:], plain[:, :, 1:])


def test_samples_of_the_other_modality_between_do_not_change_the_draws():
    # Without geometry, the draws of visible samples do not depend on where infrared samples are in the batch.
    images = _images()
    only = Pipeline(visible=CAJ.visible)
    order = torch.tensor([0, 3, 4, 7, 1, 2, 5, 6])
    blocks = only(images[order], MODALITY[order], _generator())
    assert torch.equal(blocks, only(images, MODALITY, _generator())[order])


@pytest.mark.parametrize("modality", [[], [0], [1, 1]], ids=str)
def test_batches_without_one_of_the_modalities(modality):
    found = CAJ(_images(len(modality)), torch.tensor(modality, dtype=torch.int64), _generator())
    assert len(found) == len(modality) and found.isfinite().all()


def test_refusals():
    with pytest.raises(ValueError, match=r"uint8, not .* torch.float32"):
        CAJ(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), _generator())
    with pytest.raises(ValueError, match="as many modalities"):
        CAJ(_images(3), torch.zeros(2, dtype=torch.int64), _generator())
