"""The way to compute features that is fastest on this machine among those that give the features of the network.

Ways of a network of PyTorch:

* as it is, with channels-last maps;
* folded: a copy in which batch normalisations are part of the convolutions before them (`vireid.networks.folding`);
* either of the two in bf16 or fp16.

**float32 is chosen without a clock.** Measured times are never equal, so a choice by time could differ from one run to
the next, and features with it, by 1e-7. That can exchange two gallery pictures that are almost equally similar. But
`vireid test` must print the same numbers twice, and a gallery build that was stopped must go on with the same vectors,
to the last bit. So the rule is fixed: a folded copy from `ENOUGH` pictures on, and the network as it is for fewer,
because a comparison would take longer than it saves. A folded network does the same multiplications with fewer passes
over the maps, so there is nothing that a clock would have to decide.

**bf16 changes features by about 1e-5, so it must be asked for.** With `bf16` it is used. With `auto` it is used if the
clock says that it is clearly faster here: many processors have no arithmetic for it. The report names the precision
that was used, and with that word the same numbers come again.

**No way is used before it was compared.** A few pictures of each modality go through the network as it is, in float32,
and through the way. Beyond its limit, the way is refused, and the network as it is computes. The comparison depends on
no clock and no random number, so it always has the same result on one machine.

Three ways were measured and left out (AGW with ResNet-50, 288×144, one core, float32). `torch.compile` took 217 seconds
to compile, which no test set pays back, for 1.3 times the speed of a folded network. oneDNN has a function that also
adds the shortcut and applies the ReLU; in PyTorch it is private, and it gained nothing. The convolutions take 87 % of
the time of a folded network, and reach more than eight tenths of the speed of a matrix product. ONNX Runtime and
OpenVINO need packages that are not always installed, and half a minute for an export. A user who wants them exports the
run once, and tests the export.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.evaluation.embedding import AS_IT_IS, Embed, NetworkEmbedder, Way
from vireid.evaluation.parity import LIMIT, difference, patterns
from vireid.networks.folding import folded

FOLDED = "folded normalisations, channels-last"

ENOUGH = 256
"""From this number of pictures on, the comparison takes at most three in a hundred of the time of the work."""

ENOUGH_FOR_THE_CLOCK = 4000
"""From this number on, timing does, too."""

COMPARED = 4
"""Pictures that are compared: every second one is infrared."""

FLOAT32_LIMIT = 1e-5
"""How far a way in float32 may be. On a processor, it is about 1e-13. Some GPUs round the factors of convolutions to 10
bits (TF32), and two orders of the same sum then differ by up to 1e-6."""

ROUNDS, TIMED = 3, 32
CLEARLY = 1.2
"""How many times faster bf16 must be for `auto`."""


@dataclass(frozen=True)
class Work:
    """What is to be computed.

    Attributes:
        size: height and width of the pictures.
        pictures: how many, approximately.
        precision: `off`, `bf16`, `fp16` or `auto`.
        device: where.
        batch: pictures at once.
    """

    size: Size
    pictures: int
    precision: str = "off"
    device: torch.device | str = "cpu"
    batch: int = 64

    @property
    def worth(self) -> int:
        """What so many pictures are worth: 0 nothing, 1 a comparison, 2 also measured times."""
        return (self.pictures >= ENOUGH) + (self.pictures >= ENOUGH_FOR_THE_CLOCK)


def fastest(network: nn.Module, embed: Callable[[nn.Module], Embed], work: Work) -> NetworkEmbedder:
    """The fastest way that gives the features of a network.

    Args:
        network: the network, on the device of the work. Nothing of it is changed. If it is in training mode or has
            hooks, it computes itself, because a copy would do something else.
        embed: the function from normalised images and modalities to features, of the network or of a copy of it.
        work: what is to be computed.
    """
    asked = "off" if work.precision == "auto" else work.precision
    plain = NetworkEmbedder(embed(network), work.device, Way(AS_IT_IS, asked))
    if reason := _not_compared(network, work):
        return _with_note(plain, reason)
    if (copied := _copy(network)) is None:
        return _with_note(plain, "the network cannot be copied")
    return _Comparison(plain, embed(copied), work).chosen()


def _not_compared(network: nn.Module, work: Work) -> str:
    """Why the network itself computes; empty if a way can be chosen."""
    if work.worth < 1:
        return f"fewer than {ENOUGH} pictures"
    if network.training or any(module._forward_hooks or module._forward_pre_hooks for module in network.modules()):
        return "the network is in training mode or has hooks"
    return ""


def _copy(network: nn.Module) -> nn.Module | None:
    """A folded copy, or None if this network cannot be copied, such as one that holds a tensor with a gradient."""
    try:
        return folded(network)
    except (RuntimeError, TypeError):
        return None


def _with_note(embedder: NetworkEmbedder, note: str) -> NetworkEmbedder:
    return replace(embedder, way=replace(embedder.way, note=note))


class _Comparison:
    """The ways of one network, compared with the network as it is.

    Args:
        plain: the network as it is, in the precision that was asked for.
        folded: what the folded copy computes.
        work: what is to be computed.
    """

    def __init__(self, plain: NetworkEmbedder, folded: Embed, work: Work) -> None:
        self.plain, self.folded, self.work = plain, folded, work
        self.images = torch.from_numpy(patterns(COMPARED, work.size))
        self.modality = torch.tensor([int(Modality.VISIBLE), int(Modality.INFRARED)]).repeat(COMPARED // 2)
        self.wanted = self._features(replace(plain, way=Way(AS_IT_IS)))

    def chosen(self) -> NetworkEmbedder:
        """The fastest way that is near enough."""
        exact = self._of(self.plain.way.precision)
        if self.work.precision != "auto":
            return exact
        if self.work.worth < 2:
            return _with_note(exact, f"fewer than {ENOUGH_FOR_THE_CLOCK} pictures, so bf16 was not timed")
        rounded = self._of("bf16")
        if not (rounded.way.difference or 0) <= LIMIT:
            return _with_note(exact, f"bf16 differs by {rounded.way.difference:.1e}")
        speed = self._times_faster(rounded, exact)
        if speed >= CLEARLY:
            return rounded
        return _with_note(exact, f"bf16 is {speed:.2f} times as fast here")

    def _of(self, precision: str) -> NetworkEmbedder:
        """The folded copy in this precision, or the network as it is if the copy is too far."""
        limit = FLOAT32_LIMIT if precision == "off" else LIMIT
        fast = self._compared(NetworkEmbedder(self.folded, self.work.device, Way(FOLDED, precision)))
        if fast.way.difference is not None and fast.way.difference <= limit:
            return fast
        plain = replace(self.plain, way=Way(AS_IT_IS, precision))
        if precision != "off":
            plain = self._compared(plain)
        return _with_note(plain, f"folded, the difference is {fast.way.difference:.1e}")

    def _compared(self, embedder: NetworkEmbedder) -> NetworkEmbedder:
        found = difference(self._features(embedder), self.wanted)
        return replace(embedder, way=replace(embedder.way, difference=found))

    def _features(self, embedder: NetworkEmbedder) -> np.ndarray:
        return embedder(self.images, self.modality).cpu().numpy()

    def _times_faster(self, one: NetworkEmbedder, other: NetworkEmbedder) -> float:
        """The median time of `other` over that of `one`, for batches of the size of the work, in turns."""
        count = self.work.batch if torch.device(self.work.device).type == "cuda" else min(self.work.batch, TIMED)
        images = self.images.repeat(-(-count // COMPARED), 1, 1, 1)[:count]
        modality = self.modality.repeat(-(-count // COMPARED))[:count]
        times: dict[NetworkEmbedder, list[float]] = {one: [], other: []}
        for number in range(ROUNDS + 1):
            for embedder, seconds in times.items():
                began = time.perf_counter()
                embedder(images, modality).cpu()  # waits for a GPU
                if number:  # the first call also prepares kernels
                    seconds.append(time.perf_counter() - began)
            if times[one] and times[one][0] > times[other][0]:
                break  # not faster at all, so no further round is needed
        return statistics.median(times[other]) / statistics.median(times[one])
