"""Residual networks as a stem and four stages. Each of them can be used alone.

He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), in the form that torchvision publishes weights
for: the 3×3 convolution of a bottleneck has the stride. Parameters have torchvision's names, so its weight files can be
loaded unchanged. Modules that a recipe adds between or into the blocks have names that begin with `inserted` and
`within`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import nn

from vireid.data.errors import unknown
from vireid.networks.memory import economical


@dataclass(frozen=True)
class Trunk:
    """The shape of a residual network.

    Attributes:
        block: `basic` (two 3×3 convolutions) or `bottleneck` (1×1, 3×3 and 1×1; its output is four times as wide).
        blocks: number of residual blocks in stages 1..4.
        widths: inner width of stages 1..4. The first is also the width of the stem.
    """

    block: Literal["basic", "bottleneck"]
    blocks: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of the maps of stages 1..4."""
        factor = BLOCKS[self.block].expansion
        return tuple(width * factor for width in self.widths)  # type: ignore[return-value]


TRUNKS: Mapping[str, Trunk] = {
    "tiny": Trunk("basic", (1, 1, 1, 1), (32, 64, 128, 256)),
    "resnet18": Trunk("basic", (2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet34": Trunk("basic", (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet50": Trunk("bottleneck", (3, 4, 6, 3), (64, 128, 256, 512)),
}


def trunk_named(name: str) -> Trunk:
    """The shape of the trunk with this name.

    Raises:
        BadInput: there is no trunk with this name.
    """
    if name not in TRUNKS:
        raise unknown("trunk", name, TRUNKS)
    return TRUNKS[name]


def scaled(width: int, trunk: str) -> int:
    """A width that a paper states for ResNet-50, in proportion to the last stage of another trunk.

    The feature of `tiny` has 256 dimensions instead of 2,048. A layer of a paper's width beside it would be eight times
    too wide in proportion. Recipes apply this rule to the widths that papers state as a number.

    Args:
        width: channels for ResNet-50, 1 or more.
        trunk: a name in `TRUNKS`.

    Returns:
        round(width × channels of the last stage / 2,048), at least 1.

    Raises:
        BadInput: `trunk` is unknown.

    >>> [scaled(256, trunk) for trunk in ("resnet50", "resnet18", "tiny")]
    [256, 64, 32]
    """
    return max(1, round(width * trunk_named(trunk).channels[-1] / TRUNKS["resnet50"].channels[-1]))


class Stem(nn.Module):
    """7×7 convolution, batch normalisation, ReLU and 3×3 max-pooling, with a total stride of 4.

    Args:
        trunk: a name in `TRUNKS`.

    Attributes:
        recompute: whether its inner maps are computed again for the gradient, see `economical`.

    Raises:
        BadInput: `trunk` is unknown.
    """

    FOLDS: ClassVar = {"conv1": "bn1"}  # see `vireid.networks.folding`

    def __init__(self, trunk: str) -> None:
        super().__init__()
        self.recompute = False
        self.channels = trunk_named(trunk).widths[0]
        self.conv1 = nn.Conv2d(3, self.channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(self.channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        _initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N×3×H×W images to N×channels×H/4×W/4 maps (sizes rounded up)."""
        return economical([self], self._map, images, when=self.recompute)

    def _map(self, images: torch.Tensor) -> torch.Tensor:
        return self.maxpool(self.relu(self.bn1(self.conv1(images))))


class Stages(nn.Module):
    """Stages 1 to 4 of a residual network, together or one at a time.

    Args:
        trunk: a name in `TRUNKS`.
        last_stride: stride of stage 4, of its convolution and of its shortcut. 1 gives the larger map that
            re-identification uses (Luo et al., "Bag of Tricks", CVPRW 2019); 2 is the stride for classification.
        inserted: modules to apply after a residual block, by (stage 1..4, block index from 0), for example non-local
            blocks. Each must keep the shape of the map.
        within: modules to apply inside a residual block, by the same keys: after the last normalisation and before the
            shortcut is added, for example CBAM. Each must keep the shape of the map.

    Attributes:
        channels: channels of the maps of stages 1..4.
        blocks: number of residual blocks in stages 1..4.
        recompute: whether the inner maps of each block are computed again for the gradient, see `economical`.

    Raises:
        BadInput: `trunk` is unknown.
        ValueError: a key of `inserted` or `within` names a block that the trunk does not have.
    """

    def __init__(
        self,
        trunk: str,
        *,
        last_stride: int = 1,
        inserted: Mapping[tuple[int, int], nn.Module] | None = None,
        within: Mapping[tuple[int, int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.recompute = False
        shape = trunk_named(trunk)
        self.channels = shape.channels
        self.blocks = shape.blocks
        before = (shape.widths[0], *shape.channels[:3])
        strides = (1, 2, 2, last_stride)
        for number in range(4):
            stage = _stage(
                shape.block,
                inputs=before[number],
                width=shape.widths[number],
                blocks=shape.blocks[number],
                stride=strides[number],
            )
            self.add_module(f"layer{number + 1}", stage)
        _initialise(self)
        # Added after the initialisation, which is the residual blocks' and not theirs.
        self.inserted = _by_block(inserted or {}, shape.blocks)
        self.within = _by_block(within or {}, shape.blocks)

    def stage(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """Apply one stage.

        Args:
            number: which stage, 1..4.
            x: N×C×H×W, the map of the stage before; for stage 1, the map of the stem.

        Returns:
            N×channels[number - 1]×…, the map of this stage.

        Raises:
            ValueError: `number` is not 1, 2, 3 or 4.
        """
        if number not in (1, 2, 3, 4):
            raise ValueError(f"stage {number} is not one of 1, 2, 3, 4")
        for index, block in enumerate(self.get_submodule(f"layer{number}").children()):
            key = _key(number, index)
            # ModuleDict has no method `get`.
            within = self.within[key] if key in self.within else None  # noqa: SIM401
            behind = self.inserted[key] if key in self.inserted else None  # noqa: SIM401
            parts = [part for part in (block, within, behind) if part is not None]
            x = economical(parts, partial(_block, block, within, behind), x, when=self.recompute)
        return x

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the maps of all four stages.

        Args:
            x: N×C×H×W, the map of the stem.

        Returns:
            The maps `stage1` to `stage4`, each N×channels[k]×…. Relative to the image, their strides are 4, 8, 16 and
            16 × `last_stride`.
        """
        maps = {}
        for number in (1, 2, 3, 4):
            x = self.stage(number, x)
            maps[f"stage{number}"] = x
        return maps


def _block(block: nn.Module, within: nn.Module | None, behind: nn.Module | None, x: torch.Tensor) -> torch.Tensor:
    x = block(x, within)
    return x if behind is None else behind(x)


def recompute(network: nn.Module) -> None:
    """Let every stem and every stage of a network compute its inner maps again for the gradient, see `economical`."""
    for module in network.modules():
        if isinstance(module, Stem | Stages):
            module.recompute = True


def last_blocks(blocks: Sequence[int], counts: Sequence[int]) -> list[tuple[int, int]]:
    """The last blocks of each stage, as keys for `Stages(inserted=…)` and `Stages(within=…)`.

    Args:
        blocks: number of residual blocks in stages 1..4, as `Stages.blocks`.
        counts: how many of the last blocks to return for each stage. A stage with fewer blocks returns all of them.

    Returns:
        (stage, block index) pairs in the order of the network.

    >>> last_blocks((3, 4, 6, 3), (0, 2, 3, 0))
    [(2, 2), (2, 3), (3, 3), (3, 4), (3, 5)]
    """
    return [
        (number, index)
        for number, (have, want) in enumerate(zip(blocks, counts, strict=True), start=1)
        for index in range(max(0, have - want), have)
    ]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al., figure 5, left). The first convolution has the stride."""

    expansion = 1
    FOLDS: ClassVar = {"conv1": "bn1", "conv2": "bn2"}  # see `vireid.networks.folding`

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: torch.Tensor, within: nn.Module | None = None) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.relu((x if within is None else within(x)) + shortcut)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut (He et al., figure 5, right). The 3×3 convolution has the stride."""

    expansion = 4
    FOLDS: ClassVar = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3"}  # see `vireid.networks.folding`

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: torch.Tensor, within: nn.Module | None = None) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu((x if within is None else within(x)) + shortcut)


BLOCKS: Mapping[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def _stage(block: str, *, inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    make = BLOCKS[block]
    first = make(inputs, width, stride)
    return nn.Sequential(first, *(make(width * make.expansion, width, 1) for _ in range(blocks - 1)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """A strided 1×1 convolution with normalisation, or None if the input and the output have the same shape."""
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


def _initialise(module: nn.Module) -> None:
    """Initialise convolutions as He et al. (ICCV 2015), scaled by the number of outputs.

    Batch normalisations already start with weight 1 and bias 0.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def _by_block(modules: Mapping[tuple[int, int], nn.Module], blocks: tuple[int, ...]) -> nn.ModuleDict:
    for number, index in modules:
        if number not in (1, 2, 3, 4) or not 0 <= index < blocks[number - 1]:
            raise ValueError(f"there is no block {index} in stage {number}; stages 1 to 4 have {blocks} blocks, from 0")
    return nn.ModuleDict({_key(*place): module for place, module in modules.items()})


def _key(number: int, index: int) -> str:
    return f"stage{number}_block{index}"
