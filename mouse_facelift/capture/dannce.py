"""DANNCE's MATLAB calibrations: one file with a cell `params`, or a folder of hires_cam1_params.mat, ...

Each camera is K, r, t, RDistort, TDistort in MATLAB's row-vector convention, `[X 1] [r; t] K`: the transposes
of OpenCV's. MATLAB puts the first pixel's centre at 1, tools in Python leave OpenCV's 0; which program wrote
a file stands in its header.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CalibrationError
from .mat_files import DAMAGE, load_mat
from .raw_cameras import RawCamera, RigFile, distortion_text, matrix

FIELDS = ("K", "r", "R", "t", "T", "RDistort", "TDistort")
EXPECTED = "a DANNCE calibration: a cell `params` of structs with K, r, t, RDistort, TDistort"


def is_dannce_folder(folder: Path) -> bool:
    """Whether a folder holds one MATLAB file per camera."""
    return any(folder.glob("*_params.mat"))


def read_dannce(path: Path) -> RigFile:
    """Read a Label3D or DANNCE .mat (v5 or v7.3), or a folder of *_params.mat.

    Raises:
        CalibrationError: unreadable, or K, r or t is missing.
    """
    cameras: list[RawCamera] = []
    if path.is_dir():
        for file in sorted(path.glob("*_params.mat")):
            cameras.append(_camera(file, file.stem, _load(file), _first_pixel(file)))
        return _rig(cameras, ordered=False)
    content = _load(path)
    entries = content.get("params")
    if entries is None and "K" in content:
        raise CalibrationError(
            f"{path}: holds a single camera. Set input.calibration to the folder with one such file per "
            "camera."
        )
    if isinstance(entries, Mapping):
        entries = [entries]
    if not isinstance(entries, list) or not entries:
        raise CalibrationError(
            f"{path}: holds {', '.join(content) or 'none of the variables'}, expected {EXPECTED}."
        )
    names = content.get("camnames")
    if not isinstance(names, list) or len(names) != len(entries):
        names = range(len(entries))
    first_pixel = _first_pixel(path)
    for name, entry in zip(names, entries, strict=True):
        cameras.append(_camera(path, str(name), entry, first_pixel))
    return _rig(cameras, ordered=True)


def _rig(cameras: Sequence[RawCamera], ordered: bool) -> RigFile:
    return RigFile("DANNCE .mat", tuple(cameras), fixed_convention=False, row_vectors=True, ordered=ordered)


def _camera(path: Path, name: str, entry: Any, first_pixel: float) -> RawCamera:
    where = f"{path}: camera {name}"
    entry = entry if isinstance(entry, Mapping) else {}
    rotation, translation = entry.get("r", entry.get("R")), entry.get("t", entry.get("T"))
    if entry.get("K") is None or rotation is None or translation is None:
        raise CalibrationError(
            f"{where}: holds {', '.join(map(str, entry)) or 'no struct'}, expected {', '.join(FIELDS)}."
        )
    lens = {key: entry[key] for key in ("RDistort", "TDistort") if entry.get(key) is not None}
    return RawCamera(
        name,
        matrix(where, "K", entry["K"], (3, 3)),
        matrix(where, "r", rotation, (3, 3)),
        matrix(where, "t", translation, (3,)),
        first_pixel=first_pixel,
        distortion=distortion_text(where, lens),
    )


def _first_pixel(path: Path) -> float:
    """Where the first pixel's centre is: at 1 in files that MATLAB itself wrote.

    The header of SciPy and others names another platform than MATLAB's PCWIN64, GLNXA64, MACI64, ...
    """
    with path.open("rb") as file:
        return 1.0 if re.search(rb"Platform: (PCWIN|GLNX|MAC)", file.read(128)) else 0.0


def _load(path: Path) -> dict[str, Any]:
    try:
        return load_mat(path, ("params", "camnames", *FIELDS))
    except DAMAGE as error:
        raise CalibrationError(
            f"{path}: not a readable MATLAB file ({error}). Expected {EXPECTED}."
        ) from None
