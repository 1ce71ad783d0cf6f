"""FaceLift samples as a torch data set: pictures with alpha and the cameras that are true of them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from ..geometry.rays import camera_tensors
from .format import Sample, SampleView, read_list, read_rgba, read_sample
from .packing import Packed, pack, unpack


class PictureSource(Protocol):
    """Pictures of a data set's samples from elsewhere than their PNG files, such as a `SampleCache`."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """Straight RGBA of one sample's views. [V, 4, S, S]"""
        ...


class SampleDataset(Dataset[dict[str, Any]]):
    """Samples of equal view count, pictures resized to one square size together with their cameras.

    Items:
        id: The sample's name.
        rgba: Straight alpha, in [0, 1], in steps of 1/255. [V, 4, S, S]
        K: Intrinsics at size S, half-pixel centres. [V, 3, 3]
        w2c: World-to-camera, model units. [V, 4, 4]
        view_ids: The recording's camera ids, in file order. [V]

    A sample that cannot be read raises a DataError with its name: nothing is replaced by another sample.

    Attributes:
        source: Where pictures come from; None decodes their files.
    """

    def __init__(self, folders: Sequence[Path], image_size: int) -> None:
        """Read the cameras of all samples; pictures are read when asked for.

        Args:
            folders: Sample folders, for instance from `read_list`.
            image_size: Side of the pictures handed out.

        Raises:
            DataError: no samples, or samples with different cameras or inputs.
        """
        self.samples = [read_sample(folder) for folder in folders]
        self.image_size = image_size
        self.source: PictureSource | None = None
        _check_views(self.samples)

    @classmethod
    def from_list(cls, path: Path, image_size: int) -> "SampleDataset":
        """The samples of a list file."""
        return cls(read_list(path), image_size)

    @property
    def view_ids(self) -> list[int]:
        """The camera ids that every sample has, in file order."""
        return [view.view_id for view in self.samples[0].views]

    @property
    def input_positions(self) -> tuple[int, ...]:
        """Positions of the views that a model may be shown: all, unless the samples name their inputs."""
        inputs = self.samples[0].input_view_ids
        return tuple(i for i, view_id in enumerate(self.view_ids) if not inputs or view_id in inputs)

    @property
    def target_positions(self) -> tuple[int, ...]:
        """Positions of the views that are truth: all, or the others where the samples name their inputs."""
        inputs = self.samples[0].input_view_ids
        return tuple(i for i, view_id in enumerate(self.view_ids) if view_id not in inputs)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return as_floats(self.eight_bit(index))

    def eight_bit(self, index: int) -> dict[str, Any]:
        """An item with its pictures as they are stored: `rgba` is uint8, a quarter of the bytes."""
        sample = self.samples[index]
        if self.source is None:
            pictures = load_pictures(sample, self.image_size)
        else:
            pictures = self.source.read(index)
        return _item(sample, pictures)


class EightBitSamples(Dataset[dict[str, Any]]):
    """The same samples with uint8 pictures, for tasks to make floats of them on the device: `as_floats`."""

    def __init__(self, samples: SampleDataset) -> None:
        self.samples = samples

    @property
    def view_ids(self) -> list[int]:
        """The camera ids that every sample has, in file order."""
        return self.samples.view_ids

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.samples.eight_bit(index)


class MemorySource:
    """Keeps packed pictures of the samples that have been asked for.

    Each data loading process has its own copy, and begins with none.
    """

    def __init__(self, samples: SampleDataset) -> None:
        self._samples, self._size = samples.samples, samples.image_size
        self._packed: dict[int, Packed] = {}

    def read(self, index: int) -> NDArray[np.uint8]:
        """Straight RGBA of one sample's views. [V, 4, S, S]"""
        if index not in self._packed:
            self._packed[index] = pack(load_pictures(self._samples[index], self._size))
        return unpack(self._packed[index])


