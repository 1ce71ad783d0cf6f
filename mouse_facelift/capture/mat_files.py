"""MATLAB files, v5 and v7.3: arrays, text, cells and structs as NumPy arrays, str, lists and dicts.

Our own reader of v5, because SciPy's crashes the interpreter on damaged files. Layout: "MAT-File Format",
MathWorks, chapter 1 (level 5) and HDF5 with MATLAB's attributes (v7.3).
"""

import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

HEADER = 128
MAX_BYTES = 64 << 20
"""Largest variable that is read, unless the caller allows more."""
MAX_DEPTH = 8

NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
    16: "u1",
    17: "u2",
    18: "u4",
}
"""How numbers and characters are stored: element type -> NumPy's name."""
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHAR, OPAQUE = 1, 2, 4, 17
NUMERIC = range(6, 16)
"""Classes of arrays: double, single and the integers."""

DAMAGE = (OSError, LookupError, ValueError, TypeError, MemoryError, RuntimeError, struct.error, zlib.error)
"""What damaged files raise."""


def load_mat(path: Path, wanted: Collection[str], max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read variables of a MATLAB file.

    Args:
        path: The file.
        wanted: Names of the variables; those that the file does not have are left out. Of structs in v7.3,
            only fields of these names are read.
        max_bytes: Largest variable that is unpacked from a compressed v5 file.

    Returns:
        Arrays as MATLAB shows them, text as str, cells as lists, a struct as dict, several as list of dicts,
        anything else (functions, sparse arrays, objects) as None.

    Raises:
        DAMAGE: the file is damaged or of another kind.
    """
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            return {name: _from_hdf5(file, file[name], wanted) for name in wanted if name in file}
    content = path.read_bytes()
    if content[124:128] not in (b"\x00\x01IM", b"\x01\x00MI"):
        raise ValueError("no header of MATLAB's version 5")
    order = "<" if content[126:128] == b"IM" else ">"
    variables = {}
    for kind, data in _Reader(content[HEADER:], order).elements():
        reader = _Reader(data, order)
        if kind == COMPRESSED:
            # The name is near the beginning: what is not wanted need not be unpacked.
            reader = _Reader(zlib.decompressobj().decompress(data, 4096)[8:], order)
        name = reader.matrix_head().name if kind in (MATRIX, COMPRESSED) else ""
        if name in wanted:
            if kind == COMPRESSED:
                ((_, data),) = _Reader(zlib.decompressobj().decompress(data, max_bytes), order).elements()
            variables[name] = _Reader(data, order).matrix()
    return variables


@dataclass(frozen=True)
class _Head:
    """What precedes an array's values."""

    kind: int
    shape: tuple[int, ...]
    name: str


class _Reader:
    """Reads the elements of a v5 file one after another."""

    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._order = order
        self._at = 0

    def elements(self) -> Iterator[tuple[int, bytes]]:
        """All remaining elements: type and bytes."""
        while self._at < len(self._data):
            yield self._element()

    def _element(self) -> tuple[int, bytes]:
        kind, size = struct.unpack_from(f"{self._order}II", self._data, self._at)
        start = self._at + 8
        if kind >> 16:  # A small element: four bytes at most, kept in the tag itself.
            kind, size = kind & 0xFFFF, kind >> 16
            start = self._at + 4
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
            self._at += 8
        else:
            self._at = start + size + (0 if kind == COMPRESSED else -size % 8)
        if start + size > len(self._data):
            raise ValueError("the file is cut")
        return kind, self._data[start : start + size]

    def _numbers(self) -> np.ndarray[Any, Any]:
        kind, data = self._element()
        if kind not in NUMBERS:
            raise ValueError(f"numbers of type {kind}")
        return np.frombuffer(data, np.dtype(f"{self._order}{NUMBERS[kind]}"))

    def _text(self) -> str:
        return self._element()[1].decode("latin1")

    def matrix_head(self) -> _Head:
        """Class, shape and name of the array that follows."""
        flags = self._numbers()
        if len(flags) and int(flags[0]) & 0xFF == OPAQUE:
            return _Head(OPAQUE, (), "")
        shape = self._numbers()
        if len(flags) < 1 or not 1 <= len(shape) <= 8 or (shape < 0).any():
            raise ValueError("a malformed array")
        return _Head(int(flags[0]) & 0xFF, tuple(map(int, shape)), self._text())

    def matrix(self, depth: int = 0) -> Any:
        """The array's value."""
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if not self._data:
            return np.zeros((0, 0))
        head = self.matrix_head()
        if head.kind in NUMERIC:
            return self._numbers().reshape(head.shape, order="F")
        if head.kind == CHAR:
            return "".join(map(chr, self._numbers().tolist()))
        if head.kind == CELL:
            return [self._nested(depth) for _ in range(self._count(head.shape))]
        if head.kind == STRUCT:
            return self._structs(head, depth)
        return None

    def _structs(self, head: _Head, depth: int) -> Any:
        length = int(self._numbers()[0])
        names = self._element()[1]
        if length < 1:
            raise ValueError("field names without a length")
        fields = [
            names[i : i + length].split(b"\0")[0].decode("latin1") for i in range(0, len(names), length)
        ]
        count = self._count(head.shape, len(fields))
        found = [{field: self._nested(depth) for field in fields} for _ in range(count)]
        return found[0] if len(found) == 1 else found

    def _count(self, shape: tuple[int, ...], fields: int = 1) -> int:
        """Elements of a cell or struct array; each takes a tag at least, whatever the header says."""
        count = prod(shape)
        if count * fields * 8 > len(self._data):
            raise ValueError("the file is cut")
        return count

    def _nested(self, depth: int) -> Any:
        kind, data = self._element()
        if kind != MATRIX:
            raise ValueError(f"element {kind} in place of an array")
        return _Reader(data, self._order).matrix(depth + 1)


def _from_hdf5(file: h5py.File, node: Any, wanted: Collection[str], depth: int = 0) -> Any:
    """A value in v7.3: structs are groups, cells are references, arrays lie transposed."""
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(node, h5py.Group):
        fields = {key: _from_hdf5(file, node[key], wanted, depth + 1) for key in node if key in wanted}
        columns = [value for value in fields.values() if isinstance(value, list)]
        if not columns:
            return fields
        # A struct array keeps one cell per field.
        count = min(map(len, columns))
        return [{key: value[i] for key, value in fields.items() if value is not None} for i in range(count)]
    if not isinstance(node, h5py.Dataset) or node.size is None or node.size * node.dtype.itemsize > MAX_BYTES:
        return None
    values = np.asarray(node[()])
    if h5py.check_ref_dtype(node.dtype) is not None:
        return [_from_hdf5(file, file[reference], wanted, depth + 1) for reference in values.ravel()]
    if node.attrs.get("MATLAB_class") == b"char":
        return "".join(map(chr, values.ravel().tolist()))
    return values.T
