"""Which samples a training step takes: a function of the seed, the epoch and the step, and of nothing else.

The sampler keeps no state between steps. So a resumed run draws the same samples as an uninterrupted one, and they do
not depend on the number of workers or processes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality

EpochLength = Literal["agw", "fastreid"] | int


def seed_of(*values: int) -> int:
    """A seed of 63 bits, which every generator accepts, from whole numbers such as seed, epoch, step and rank.

    Args:
        values: whole numbers of 0 or more, of any size.

    Returns:
        A number from 0 to 2⁶³ - 1. Lists of the same length with different values give different seeds, up to chance.
    """
    return int(np.random.SeedSequence(values).generate_state(1, np.uint64)[0] >> 1)


class ModalityBalancedSampler:
    """Draws P identities for each step, with K visible and K infrared samples of each identity.

    Only identities with pictures of both modalities are drawn. Within a step, identities are drawn without replacement.
    The samples of an identity and modality are drawn without replacement too, unless `with_replacement` says otherwise
    or there are fewer than K. Within a step, the samples are ordered by identity, and the visible samples of an
    identity come before the infrared ones. No loss may depend on this order.

    With several processes, each process takes P / world of the identities of every step. The samples of all processes,
    joined in the order of the ranks, are the samples that a single process would draw.

    Attributes:
        steps: steps per epoch.
        identities: the labels that can be drawn, ascending, int64.
    """

    def __init__(
        self,
        labels: np.ndarray,
        modality: np.ndarray,
        *,
        identities_per_batch: int,
        visible_per_identity: int,
        infrared_per_identity: int,
        epoch_length: EpochLength = "agw",
        with_replacement: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Prepare the draw.

        Args:
            labels: N int64, the identity label of each record that may be drawn.
            modality: N int8, values of `Modality`.
            identities_per_batch: P, over all processes.
            visible_per_identity, infrared_per_identity: K of each modality.
            epoch_length: `agw`: floor(max over modalities of records / (P·K)) + 1 steps, as in the code of AGW and CAJ;
                `fastreid`: floor(all records / samples of a step), at least 1; or a number of steps.
            with_replacement: draw the samples of an identity and modality with replacement, as AGW's code does.
            seed: the run's seed, 0 or more.
            rank: the number of this process, from 0 to world - 1.
            world: how many processes there are.

        Raises:
            BadInput: P exceeds the number of identities with both modalities (the sentence says how many there are),
                P is not a multiple of `world`, or a number is out of its range.
        """
        self._check(identities_per_batch, visible_per_identity, infrared_per_identity, seed, rank, world)
        labels, modality = np.asarray(labels, dtype=np.int64), np.asarray(modality)
        if labels.ndim != 1 or labels.shape != modality.shape:
            raise BadInput(f"sampler: labels have shape {labels.shape}, modality {modality.shape}")
        per_identity = {Modality.VISIBLE: visible_per_identity, Modality.INFRARED: infrared_per_identity}
        records = {m: np.flatnonzero(modality == m) for m in per_identity}
        self.identities = np.intersect1d(labels[records[Modality.VISIBLE]], labels[records[Modality.INFRARED]])
        if identities_per_batch > len(self.identities):
            raise BadInput(
                f"identities_per_batch is {identities_per_batch}, but only {len(self.identities)} identities have "
                "both visible and infrared pictures"
            )
        self._groups = [(_grouped(labels, records[m], self.identities), k) for m, k in per_identity.items()]
        self._identities_per_batch, self._seed = identities_per_batch, seed
        self._with_replacement = with_replacement
        share = identities_per_batch // world * sum(per_identity.values())
        self._own = slice(rank * share, (rank + 1) * share)
        counts = {m: len(found) for m, found in records.items()}
        self.steps = _epoch_steps(epoch_length, counts, per_identity, identities_per_batch)

    def samples(self, epoch: int, step: int) -> np.ndarray:
        """The samples of this process in one step.

        Returns:
            P/world · (K visible + K infrared) int64, positions in the labels given.

        Raises:
            IndexError: the epoch has no such step.
        """
        if not 0 <= step < self.steps:
            raise IndexError(f"an epoch has steps 0 to {self.steps - 1}, not {step}")
        rng = np.random.default_rng((self._seed, epoch, step))
        drawn = [
            rng.choice(members[place], k, replace=self._with_replacement or len(members[place]) < k)
            for place in rng.choice(len(self.identities), self._identities_per_batch, replace=False)
            for members, k in self._groups
        ]
        return np.concatenate(drawn)[self._own]

    @staticmethod
    def _check(identities: int, visible: int, infrared: int, seed: int, rank: int, world: int) -> None:
        for name, value, least in (
            ("identities_per_batch", identities, 1),
            ("visible_per_identity", visible, 1),
            ("infrared_per_identity", infrared, 1),
            ("seed", seed, 0),
        ):
            if value < least:
                raise BadInput(f"{name} is {value}; it must be at least {least}")
        if not 0 <= rank < world:
            raise BadInput(f"rank {rank} is not one of {world} processes; choices: 0 to {world - 1}")
        if identities % world:
            raise BadInput(f"identities_per_batch is {identities}, which {world} processes cannot share equally")


def _epoch_steps(length: EpochLength, counts: dict[Modality, int], per_identity: dict[Modality, int], p: int) -> int:
    """Steps per epoch, from the number of records of each modality, K of each modality, and P."""
    if length == "agw":
        return max(counts[m] // (p * k) for m, k in per_identity.items()) + 1
    if length == "fastreid":
        return max(1, sum(counts.values()) // (p * sum(per_identity.values())))
    if isinstance(length, str):
        raise unknown("epoch_length", length, ["agw", "fastreid", "a number of steps"])
    if length < 1:
        raise BadInput(f"epoch_length is {length}; it must be 'agw', 'fastreid' or at least 1 step")
    return length


def _grouped(labels: np.ndarray, records: np.ndarray, identities: np.ndarray) -> list[np.ndarray]:
    """The records of each identity, in the order of `identities`."""
    members = records[np.argsort(labels[records], kind="stable")]
    start, stop = (np.searchsorted(labels[members], identities, side=side) for side in ("left", "right"))
    return [members[a:b] for a, b in zip(start, stop, strict=True)]
