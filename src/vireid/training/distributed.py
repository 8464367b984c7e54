"""Several processes that train one network as one process would: one batch, one normalisation, one voice.

A launcher (torchrun, SLURM with torchrun, accelerate) starts them; here they find each other, see each other's rows and
agree on what went wrong. Everything here does nothing, or the ordinary thing, in a process that is alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate import PartialState
from torch import nn
from torch.nn import functional

from vireid.data.batch import Batch
from vireid.data.errors import BadInput

# How long one process may work while the others wait: features of all pictures, evaluation, a checkpoint.
PATIENCE = timedelta(hours=6)

Value = TypeVar("Value")


def begin() -> PartialState:
    """Find the other processes of this run, if a launcher started several.

    Returns:
        accelerate's state: `process_index`, `num_processes`, `is_main_process`, `is_local_main_process`.
    """
    return PartialState(cpu=on_cpu())


def on_cpu() -> bool:
    """Whether accelerate has to be told that these are processes without GPUs; it would take each for alone."""
    return int(os.environ.get("LOCAL_RANK", "-1")) >= 0 and not torch.cuda.is_available()


def several() -> bool:
    """Whether this process is one of several."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return there and _world() > 1


def _world() -> int:
    return torch.distributed.get_world_size()


# --- one batch --------------------------------------------------------------------------------------------------------


