"""Packed pictures of a few samples in one memory-mapped file, with a checksum for each sample."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..tensor_files import crc32, open_labelled, shapes_of, write_labelled
from .packing import Packed


@dataclass(frozen=True)
class Shard:
    """A place for the pictures of samples; the file may be absent.

    Attributes:
        path: Where it lies.
        label: What it must say about itself.
        count: Samples in it, N.
        views: Views of each.
        size: Side of the pictures.
    """

    path: Path
    label: dict[str, str]
    count: int
    views: int
    size: int

    def write(self, samples: Sequence[Packed]) -> None:
        """Write all samples; the file appears under its name only when complete."""
        ends = np.cumsum([0, *(len(sample.pixels) for sample in samples)])
        parts = [_tensors(sample) for sample in samples]
        tensors = {
            "pixels": torch.cat([part["pixels"] for part in parts]),
            "boxes": torch.stack([part["boxes"] for part in parts]),
            "outside": torch.stack([part["outside"] for part in parts]),
            "ends": torch.from_numpy(ends),
            "crc32": torch.tensor([crc32(part) for part in parts]),
        }
        write_labelled(self.path, tensors, self.label)

    def check(self) -> None:
        """Look at the file's label, shapes and length, but not at its numbers.

        Raises:
            DataError: absent, damaged, or the pictures of something else.
        """
        with open_labelled(self.path, self.label) as file:
            shapes = shapes_of(file)
            pixels = shapes.pop("pixels", (-1,))
            expected = {
                "boxes": (self.count, self.views, 4),
                "outside": (self.count, self.views, 4),
                "ends": (self.count + 1,),
                "crc32": (self.count,),
            }
            if shapes != expected or math.prod(pixels) != int(file.get_slice("ends")[-1:]):
                raise DataError(f"{self.path}: holds {shapes} and {pixels} pixels, expected {expected}.")

    def read(self, index: int) -> Packed:
        """One sample; only its own bytes are read.

        Raises:
            DataError: as `check`, or the numbers are not those that were written.
        """
        try:
            with open_labelled(self.path, self.label) as file:
                first, last = file.get_slice("ends")[index : index + 2].tolist()
                rows = {
                    name: file.get_slice(name)[index : index + 1] for name in ("boxes", "outside", "crc32")
                }
                part = {
                    "boxes": rows["boxes"][0],
                    "outside": rows["outside"][0],
                    "pixels": file.get_slice("pixels")[first:last],
                }
                if crc32(part) != int(rows["crc32"]):
                    raise DataError(f"{self.path}: is damaged, a checksum does not fit its numbers.")
        except DataError as error:
            raise DataError(
                f"{error} Delete the file and start again: what is missing is made anew."
            ) from None
        return Packed(self.size, *(_array(part[name]) for name in ("boxes", "outside", "pixels")))


def _tensors(sample: Packed) -> dict[str, Tensor]:
    arrays = {"boxes": sample.boxes, "outside": sample.outside, "pixels": sample.pixels}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _array(tensor: Tensor) -> NDArray:
    return tensor.numpy()
