"""Auxiliary samples: pictures that mix the channels of a visible and an infrared sample of one identity.

Jing and Li, "Partial Enhancement and Channel Aggregation for Visible-Infrared Person Re-Identification" (PECA, 2024),
section 3.2. They are made from the samples of a batch, so a recipe makes them in its objective.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from vireid.data.batch import Batch
from vireid.data.host import on_host, to_device
from vireid.data.modality import Modality
from vireid.data.shapes import check_shape

# PECA's equation 2: which channels come from the visible sample, in the order RG, RB, GB, R, G, B.
KEPT = ((1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1))


def aggregate_channels(
    images: Tensor, identity: Tensor, modality: Tensor, *, generator: Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """ICAL, equation 2: each visible sample with one or two channels of an infrared sample of the same identity.

    The infrared sample and one of six patterns are drawn uniformly from `generator`, by default torch's global one.
    Channel c always comes from channel c, so values that were normalised channel by channel stay right.

    Returns:
        G×3×H×W pictures of the type of `images` (B×3×H×W), and for each the position of its visible sample (G int64,
        ascending) and of its infrared sample (G int64). A visible sample without an infrared one makes no picture.

    Raises:
        BadInput: the images are not B×3×H×W.
    """
    check_shape(images, "images", "B×3×H×W")
    identity, modality = on_host(identity), on_host(modality)  # which samples are mixed is found on the host
    visible = (modality == Modality.VISIBLE).nonzero()[:, 0]
    infrared = (modality == Modality.INFRARED).nonzero()[:, 0]
    alike = identity[visible][:, None] == identity[infrared][None, :]
    visible, alike = visible[alike.any(1)], alike[alike.any(1)]
    if not len(visible):
        nothing = to_device(visible, images.device)
        return images[:0], nothing, nothing
    device = generator.device if generator is not None else torch.device("cpu")
    pattern = torch.randint(len(KEPT), (len(visible),), generator=generator, device=device).cpu()
    drawn = torch.rand(len(visible), generator=generator, device=device, dtype=torch.float64).cpu()
    nth = (drawn * alike.sum(1)).long() + 1
    infrared = infrared[(alike.cumsum(1) == nth[:, None]).int().argmax(1)]
    kept = to_device(torch.tensor(KEPT, dtype=torch.bool)[pattern][:, :, None, None], images.device)
    visible, infrared = (to_device(places, images.device) for places in (visible, infrared))
    return torch.where(kept, images[visible], images[infrared]), visible, infrared


def with_auxiliary_samples(
    batch: Batch, *, modality: Modality = Modality.AUXILIARY, generator: Generator | None = None
) -> tuple[Batch, Tensor, Tensor]:
    """A batch with auxiliary samples behind its own, for any recipe, and the two positions of `aggregate_channels`.

    An auxiliary sample has the identity and camera of its visible sample, and the given modality: `VISIBLE` is for a
    network without an auxiliary stem. Draws come from `generator`, by default the batch's own. If a network sees the
    result in one pass, its batch normalisations use the statistics of real and auxiliary samples together.
    """
    generator = generator or batch.generator()
    made, visible, infrared = aggregate_channels(batch.images, batch.identity, batch.modality, generator=generator)
    chosen = on_host(visible)
    named = on_host(batch.identity), on_host(batch.modality)
    identity = torch.cat((named[0], named[0][chosen]))
    kinds = torch.cat((named[1], torch.full_like(chosen, int(modality))))
    grown = replace(
        batch,
        images=torch.cat((batch.images, made)),
        identity=to_device(identity, batch.identity.device),
        modality=to_device(kinds, batch.modality.device),
        camera=torch.cat((batch.camera, batch.camera[visible])),
    )
    return grown, visible, infrared