def as_floats(item: Mapping[str, Any]) -> dict[str, Any]:
    """Items or batches with uint8 tensors, which are pictures, as floats in [0, 1]; the rest as it is.

    The same numbers on every device.
    """

    def convert(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.uint8:
            return value
        # CUDA would multiply by the rounded reciprocal of a number; it divides by a tensor.
        return value.float() / torch.full((), 255.0, device=value.device)

    return {key: convert(value) for key, value in item.items()}


def load_sample(sample: Sample, image_size: int) -> dict[str, Any]:
    """Read one sample's pictures; see `SampleDataset` for the item's keys."""
    return as_floats(_item(sample, load_pictures(sample, image_size)))


def sample_in_memory(
    sample: Sample, pictures: Iterable[NDArray[np.uint8]], image_size: int
) -> dict[str, Any]:
    """The same of a sample whose pictures V x [H, H, 4] were never written."""
    fitted = [_fitted(view, rgba, image_size) for view, rgba in zip(sample.views, pictures, strict=True)]
    return as_floats(_item(sample, _stacked(fitted)))


def load_pictures(sample: Sample, image_size: int) -> NDArray[np.uint8]:
    """Decode one sample's pictures and resize them. Straight RGBA. [V, 4, S, S]

    Raises:
        DataError: a picture is unreadable, not as its camera says, or shows no animal.
    """
    return _stacked([load_picture(view, image_size) for view in sample.views])


def load_picture(view: SampleView, image_size: int) -> NDArray[np.uint8]:
    """Decode one view's picture and resize it. Straight RGBA. [S, S, 4]

    Raises:
        DataError: see `load_pictures`.
    """
    return _fitted(view, read_rgba(view.file), image_size)


def _fitted(view: SampleView, rgba: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Check a decoded picture against its camera and resize it. [S, S, 4]"""
    if rgba.shape[:2] != (view.camera.height, view.camera.width):
        raise DataError(
            f"{view.file}: picture is {rgba.shape[1]}x{rgba.shape[0]}, its camera says "
            f"{view.camera.width}x{view.camera.height}."
        )
    if not rgba[..., 3].any():
        raise DataError(f"{view.file}: alpha is 0 everywhere, there is no animal in this view.")
    if rgba.shape[0] != rgba.shape[1]:
        raise DataError(
            f"{view.file}: picture is {rgba.shape[1]}x{rgba.shape[0]}, expected a square one. "
            "`mfl preprocess` writes square ones."
        )
    return resize_rgba(rgba, image_size)


def _stacked(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """V x [S, S, 4] -> [V, 4, S, S]"""
    return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))


def sample_cameras(sample: Sample, size: int) -> dict[str, Tensor]:
    """The cameras of a sample's pictures at a size: `K`, `w2c`, `view_ids`; see `SampleDataset`."""
    cameras = [view.camera for view in sample.views]
    resized = [camera if camera.width == size else camera.resized(size, size)[0] for camera in cameras]
    K, w2c = camera_tensors(resized)
    return {"K": K, "w2c": w2c, "view_ids": torch.tensor([view.view_id for view in sample.views])}


def _item(sample: Sample, pictures: NDArray[np.uint8]) -> dict[str, Any]:
    cameras = sample_cameras(sample, pictures.shape[-1])
    return {"id": sample.sample_id, "rgba": torch.from_numpy(pictures), **cameras}


def resize_rgba(rgba: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize a square picture; colours are averaged premultiplied by alpha.

    `Camera.resized` gives the camera of the new pixels.

    Args:
        rgba: Straight alpha. [H, H, 4]
        size: New side.

    Returns:
        Straight alpha; white where alpha is 0. [S, S, 4]
    """
    height, width = rgba.shape[:2]
    if height != width:
        raise DataError(f"picture is {width}x{height}, expected a square one.")
    if size == width:
        return rgba
    picture = rgba.astype(np.float32) / np.float32(255)
    alpha = picture[..., 3:]
    interpolation = cv2.INTER_AREA if size < width else cv2.INTER_CUBIC
    premultiplied = np.concatenate([picture[..., :3] * alpha, alpha], axis=-1)
    small = cv2.resize(premultiplied, (size, size), interpolation=interpolation).clip(0, 1)
    coverage = small[..., 3:]
    straight = np.where(coverage > 0, small[..., :3] / coverage.clip(1e-6), 1).clip(0, 1)
    resized = np.rint(255 * np.concatenate([straight, coverage], axis=-1)).astype(np.uint8)
    resized[resized[..., 3] == 0, :3] = 255
    return resized


def composite(rgba: Tensor, background: float | Tensor) -> Tensor:
    """Lay straight RGBA over a background.

    Args:
        rgba: [..., 4, H, W]
        background: Grey level, or a colour that broadcasts against [..., 3, H, W].

    Returns:
        RGB. [..., 3, H, W]
    """
    alpha = rgba[..., 3:, :, :]
    return rgba[..., :3, :, :] * alpha + background * (1 - alpha)


def check_ids(folder: Path, view_ids: Sequence[int]) -> None:
    """Refuse a sample that names two cameras alike.

    Raises:
        DataError: it does.
    """
    if len(set(view_ids)) < len(view_ids):
        raise DataError(
            f"{folder}: views {list(view_ids)} hold a camera id twice; every camera needs its own."
        )


def _check_views(samples: Sequence[Sample]) -> None:
    if not samples:
        raise DataError("the data set holds no samples.")
    expected = [view.view_id for view in samples[0].views]
    check_ids(samples[0].folder, expected)
    for sample in samples:
        found = [view.view_id for view in sample.views]
        if found != expected:
            raise DataError(
                f"{sample.folder} has views {found}, the data set's first sample {samples[0].folder} has "
                f"{expected}; one data set needs the same views in every sample."
            )
        if set(sample.input_view_ids) != set(samples[0].input_view_ids):
            raise DataError(
                f"{sample.folder} names the inputs {list(sample.input_view_ids)}, the data set's first "
                f"sample {samples[0].folder} {list(samples[0].input_view_ids)}; one data set needs the same."
            )
