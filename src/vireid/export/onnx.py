"""ONNX files: written by torch.onnx, computed by onnxruntime."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vireid.data.errors import BadInput
from vireid.data.size import Size
from vireid.export.specialise import OneModality

IMAGES, FEATURES = "images", "features"


def package(name: str, extra: str = "export") -> Any:
    """A package that only exported models need.

    Raises:
        BadInput: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BadInput(
            f"exported models need the package {name.partition('.')[0]}, which is not installed: "
            f"pip install 'vireid[{extra}]'"
        ) from None


def write(network: OneModality, size: Size, file: Path) -> None:
    """Write a network as an ONNX file.

    Its input `images` is N×3×H×W uint8 with any N, its output `features` N×D float32. What these do not need, such as
    classifiers, is not in the file.

    Args:
        network: the network of one modality.
        size: height and width of the pictures.
        file: the file to write.

    Raises:
        BadInput: a package is missing, or the network cannot be exported.
    """
    package("onnxscript")
    example = torch.zeros(2, 3, *size, dtype=torch.uint8)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)  # it names packages that are not installed and not needed
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("pictures")},),
                input_names=[IMAGES],
                output_names=[FEATURES],
                verbose=False,
            )
        program.save(file)
    except torch.onnx.errors.OnnxExporterError as error:
        raise BadInput(f"this network cannot be exported to ONNX: {_reason(error)}") from error
    finally:
        logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The innermost cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300]


def opened(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The function from pictures to features that an ONNX file holds.

    Raises:
        BadInput: onnxruntime is not installed, or it cannot read the file.
    """
    runtime = package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Idle threads sleep: spinning ones take the time of the processes that load pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many kinds of exceptions without a common one
        raise BadInput(f"{file} cannot be read by onnxruntime: {' '.join(str(error).split())[:200]}") from error
    return lambda images: session.run([FEATURES], {IMAGES: images})[0]
