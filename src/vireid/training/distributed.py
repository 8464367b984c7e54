"""Data-parallel training in several processes, with the same result as one process with the whole batch.

A launcher (torchrun, SLURM with torchrun, accelerate) starts the processes. This module connects them, all-gathers
samples, synchronises batch normalisation, and makes all processes stop if one of them meets a mistake. With only
one process, nothing is exchanged.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
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
TIMEOUT = timedelta(hours=6)

Value = TypeVar("Value")


def begin() -> PartialState:
    """Connect the processes of this run, if a launcher started several. Further calls return the same state.

    Returns:
        accelerate's state: `process_index`, `num_processes`, `is_main_process`, `is_local_main_process`.
    """
    state = PartialState(cpu=on_cpu())
    if is_distributed():
        atexit.unregister(end)
        atexit.register(end)
        if getattr(sys.excepthook, "func", None) is not _leave:
            sys.excepthook = functools.partial(_leave, sys.excepthook)
    return state


def _leave(report: Callable[..., Any], kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Report an exception that nobody caught, run the exit handlers, and leave at once with exit code 1.

    While the interpreter is taken apart, threads of gloo can still be busy with the connections to processes that are
    ending too. Then they abort this process in about one of 25 cases, and the exit code would be that of the abort.
    """
    report(kind, error, trace)
    if issubclass(kind, Exception):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(1)


def end() -> None:
    """Close the connections to the other processes, if there are any. A process that has begun calls it when it exits.

    Threads of the process group that still run when the interpreter exits can abort the process.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        _cpu_group.cache_clear()
        torch.distributed.destroy_process_group()


def on_cpu() -> bool:
    """Whether several processes run without GPUs. accelerate has to be told, or it treats each as the only one."""
    return int(os.environ.get("LOCAL_RANK", "-1")) >= 0 and not torch.cuda.is_available()


def is_distributed() -> bool:
    """Whether this process is one of several that are connected."""
    connected = torch.distributed.is_available() and torch.distributed.is_initialized()
    return connected and _world_size() > 1


def _world_size() -> int:
    return torch.distributed.get_world_size()


# --- samples of all processes -----------------------------------------------------------------------------------------


def all_gather(*columns: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The samples of all processes, in the order of ranks. Alone, the samples as they are.

    A loss that compares samples with each other needs the whole batch. Gradients flow back to the process that owns the
    sample. Each process computes the same loss, and the wrapper around the network averages gradients over processes.
    Together this is the gradient that one process with the whole batch would have.

    A mean over samples does not need this function if all processes have the same number of samples.

    Args:
        columns: tensors with the same first dimension N on every process, e.g. features (N×D), identity (N).

    Returns:
        The same columns with first dimension N × world size.
    """
    if not is_distributed():
        return columns
    return tuple(_AllGather.apply(column) for column in columns)  # type: ignore[return-value]


