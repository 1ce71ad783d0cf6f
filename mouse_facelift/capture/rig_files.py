"""Calibration files of all kinds, one reader per format, none of which executes anything from a file.

The readers interpret a format (names, shapes, quaternions, OpenGL axes), not the rig: whether R means what it
should is decided by the masks (`convention`), whether the numbers are plausible by `calibration`.
"""

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from ..errors import CalibrationError
from .colmap import is_colmap, read_colmap
from .dannce import is_dannce_folder, read_dannce
from .pickles import load_pickle
from .raw_cameras import (
    RawCamera,
    RigFile,
    distortion_text,
    matrix,
    picture_size,
    pinhole,
    require,
)

KINDS = (
    "new_cam.pkl, camera_params.h5, a DANNCE .mat, an anipose .toml, a COLMAP text model's folder, "
    "transforms.json or our own cameras .json"
)

DISTORTION_KEYS = ("D", "dist", "distortion", "distCoeffs", "distortions")

Sizes = Sequence[tuple[int, int]]


def read_rig_file(path: Path, sizes: Sizes) -> RigFile:
    """Read a calibration of any known kind.

    Args:
        path: A file, or a folder with a COLMAP text model or with DANNCE's hires_cam1_params.mat, ...
        sizes: Width and height of the videos; for files that leave the picture's size out.

    Raises:
        CalibrationError: unknown kind, unreadable, or not of the kind's form.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() == ".txt":
        return read_colmap(path.parent)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise CalibrationError(f"{path}: not a known kind of calibration. Expected {KINDS}.")
    return reader(path, sizes)


def find_rig_files(folder: Path) -> list[str]:
    """Calibrations of known kinds in a recording's folder, relative to it, for messages."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            inside = [path, *sorted(child for child in path.iterdir() if child.is_dir())]
            found += [place for place in inside if is_colmap(place) or is_dannce_folder(place)]
        elif path.suffix.lower() in (".h5", ".hdf5", ".mat", ".toml") or (
            path.suffix.lower() in _READERS and re.search("cam|calib|transforms", path.name, re.IGNORECASE)
        ):
            found.append(path)
    return [path.relative_to(folder).as_posix() for path in found]


def _read_folder(path: Path) -> RigFile:
    if is_colmap(path):
        return read_colmap(path)
    if is_dannce_folder(path):
        return read_dannce(path)
    hint = ""
    if (path / "cameras.bin").is_file():
        hint = " It is a binary COLMAP model: convert it with `colmap model_converter --output_type TXT`."
    raise CalibrationError(
        f"{path}: this folder is no calibration. Expected a COLMAP text model (cameras.txt, images.txt) or "
        f"DANNCE's hires_cam1_params.mat, ....{hint}"
    )


def _read_pickle(path: Path, sizes: Sizes) -> RigFile:
    """MAMMAL's `new_cam.pkl`: a list, or a dict by camera number, of {R, T, K}."""
    content = load_pickle(path)
    ordered = isinstance(content, (list, tuple))
    if ordered:
        content = dict(enumerate(content))
    if not isinstance(content, Mapping):
        raise CalibrationError(
            f"{path}: holds a {type(content).__name__}, expected a list or dict of cameras with R, T, K."
        )
    if not all(re.search(r"\d", str(key)) for key in content):
        raise CalibrationError(
            f"{path}: is a dict with keys {sorted(map(str, content))[:6]}, expected camera numbers 0, 1, "
            "and so on."
        )
    cameras = []
    for key, entry in content.items():
        where = f"{path}: camera {key}"
        cameras.append(_given(where, str(key), require(where, entry, ("R", "T", "K"))))
    return RigFile("pickle of R, T, K", tuple(cameras), fixed_convention=False, ordered=ordered)


def _given(where: str, name: str, entry: Mapping[str, Any]) -> RawCamera:
    lens = {key: entry[key] for key in DISTORTION_KEYS if entry.get(key) is not None}
    return RawCamera(
        name,
        matrix(where, "K", entry["K"], (3, 3)),
        matrix(where, "R", entry["R"], (3, 3)),
        matrix(where, "T", entry["T"], (3,)),
        distortion=distortion_text(where, lens),
    )


