"""Smaller and faster files: weights and maps as integers of 8 bits, with ranges that calibration pictures give."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vireid.export.onnx import IMAGES, package
from vireid.export.openvino import same_signal_stack, save, toolkit

PICTURES = 256
BATCH = 16
# What is computed in int8. Pooling, necks and the division by the length stay in float32: they cost little.
OPERATIONS = ["Conv", "MatMul", "Gemm"]


def write_onnx(source: Path, images: np.ndarray, file: Path) -> None:
    """Write the int8 version of an ONNX file, with ranges by output channel, computed by onnxruntime.

    Args:
        source: the float32 file.
        images: calibration pictures of its modality, N×3×H×W uint8.
        file: the file to write.
    """
    quantisation = package("onnxruntime.quantization")
    prepare = package("onnxruntime.quantization.shape_inference").quant_pre_process
    kinds = quantisation.QuantType
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch, _quiet():
        prepared = Path(scratch) / source.name
        prepare(source, prepared, skip_symbolic_shape=True)
        quantisation.quantize_static(
            prepared,
            file,
            _Batches(images),
            op_types_to_quantize=OPERATIONS,
            per_channel=True,
            activation_type=kinds.QUInt8,
            weight_type=kinds.QInt8,
            # Weights of 7 bits. With 8, sums overflow on x86 processors without VNNI: on one, AGW with the small trunk
            # lost 2.8 points of mAP on a generated world, and with 7 bits 0.1.
            reduce_range=True,
            # A product of two maps has no weights, and its values can have any range.
            extra_options={"MatMulConstBOnly": True},
        )


class _Batches:
    """Calibration pictures in the form that onnxruntime asks for."""

    def __init__(self, images: np.ndarray) -> None:
        self._parts = iter(_parts(images))

    def get_next(self) -> dict[str, np.ndarray] | None:
        images = next(self._parts, None)
        return None if images is None else {IMAGES: images}


def write_openvino(source: Path, images: np.ndarray, file: Path) -> None:
    """Write an ONNX file as an int8 OpenVINO file, by nncf; see `write_onnx`."""
    nncf = toolkit("nncf")
    parts = _parts(images)
    with _quiet(), same_signal_stack():
        save(nncf.quantize(toolkit().convert_model(source), nncf.Dataset(parts), subset_size=len(parts)), file)


def _parts(images: np.ndarray) -> list[np.ndarray]:
    return [images[first : first + BATCH] for first in range(0, len(images), BATCH)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A `with` block in which the packages print no bars and no warnings about parts that stay in float32."""
    level = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
