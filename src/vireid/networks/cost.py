"""What a network costs: parameters, multiply-accumulates, memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vireid.networks.heads import Classifier


@dataclass(frozen=True)
class Cost:
    """Counts, not millions. Parameters are those that training changes: a neck's bias, frozen at zero, is none.

    Attributes:
        parameters_stored: of everything a checkpoint needs to embed: every modality's copies, no classifier.
        parameters_path: of the modules that one picture passes through: one modality, no classifier.
        macs_path: multiply-accumulates of convolutions and matrix products for that picture (attention's products
            included; normalisation and activations are not counted).
        memory_weights: bytes of all parameters and buffers as stored, classifier left out.
        memory_activations: bytes that one picture's forward pass keeps for the backward pass, in float32.
        embedding: width of the feature compared at test time.
    """

    parameters_stored: int
    parameters_path: int
    macs_path: int
    memory_weights: int
    memory_activations: int
    embedding: int


def measure(network: nn.Module, embed: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> Cost:
    """Run one picture through a network and count.

    Args:
        network: whose modules are watched.
        embed: 1×3×H×W images of one modality → 1×D features, through `network`.
        images: 1×3×H×W float32; only the shape matters.
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
    """Bytes of the distinct tensors that autograd saves, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in [*network.parameters(), *network.buffers()]}
    saved: dict[int, int] = {}
    alive = []  # keeps storages from being freed and their addresses from being used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor.detach())
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        embed(images)
    return sum(saved.values())