def whole_batch(*columns: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The rows of every process, in process order; alone, the rows as they are.

    Losses that compare rows with each other see the whole batch this way. Gradients flow back to the process that a
    row came from. Every process then computes the same loss and the wrapper around the network averages gradients over
    processes, which together gives the gradient that one process with the whole batch would have.

    A mean over rows needs none of this as long as every process has as many of them.

    Args:
        columns: tensors with the same first dimension N on every process, e.g. features (N×D), identity (N).

    Returns:
        The same columns with first dimension N × processes.
    """
    if not several():
        return columns
    return tuple(_Gather.apply(column) for column in columns)  # type: ignore[return-value]


class _Gather(torch.autograd.Function):
    """Everybody's rows; what everybody's losses want of a row goes back, summed, to the process it came from."""

    @staticmethod
    def forward(ctx: Any, column: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        parts = [torch.empty_like(column, memory_format=torch.contiguous_format) for _ in range(_world())]
        torch.distributed.all_gather(parts, column.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        total = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total)
        return total.chunk(_world())[torch.distributed.get_rank()]


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor of one shape on every process, without a gradient; the same bits on each."""
    if not several():
        return values.detach()
    total = values.detach().clone()
    torch.distributed.all_reduce(total)
    return total / _world()


# --- one normalisation ------------------------------------------------------------------------------------------------


def synchronise_normalisation(network: nn.Module) -> None:
    """Let every batch normalisation in `network` use the statistics of all processes' rows.

    Parameters and buffers stay the same objects under the same names: optimisers, checkpoints and the modules' own
    switches (`training`, `track_running_stats`) notice nothing.

    Args:
        network: changed in place; not itself a batch normalisation.
    """
    made: dict[nn.Module, nn.Module] = {}  # a module may stand in two places, and then has to be one in both
    for module in list(network.modules()):
        for name, child in module._modules.items():
            if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                module._modules[name] = made.setdefault(child, _synchronised(child))


def _synchronised(norm: nn.modules.batchnorm._BatchNorm) -> SynchronisedBatchNorm:
    made = SynchronisedBatchNorm(norm.num_features, norm.eps, norm.momentum, affine=False, track_running_stats=False)
    made.affine, made.track_running_stats, made.training = norm.affine, norm.track_running_stats, norm.training
    made._parameters, made._buffers = norm._parameters, norm._buffers
    return made


class SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the rows of all processes, on CPU and GPU (torch's own is for GPUs only).

    Ioffe and Szegedy (ICML 2015). Processes may have different numbers of rows, and none. Running statistics are what
    one process with all rows would keep. All processes have to call it equally often and in the same order.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch normalisation takes N×C×…, not {tuple(input.shape)}")

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """N×C×… to the same shape.

        Raises:
            ValueError: there is only one value per channel to normalise, over all processes.
        """
        by_batch = self.training or self.running_mean is None
        if not (by_batch and several()):
            return super().forward(input)
        self._check_input_dim(input)
        rows = input if input.dtype == torch.float64 else input.float()
        mean, variance, count = _statistics_everywhere(rows.detach())
        if count < 2:
            raise ValueError(f"batch normalisation needs more than one value per channel, not {int(count)}")
        if self.training and self.track_running_stats:
            self._keep(mean, variance * (count / (count - 1)))
        return _Normalise.apply(input, mean, variance, count, self.weight, self.bias, self.eps)  # type: ignore[return-value]

    @torch.no_grad()
    def _keep(self, mean: torch.Tensor, unbiased: torch.Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def _statistics_everywhere(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and biased variance per channel over the rows of all processes, and how many values each is over.

    One exchange: each process sends its count, means and variances, and all put them together by the rule of Chan,
    Golub and LeVeque (1979), which does not subtract large squares from each other.
    """
    channels = rows.shape[1]
    own = rows.new_zeros(2 * channels + 1)
    if rows.numel():
        variance, mean = torch.var_mean(rows, dim=_all_but_channels(rows), correction=0)
        own = torch.cat((mean, variance, rows.new_full((1,), rows.numel() // channels)))
    (everyone,) = whole_batch(own[None])
    means, variances, counts = everyone[:, :channels], everyone[:, channels:-1], everyone[:, -1:]
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    variance = (counts * (variances + (means - mean).square())).sum(0) / count
    return mean, variance, count


class _Normalise(torch.autograd.Function):
    """`y = w (x - μ) / √(σ² + ε) + b` whose gradient knows that μ and σ² come from all processes' rows."""

    @staticmethod
    def forward(ctx: Any, x, mean, variance, count, weight, bias, eps):  # type: ignore[override]
        ctx.save_for_backward(x, mean, (variance + eps).rsqrt(), count, weight)
        weight, bias = (None if value is None else value.to(mean.dtype) for value in (weight, bias))
        return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor):  # type: ignore[override]
        x, mean, scale, count, weight = ctx.saved_tensors
        shape = [1, -1] + [1] * (x.ndim - 2)
        dims = _all_but_channels(x)
        given = gradients[0].to(mean.dtype)
        centred = x.to(mean.dtype) - mean.view(shape)
        along_bias = given.sum(dims)
        along_weight = (given * centred).sum(dims) * scale
        everywhere = torch.stack((along_bias, along_weight))
        torch.distributed.all_reduce(everywhere)
        constant, slope = everywhere / count
        # dx = w/σ (dy - mean(dy) - x̂ mean(dy x̂)), the means over all processes' rows
        inner = centred.mul_((slope * scale).view(shape)).add_(constant.view(shape))
        factor = scale if weight is None else scale * weight.to(scale.dtype)
        dx = (given - inner).mul_(factor.view(shape)).to(x.dtype)
        wanted = ctx.needs_input_grad
        return dx, None, None, None, along_weight if wanted[4] else None, along_bias if wanted[5] else None, None


def _all_but_channels(rows: torch.Tensor) -> list[int]:
    return [0, *range(2, rows.ndim)]


# --- one voice --------------------------------------------------------------------------------------------------------


class Agreed(BadInput):
    """A mistake that all processes know of, so that one of them can speak for all."""


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """A block in which any process may find a mistake; then all of them raise it, and none waits for ever.

    All processes have to come to it. It also makes them wait for the slowest.

    Raises:
        BadInput: what the first process that found a mistake said.
    """
    mistake = None
    try:
        yield
    except BadInput as error:
        if not several():
            raise
        mistake = error
    if several():
        _exchange(mistake, 0)


def first_on_each_machine(make: Callable[[], Value]) -> Value:
    """What `make` gives, made by one process of each machine before the others: it may have to download something.

    Raises:
        BadInput: as in `agreed`.
    """
    made: list[Value] = []
    for turn in (True, False):
        with agreed():
            if begin().is_local_main_process is turn:
                made.append(make())
    return made[0]


def in_step(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches, one on each process at a time; what a loader of one process cannot read stops all.

    Raises:
        BadInput: as in `agreed`.
        ValueError: processes have rows of different modalities, or one has no more batches. A modality's own layers
            would then wait for the others for ever.
    """
    if not several():
        yield from batches
        return
    source = iter(batches)
    while True:
        batch, mistake = None, None
        try:
            batch = next(source, None)
        except BadInput as error:
            mistake = error
        kinds = batch.modality.unique().tolist() if batch is not None else []
        if not _exchange(mistake, sum(1 << kind for kind in kinds)):
            raise ValueError(
                f"processes have rows of different modalities in one step (here {kinds}), or not equally many steps"
            )
        if batch is None:
            return
        yield batch


def _exchange(mistake: BadInput | None, code: int) -> bool:
    """Raise the first mistake any process has; otherwise say whether `code` is the same on all of them."""
    found = torch.tensor([int(mistake is not None), code, -code])
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=_channel())
    failed, largest, smallest = found.tolist()
    if failed:
        raise Agreed(next(said for said in gathered(mistake and str(mistake)) if said)) from mistake
    return largest == -smallest


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Around a whole run: of several processes with the same mistake only the main one raises it.

    The others end with exit code 2 after the main process has ended: a launcher stops everybody as soon as the first
    one fails, and the sentence should be out by then.
    """
    try:
        yield
    except Agreed:
        if not several() or torch.distributed.get_rank() == 0:
            raise
        with contextlib.suppress(RuntimeError):  # what waiting for a process that has gone ends in
            torch.distributed.barrier(group=_channel())
        raise SystemExit(2) from None


def gathered(value: Value) -> list[Value]:
    """Every process's value, in process order."""
    if not several():
        return [value]
    found: list[Any] = [None] * _world()
    torch.distributed.all_gather_object(found, value, group=_channel())
    return found


def from_main(value: Value) -> Value:
    """The main process's value."""
    if not several():
        return value
    found = [value]
    torch.distributed.broadcast_object_list(found, src=0, group=_channel())
    return found[0]


def buffers_from_main(network: nn.Module) -> None:
    """Put the main process's buffers (memories) everywhere."""
    if several():
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, src=0)


@functools.cache
def _channel() -> Any:
    """Talk goes beside the tensors: over the CPU, where waiting stops no GPU and a process that died is noticed."""
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
