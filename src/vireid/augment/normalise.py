"""Between pixel values and what networks pretrained on ImageNet expect."""

from __future__ import annotations

import torch

# Of ImageNet's training pictures, red, green, blue, for values of 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Normaliser:
    """`(value - mean) / std` per channel, one picture at a time, for pictures of one number type on one device.

    One picture at a time because its half megabyte then stays in the cache from one pass to the next.

    Args:
        dtype: of the values: an integer type stands for 0..255, a floating-point type for 0..1.
        device: where the pictures are.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        std = torch.tensor(STD, device=device)[:, None, None]
        self.scale = 1 / (std * (1 if dtype.is_floating_point else 255))
        self.shift = torch.tensor(MEAN, device=device)[:, None, None] / std

    def write(self, image: torch.Tensor, source: torch.Tensor) -> None:
        """Write `source` (3×H×W), normalised, into `image` (3×H×W float32); they may be the same."""
        image.copy_(source).mul_(self.scale).sub_(self.shift)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """`(value - mean) / std` for each channel.

    Args:
        images: N×3×H×W, uint8, or floating point in 0..1.

    Returns:
        N×3×H×W float32, new memory.
    """
    normaliser = Normaliser(images.dtype, images.device)
    result = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    for image, source in zip(result, images, strict=True):
        normaliser.write(image, source)
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
