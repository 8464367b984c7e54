"""Attention that a recipe puts between or into residual blocks."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from vireid.data.errors import unknown
from vireid.networks.resnet import last_blocks, trunk_named

FORMS = ("dot", "gaussian")


class NonLocal(nn.Module):
    """Every position sees every other one: `z = x + BN(W y)`.

    Wang et al., "Non-local Neural Networks" (CVPR 2018), equations 1 and 6, with θ, φ and g 1×1 convolutions:

    * `dot`, the form of AGW (Ye et al., PAMI 2021): `y = θ φᵀ g / positions`, equation 4;
    * `gaussian`, the embedded Gaussian: `y = softmax(θ φᵀ) g`, equations 2 and 3.

    The normalisation after W starts at zero, so the block starts as the identity and pretrained weights around it
    keep their meaning.

    Args:
        channels: of the map.
        inner: channels of θ, φ and g. `channels // 2` is the width the papers state; 1 is what AGW's published code
            computes (it divides the ratio by itself).
        form: `dot` or `gaussian`.

    Raises:
        BadInput: there is no such form.
    """

    def __init__(self, channels: int, *, inner: int, form: Literal["dot", "gaussian"] = "dot") -> None:
        super().__init__()
        if form not in FORMS:
            raise unknown("non-local form", form, FORMS)
        self.form = form
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.w = nn.Conv2d(inner, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)
        nn.init.zeros_(self.bn.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B×channels×H×W to the same shape."""
        theta = self.theta(x).flatten(2).transpose(1, 2)
        phi = self.phi(x).flatten(2)
        g = self.g(x).flatten(2).transpose(1, 2)
        # θ (φ g) is (θ φ) g without the positions×positions matrix; the softmax in between forbids it.
        y = theta @ (phi @ g / phi.shape[2]) if self.form == "dot" else (theta @ phi).softmax(-1) @ g
        y = y.transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.bn(self.w(y))


def agw_non_local(trunk: str, width: Literal["half", "code"]) -> dict[tuple[int, int], nn.Module]:
    """AGW's five places: after the last 2 blocks of stage 2 and the last 3 of stage 3, or as many as the trunk has.

    Args:
        trunk: a name in `TRUNKS`.
        width: of θ, φ and g. `half` of the channels, as the paper says, or 1, as the public code computes.

    Returns:
        Blocks by (stage, block index), for `Stages(inserted=…)`.

    Raises:
        BadInput: there is no such trunk or width.
    """
    inner = {"half": lambda channels: channels // 2, "code": lambda channels: 1}
    if width not in inner:
        raise unknown("width of the non-local blocks", width, inner)
    shape = trunk_named(trunk)
    places = last_blocks(shape.blocks, (0, 2, 3, 0))
    return {(stage, block): NonLocal(c := shape.channels[stage - 1], inner=inner[width](c)) for stage, block in places}


class CBAM(nn.Module):
    """Which channels, then which positions: `x' = x · σ(channels(x))`, `x'' = x' · σ(positions(x'))`.

    Woo et al., "CBAM: Convolutional Block Attention Module" (ECCV 2018), equations 1 to 3. The channels' weights come
    from one two-layer network on the mean and on the maximum over positions; the positions' from a 7×7 convolution on
    the mean and on the maximum over channels. Without biases and without a normalisation, the form whose parameter
    count WRIM-Net's table 6 has. It goes inside a residual block, before the shortcut is added.

    Args:
        channels: of the map.
        ratio: by which the two-layer network is narrower inside.
    """

    def __init__(self, channels: int, *, ratio: int = 16) -> None:
        super().__init__()
        inner = max(1, channels // ratio)
        self.channels = nn.Sequential(
            nn.Linear(channels, inner, bias=False), nn.ReLU(), nn.Linear(inner, channels, bias=False)
        )
        self.positions = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B×channels×H×W to the same shape."""
        scores = self.channels(x.mean((2, 3))) + self.channels(x.amax((2, 3)))
        x = x * scores.sigmoid()[..., None, None]
        scores = self.positions(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1))
        return x * scores.sigmoid()
