"""Grad-CAM: on which places of a map a score of a network depends.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization" (ICCV 2017, arXiv
1610.02391). It works for any network in PyTorch, at any module that gives a map, towards any score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vireid.data.errors import BadInput, unknown

Target = Callable[[Tensor, Tensor], Tensor]
"""N×3×H×W images and N modalities → N scores, computed by the network."""


def grad_cam(network: nn.Module, layer: str, images: Tensor, modality: Tensor, target: Target) -> np.ndarray:
    """Grad-CAM, equations 1 and 2 of the paper, for each sample:

        α_k = mean over places of ∂y/∂A_k        ReLU(Σ_k α_k A_k)

    A_k is channel k of the map and y the score. The network is evaluated with running statistics. It is left as it was
    found: hooks, training flags and gradients.

    Args:
        network: any module.
        layer: the map: one that the network's `maps(images, modality)` names, such as `stage4`, or the name of a module
            in `named_modules()` whose output is N×C×h×w.
        images: N×3×H×W, as the network takes them. The score of a sample must not depend on the other samples.
        modality: N int64, which `target` is called with.
        target: the score y of each sample. For a classifier: `lambda images, modality: network(images)[:, identity]`.

    Returns:
        N×h×w float32 of 0 or more, on the grid of the map. All of a sample is 0 if nothing speaks for the score.

    Raises:
        BadInput: there is no such map, or the score does not depend on it.
    """
    module = network.get_submodule(_module_of(network, layer, images, modality))
    outputs: list[Tensor] = []

    def begin_here(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        """Cut the graph below the map: gradients are needed down to the map only."""
        if not isinstance(output, Tensor) or output.ndim != 4 or len(output) != len(images):
            raise BadInput(f"'{layer}' gives no map of N×C×h×w for all {len(images)} pictures")
        outputs.append(output.detach().requires_grad_())
        return outputs[-1].clone()  # because a module that follows may change it in place

    with _evaluated(network), torch.inference_mode(False), torch.enable_grad():
        hook = module.register_forward_hook(begin_here)
        try:
            scores = target(images.clone(), modality.clone())
        finally:
            hook.remove()
        if len(outputs) != 1:
            raise BadInput(f"'{layer}' runs {len(outputs)} times for this score; choose a map that is computed once")
        gradient = None
        if scores.requires_grad:
            (gradient,) = torch.autograd.grad(scores.sum(), outputs[0], allow_unused=True)
    if gradient is None:
        raise BadInput(f"the score does not depend on the map '{layer}'")
    weights = gradient.float().mean((2, 3), keepdim=True)
    return (weights * outputs[0].detach().float()).sum(1).relu().cpu().numpy()


def map_modules(network: nn.Module, images: Tensor, modality: Tensor) -> dict[str, str]:
    """The modules that give the maps of a network, by the names of its `maps(images, modality)`.

    Args:
        network: a recipe's network, or another module; without a method `maps`, there are no names.
        images: N×3×H×W, N at least 1; the first one is used.
        modality: N int64.
    """
    if not hasattr(network, "maps"):
        return {}
    outputs: list[tuple[str, Any]] = []

    def keep(path: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: outputs.append((path, output))

    hooks = [module.register_forward_hook(keep(path)) for path, module in network.named_modules() if path]
    try:
        with _evaluated(network), torch.no_grad():
            maps = network.maps(images[:1], modality[:1])  # type: ignore[operator]
    finally:
        for hook in hooks:
            hook.remove()
    # Of modules within each other that give the same tensor, the outermost one comes last.
    given = {name: [path for path, output in outputs if output is found] for name, found in maps.items()}
    return {name: paths[-1] for name, paths in given.items() if paths}


def _module_of(network: nn.Module, layer: str, images: Tensor, modality: Tensor) -> str:
    if layer in (paths := [path for path, _ in network.named_modules() if path]):
        return layer
    named = map_modules(network, images, modality)
    if layer not in named:
        raise unknown("map", layer, named or paths)
    return named[layer]


@contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    """A `with` block in which the network is in evaluation mode."""
    trained = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in trained:
            module.training = True


def enlarged(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps N×h×w at the size of the pictures: N×H×W float32, bilinear between the centres of cells."""
    given = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))
    return interpolate(given[:, None], size=tuple(size), mode="bilinear")[:, 0].numpy()


def energy_share(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The share of a map that is on the person: the sum of the map on the mask, divided by the sum of the map.

    A map that is the same everywhere has the person's share of the picture.

    Args:
        maps: N×h×w of 0 or more; they are enlarged to the size of the masks.
        masks: N×H×W, the share of each pixel that the person covers, 0 to 1.

    Returns:
        N float64 of 0 to 1, NaN for a map that is 0 everywhere.
    """
    large = enlarged(maps, masks.shape[1:]).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (large * masks).sum(axis=(1, 2)) / large.sum(axis=(1, 2))
