"""What `mfl infer` can be given: samples with cameras, or one picture with alpha."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..samples.datasets import load_sample
from ..samples.format import CAMERAS_FILE, read_list, read_rgba, read_sample

PICTURES = {".png", ".webp", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"}
"""What is a picture and not a list; those that cannot have alpha are refused on reading."""


@dataclass(frozen=True)
class Views:
    """Views of one animal at one moment.

    Attributes:
        rgba: Straight alpha, in [0, 1]. [V, 4, S, S]
        view_ids: Camera ids.
        K: Intrinsics, or None for a lone picture of an unknown camera. [V, 3, 3]
        w2c: World-to-camera, model units, or None likewise. [V, 4, 4]
    """

    rgba: Tensor
    view_ids: tuple[int, ...]
    K: Tensor | None = None
    w2c: Tensor | None = None

    def position(self, view_id: int) -> int:
        """Index of a camera id.

        Raises:
            DataError: there is no such view.
        """
        if view_id not in self.view_ids:
            raise DataError(f"there is no view {view_id}; the sample has views {list(self.view_ids)}.")
        return self.view_ids.index(view_id)


@dataclass(frozen=True)
class Source:
    """One thing to reconstruct, not read yet: a sample folder or a picture."""

    path: Path
    name: str

    @property
    def is_picture(self) -> bool:
        """Whether it is a lone picture, without cameras."""
        return self.path.is_file()

    @property
    def file(self) -> Path:
        """The picture, or the sample's cameras file."""
        return self.path if self.is_picture else self.path / CAMERAS_FILE

    def read(self, image_size: int | None, fill: float) -> Views:
        """Read the pictures.

        Args:
            image_size: Their side; None keeps a sample's own, and takes 512 for a lone picture.
            fill: See `frame_picture`.
        """
        if self.is_picture:
            return Views(frame_picture(self.path, image_size or 512, fill)[None], (0,))
        sample = read_sample(self.path)
        item = load_sample(sample, image_size or sample.views[0].camera.width)
        return Views(item["rgba"], tuple(item["view_ids"].tolist()), item["K"], item["w2c"])


def find_sources(path: Path, limit: int = 0) -> list[Source]:
    """Resolve `mfl infer`'s input.

    Args:
        path: A sample folder, a list file, a folder of sample folders, or a picture.
        limit: Take the first that many; 0 takes all.

    Raises:
        DataError: nothing there that could be reconstructed, or two samples of one name.
    """
    if path.is_file() and path.suffix.lower() in PICTURES:
        return [Source(path, path.stem)]
    if path.is_file():
        folders: Sequence[Path] = read_list(path)
    elif (path / CAMERAS_FILE).is_file():
        folders = [path]
    elif path.is_dir():
        # Hidden folders are what a killed `mfl preprocess` left.
        folders = sorted(file.parent for file in path.glob(f"[!.]*/{CAMERAS_FILE}"))
    else:
        raise DataError(f"{path}: no such file or folder; expected a sample, list, data set or picture.")
    if not folders:
        raise DataError(f"{path}: holds no samples (folders with {CAMERAS_FILE}).")
    sources = [Source(folder, folder.resolve().name) for folder in folders]
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: lists two samples called {name}; their results would share a folder.")
    return sources[:limit] if limit else sources


def read_cutout(path: Path) -> NDArray[np.uint8]:
    """Read a lone picture whose background is transparent. [H, W, 4]

    Raises:
        DataError: unreadable, or its alpha does not tell an animal from a background.
    """
    rgba = read_rgba(path)
    shown = rgba[..., 3] > 127
    if not shown.any():
        raise DataError(f"{path}: alpha is 0 everywhere, there is no animal in this picture.")
    if shown.all():
        raise DataError(
            f"{path}: alpha is 255 everywhere, expected 0 outside the animal. Cut the animal out first."
        )
    return rgba


def frame_picture(path: Path, size: int, fill: float) -> Tensor:
    """Centre the animal of a lone picture in a square and scale it, as training views show it.

    The picture's camera is unknown, so nothing here claims one.

    Args:
        path: Picture with alpha.
        size: Side of the result.
        fill: Share of the side that the longer side of the animal's box gets.

    Returns:
        Straight RGBA in [0, 1]. [4, S, S]
    """
    picture = read_cutout(path).astype(np.float32) / 255
    rows, columns = np.nonzero(picture[..., 3] > 0.5)
    low = np.array([columns.min(), rows.min()])
    high = np.array([columns.max(), rows.max()]) + 1.0
    scale = fill * size / (high - low).max()
    shift = size / 2 - scale * (low + high) / 2
    # warpAffine counts pixel centres as integers: move the half pixel into the shift.
    matrix = np.array([[scale, 0, shift[0] + (scale - 1) / 2], [0, scale, shift[1] + (scale - 1) / 2]])
    premultiplied = picture.copy()
    premultiplied[..., :3] *= picture[..., 3:]
    if scale < 1:
        blur = 0.5 * (1 / scale - 1)
        premultiplied = cv2.GaussianBlur(premultiplied, (0, 0), max(blur, 1e-3))
    warped = cv2.warpAffine(premultiplied, matrix, (size, size), flags=cv2.INTER_LINEAR)
    alpha = warped[..., 3:]
    warped[..., :3] = np.where(alpha > 0, warped[..., :3] / alpha.clip(1e-6), 1)
    return torch.from_numpy(warped.clip(0, 1)).permute(2, 0, 1).contiguous()
