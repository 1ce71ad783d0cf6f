"""FaceLift samples on disk: `sample_XXXXXX/{images/cam_XXX.png, opencv_cameras.json}` and list files."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..damage import DAMAGED_PICTURE
from ..errors import CalibrationError, DataError
from ..files import atomic_folder, write_json, write_text
from ..geometry import Camera

CAMERAS_FILE = "opencv_cameras.json"


@dataclass(frozen=True)
class SampleView:
    """One view of a sample: the picture's file and the camera that is true of its pixels.

    Attributes:
        file: RGBA PNG, straight alpha.
        camera: In model units (Z up, animal at the origin), half-pixel centres.
        view_id: The recording's camera id; slots and directions are computed, never assumed from it.
    """

    file: Path
    camera: Camera
    view_id: int


@dataclass(frozen=True)
class Sample:
    """One time step with its V views.

    Attributes:
        folder: Where it lies.
        sample_id: Its name, by default the folder's.
        views: In file order.
        metadata: All other keys of the cameras file (`frame_index`, `world_from_model`, ...).
    """

    folder: Path
    sample_id: str
    views: tuple[SampleView, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def frame_index(self) -> int | None:
        """Index in the source video, where recorded."""
        return self.metadata.get("frame_index")

    @property
    def input_view_ids(self) -> tuple[int, ...]:
        """The views that are made to be shown to a model, where the others are truth to compare with.

        Empty in samples whose views are all alike; `mfl synthesize` with `targets: real` writes others.

        Raises:
            DataError: it names no views, views that are not there, or all of them.
        """
        named = self.metadata.get("input_view_ids")
        if named is None:
            return ()
        present = {view.view_id for view in self.views}
        if not isinstance(named, list) or not named or not set(map(str, named)) < set(map(str, present)):
            raise DataError(
                f"{self.folder / CAMERAS_FILE}: input_view_ids is {named!r}, expected some of the views "
                f"{sorted(present)}, and not all: the others are compared."
            )
        return tuple(map(int, named))

    @property
    def world_from_model(self) -> NDArray[np.float64] | None:
        """Similarity from model units to the rig's millimetres, where recorded. [4, 4]

        Raises:
            DataError: it is none.
        """
        found = self.metadata.get("world_from_model")
        if found is None:
            return None
        try:
            matrix = np.asarray(found, float)
        except (TypeError, ValueError):
            matrix = np.empty(0)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or np.linalg.det(matrix[:3, :3]) <= 0:
            raise DataError(
                f"{self.folder / CAMERAS_FILE}: world_from_model is {found!r}, expected a 4x4 matrix of "
                "finite numbers that does not mirror. Prepare the sample again, or remove the key."
            )
        return matrix

    @property
    def mm_per_unit(self) -> float | None:
        """Millimetres of the rig in one model unit, where recorded."""
        matrix = self.world_from_model
        return None if matrix is None else float(np.cbrt(np.linalg.det(matrix[:3, :3])))


def read_sample(folder: Path) -> Sample:
    """Read a sample's cameras and check that its pictures exist. Pictures are read by `read_rgba`.

    Raises:
        DataError: the folder, the cameras file or a picture is missing or malformed.
        CalibrationError: a camera is not a camera.
    """
    path = folder / CAMERAS_FILE
    if not path.is_file():
        raise DataError(
            f"{folder}: no {CAMERAS_FILE}; expected a sample folder as written by `mfl preprocess`."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = content["frames"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not a FaceLift cameras file ({error!r}).") from None
    frame = content.get("frame_index")
    if frame is not None and type(frame) is not int:
        raise DataError(f"{path}: frame_index is {frame!r}, expected a whole number.")
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: 'frames' is empty, expected one entry per view.")
    views = tuple(_read_view(path, index, entry) for index, entry in enumerate(entries))
    metadata = {key: value for key, value in content.items() if key not in ("id", "frames")}
    return Sample(folder, str(content.get("id", folder.name)), views, metadata)


def write_sample(
    folder: Path,
    images: Sequence[NDArray[np.uint8]],
    cameras: Sequence[Camera],
    view_ids: Sequence[int],
    metadata: Mapping[str, Any] | None = None,
) -> Sample:
    """Write a sample; it appears under its name only when complete.

    Args:
        folder: Its final place; an existing folder is replaced.
        images: Straight RGBA per view, RGB under alpha 0 already the background colour. V x [H, W, 4]
        cameras: The cameras of exactly these pixels, model units.
        view_ids: The recording's camera ids.
        metadata: Further keys for the cameras file, JSON-ready.
    """
    with atomic_folder(folder) as temporary:
        (temporary / "images").mkdir()
        entries = []
        for image, camera, view_id in zip(images, cameras, view_ids, strict=True):
            if image.shape != (camera.height, camera.width, 4):
                raise DataError(
                    f"{folder.name}, camera {view_id}: image has shape {image.shape}, "
                    f"its camera expects {(camera.height, camera.width, 4)}."
                )
            name = f"images/cam_{view_id:03d}.png"
            (temporary / name).write_bytes(_png(image))
            entries.append(_view_entry(camera, name, view_id))
        write_json(
            temporary / CAMERAS_FILE,
            {"id": folder.name, "frames": entries, **(metadata or {})},
        )
    return read_sample(folder)


def _png(image: NDArray[np.uint8]) -> bytes:
    """OpenCV's default encoder, run-length coded: half the time of Pillow's for files of the same size."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA))[1].tobytes()