def _read_h5(path: Path, sizes: Sizes) -> RigFile:
    """Pose Splatter's `camera_params.h5`: stacks of K, R and T."""
    keys = {"K": "intrinsic", "R": "rotation", "T": "translation"}
    stacks = {}
    try:
        with h5py.File(path, "r") as file:
            for key, name in (*keys.items(), ("distortion", "distortion")):
                node = file.get(f"camera_parameters/{name}")
                if isinstance(node, h5py.Dataset) and node.size <= 10_000:
                    stacks[key] = np.asarray(node)
    except (OSError, RuntimeError, ValueError, TypeError, LookupError) as error:
        raise CalibrationError(
            f"{path}: not a readable HDF5 file ({error}). Expected Pose Splatter's camera_params.h5."
        ) from None
    lengths = {keys[key]: stacks[key].shape[:1] for key in keys if key in stacks}
    if len(lengths) < 3 or len(set(lengths.values())) != 1 or () in lengths.values():
        found = ", ".join(f"{name} {stacks[key].shape}" for key, name in keys.items() if key in stacks)
        raise CalibrationError(
            f"{path}: group camera_parameters holds {found or 'none of the stacks'}, expected intrinsic "
            "[V, 3, 3], rotation [V, 3, 3] and translation [V, 3]."
        )
    count = len(stacks["K"])
    if len(stacks.get("distortion", stacks["K"])) != count:
        raise CalibrationError(f"{path}: distortion is not one row per camera ({count}).")
    cameras = tuple(
        _given(f"{path}: camera {i}", str(i), {key: stack[i] for key, stack in stacks.items()})
        for i in range(count)
    )
    return RigFile("camera_params.h5", cameras, fixed_convention=False, ordered=True)


