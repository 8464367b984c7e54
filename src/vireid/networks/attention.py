"""Attention blocks that a recipe inserts between residual blocks or into them."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import nn

from vireid.data.errors import unknown
from vireid.networks.resnet import last_blocks, trunk_named

FORMS = ("dot", "gaussian")


class NonLocal(nn.Module):
    """Non-local block, attention between all positions of a map: `z = x + BN(W y)`.

    Wang et al., "Non-local Neural Networks" (CVPR 2018), equations 1 and 6. θ, φ and g are 1×1 convolutions. There are
    two forms of y:

    * `dot`, the form of AGW (Ye et al., TPAMI 2022): `y = θ φᵀ g / positions`, equation 4;
    * `gaussian`, the embedded Gaussian: `y = softmax(θ φᵀ) g`, equations 2 and 3.

    The weight and the bias of the batch normalisation start at 0. So the block computes the identity at first, and
    pretrained weights around it give the same maps as without the block.

    Args:
        channels: channels of the map.
        inner: channels of θ, φ and g. The papers state `channels // 2`. The public code of AGW uses 1, because it
            divides the ratio by itself.
        form: `dot` or `gaussian`.

    Raises:
        BadInput: `form` is unknown.
    """

    FOLDS: ClassVar = {"w": "bn"}  # see `vireid.networks.folding`

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
        """B×channels×H×W maps to maps of the same shape."""
        theta = self.theta(x).flatten(2).transpose(1, 2)
        phi = self.phi(x).flatten(2)
        g = self.g(x).flatten(2).transpose(1, 2)
        # θ (φ g) equals (θ φ) g and needs no positions×positions matrix. With the softmax this order is not possible.
        y = theta @ (phi @ g / phi.shape[2]) if self.form == "dot" else (theta @ phi).softmax(-1) @ g
        y = y.transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.bn(self.w(y))


def agw_non_local(trunk: str, width: Literal["half", "code"]) -> dict[tuple[int, int], nn.Module]:
    """Make the five non-local blocks of AGW: after the last 2 blocks of stage 2 and after the last 3 of stage 3.

    If a stage of the trunk has fewer blocks, there is one non-local block after each of them. The places are those of
    AGW's public code.

    Args:
        trunk: a name in `TRUNKS`.
        width: channels of θ, φ and g: `half` of the channels of the map, as in the paper, or 1 with `code`, as in the
            public code.

    Returns:
        Blocks by (stage, block index), for `Stages(inserted=…)`.

    Raises:
        BadInput: `trunk` or `width` is unknown.
    """
    inner = {"half": lambda channels: channels // 2, "code": lambda channels: 1}
    if width not in inner:
        raise unknown("width of the non-local blocks", width, inner)
    shape = trunk_named(trunk)
    places = last_blocks(shape.blocks, (0, 2, 3, 0))
    return {(stage, block): NonLocal(c := shape.channels[stage - 1], inner=inner[width](c)) for stage, block in places}


class CBAM(nn.Module):
    """Channel attention, then spatial attention: `x' = x · σ(channels(x))`, `x'' = x' · σ(positions(x'))`.

    Woo et al., "CBAM: Convolutional Block Attention Module" (ECCV 2018), equations 1 to 3. One network of two layers
    scores the channels: it is applied to the mean and to the maximum over positions, and the two results are added.
    One 7×7 convolution scores the positions: its input is the mean and the maximum over channels. There are no biases
    and no normalisation, because this form has the number of parameters that WRIM-Net prints in table 6. The block is
    applied inside a residual block, before the shortcut is added.

    Args:
        channels: channels of the map.
        ratio: how many times narrower the hidden layer is than the map. It has at least one channel.
    """

    def __init__(self, channels: int, *, ratio: int = 16) -> None:
        super().__init__()
        inner = max(1, channels // ratio)
        self.channels = nn.Sequential(
            nn.Linear(channels, inner, bias=False), nn.ReLU(), nn.Linear(inner, channels, bias=False)
        )
        self.positions = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B×channels×H×W maps to maps of the same shape."""
        scores = self.channels(x.mean((2, 3))) + self.channels(x.amax((2, 3)))
        x = x * scores.sigmoid()[..., None, None]
        scores = self.positions(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1))
        return x * scores.sigmoid()


def other_attention(kind: str | None, trunk: str) -> dict[str, dict[tuple[int, int], nn.Module]]:
    """The attention modules that WRIM-Net's table 6 compares with, as keyword arguments for `Stages`.

    Args:
        kind: `cbam` in every residual block; `non_local` at AGW's five places, with a quarter of the channels; None.
        trunk: a name in `vireid.networks.resnet.TRUNKS`.
    """
    shape = trunk_named(trunk)
    if kind == "cbam":
        everywhere = last_blocks(shape.blocks, shape.blocks)
        return {"within": {at: CBAM(shape.channels[at[0] - 1]) for at in everywhere}}
    if kind == "non_local":
        wide = {at: shape.channels[at[0] - 1] for at in last_blocks(shape.blocks, (0, 2, 3, 0))}
        return {"inserted": {at: NonLocal(width, inner=width // 4, form="gaussian") for at, width in wide.items()}}
    return {}
