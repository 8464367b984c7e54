"""SYSU-MM01's official gallery draws, which a MATLAB file lists.

The file is read by a small parser of our own. scipy's `loadmat` was tried: on a damaged file it can end the process
with a segmentation fault, and it unpacks without a limit. This parser reads what is needed and checks each length.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from vireid.data.errors import BadInput

SOURCE = (
    "the file rand_perm_cam.mat of github.com/wuancong/SYSU-MM01, folder evaluation/data_split (it is not in the "
    "data set's own exp/)"
)

Permutation = Mapping[tuple[int, int], np.ndarray]
"""(camera, identity) → trials×n int64. The values are positions in the sorted list of that pair's n files, from 1."""

_LIMIT_BYTES = 16 * 2**20  # of the file and of each unpacked element; the real file has less than 1 MB
_LIMIT_DEPTH = 4
_COMPRESSED, _MATRIX, _CELL = 15, 14, 1
# MAT-file level 5: codes of the storage types that numbers may have.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}


class _Malformed(Exception):
    """The bytes do not follow the format."""


def read_permutation(file: str | Path) -> dict[tuple[int, int], np.ndarray]:
    """Read `rand_perm_cam.mat`: cell[camera][identity] is a 10×n matrix, and each line permutes 1..n.

    Args:
        file: a MATLAB level 5 `.mat` file, compressed or not. (MATLAB's `save` writes this level by default. Level 7.3
            is another format.)

    Returns:
        (camera, identity), both counted from 1 → trials×n int64. Pairs without pictures are left out.

    Raises:
        BadInput: the file is missing, is too large, has another format, or holds a line that is not a permutation.
    """
    file = Path(file)
    try:
        if file.stat().st_size > _LIMIT_BYTES:
            raise BadInput(f"permutation '{file}' is larger than {_LIMIT_BYTES >> 20} MiB; expected {SOURCE}")
        raw = file.read_bytes()
    except OSError as error:
        raise BadInput(f"permutation '{file}' cannot be read ({error.strerror}); expected {SOURCE}") from None
    try:
        if len(raw) < 128 or raw[124:128] != b"\x00\x01IM":
            raise _Malformed("no header of a little-endian MATLAB level 5 file")
        found = [_matrix(body, 0) for kind, body in _elements(raw[128:]) if kind == _MATRIX]
        cells = next((value for name, value in found if name == "rand_perm_cam"), None)
        if not isinstance(cells, list):
            raise _Malformed("no cell array named rand_perm_cam")
        return _by_pair(cells)
    except (_Malformed, struct.error, zlib.error) as error:
        raise BadInput(f"permutation '{file}' is not usable: {error}; expected {SOURCE}") from None


def _by_pair(cells: list) -> dict[tuple[int, int], np.ndarray]:
    drawn: dict[tuple[int, int], np.ndarray] = {}
    for camera, inner in enumerate(cells, start=1):
        if not isinstance(inner, list):
            raise _Malformed(f"camera {camera} is not a cell array")
        for identity, value in enumerate(inner, start=1):
            if isinstance(value, list):
                raise _Malformed(f"camera {camera}, identity {identity} is not a matrix")
            if value.size == 0:
                continue
            if not (np.sort(value, axis=1) == np.arange(1, value.shape[1] + 1)).all():
                raise _Malformed(f"camera {camera}, identity {identity} has a line that is not a permutation")
            drawn[camera, identity] = value.astype(np.int64)
    return drawn


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The (type, content) of each element, one after the other; compressed elements are unpacked."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:  # the short form: up to four bytes inside the tag
            kind, size, start, step = kind & 0xFFFF, kind >> 16, at + 4, 8
            if size > 4:
                raise _Malformed("a short element longer than four bytes")
        else:
            start = at + 8
            step = 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data):
            raise _Malformed("the file ends inside an element")
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            inside = unpacker.decompress(data[start : start + size], _LIMIT_BYTES)
            if unpacker.unconsumed_tail or not unpacker.eof:
                raise _Malformed(f"a compressed element is cut short or unpacks to over {_LIMIT_BYTES >> 20} MiB")
            kind, size = struct.unpack_from("<II", inside)
            if kind != _MATRIX or 8 + size > len(inside):
                raise _Malformed("a compressed element holds no matrix")
            yield kind, inside[8 : 8 + size]
        else:
            yield kind, data[start : start + size]
        at += step


def _matrix(body: bytes, depth: int) -> tuple[str, list | np.ndarray]:
    """Name and value of one matrix element: a list in column order for a cell array, a 2-D array for numbers."""
    if depth > _LIMIT_DEPTH:
        raise _Malformed(f"cells nested deeper than {_LIMIT_DEPTH}")
    parts = list(_elements(body))
    if not parts:  # MATLAB writes a cell that was never set as an empty element
        return "", np.empty((0, 0))
    if len(parts) < 3 or len(parts[1][1]) < 8:
        raise _Malformed("a matrix without flags, shape and name")
    kind = parts[0][1][0]
    shape = np.frombuffer(parts[1][1][: len(parts[1][1]) // 4 * 4], dtype="<i4")
    name = parts[2][1].decode("ascii", "replace")
    count = int(np.prod(shape.astype(object)))
    if len(shape) != 2 or (shape < 0).any():
        raise _Malformed(f"a matrix of shape {shape.tolist()}")
    rest = parts[3:]
    if kind == _CELL:
        if len(rest) != count or any(tag != _MATRIX for tag, _ in rest):
            raise _Malformed(f"a cell array of {count} that holds {len(rest)} elements")
        return name, [_matrix(inside, depth + 1)[1] for _, inside in rest]
    if len(rest) != 1 or rest[0][0] not in _NUMBERS:
        # Other classes of variable (text, structures) may stand beside the one we want.
        return name, np.empty((0, 0))
    dtype = np.dtype("<" + _NUMBERS[rest[0][0]])
    if len(rest[0][1]) != count * dtype.itemsize:
        raise _Malformed(f"a matrix of {count} numbers in {len(rest[0][1])} bytes")
    return name, np.frombuffer(rest[0][1], dtype=dtype).reshape(tuple(shape), order="F")
