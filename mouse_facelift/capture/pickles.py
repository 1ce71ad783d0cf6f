"""Pickles read without running any code: NumPy arrays, numbers and text in plain containers, nothing else.

Not even NumPy's own classes are handed to the unpickler, because they trust what a pickle tells them about
memory: small stand-ins collect type, shape and bytes, and become arrays once these agree.
"""

import io
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError, DataError

DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What the standard unpickler raises for damaged bytes."""


def load_pickle(
    path: Path,
    expected: str = "a pickled list of {R, T, K}, one per camera",
    error: type[DataError] = CalibrationError,
) -> Any:
    """Load a pickle of numeric arrays and plain containers; anything else is refused before it can run.

    Args:
        path: The file.
        expected: What it should hold, for the message.
        error: What is raised.

    Raises:
        DataError: as `error`: unreadable, not a pickle, or it names anything but an array.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror}). Expected {expected}.") from None
    try:
        _check_sizes(content)
        return _arrays(_ArrayUnpickler(content).load(), {})
    except _ForbiddenName as problem:
        raise error(
            f"{path}: names '{problem}', which could run code; only NumPy arrays in lists and dicts are "
            "read. Nothing was run. Do not trust this file; export it again."
        ) from None
    except DAMAGE as problem:
        raise error(
            f"{path}: is not a readable pickle ({type(problem).__name__}: {problem}). Expected {expected}; "
            "export it again."
        ) from None


class _ForbiddenName(Exception):
    """A global that is not one of NumPy's own for arrays."""


def _check_sizes(content: bytes) -> None:
    """Refuse lengths beyond the file and places in the memo that the unpickler would allocate up to."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise ValueError(f"memo place {argument}")


class _ArrayUnpickler(pickle.Unpickler):
    """Knows a handful of names, and answers each with a stand-in."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        known = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise _ForbiddenName(f"{module}.{name}")
        return known


class _Type:
    """Stands in for `numpy.dtype`: a plain number of at most eight bytes."""

    __slots__ = ("name", "order")

    def __init__(self, name: Any) -> None:
        if not (isinstance(name, str) and re.fullmatch(r"[biuf][1248]", name)):
            raise ValueError(f"numbers of type {name!r:.20}")
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *_ = state
        if order not in ("<", ">", "|", "="):
            raise ValueError(f"byte order {order!r:.20}")
        self.order = order

    def array(self, content: Any, shape: Any, order: str) -> NDArray[Any]:
        """The numbers in `content`. [*shape]"""
        if isinstance(content, str):  # Python 2's bytes.
            content = content.encode("latin1")
        values = np.frombuffer(bytes(content), np.dtype(f"{self.order}{self.name}"))
        return values.reshape(shape, order="F" if order == "F" else "C").copy()


class _Array:
    """Stands in for an array that is filled after it was made."""

    __slots__ = ("value",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, kind, is_fortran, content = state[-4:]
        if not isinstance(kind, _Type) or not isinstance(content, (bytes, bytearray, str)):
            raise TypeError("an array of objects")
        self.value = kind.array(content, shape, "F" if is_fortran else "C")


class _Call:
    """Stands in for a function of NumPy's; has nothing that a pickle could change."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __setstate__(self, state: Any) -> None:
        raise TypeError(f"state for {self._name}")

    def __call__(self, *arguments: Any) -> Any:
        if self._name == "dtype":
            return _Type(arguments[0])
        if self._name == "_reconstruct":
            return _Array()
        if self._name == "scalar":
            kind, content = arguments
            return kind.array(content, (), "C")[()]
        if self._name == "_frombuffer":
            content, kind, shape, order = arguments
            array = _Array()
            array.value = kind.array(content, shape, order)
            return array
        if self._name == "encode":  # How protocol 2 spells bytes.
            text, encoding = arguments
            if encoding == "latin1":
                return str(text).encode("latin1")
        raise ValueError(f"call of {self._name}")


_STAND_INS = {
    ("numpy", "ndarray"): _Call("ndarray"),
    ("numpy", "dtype"): _Call("dtype"),
    ("numpy.core.multiarray", "_reconstruct"): _Call("_reconstruct"),
    ("numpy.core.multiarray", "scalar"): _Call("scalar"),
    ("numpy.core.numeric", "_frombuffer"): _Call("_frombuffer"),
    ("_codecs", "encode"): _Call("encode"),
}


def _arrays(value: Any, known: dict[int, Any]) -> Any:
    """The same containers with arrays instead of stand-ins; shared and circular ones stay so."""
    if isinstance(value, _Array):
        return value.value
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, list):
        items: list[Any] = []
        known[id(value)] = items
        items.extend(_arrays(item, known) for item in value)
        return items
    if isinstance(value, dict):
        entries: dict[Any, Any] = {}
        known[id(value)] = entries
        entries.update((key, _arrays(item, known)) for key, item in value.items())
        return entries
    if isinstance(value, tuple):
        known[id(value)] = tuple(_arrays(item, known) for item in value)
        return known[id(value)]
    return value
