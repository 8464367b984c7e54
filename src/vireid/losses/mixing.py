"""The mixing loss: it pulls auxiliary samples and the two samples that each of them was made from together.

Jing and Li, "Partial Enhancement and Channel Aggregation for Visible-Infrared Person Re-Identification" (PECA, 2024),
section 3.2. `vireid.augment.aggregation` makes the samples.
"""

from __future__ import annotations

from typing import Literal

import torch

from vireid.data.settings import NonNegative, settings
from vireid.losses.distance import paired

Mixing = Literal["hinge", "abs", "hinge_sq"]


@settings
class ICAL:
    """Inter-modality channel aggregation learning of PECA, as a part of another recipe.

    Each visible sample makes one auxiliary sample, from the pictures that the network sees. Real and auxiliary samples
    go through the network together, so they share the statistics of batch normalisations. L_mix, equation 3 of PECA,
    is on the feature that the recipe compares, after the neck, of length one.
    """

    margin: NonNegative = 0.7
    """ours: the margin m of L_mix, as PECA's paper prints it."""

    mix: Mixing = "hinge"
    """ours: `hinge` is max(D - m, 0), `abs` is |D - m| as PECA's paper prints it, `hinge_sq` is max(D - m, 0)²."""

    in_ce: bool = False
    """ours: whether auxiliary samples are classified; then they take part in all terms that need their logits."""

    in_ins: bool = False
    """ours: whether auxiliary samples take part in the recipe's triplet and contrastive losses."""

    def counts(self, real: int) -> tuple[int | None, int | None]:
        """How many of the first samples are classified, and how many metric losses compare; None means all.

        Args:
            real: number of real samples, which stand before the auxiliary ones.
        """
        return None if self.in_ce else real, None if self.in_ins else real

    def loss(self, auxiliary: torch.Tensor, visible: torch.Tensor, infrared: torch.Tensor) -> torch.Tensor:
        """L_mix with these settings, see `mixing`."""
        return mixing(auxiliary, visible, infrared, margin=self.margin, form=self.mix)


def mixing(
    auxiliary: torch.Tensor, visible: torch.Tensor, infrared: torch.Tensor, *, margin: float, form: Mixing
) -> torch.Tensor:
    """L_mix, equation 3: auxiliary samples against their visible samples, and against their infrared samples.

    Args:
        auxiliary, visible, infrared: G×D features of length one. Sample g of the first was made from samples g of the
            two others.
        margin, form: see `mixing_loss`.

    Returns:
        A scalar, the sum of two means over pairs; 0 if there are no samples.
    """
    pulls = [mixing_loss(paired(parent, auxiliary), margin=margin, form=form) for parent in (visible, infrared)]
    return torch.stack(pulls).sum()


def mixing_loss(distance: torch.Tensor, *, margin: float = ICAL.margin, form: Mixing = ICAL.mix) -> torch.Tensor:
    """One summand of L_mix, equation 3, as a mean over pairs; 0 without pairs.

    Args:
        distance: D, Euclidean distances between features of length one, any shape.
        margin: m.
        form: `hinge` is max(D - m, 0), `abs` is |D - m| as printed, `hinge_sq` is max(D - m, 0)².

    Raises:
        BadInput: no such form, or a margin below 0.
    """
    ICAL(margin=margin, mix=form)  # checks them
    excess = distance - margin
    forms = {"hinge": excess.relu(), "abs": excess.abs(), "hinge_sq": excess.relu().square()}
    return forms[form].sum() / max(distance.numel(), 1)