def read_rgba(path: Path) -> NDArray[np.uint8]:
    """Read a picture that must have alpha. [H, W, 4]

    Raises:
        DataError: unreadable, or without an alpha channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
                raise DataError(
                    f"{path}: has mode {image.mode}, expected RGBA. Without alpha the background cannot be "
                    "told from the animal; write samples with `mfl preprocess`."
                )
            return np.asarray(image.convert("RGBA"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture.") from None
    except DAMAGED_PICTURE as error:
        raise DataError(f"{path}: not a readable picture ({error}).") from None


def write_list(path: Path, folders: Iterable[Path]) -> None:
    """Write sample folders, one a line, relative to the list file, with a trailing newline."""
    base = path.parent.resolve()
    lines = [Path(os.path.relpath(folder.resolve(), base)).as_posix() for folder in folders]
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_list(path: Path) -> list[Path]:
    """Read a list file; relative lines are relative to the file.

    Raises:
        DataError: the file is missing, empty, or names a folder that does not exist.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected a list file, such as data_train.txt inside it.")
    if not path.is_file():
        raise DataError(
            f"{path}: no such list file. Expected a text file with one sample folder per line, such as "
            "data_train.txt of `mfl preprocess`."
        )
    try:
        # Windows' editors put a mark before the first line.
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file; expected one sample folder per line.") from None
    folders = [path.parent / line for line in lines if line]
    if not folders:
        raise DataError(
            f"{path}: lists no samples. `mfl preprocess` leaves a list empty where there are too few "
            "frames or split.val_share is 0."
        )
    for folder in folders:
        if not folder.is_dir():
            raise DataError(
                f"{path}: lists {folder}, which is not a folder; expected a sample folder in each line."
            )
    return folders


def _read_view(path: Path, index: int, entry: Any) -> SampleView:
    try:
        file = path.parent / str(entry["file_path"])
        K = [[entry["fx"], 0, entry["cx"]], [0, entry["fy"], entry["cy"]], [0, 0, 1]]
        size = int(entry["w"]), int(entry["h"])
        w2c, view_id = entry["w2c"], int(entry.get("view_id", index))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: view {index} lacks or garbles {error}.") from None
    if not file.is_file():
        raise DataError(f"{path}: view {index} names {file}, which does not exist.")
    try:
        camera = Camera(np.asarray(K, float), np.asarray(w2c, float), *size)
    except (CalibrationError, ValueError, TypeError) as error:
        raise CalibrationError(f"{path}: view {index}: {error}") from None
    return SampleView(file, camera, view_id)


def _view_entry(camera: Camera, name: str, view_id: int) -> dict[str, Any]:
    if camera.K[0, 1] != 0:
        raise CalibrationError(f"camera {view_id} has skew {camera.K[0, 1]}; the format has no field for it.")
    return {
        "w": camera.width,
        "h": camera.height,
        "fx": camera.K[0, 0],
        "fy": camera.K[1, 1],
        "cx": camera.K[0, 2],
        "cy": camera.K[1, 2],
        "w2c": camera.w2c.tolist(),
        "file_path": name,
        "view_id": view_id,
    }
