"""Small columns that are needed on the device and on the host: identities, modalities and positions of samples.

To read a value back from a GPU, the host has to wait until the GPU has done all that it was asked for. In these
microseconds the GPU gets no new work. So columns that come from the host keep their copy there, and a training step
never waits. Without a copy everything works in the same way, and waits.
"""

from __future__ import annotations

import torch
from torch import Tensor

_COPY = "vireid_on_host"


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Values of the host on a device, without waiting; `on_host` finds the copy.

    Args:
        values: a tensor of the host.
        device: where it is needed. On the host itself, the result is `values`.
    """
    device = torch.device(device)
    if values.device.type != "cpu":  # is there already, as in a batch that is moved twice
        return values.to(device)
    if device.type == "cuda" and not values.is_pinned():
        values = values.pin_memory()
    return keep(values.to(device, non_blocking=True), values)


def keep(values: Tensor, copy: Tensor) -> Tensor:
    """Say that `copy` holds the same values on the host. Returns `values`; nobody may change either of them."""
    if values is not copy:
        setattr(values, _COPY, copy)
    return values


def on_host(values: Tensor) -> Tensor:
    """The same values on the host: the copy that was kept, or else a new one, which waits for the device."""
    copy = getattr(values, _COPY, None)
    return values.cpu() if copy is None else copy


def where(condition: Tensor, device: torch.device | str) -> Tensor:
    """The positions where N booleans of the host are true: ascending int64, on a device."""
    return to_device(condition.nonzero()[:, 0], device)


def groups(values: Tensor, device: torch.device | str) -> list[Tensor]:
    """The positions of each distinct value of the host's N int64, in the order of the values, on a device."""
    return [where(values == value, device) for value in values.unique()]


def pick(values: Tensor, places: Tensor) -> Tensor:
    """`values[places]`, on the device and on the host."""
    return keep(values[places], on_host(values)[on_host(places)])


def first(values: Tensor, count: int | None) -> Tensor:
    """The first values, all of them for None, on the device and on the host."""
    return values if count is None else keep(values[:count], on_host(values)[:count])


def repeat(values: Tensor, times: int) -> Tensor:
    """The N values several times, one whole copy after the other, on the device and on the host."""
    return keep(values.repeat(times), on_host(values).repeat(times))
