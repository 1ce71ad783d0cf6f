"""Many moments of one animal in one file, a third of the size of PLYs: attributes in 8 and 16 bits.

The file is an uncompressed `.npz`: `numpy.load` reads it without this package. It is written and read one
moment at a time, so memory does not grow with its length.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import DataError
from ..files import atomic_path
from .gaussians import Gaussians
from .harmonics import SH_C0

FORMAT = "mouse-facelift gaussians over time, 1"

ATTRIBUTES = {
    "means": ("uint16", (3,)),
    "scales": ("uint8", (3,)),
    "quats": ("int8", (4,)),
    "colors": ("uint8", (3,)),
    "opacities": ("uint8", ()),
}
"""Type and shape of each attribute of one Gaussian."""

RANGES = {"means": 6, "scales": 2}
"""Attributes that fill the range of their moment, and how many numbers tell it: lows, then highs."""


class CompactWriter:
    """Appends moments to an open file. Made by `open_compact`."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._frames: list[int] = []
        self._world_from_model: list[list[list[float]]] = []

    def write(self, gaussians: Gaussians, frame_index: int, world_from_model: ArrayLike) -> None:
        """Append one moment.

        Colours are kept as 8-bit pictures show them, limited to [0, 1], without what depends on the direction
        of view.

        Args:
            gaussians: One scene, model units. [N, ...]
            frame_index: Of the recording.
            world_from_model: To the rig's millimetres. [4, 4]
        """
        number = len(self._frames)
        for name, values in _encode(gaussians).items():
            # Without a time of day: the same Gaussians give the same bytes.
            with self._archive.open(zipfile.ZipInfo(_entry(number, name)), "w") as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
        self._frames.append(frame_index)
        self._world_from_model.append(np.asarray(world_from_model, float).tolist())

    def close(self) -> None:
        """Write the table of moments."""
        content = {
            "format": FORMAT,
            "frame_index": self._frames,
            "world_from_model": self._world_from_model,
        }
        self._archive.writestr(zipfile.ZipInfo("index.json"), json.dumps(content))


@contextmanager
def open_compact(path: Path) -> Iterator[CompactWriter]:
    """Open a file for writing; it appears under its name when the block ends well."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        writer = CompactWriter(archive)
        yield writer
        writer.close()


class CompactSequence:
    """A file of moments, open for reading; a context manager.

    Args:
        path: Written by `open_compact`.

    Attributes:
        frame_indices: Frame of the recording, of each moment.
        world_from_model: From each moment's model units to the rig's millimetres. [T, 4, 4]

    Raises:
        DataError: not such a file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with ExitStack() as opened:
            try:
                self._archive = opened.enter_context(zipfile.ZipFile(path))
                content = json.loads(self._archive.read("index.json"))
                found = content["format"]
                self.frame_indices: tuple[int, ...] = tuple(content["frame_index"])
                self.world_from_model: NDArray[np.float64] = np.asarray(content["world_from_model"], float)
            except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{path}: not a file of Gaussians over time as written by `mfl infer` ({error})."
                ) from None
            if found != FORMAT:
                raise DataError(f"{path}: has format {found!r}, expected {FORMAT!r}.")
            opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.frame_indices)

    def __getitem__(self, number: int) -> Gaussians:
        """One moment, model units, on the CPU.

        Raises:
            IndexError: there is no such moment.
            DataError: the file is damaged.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"moment {number} of {len(self)}")
        try:
            values = {name: self._read(number, name) for name in (*ATTRIBUTES, *map(_range_name, RANGES))}
            return _decode(values)
        except (zipfile.BadZipFile, KeyError, ValueError, DataError) as error:
            raise DataError(f"{self._path}: moment {number} is damaged ({error}).") from None

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def _read(self, number: int, name: str) -> NDArray[np.generic]:
        with self._archive.open(_entry(number, name)) as file:
            array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _entry(number: int, name: str) -> str:
    return f"{number:06d}.{name}.npy"


def _range_name(attribute: str) -> str:
    return f"{attribute}_range"


def _encode(gaussians: Gaussians) -> dict[str, NDArray[np.generic]]:
    scene = gaussians.detach().to("cpu", torch.float32)
    scale_range = _ends(scene.log_scales.reshape(-1, 1))
    mean_range = _ends(scene.means)
    unit = F.normalize(scene.quats, dim=-1)
    levels = {
        "means": _levels(scene.means, mean_range, 2**16 - 1),
        "scales": _levels(scene.log_scales, scale_range, 255),
        # The largest component takes the whole of 8 bits; length carries nothing.
        "quats": (unit / unit.abs().amax(-1, keepdim=True).clamp_min(1e-12) * 127).round(),
        "colors": ((0.5 + SH_C0 * scene.sh0[:, 0]).clamp(0, 1) * 255).round(),
        "opacities": (scene.opacities.clamp(0, 1) * 255).round(),
    }
    encoded: dict[str, NDArray[np.generic]] = {
        name: values.numpy().astype(ATTRIBUTES[name][0]) for name, values in levels.items()
    }
    encoded[_range_name("means")] = mean_range.flatten().numpy()
    encoded[_range_name("scales")] = scale_range.flatten().numpy()
    return encoded


def _decode(values: Mapping[str, NDArray[np.generic]]) -> Gaussians:
    count = len(values["means"])
    for name, (kind, tail) in ATTRIBUTES.items():
        array = values[name]
        if array.dtype != kind or array.shape != (count, *tail):
            raise DataError(f"{name} are {array.dtype} of shape {array.shape}")
    for name, length in RANGES.items():
        array = values[_range_name(name)]
        if array.dtype != np.float32 or array.shape != (length,):
            raise DataError(f"the range of {name} is {array.dtype} of shape {array.shape}")
    raw = {name: torch.from_numpy(array.astype(np.float32)) for name, array in values.items()}
    means = _values(raw["means"], raw["means_range"].view(2, 3), 2**16 - 1)
    log_scales = _values(raw["scales"], raw["scales_range"].view(2, 1), 255)
    return Gaussians(
        means,
        F.normalize(raw["quats"], dim=-1),
        log_scales.exp(),
        raw["opacities"] / 255,
        (raw["colors"][:, None] / 255 - 0.5) / SH_C0,
    )


def _ends(values: Tensor) -> Tensor:
    """Lowest and highest in each column [N, C] -> [2, C]; 0 where there are none."""
    if len(values) == 0:
        return values.new_zeros(2, values.shape[1])
    return torch.stack([values.amin(0), values.amax(0)])


def _levels(values: Tensor, ends: Tensor, steps: int) -> Tensor:
    span = (ends[1] - ends[0]).clamp_min(1e-12)
    return ((values - ends[0]) / span * steps).round()


def _values(levels: Tensor, ends: Tensor, steps: int) -> Tensor:
    return ends[0] + levels / steps * (ends[1] - ends[0])
