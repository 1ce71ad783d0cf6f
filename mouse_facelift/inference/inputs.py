"""What is reconstructed: views of one moment, and the samples and pictures that they are read from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..provenance import sha256
from ..samples.datasets import load_sample
from ..samples.format import CAMERAS_FILE, Sample, read_list, read_sample
from .lone_picture import frame_picture, read_cutout

PICTURES = {".png", ".webp", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"}
"""What is a picture and not a list; those that cannot have alpha need a mask."""


@dataclass(frozen=True)
class Views:
    """Views of one animal at one moment.

    Attributes:
        rgba: Straight alpha, in [0, 1]. [V, 4, S, S]
        view_ids: Camera ids.
        K: Intrinsics, or None for a lone picture of an unknown camera. [V, 3, 3]
        w2c: World-to-camera, model units, or None likewise. [V, 4, 4]
        frame_index: Frame of the recording, where known.
        world_from_model: From model units to the rig's millimetres, where known. [4, 4]
    """

    rgba: Tensor
    view_ids: tuple[int, ...]
    K: Tensor | None = None
    w2c: Tensor | None = None
    frame_index: int | None = None
    world_from_model: NDArray[np.float64] | None = None

    @classmethod
    def of_sample(cls, sample: Sample, item: dict[str, Any]) -> "Views":
        """Those of a sample's loaded pictures; see `samples.datasets.load_sample`."""
        view_ids = tuple(item["view_ids"].tolist())
        return cls(
            item["rgba"], view_ids, item["K"], item["w2c"], sample.frame_index, sample.world_from_model
        )

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
    """One thing to reconstruct, not read yet: a sample folder, or a picture with its mask."""

    path: Path
    name: str
    mask: Path | None = None

    @property
    def is_picture(self) -> bool:
        """Whether it is a lone picture, without cameras."""
        return self.path.is_file()

    @property
    def file(self) -> Path:
        """The picture, or the sample's cameras file."""
        return self.path if self.is_picture else self.path / CAMERAS_FILE

    @property
    def place(self) -> str:
        """Where it is, for `run.json`."""
        return str(self.file.resolve())

    @property
    def fingerprint(self) -> str:
        """Another one where the files have changed, as far as can be told without reading every picture."""
        return sha256(self.file) if self.mask is None else f"{sha256(self.file)}+{sha256(self.mask)}"

    def check(self) -> None:
        """Read what is small.

        Raises:
            DataError: it cannot be reconstructed.
        """
        if self.is_picture:
            read_cutout(self.path, self.mask)
        else:
            _ = read_sample(self.path).world_from_model

    @property
    def view_ids(self) -> tuple[int, ...]:
        """Camera ids; none of a lone picture."""
        return () if self.is_picture else tuple(view.view_id for view in read_sample(self.path).views)

    @property
    def moment(self) -> tuple[int | None, NDArray[np.float64] | None] | None:
        """Frame of the recording and similarity [4, 4] to its millimetres; None where not known yet."""
        if self.is_picture:
            return None
        sample = read_sample(self.path)
        return sample.frame_index, sample.world_from_model

    @property
    def mm_per_unit(self) -> float | None:
        """Millimetres of the rig in one model unit; None where unknown."""
        return None if self.is_picture else read_sample(self.path).mm_per_unit

    @property
    def has_rig_frame(self) -> bool:
        """Whether the way back to the rig's millimetres is known."""
        return not self.is_picture and read_sample(self.path).world_from_model is not None

    def read(self, image_size: int | None, fill: float) -> Views:
        """Read the pictures.

        Args:
            image_size: Their side; None keeps a sample's own, and takes 512 for a lone picture.
            fill: See `frame_picture`.
        """
        if self.is_picture:
            return Views(frame_picture(self.path, image_size or 512, fill, self.mask)[None], (0,))
        sample = read_sample(self.path)
        return Views.of_sample(sample, load_sample(sample, image_size or sample.views[0].camera.width))


def find_sources(path: Path, limit: int = 0, mask: Path | None = None) -> list[Source]:
    """Find samples and pictures.

    Args:
        path: A sample folder, a list file, a folder of sample folders, or a picture.
        limit: Take the first that many; 0 takes all.
        mask: Of a picture without alpha.

    Raises:
        DataError: nothing there that could be reconstructed, two samples of one name, or a mask that
            belongs to no picture.
    """
    if path.is_file() and path.suffix.lower() in PICTURES:
        return [Source(path, path.stem, mask)]
    if mask is not None:
        raise DataError(f"mask={mask} is for one picture, but input={path} is none. Leave it out.")
    if path.is_file():
        folders: Sequence[Path] = read_list(path)
    elif (path / CAMERAS_FILE).is_file():
        folders = [path]
    elif path.is_dir():
        # Hidden folders are what a killed `mfl preprocess` left.
        folders = sorted(file.parent for file in path.glob(f"[!.]*/{CAMERAS_FILE}"))
    else:
        raise DataError(
            f"{path}: no such file or folder; expected a sample, list, data set, recording or picture."
        )
    if not folders:
        raise DataError(
            f"{path}: holds no samples (folders with {CAMERAS_FILE}), and no recording (see "
            "preprocess.input.videos)."
        )
    sources = [Source(folder, folder.resolve().name) for folder in folders]
    name, count = Counter(source.name for source in sources).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path}: lists {count} samples called {name}; their results would share a folder.")
    return sources[:limit] if limit else sources
