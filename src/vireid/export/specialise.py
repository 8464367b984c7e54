"""A network for one modality: uint8 pictures in, features out, without a branch that depends on the pictures."""

from __future__ import annotations

import copy
import keyword
from typing import Any

import torch
from torch import nn

from vireid.augment.normalise import Normaliser
from vireid.data.modality import Modality
from vireid.networks.per_modality import PerModality


class OneModality(nn.Module):
    """A copy of a network that embeds pictures of one modality, with the normalisation inside.

    The copy has only the stem (and other `PerModality` parts) of this modality, so no step asks for the modality of a
    picture. The features are those of the network, up to rounding.

    Args:
        network: what a recipe built, with `embed(images, modality)`. It is not changed.
        modality: the modality of all pictures.

    Raises:
        ValueError: the network has no copy of some part for this modality.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: nn.Module, modality: Modality) -> None:
        super().__init__()
        self.network: Any = _specialised(network, modality)
        self.modality = int(modality)
        normaliser = Normaliser(torch.uint8)
        self.register_buffer("scale", normaliser.scale)
        self.register_buffer("shift", normaliser.shift)
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N×3×H×W uint8 to N×D float32, each of length one."""
        normalised = images.float() * self.scale - self.shift
        modality = torch.full((images.shape[0],), self.modality, dtype=torch.int64)
        return self.network.embed(normalised, modality)


class _Only(nn.Module):
    """The copy of one modality in the place of a `PerModality`. A network may call it with or without modalities."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor, modality: torch.Tensor | None = None, *extra: torch.Tensor) -> torch.Tensor:
        return self.module(x, *extra)


class _Renamed(nn.Module):
    """A `ModuleDict` whose children have other names inside: torch.export writes the names into Python code, where a
    word of the language, such as `global`, is an error."""

    def __init__(self, children: nn.ModuleDict) -> None:
        super().__init__()
        self.names = list(children)
        for name, child in children.items():
            self.add_module(f"{name}_", child)

    def __getitem__(self, name: str) -> nn.Module:
        return self.get_submodule(f"{name}_")

    def items(self) -> list[tuple[str, nn.Module]]:
        return [(name, self[name]) for name in self.names]


def _specialised(network: nn.Module, modality: Modality) -> nn.Module:
    """A copy of a network on the CPU, without the parts of the other modalities."""
    found = copy.deepcopy(network).cpu()
    for module in list(found.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, PerModality):
                setattr(module, name, _Only(child.one(modality)))
            elif isinstance(child, nn.ModuleDict) and any(keyword.iskeyword(key) for key in child):
                setattr(module, name, _Renamed(child))
    return found
