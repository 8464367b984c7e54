"""Cost of a network: parameters, multiply-accumulates, memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vireid.networks.heads import Classifier


@dataclass(frozen=True)
class Cost:
    """Cost of a network as plain counts (not in millions).

    Only parameters that training changes are counted. The bias of a neck is fixed at 0, so it is not counted.

    Attributes:
        parameters_stored: parameters that a checkpoint needs to compute embeddings: the copies of all modalities,
            without classifiers.
        parameters_path: parameters of the modules that one picture passes through: one modality, without classifiers.
        macs_path: multiply-accumulates of convolutions and matrix products for one picture. The products of attention
            are included; normalisation and activation functions are not.
        memory_weights: bytes of all parameters and buffers, without classifiers.
        memory_activations: bytes that the forward pass of one picture keeps for the backward pass, in float32.
        embedding: length D of the embedding.
    """

    parameters_stored: int
    parameters_path: int
    macs_path: int
    memory_weights: int
    memory_activations: int
    embedding: int


def measure(network: nn.Module, embed: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> Cost:
    """Measure the cost of a network with one picture. The network is left in evaluation mode.

    Args:
        network: the modules to count.
        embed: computes 1×D embeddings from 1×3×H×W images of one modality, with the modules of `network`.
        images: 1×3×H×W float32. Only the shape matters.
    """
    network.eval()
    ran: set[nn.Module] = set()
    hooks = [module.register_forward_pre_hook(lambda m, _: ran.add(m)) for module in network.modules()]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            features = embed(images)
    finally:
        for hook in hooks:
            hook.remove()
    heads = [module for module in network.modules() if isinstance(module, Classifier)]
    head_parameters = {id(parameter) for head in heads for parameter in head.parameters()}
    stored = {id(p): p for p in network.parameters() if p.requires_grad and id(p) not in head_parameters}
    path = {id(p): p for module in ran for p in module.parameters(recurse=False) if p.requires_grad}
    weights = [*(p for p in network.parameters() if id(p) not in head_parameters), *network.buffers()]
    return Cost(
        parameters_stored=sum(p.numel() for p in stored.values()),
        parameters_path=sum(p.numel() for p in path.values()),
        macs_path=counter.get_total_flops() // 2,
        memory_weights=sum(tensor.numel() * tensor.element_size() for tensor in weights),
        memory_activations=_kept_for_backward(network, embed, images),
        embedding=features.shape[1],
    )


def _kept_for_backward(network: nn.Module, embed: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> int:
    """Bytes of the distinct tensors that autograd saves, without parameters and buffers."""
    own = {p.untyped_storage().data_ptr() for p in [*network.parameters(), *network.buffers()]}
    saved: dict[int, int] = {}
    alive = []  # holds the storages, so that none is freed and its address used again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor.detach())
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        embed(images)
    return sum(saved.values())
