"""FaceLift samples as a torch data set: pictures with alpha and the cameras that are true of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from ..geometry import Camera
from .format import Sample, read_list, read_rgba, read_sample


class SampleDataset(Dataset[dict[str, Any]]):
    """Samples of equal view count, pictures resized to one square size together with their cameras.

    Items:
        id: The sample's name.
        rgba: Straight alpha, in [0, 1]. [V, 4, S, S]
        K: Intrinsics at size S, half-pixel centres. [V, 3, 3]
        w2c: World-to-camera, model units. [V, 4, 4]
        view_ids: The recording's camera ids, in file order. [V]

    A sample that cannot be read raises a DataError with its name: nothing is replaced by another sample.
    """

    def __init__(self, folders: Sequence[Path], image_size: int, cache: bool = False) -> None:
        """Read the cameras of all samples; pictures are read when asked for.

        Args:
            folders: Sample folders, for instance from `read_list`.
            image_size: Side of the pictures handed out.
            cache: Keep decoded pictures in memory.

        Raises:
            DataError: no samples, or samples with different cameras.
        """
        self.samples = [read_sample(folder) for folder in folders]
        self.image_size = image_size
        self._cache: dict[int, dict[str, Any]] | None = {} if cache else None
        _check_views(self.samples)

    @classmethod
    def from_list(cls, path: Path, image_size: int, limit: int = 0, cache: bool = False) -> "SampleDataset":
        """The samples of a list file, the first `limit` of them if that is not 0."""
        folders = read_list(path)
        return cls(folders[:limit] if limit else folders, image_size, cache)

    @property
    def view_ids(self) -> list[int]:
        """The camera ids that every sample has, in file order."""
        return [view.view_id for view in self.samples[0].views]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._cache is None:
            return load_sample(self.samples[index], self.image_size)
        if index not in self._cache:
            self._cache[index] = load_sample(self.samples[index], self.image_size)
        return self._cache[index]


def load_sample(sample: Sample, image_size: int) -> dict[str, Any]:
    """Read one sample's pictures; see `SampleDataset` for the item's keys."""
    pictures, cameras = [], []
    for view in sample.views:
        rgba = read_rgba(view.file)
        if rgba.shape[:2] != (view.camera.height, view.camera.width):
            raise DataError(
                f"{view.file}: picture is {rgba.shape[1]}x{rgba.shape[0]}, its camera says "
                f"{view.camera.width}x{view.camera.height}."
            )
        if not rgba[..., 3].any():
            raise DataError(f"{view.file}: alpha is 0 everywhere, there is no animal in this view.")
        picture, camera = resize_view(rgba, view.camera, image_size)
        pictures.append(picture)
        cameras.append(camera)
    return {
        "id": sample.sample_id,
        "rgba": torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(),
        "K": torch.from_numpy(np.stack([camera.K for camera in cameras])).float(),
        "w2c": torch.from_numpy(np.stack([camera.w2c for camera in cameras])).float(),
        "view_ids": torch.tensor([view.view_id for view in sample.views]),
    }


def resize_view(rgba: NDArray[np.uint8], camera: Camera, size: int) -> tuple[NDArray[np.float32], Camera]:
    """Resize a square picture and its camera; colours are averaged premultiplied by alpha.

    Args:
        rgba: Straight alpha. [H, H, 4]
        camera: Its camera.
        size: New side.

    Returns:
        Straight RGBA in [0, 1] [S, S, 4], and the camera of these pixels.
    """
    height, width = rgba.shape[:2]
    if height != width:
        raise DataError(f"picture is {width}x{height}, expected a square one.")
    picture = rgba.astype(np.float32) / np.float32(255)
    if size == width:
        return picture, camera
    alpha = picture[..., 3:]
    interpolation = cv2.INTER_AREA if size < width else cv2.INTER_CUBIC
    premultiplied = np.concatenate([picture[..., :3] * alpha, alpha], axis=-1)
    small = cv2.resize(premultiplied, (size, size), interpolation=interpolation).clip(0, 1)
    coverage = small[..., 3:]
    straight = np.where(coverage > 0, small[..., :3] / coverage.clip(1e-6), 1).clip(0, 1)
    resized = np.concatenate([straight, coverage], axis=-1).astype(np.float32)
    return resized, camera.resized(size, size)[0]


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


def _check_views(samples: Sequence[Sample]) -> None:
    if not samples:
        raise DataError("the data set holds no samples.")
    expected = [view.view_id for view in samples[0].views]
    for sample in samples:
        found = [view.view_id for view in sample.views]
        if found != expected:
            raise DataError(
                f"{sample.folder} has views {found}, the data set's first sample {samples[0].folder} has "
                f"{expected}; one data set needs the same views in every sample."
            )
