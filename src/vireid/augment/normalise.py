"""Between pixel values and what networks pretrained on ImageNet expect."""

from __future__ import annotations

import torch

# Of ImageNet's training pictures, red, green, blue, for values of 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """`(value - mean) / std` for each channel.

    Args:
        images: N×3×H×W, uint8, or floating point in 0..1.

    Returns:
        N×3×H×W float32, new memory.
    """
    highest = 1.0 if images.is_floating_point() else 255.0
    std = torch.tensor(STD, device=images.device)[:, None, None]
    mean = torch.tensor(MEAN, device=images.device)[:, None, None]
    scale, shift = 1 / (highest * std), mean / std
    result = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    # One image after another: its half megabyte stays in the cache from one pass to the next.
    for image, source in zip(result, images, strict=True):
        image.copy_(source).mul_(scale).sub_(shift)
    return result


def denormalise(images: torch.Tensor) -> torch.Tensor:
    """The way back, for looking at pictures.

    Args:
        images: …×3×H×W floating point, normalised.

    Returns:
        The same shape in float32, 0..1; what lies outside (an erased rectangle may) is clamped.
    """
    std = torch.tensor(STD, device=images.device)[:, None, None]
    mean = torch.tensor(MEAN, device=images.device)[:, None, None]
    return (images.float() * std + mean).clamp(0, 1)