class _AllGather(torch.autograd.Function):
    """All-gather with a gradient.

    The gradient of a sample is summed over all processes and returned to the process that owns the sample.

    `torch.distributed.nn.functional.all_gather` does the same, and is as fast (measured: gloo, 2 and 4 processes). But
    torch 2.13 deprecates it: each process would print a FutureWarning. Its successor is in a private module of torch.
    """

    @staticmethod
    def forward(ctx: Any, column: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        parts = [torch.empty_like(column, memory_format=torch.contiguous_format) for _ in range(_world_size())]
        torch.distributed.all_gather(parts, column.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        total = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total)
        return total.chunk(_world_size())[torch.distributed.get_rank()]


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean over processes of a tensor, which has one shape on all of them. No gradient; equal bits everywhere."""
    if not is_distributed():
        return values.detach()
    total = values.detach().clone()
    torch.distributed.all_reduce(total)
    return total / _world_size()


# --- batch normalisation ----------------------------------------------------------------------------------------------


def synchronise_normalisation(network: nn.Module, device_type: str = "cpu") -> None:
    """Let every batch normalisation in `network` use the statistics of the samples of all processes.

    Parameters and buffers stay the same objects under the same names, so optimisers and checkpoints are not affected.

    On CUDA this is `torch.nn.SyncBatchNorm`, which refuses other devices; they get `SynchronisedBatchNorm`. The tests
    cover the conversion for CUDA, but not a training step with several GPUs.

    Args:
        network: changed in place; it must not be a batch normalisation itself.
        device_type: the type of the device that the network computes on, e.g. `cpu` or `cuda`.
    """
    if device_type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    made: dict[nn.Module, nn.Module] = {}  # a module that stands in two places must become one module again
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
    """Batch normalisation over the samples of all processes, on any device (torch's own refuses CPUs).

    Ioffe and Szegedy (ICML 2015). Processes may have different numbers of samples, also none. The running statistics
    are those that one process with all samples would keep. All processes must call it equally often and in the same
    order.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch normalisation takes N×C×…, not {tuple(input.shape)}")

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """N×C×… to the same shape.

        Raises:
            ValueError: over all processes there is only one value per channel.
        """
        by_batch = self.training or self.running_mean is None
        if not (by_batch and is_distributed()):
            return super().forward(input)
        self._check_input_dim(input)
        samples = input if input.dtype == torch.float64 else input.float()
        mean, variance, count = _statistics_of_all(samples.detach())
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


def _statistics_of_all(samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and biased variance per channel over the samples of all processes, and the number of values per channel.

    One all-gather: each process sends its count, means and variances. All combine them by the rule of Chan, Golub and
    LeVeque (1979), which does not subtract large squares from each other.
    """
    channels = samples.shape[1]
    own = samples.new_zeros(2 * channels + 1)
    if samples.numel():
        variance, mean = torch.var_mean(samples, dim=_all_but_channels(samples), correction=0)
        own = torch.cat((mean, variance, samples.new_full((1,), samples.numel() // channels)))
    (gathered,) = all_gather(own[None])
    means, variances, counts = gathered[:, :channels], gathered[:, channels:-1], gathered[:, -1:]
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    variance = (counts * (variances + (means - mean).square())).sum(0) / count
    return mean, variance, count


class _Normalise(torch.autograd.Function):
    """`y = w (x - μ) / √(σ² + ε) + b`, with the gradient for μ and σ² that depend on the samples of all processes."""

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
        total = torch.stack((along_bias, along_weight))
        torch.distributed.all_reduce(total)
        constant, slope = total / count
        # dx = w/σ (dy - mean(dy) - x̂ mean(dy x̂)), with means over the samples of all processes
        inner = centred.mul_((slope * scale).view(shape)).add_(constant.view(shape))
        factor = scale if weight is None else scale * weight.to(scale.dtype)
        dx = (given - inner).mul_(factor.view(shape)).to(x.dtype)
        wanted = ctx.needs_input_grad
        return dx, None, None, None, along_weight if wanted[4] else None, along_bias if wanted[5] else None, None


def _all_but_channels(samples: torch.Tensor) -> list[int]:
    return [0, *range(2, samples.ndim)]


# --- mistakes and messages --------------------------------------------------------------------------------------------


class SharedMistake(BadInput):
    """A mistake that all processes raise together, so that one of them can report it."""


@contextlib.contextmanager
def raise_together() -> Iterator[None]:
    """If one process raises BadInput in this block, all processes raise it after the block.

    All processes must enter the block. At its end, each waits for the slowest.

    Raises:
        BadInput: the message of the first process, by rank, that raised one.
    """
    mistake = None
    try:
        yield
    except BadInput as error:
        if not is_distributed():
            raise
        mistake = error
    if is_distributed():
        _raise_or_compare(mistake, 0)


def local_main_process_first(make: Callable[[], Value]) -> Value:
    """The result of `make`. One process of each machine calls it before the others: it may download files.

    Raises:
        BadInput: as in `raise_together`.
    """
    made: list[Value] = []
    for turn in (True, False):
        with raise_together():
            if begin().is_local_main_process is turn:
                made.append(make())
    return made[0]


def synchronised(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches of this process, each checked against those of the other processes.

    Raises:
        BadInput: the loader of some process raised one; see `raise_together`.
        ValueError: processes have samples of different modalities, or different numbers of batches. The layers that
            belong to one modality would wait for the other processes for ever.
    """
    if not is_distributed():
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
        if not _raise_or_compare(mistake, sum(1 << kind for kind in kinds)):
            raise ValueError(
                f"processes have samples of different modalities in one step (here {kinds}), or different numbers of "
                "steps"
            )
        if batch is None:
            return
        yield batch


def _raise_or_compare(mistake: BadInput | None, code: int) -> bool:
    """Raise the first mistake of any process. Without one, return whether `code` is equal on all processes."""
    found = torch.tensor([int(mistake is not None), code, -code])
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=_cpu_group())
    failed, largest, smallest = found.tolist()
    if failed:
        raise SharedMistake(next(said for said in gather_objects(mistake and str(mistake)) if said)) from mistake
    return largest == -smallest


@contextlib.contextmanager
def main_process_speaks() -> Iterator[None]:
    """Around a whole run: only the main process raises a mistake that all processes share.

    The other processes wait until the main process has exited, and then exit with code 2. A launcher stops all
    processes when the first one fails, so the main process must have printed its message by then.
    """
    try:
        yield
    except SharedMistake:
        if not is_distributed() or torch.distributed.get_rank() == 0:
            raise
        with contextlib.suppress(RuntimeError):  # the barrier fails when the main process closes its connections
            torch.distributed.barrier(group=_cpu_group())
        raise SystemExit(2) from None
    except BaseException:
        # The other processes may not know of this mistake. Closing the connections could wait for them.
        atexit.unregister(end)
        raise


def gather_objects(value: Value) -> list[Value]:
    """The values of all processes, in the order of ranks."""
    if not is_distributed():
        return [value]
    found: list[Any] = [None] * _world_size()
    torch.distributed.all_gather_object(found, value, group=_cpu_group())
    return found


def broadcast_object(value: Value) -> Value:
    """The main process's value, on all processes."""
    if not is_distributed():
        return value
    found = [value]
    torch.distributed.broadcast_object_list(found, src=0, group=_cpu_group())
    return found[0]


def broadcast_buffers(network: nn.Module) -> None:
    """Copy the main process's buffers (e.g. memories) to all processes."""
    if is_distributed():
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, src=0)


@functools.cache
def _cpu_group() -> Any:
    """The gloo group for messages. They never wait for the GPU, and a process that died is noticed at once."""
    return torch.distributed.new_group(backend="gloo", timeout=TIMEOUT)
