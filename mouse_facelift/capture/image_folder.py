"""A folder of PNG frames, numbered by their names, read like a video."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..damage import DAMAGED_PICTURE
from ..errors import DataError
from .sources import Pixels, Watch, check_request, shrink

NUMBER = re.compile(r"(.*?)(\d+)", re.DOTALL)
"""What stands before a frame's number, and the number."""

SHOWN = 6
"""Numbers listed in a message, at most."""


class ImageFolder:
    """One camera's PNG files; a `FrameSource`. Frames count by position, whatever number they start at.

    Grey, RGB, RGBA, palette, 1-bit and 16-bit files are read; 16 bits become 8 by their upper byte.

    Attributes:
        path, files, width, height, frame_count, fps, has_alpha, first_number, keyframes: See `FrameSource`.

    Raises:
        DataError: no PNG frames, gaps or duplicates in their numbers, or the first one cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        numbered = _numbered(path)
        self.files = [numbered[number] for number in sorted(numbered)]
        self.frame_count = len(self.files)
        self.fps = 0.0
        self.keyframes: Sequence[int] = range(self.frame_count)
        self.first_number = min(numbered)
        try:
            with Image.open(self.files[0], formats=["PNG"]) as image:
                self.width, self.height = image.size
                self.has_alpha = image.has_transparency_data
        except DAMAGED_PICTURE as error:
            raise DataError(
                f"{self.files[0]}: not a readable PNG file ({error}). Export the frame again."
            ) from None

    def frames(
        self,
        indices: Sequence[int],
        pixels: Pixels = "rgb24",
        watch: Watch | None = None,
        stop: Event | None = None,
    ) -> Iterator[tuple[int, NDArray[np.uint8] | None]]:
        """Read some frames; see `FrameSource.frames`."""
        check_request(self, indices, pixels)
        watched = range(indices[0], indices[-1] + 1) if watch is not None and len(indices) else indices
        wanted = set(indices)
        for index in watched:
            if stop is not None and stop.is_set():
                return
            picture = self._read(index, pixels if index in wanted else _single(pixels))
            if watch is not None and picture is not None:
                watch(index, shrink(picture if picture.ndim == 2 else _gray(Image.fromarray(picture))))
            if index in wanted:
                yield index, picture

    def _read(self, index: int, pixels: Pixels) -> NDArray[np.uint8] | None:
        path = self.files[index]
        try:
            with Image.open(path, formats=["PNG"]) as image:
                image.load()
        except FileNotFoundError:
            raise DataError(f"{path}: has vanished since the recording was opened.") from None
        except PermissionError:
            raise DataError(f"{path}: may not be read. Give yourself permission to read it.") from None
        except DAMAGED_PICTURE:
            return None
        if image.size != (self.width, self.height):
            raise DataError(
                f"{path}: is {image.width}x{image.height}, the frames before it {self.width}x{self.height}. "
                "Export all frames with one size."
            )
        if pixels == "rgb24":
            return _rgb(image)
        if pixels == "gray":
            return _gray(image)
        if not image.has_transparency_data:
            raise DataError(f"{path}: has no alpha channel (mode {image.mode}), expected RGBA like frame 0.")
        return np.asarray(image.convert("RGBA"))[..., 3].copy()


def _numbered(folder: Path) -> dict[int, Path]:
    """Number -> file; every number from the first to the last, each once."""
    files: dict[int, Path] = {}
    prefixes: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = NUMBER.fullmatch(path.stem)
        if path.suffix.lower() != ".png" or path.name.startswith(".") or match is None:
            continue
        prefix, number = match[1], int(match[2])
        if number in files:
            raise DataError(
                f"{folder}: {files[number].name} and {path.name} have the same number, expected one file per "
                "frame. Remove one."
            )
        files[number] = path
        prefixes.setdefault(prefix, path)
    if not files:
        raise DataError(
            f"{folder}: holds no PNG frames named by a number (000000.png, 000001.png, ...). Export them "
            "again."
        )
    if len(prefixes) > 1:
        names = " and ".join(path.name for path in list(prefixes.values())[:2])
        raise DataError(
            f"{folder}: holds {names}, expected frames that differ by their number only. Keep one kind."
        )
    missing = [number for number in range(min(files), max(files)) if number not in files]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise DataError(
            f"{folder}: frames {', '.join(map(str, missing[:SHOWN]))}{more} are missing between "
            f"{files[min(files)].name} and {files[max(files)].name}: the frames after them would be out of "
            "step. Export them again."
        )
    return files


def _single(pixels: Pixels) -> Pixels:
    """The channel that is watched of a frame that nobody asked for."""
    return "alpha" if pixels == "alpha" else "gray"


def _gray(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        return _upper_byte(image)
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"))


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        return np.repeat(_upper_byte(image)[..., None], 3, axis=-1)
    # Without alpha: RGB under alpha 0 is kept as it is stored.
    return np.asarray(image.convert("RGB"))


def _upper_byte(image: Image.Image) -> NDArray[np.uint8]:
    return (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
