"""One copy of a module for each modality. Each sample passes through the copy of its own modality."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from vireid.data.host import on_host, to_device
from vireid.data.modality import Modality


class PerModality(nn.Module):
    """One copy of a module for each modality.

    The copies are made one after another, so they start with different random weights. Pretrained weights make them
    equal. If a modality is absent from the batch, its copy does not run: its batch normalisation statistics do not
    change, and its parameters get no gradient in that step.

    Args:
        make: makes one copy. It is called once for each modality.
        modalities: modalities that have a copy, in the order in which the copies are made.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        modalities: Sequence[Modality] = (Modality.VISIBLE, Modality.INFRARED),
    ) -> None:
        super().__init__()
        self.copies = nn.ModuleDict({Modality(modality).word: make() for modality in modalities})

    def one(self, modality: Modality | int) -> nn.Module:
        """The copy of one modality. Call or export it if all samples have this modality.

        Raises:
            ValueError: this modality has no copy.
        """
        word = Modality(modality).word
        if word not in self.copies:
            raise ValueError(f"no copy for {word} samples; there are copies for: {', '.join(self.copies)}")
        return self.copies[word]

    def forward(self, x: torch.Tensor, modality: torch.Tensor, *extra: torch.Tensor) -> torch.Tensor:
        """Pass each sample through the copy of its modality.

        Args:
            x: N×…, N at least 1.
            modality: N int64, values of `Modality`.
            extra: further arguments of the copies, each N×…, divided between the copies in the same way as `x`.

        Returns:
            N×…, samples in the order of `x`.

        Raises:
            ValueError: the number of modalities is not N, N is 0, or a modality has no copy.
        """
        if modality.shape != x.shape[:1] or not len(x):
            raise ValueError(f"input of shape {tuple(x.shape)} needs as many modalities, not {tuple(modality.shape)}")
        groups = _samples_by_modality(modality)
        if len(groups) == 1:
            return self.one(next(iter(groups)))(x, *extra)
        order = [sample for group in groups.values() for sample in group]
        counts = [len(group) for group in groups.values()]
        # If the samples of each modality are already consecutive, the input is not copied.
        consecutive = order == list(range(len(order)))
        there = None if consecutive else to_device(torch.tensor(order), x.device)
        # `split` instead of slices: its gradient is joined in one pass. The gradient of each slice would be padded with
        # zeros to the full size, and then all of them would be added.
        pieces = [
            (argument if there is None else argument.index_select(0, there)).split(counts) for argument in (x, *extra)
        ]
        results = [self.one(value)(*piece) for value, *piece in zip(groups, *pieces, strict=True)]
        stacked = torch.cat(results)
        return stacked if there is None else stacked.index_select(0, there.argsort())


def _samples_by_modality(modality: torch.Tensor) -> dict[int, list[int]]:
    """Ascending positions of the samples of each modality in the batch."""
    groups: dict[int, list[int]] = {}
    for sample, value in enumerate(on_host(modality).tolist()):
        groups.setdefault(value, []).append(sample)
    return groups
