"""Normalisation of pixel values with the mean and the standard deviation of ImageNet, for pretrained networks."""

from __future__ import annotations

import torch

# Red, green and blue of ImageNet's training pictures, for values in 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Normaliser:
    """Computes `(value - mean) / std` for each channel of one picture at a time.

    One picture at a time is faster than the whole batch: its half megabyte stays in the cache between the passes.

    Args:
        dtype: type of the values. An integer type holds 0..255, a floating-point type holds 0..1.
        device: where the pictures are.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        std = torch.tensor(STD, device=device)[:, None, None]
        self.scale = 1 / (std * (1 if dtype.is_floating_point else 255))
        self.shift = torch.tensor(MEAN, device=device)[:, None, None] / std

    def write(self, image: torch.Tensor, source: torch.Tensor) -> None:
        """Normalise `source` (3×H×W) and write it into `image` (3×H×W float32). Both may be the same tensor."""
        image.copy_(source).mul_(self.scale).sub_(self.shift)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """`(value - mean) / std` for each channel.

    Args:
        images: N×3×H×W, uint8 in 0..255 or floating point in 0..1.

    Returns:
        N×3×H×W float32, in new memory.
    """
    normaliser = Normaliser(images.dtype, images.device)
    result = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    for image, source in zip(result, images, strict=True):
        normaliser.write(image, source)
    return result
