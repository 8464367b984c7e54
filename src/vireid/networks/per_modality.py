"""One copy of a module for each modality, and the routing of rows to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from vireid.data.modality import Modality


class PerModality(nn.Module):
    """Sends every row through its own modality's copy of a module.

    The copies are made one after another, so they start from different random weights unless weights are loaded into
    them. A modality that is absent from the batch is not run: its normalisation statistics stay as they are and its
    parameters get no gradient in that step.

    Args:
        make: makes one copy, called once per modality.
        modalities: which modalities have a copy, in the order in which the copies are made.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        modalities: Sequence[Modality] = (Modality.VISIBLE, Modality.INFRARED),
    ) -> None:
        super().__init__()
        self.copies = nn.ModuleDict({Modality(modality).word: make() for modality in modalities})

    def one(self, modality: Modality | int) -> nn.Module:
        """The copy of one modality: what to call, or to export, when every row is of that modality.

        Raises:
            ValueError: this modality has no copy.
        """
        word = Modality(modality).word
        if word not in self.copies:
            raise ValueError(f"no copy for {word} rows; there are copies for: {', '.join(self.copies)}")
        return self.copies[word]

    def forward(self, x: torch.Tensor, modality: torch.Tensor, *extra: torch.Tensor) -> torch.Tensor:
        """The copies' results, row i's from its own modality's copy.

        Args:
            x: N×…, one row each.
            modality: N int64, values of `Modality`.
            extra: further arguments of the copies, each N×… and routed as `x` is.

        Returns:
            N×…, rows in the order of `x`.

        Raises:
            ValueError: the row counts differ, there are no rows, or a row's modality has no copy.
        """
        if modality.shape != x.shape[:1] or not len(x):
            raise ValueError(f"{tuple(x.shape)} rows need as many modalities, not {tuple(modality.shape)}")
        rows = _rows_by_value(modality)
        if len(rows) == 1:
            return self.one(next(iter(rows)))(x, *extra)
        order = [row for chosen in rows.values() for row in chosen]
        counts = [len(chosen) for chosen in rows.values()]
        in_blocks = order == list(range(len(order)))
        # Where the rows of each modality stand together nothing is copied on the way in. The gradients of a split are
        # joined in one pass; those of slices would each be padded with zeros and then added.
        there = None if in_blocks else torch.tensor(order, device=x.device)
        pieces = [
            (argument if there is None else argument.index_select(0, there)).split(counts) for argument in (x, *extra)
        ]
        results = [self.one(value)(*piece) for value, *piece in zip(rows, *pieces, strict=True)]
        stacked = torch.cat(results)
        return stacked if there is None else stacked.index_select(0, there.argsort())


def _rows_by_value(modality: torch.Tensor) -> dict[int, list[int]]:
    """Row numbers of each modality present, ascending. One transfer to the host for the whole routing."""
    rows: dict[int, list[int]] = {}
    for row, value in enumerate(modality.tolist()):
        rows.setdefault(value, []).append(row)
    return rows
