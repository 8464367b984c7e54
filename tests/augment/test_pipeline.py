"""The order of a pipeline, and that it is a function of its arguments."""

from __future__ import annotations

import pytest
import torch

from vireid.augment.colour import ChannelExchange, Grey
from vireid.augment.erasing import ChannelErasing, RandomErasing
from vireid.augment.geometry import Flip, MultiScaleCrop, PadCrop
from vireid.augment.normalise import normalise
from vireid.augment.pipeline import Pipeline

CAJ = Pipeline(
    geometry=(PadCrop(4), Flip()),
    visible=(ChannelExchange(), ChannelErasing()),
    infrared=(ChannelErasing(),),
)
WRIM = Pipeline(
    geometry=(MultiScaleCrop(), Flip()),
    visible_before=(Grey(),),
    visible=(RandomErasing(fill="noise"),),
    infrared=(Grey(), RandomErasing()),
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(rows: int = 8, height: int = 32, width: int = 16) -> torch.Tensor:
    return torch.randint(256, (rows, 3, height, width), dtype=torch.uint8, generator=_generator(7))


@pytest.mark.parametrize("pipeline", [Pipeline(), CAJ, WRIM], ids=["nothing", "caj", "wrim"])
def test_a_function_of_its_arguments(pipeline):
    images, modality = _images(), torch.tensor([0, 1, 1, 0, 0, 2, 1, 0])
    before = images.clone()
    found = pipeline(images, modality, _generator())
    assert found.shape == images.shape and found.dtype == torch.float32
    assert torch.equal(found, pipeline(images, modality, _generator()))
    assert torch.equal(images, before)
    if pipeline != Pipeline():
        assert not torch.equal(found, pipeline(images, modality, _generator(1)))


def test_nothing_but_normalise():
    images = _images()
    assert torch.equal(Pipeline()(images, torch.zeros(8, dtype=torch.int64), _generator()), normalise(images))
