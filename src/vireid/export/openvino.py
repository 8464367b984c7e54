"""OpenVINO files: converted from ONNX files, computed by OpenVINO."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vireid.data.errors import BadInput
from vireid.export.onnx import package


def toolkit(name: str = "openvino") -> Any:
    """OpenVINO, or `nncf`, which makes int8 of its models.

    Importing them reports to their maker over the network, unless the package openvino_telemetry is missing. So it is
    kept from being imported. A program that imported OpenVINO before is left as it is.

    Raises:
        BadInput: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return package(name, "openvino")


def convert(onnx: Path, file: Path) -> None:
    """Convert an ONNX file to `file`, which ends in `.xml`, and a `.bin` beside it, with weights in float32."""
    save(toolkit().convert_model(onnx), file)


def save(model: Any, file: Path) -> None:
    """Write an OpenVINO model as `file` (`.xml`) and a `.bin` beside it."""
    toolkit().save_model(model, file, compress_to_fp16=False)


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def same_signal_stack() -> Iterator[None]:
    """A `with` block in which OpenVINO compiles models. Afterwards the thread has the stack for signals that it had.

    Each compiled model gives the thread another one, and brings the previous one back when it is deleted. If the older
    of two models is deleted first, the thread is left with one that is gone. The next signal with a handler in Python
    then ends the process: such as the end of a subprocess, once torch has had processes that load pictures.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    c, stack = ctypes.CDLL(None), _SignalStack()
    c.sigaltstack(None, ctypes.byref(stack))
    try:
        yield
    finally:
        c.sigaltstack(ctypes.byref(stack), None)


def opened(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The function from pictures to features that an OpenVINO file holds.

    It computes in float32 (and int8 where the file says so). On processors with bfloat16, OpenVINO would otherwise
    compute in bfloat16, and the features would differ from PyTorch's.

    Raises:
        BadInput: OpenVINO is not installed, or it cannot read the file.
    """
    how = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    try:
        with same_signal_stack():
            request = toolkit().compile_model(file, "CPU", how).create_infer_request()
    except RuntimeError as error:
        raise BadInput(f"{file} cannot be read by OpenVINO: {' '.join(str(error).split())[:200]}") from error
    return lambda images: np.array(request.infer([images])[0])  # a copy: the request uses its memory again
