"""One sample's encodings in one safetensors file, labelled with what they are of, with a checksum."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import DataError
from ..tensor_files import crc32, open_labelled, shapes_of, write_labelled


@dataclass(frozen=True)
class LatentFile:
    """A place for encodings; the file may be absent.

    Attributes:
        path: Where it lies.
        label: What it must say about itself.
        shapes: What it must hold.
    """

    path: Path
    label: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Write contiguous tensors on the CPU; the file appears under its name only when complete."""
        write_labelled(self.path, tensors, {**self.label, "crc32": f"{crc32(tensors):08x}"})

    def check(self) -> None:
        """Look at the file's label, shapes and length, but not at its numbers.

        Raises:
            DataError: absent, damaged, or the encodings of something else.
        """
        with self._opened():
            pass

    def read(self) -> dict[str, Tensor]:
        """Its tensors, on the CPU.

        Raises:
            DataError: as `check`, or the numbers are not those that were written.
        """
        try:
            with self._opened() as file:
                tensors = {name: file.get_tensor(name) for name in self.shapes}
                if f"{crc32(tensors):08x}" != file.metadata().get("crc32"):
                    raise DataError(f"{self.path}: is damaged, its checksum does not fit its numbers.")
        except DataError as error:
            raise DataError(
                f"{error} Delete the file and start again: what is missing is encoded anew."
            ) from None
        return tensors

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        with open_labelled(self.path, self.label) as file:
            shapes = shapes_of(file)
            if shapes != self.shapes:
                raise DataError(f"{self.path}: holds {shapes}, expected {dict(self.shapes)}.")
            yield file