def _read_toml(path: Path, sizes: Sizes) -> RigFile:
    """Aniposelib's `calibration.toml`: rotation vectors, world to camera, OpenCV."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CalibrationError(
            f"{path}: not a readable TOML file ({error}). Expected an anipose calibration."
        ) from None
    sections = sorted((int(name[4:]), name) for name in content if re.fullmatch(r"cam_\d{1,9}", name))
    if not sections:
        raise CalibrationError(
            f"{path}: has sections {', '.join(content) or 'none'}, expected cam_0, cam_1, ... as anipose "
            "writes them."
        )
    cameras = []
    for _, section in sections:
        where = f"{path}: [{section}]"
        entry = require(where, content[section], ("matrix", "rotation", "translation"))
        size = entry.get("size")
        if size is not None and not (isinstance(size, list) and len(size) == 2):
            raise CalibrationError(f"{where}: size is {size!r}, expected [width, height].")
        cameras.append(
            RawCamera(
                str(entry.get("name", section)),
                matrix(where, "matrix", entry["matrix"], (3, 3)),
                cv2.Rodrigues(matrix(where, "rotation", entry["rotation"], (3,)))[0],
                matrix(where, "translation", entry["translation"], (3,)),
                picture_size(where, *size) if size else None,
                distortion=distortion_text(
                    where,
                    {"distortions": entry.get("distortions", [])},
                    "a fisheye lens" if entry.get("fisheye") else "",
                ),
            )
        )
    return RigFile("anipose .toml", tuple(cameras), fixed_convention=True, ordered=True)


def _read_json(path: Path, sizes: Sizes) -> RigFile:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CalibrationError(f"{path}: not a readable JSON file ({error}).") from None
    if isinstance(content, dict) and isinstance(content.get("frames"), list):
        return _read_nerf(path, content, sizes)
    if isinstance(content, dict) and isinstance(content.get("cameras"), list):
        return _read_own(path, content)
    raise CalibrationError(
        f'{path}: expected a list "cameras" (our own format) or "frames" (NeRF\'s transforms.json) at the '
        "top level."
    )


def _read_own(path: Path, content: Mapping[str, Any]) -> RigFile:
    """Our own JSON: w2c in mm, half-pixel centres; entries for held-out cameras are skipped."""
    if content.get("unit", "mm") != "mm":
        raise CalibrationError(f'{path}: unit is {content["unit"]!r}, expected "mm".')
    cameras = []
    for index, entry in enumerate(content["cameras"]):
        if isinstance(entry, dict) and entry.get("role") == "held_out":
            continue
        where = f"{path}: cameras[{index}]"
        name = str(require(where, entry, ("id", "width", "height", "K", "w2c"))["id"])
        where = f"{path}: camera {name}"
        w2c = _rigid(where, "w2c", entry["w2c"])
        cameras.append(
            RawCamera(
                name,
                matrix(where, "K", entry["K"], (3, 3)),
                w2c[:3, :3],
                w2c[:3, 3],
                picture_size(where, entry["width"], entry["height"]),
                first_pixel=0.5,
            )
        )
    return RigFile("cameras .json", tuple(cameras), fixed_convention=True)


def _read_nerf(path: Path, content: Mapping[str, Any], sizes: Sizes) -> RigFile:
    """NeRF's `transforms.json` as instant-ngp and nerfstudio define it.

    Camera to world, OpenGL axes (x right, y up, z back), pixels measured from the picture's corner.
    """
    cameras = []
    for index, frame in enumerate(content["frames"]):
        where = f"{path}: frames[{index}]"
        name = str(require(where, frame, ("file_path", "transform_matrix"))["file_path"])
        where = f"{path}: {name}"
        values = {**content, **frame}
        c2w = _rigid(where, "transform_matrix", frame["transform_matrix"])
        R = (c2w[:3, :3] * (1, -1, -1)).T
        size = picture_size(where, values["w"], values["h"]) if {"w", "h"} <= set(values) else None
        model = str(values.get("camera_model", "OPENCV")).upper()
        plain = model in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE") and not values.get("is_fisheye")
        lens = {key: values[key] for key in ("k1", "k2", "k3", "k4", "p1", "p2") if key in values}
        cameras.append(
            RawCamera(
                Path(name).with_suffix("").as_posix() if name else name,
                _nerf_intrinsics(where, values, size or _common_size(where, sizes)),
                R,
                -R @ c2w[:3, 3],
                size,
                first_pixel=0.5,
                distortion=distortion_text(where, lens, "" if plain else f"camera model {model}"),
            )
        )
    return RigFile("transforms.json", tuple(cameras), fixed_convention=True)


def _nerf_intrinsics(where: str, values: Mapping[str, Any], size: tuple[int, int]) -> Any:
    width, height = size
    focal: dict[str, Any] = {}
    for key, angle_key, side in (("fl_x", "camera_angle_x", width), ("fl_y", "camera_angle_y", height)):
        if key in values:
            focal[key] = values[key]
        elif angle_key in values:
            angle = float(matrix(where, angle_key, values[angle_key], ()))
            if not 0 < angle < np.pi:
                raise CalibrationError(f"{where}: {angle_key} is {angle:.4g}, expected radians from 0 to pi.")
            focal[key] = side / 2 / np.tan(angle / 2)
    if not focal:
        raise CalibrationError(f"{where}: no fl_x and no camera_angle_x, expected a focal length.")
    both = (focal.get("fl_x", focal.get("fl_y")), focal.get("fl_y", focal.get("fl_x")))
    principal = (values.get("cx", width / 2), values.get("cy", height / 2))
    return pinhole(where, both, principal, ("fl_x", "fl_y", "cx", "cy"))


def _common_size(where: str, sizes: Sizes) -> tuple[int, int]:
    if len(set(sizes)) != 1:
        raise CalibrationError(f"{where}: no w and h, and the videos have several sizes. Add w and h.")
    return sizes[0]


def _rigid(where: str, name: str, value: Any) -> Any:
    array = matrix(where, name, value, (4, 4))
    if not np.allclose(array[3], (0, 0, 0, 1), atol=1e-9):
        raise CalibrationError(f"{where}: last row of {name} is {array[3].tolist()}, expected 0 0 0 1.")
    return array


def _read_mat(path: Path, sizes: Sizes) -> RigFile:
    return read_dannce(path)


_READERS: dict[str, Callable[[Path, Sizes], RigFile]] = {
    ".pkl": _read_pickle,
    ".pickle": _read_pickle,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
    ".mat": _read_mat,
    ".toml": _read_toml,
    ".json": _read_json,
}
