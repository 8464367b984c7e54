"""Which rows a training step sees: a pure function of the seed, the epoch and the step.

Nothing is kept from one step to the next, so a resumed run, another number of workers or of processes draw the same
rows without any state to save.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality

EpochLength = Literal["agw", "fastreid"] | int

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mixed(*values: int | np.ndarray) -> np.ndarray:
    """64 random bits for every combination of whole numbers (broadcast together): a hash instead of a stream.

    The mixing step is SplitMix64's (Steele, Lea and Flood, OOPSLA 2014), once for each value. Draws that are addressed
    rather than queued are what makes a whole epoch one array operation and any single step the same numbers.

    Returns:
        uint64, the broadcast shape of `values`.
    """
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for value in values:
            state = state ^ np.asarray(value).astype(np.uint64) if np.ndim(value) else state ^ np.uint64(value % 2**64)
            state = state + _GOLDEN
            state = (state ^ (state >> np.uint64(30))) * _FIRST
            state = (state ^ (state >> np.uint64(27))) * _SECOND
            state = state ^ (state >> np.uint64(31))
    return state


def seed_of(*values: int) -> int:
    """A seed of 63 bits (so that every generator takes it) from whole numbers such as seed, epoch, step, rank."""
    return int(mixed(*values)) >> 1


class ModalityBalancedSampler:
    """P identities a step, the same in both modalities, with K visible and K infrared rows each.

    Identities are drawn anew for every step, without replacement within it, among those that both modalities have seen.
    Rows of an identity are drawn without replacement within a step, and with replacement only where there are fewer
    than K. A step's rows stand identity by identity, visible before infrared; nothing should depend on it.

    With several processes, each takes a run of P / world identities of every step; put together in the order of the
    ranks they are the rows one process would have drawn.

    Attributes:
        steps: steps per epoch.
        identities: labels that are drawn from, ascending.
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
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Prepare the draw.

        Args:
            labels: N int64, the identity label of each row that may be drawn.
            modality: N int8, values of `Modality`.
            identities_per_batch: P, over all processes.
            visible_per_identity, infrared_per_identity: K of each modality.
            epoch_length: `agw`: floor(max over modalities of rows / (P·K)) + 1 steps, as AGW and CAJ;
                `fastreid`: floor(all rows / rows per step), at least 1; or a number of steps.
            seed: the run's seed.
            rank, world: which process this is, of how many.

        Raises:
            BadInput: P exceeds the identities that both modalities have seen (says how many there are), is no multiple
                of `world`, or a number is out of range.
        """
        self._check(identities_per_batch, visible_per_identity, infrared_per_identity, rank, world)
        labels, modality = np.asarray(labels, dtype=np.int64), np.asarray(modality)
        if labels.ndim != 1 or labels.shape != modality.shape:
            raise BadInput(f"sampler: labels have shape {labels.shape}, modality {modality.shape}")
        self._per_identity = {
            Modality.VISIBLE: visible_per_identity,
            Modality.INFRARED: infrared_per_identity,
        }
        rows = {m: np.flatnonzero(modality == m) for m in self._per_identity}
        self.identities = np.intersect1d(labels[rows[Modality.VISIBLE]], labels[rows[Modality.INFRARED]])
        if identities_per_batch > len(self.identities):
            raise BadInput(
                f"identities_per_batch is {identities_per_batch}, but only {len(self.identities)} identities have "
                "both visible and infrared pictures"
            )
        self._groups = {m: _grouped(labels, rows[m], self.identities) for m in rows}
        self._per_batch = identities_per_batch
        self._seed, self._share = seed, identities_per_batch // world
        self._first = rank * self._share
        self.steps = self._epoch_steps(epoch_length, {m: len(r) for m, r in rows.items()})
        self._table: tuple[int, np.ndarray] | None = None

    def rows(self, epoch: int, step: int) -> np.ndarray:
        """This process's rows of a step.

        Returns:
            P/world · (K visible + K infrared) int64.
        """
        if not 0 <= step < self.steps:
            raise IndexError(f"an epoch has steps 0 to {self.steps - 1}, not {step}")
        if self._table is None or self._table[0] != epoch:
            self._table = (epoch, self._draw(epoch, np.arange(self.steps)))
        return self._table[1][step, self._first : self._first + self._share].reshape(-1).copy()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_table": None}

    @staticmethod
    def _check(identities: int, visible: int, infrared: int, rank: int, world: int) -> None:
        for name, value in (
            ("identities_per_batch", identities),
            ("visible_per_identity", visible),
            ("infrared_per_identity", infrared),
        ):
            if value < 1:
                raise BadInput(f"{name} is {value}; it must be at least 1")
        if not 0 <= rank < world:
            raise BadInput(f"rank {rank} is not one of {world} processes; choices: 0 to {world - 1}")
        if identities % world:
            raise BadInput(f"identities_per_batch is {identities}, which {world} processes cannot share equally")

    def _epoch_steps(self, length: EpochLength, rows: dict[Modality, int]) -> int:
        if length == "agw":
            return max(rows[m] // (self._per_batch * k) for m, k in self._per_identity.items()) + 1
        if length == "fastreid":
            return max(1, sum(rows.values()) // (self._per_batch * sum(self._per_identity.values())))
        if isinstance(length, str):
            raise unknown("epoch_length", length, ["agw", "fastreid", "a number of steps"])
        if length < 1:
            raise BadInput(f"epoch_length is {length}; it must be 'agw', 'fastreid' or at least 1 step")
        return length

    def _draw(self, epoch: int, steps: np.ndarray) -> np.ndarray:
        """Rows of these steps, steps × P × (K visible + K infrared) int64."""
        steps = steps[:, None]
        # The P identities with the smallest keys are a uniform draw of P without replacement, in random order.
        keys = mixed(self._seed, epoch, steps, 0, np.arange(len(self.identities)))
        if self._per_batch < len(self.identities):
            chosen = np.argpartition(keys, self._per_batch - 1, axis=1)[:, : self._per_batch]
            order = np.argsort(np.take_along_axis(keys, chosen, axis=1), axis=1)
            chosen = np.take_along_axis(chosen, order, axis=1)
        else:
            chosen = np.argsort(keys, axis=1)
        parts = []
        for m, k in self._per_identity.items():
            members, start, count = self._groups[m]
            keys = mixed(self._seed, epoch, steps[:, :, None], 1 + m, chosen[:, :, None], np.arange(k))
            places = _distinct(keys, count[chosen])
            parts.append(members[start[chosen][:, :, None] + places])
        return np.concatenate(parts, axis=2)


def _grouped(labels: np.ndarray, rows: np.ndarray, identities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by label, and where each identity's rows begin and how many there are."""
    members = rows[np.argsort(labels[rows], kind="stable")]
    start = np.searchsorted(labels[members], identities, side="left")
    stop = np.searchsorted(labels[members], identities, side="right")
    return members, start, stop - start


def _distinct(keys: np.ndarray, count: np.ndarray) -> np.ndarray:
    """K places below `count` for every cell, all different where count ≥ K, independent draws elsewhere.

    Floyd's algorithm (Bentley and Floyd, CACM 1987) in all cells at once: the j-th draw is among the first
    count - K + j + 1 places, and the last of these takes the place of a draw that was made before.

    Args:
        keys: cells × K random uint64.
        count: cells, int64.
    """
    k = keys.shape[-1]
    places = np.empty(keys.shape, dtype=np.int64)
    plenty = count >= k
    for j in range(k):
        last = np.where(plenty, count - k + j, count - 1)
        draw = (keys[..., j] % (last + 1).astype(np.uint64)).astype(np.int64)
        taken = plenty & (places[..., :j] == draw[..., None]).any(axis=-1)
        places[..., j] = np.where(taken, last, draw)
    return places
