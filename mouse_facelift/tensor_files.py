"""Tensors in a safetensors file that is labelled with what it holds and opened only if the label fits.

For caches: a file that is absent, damaged or of something else is told apart before its numbers are used.
"""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import DataError
from .files import atomic_path


def write_labelled(path: Path, tensors: Mapping[str, Tensor], label: Mapping[str, str]) -> None:
    """Write contiguous tensors on the CPU; the file appears under its name only when complete."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(dict(tensors), dict(label)))


@contextmanager
def open_labelled(path: Path, label: Mapping[str, str]) -> Iterator[Any]:
    """Open a file, memory-mapped, and look at its label and length but not at its numbers.

    Yields:
        The `safetensors.safe_open` of the file, with torch tensors.

    Raises:
        DataError: absent, damaged, or labelled otherwise; also where it turns out so inside the block.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = file.metadata() or {}
            if any(found.get(name) != value for name, value in label.items()):
                raise DataError(f"{path}: is labelled {found}, expected {dict(label)}.")
            yield file
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: is unreadable ({error}).") from None


def shapes_of(file: Any) -> dict[str, tuple[int, ...]]:
    """What an open file holds."""
    return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def crc32(tensors: Mapping[str, Tensor]) -> int:
    """Checksum of all bytes, in the order of the names."""
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].numpy().data, checksum)
    return checksum
