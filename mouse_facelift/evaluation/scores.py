"""Rows of `scores.csv`: what was measured at one camera of one frame, and what each figure means."""

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..files import atomic_path

DEFINITIONS: dict[str, str] = {
    "psnr_animal_db": "PSNR over the pixels whose true alpha is above 0.5, both pictures on the "
    "background, colours clamped to [0, 1], at most 100 dB",
    "psnr_full_db": "PSNR over all pixels: mostly background, so flattering",
    "ssim_animal": "SSIM (11-tap Gaussian window of sigma 1.5), mean over windows whose centre has a true "
    "alpha above 0.5",
    "iou": "intersection over union of the silhouettes, alpha above 0.5; 1 where both are empty",
    "boundary_px": "distance in pixels from each outline pixel of one silhouette to the nearest of the "
    "other, mean over the outline, mean of both directions; 0 where both are empty, the picture's "
    "diagonal where one is",
    "lpips": "LPIPS (VGG-16) of the square around the true animal, 10 % larger than its box; only with "
    "lpips_weights",
    "depth_mm": "mean distance along the optical axis, in mm, between the rendered (alpha-weighted mean) "
    "depth and the true surface points that this camera sees, where both silhouettes are; only with "
    "surface.npz",
    "chamfer_mm": "mean distance in mm to the nearest point, mean of both directions, between the true "
    "surface points and the reconstruction's surface: rendered depth, alpha above 0.5, at all cameras of "
    "the sample and of its truth; of the whole reconstruction, so the same at every camera; only with "
    "surface.npz",
    "angle_deg": "angle at the animal between this camera and the nearest one whose view was shown",
    "psnr_white_db": "psnr_animal_db of a white picture",
    "psnr_outline_db": "psnr_animal_db of the true outline filled with the animal's mean colour",
    "psnr_shift_db": "psnr_animal_db of the truth moved by one pixel to the right",
    "psnr_object_db": "PSNR of the squared error over the union of both silhouettes per pixel of the true "
    "animal: one that is drawn too large pays for it, and a large background hides nothing",
    "error_missing": "the part of that mean squared error where the true animal is and the other is not",
    "error_extra": "where the other animal is and the true one is not",
    "error_colour": "where both are; the three parts add up to the whole",
}
"""What is measured, in the order of the columns. A figure that does not exist is empty."""

LOWER_IS_BETTER = (
    "boundary_px",
    "lpips",
    "depth_mm",
    "chamfer_mm",
    "error_missing",
    "error_extra",
    "error_colour",
)

KEYS = ("method", "protocol", "sample", "frame", "view_id", "role", "leak")
COLUMNS = (*KEYS, *DEFINITIONS)
"""Columns of `scores.csv`."""


@dataclass(frozen=True)
class Score:
    """What was measured at one camera of one frame.

    Attributes:
        method: Name of the method.
        protocol: How the camera was chosen.
        sample: Name of the sample.
        frame: Index in the source video, where the sample knows it.
        view_id: Camera id.
        role: `input` (the view was shown), `held_out` (a real view that was not) or `novel` (of `truth`).
        leak: `seen frame`, `seen camera`, `clean` or `unknown`; see `leaks`.
        values: By the names of `DEFINITIONS`; None where a figure does not exist.
    """

    method: str
    protocol: str
    sample: str
    frame: int | None
    view_id: int
    role: str
    leak: str
    values: Mapping[str, float | None]

    @property
    def place(self) -> tuple[str, int]:
        """Sample and camera: what two methods' rows are paired by."""
        return self.sample, self.view_id


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """Write `scores.csv`, in full precision."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for score in scores:
            keys = (getattr(score, name) for name in KEYS)
            writer.writerow("" if cell is None else cell for cell in (*keys, *_figures(score)))


def read_scores(path: Path) -> list[Score]:
    """Read `scores.csv`.

    Raises:
        DataError: it is missing or not one.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        return [_score(row) for row in rows]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected the scores.csv of `mfl evaluate`.") from None
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a scores.csv of `mfl evaluate` ({error!r}).") from None


def _figures(score: Score) -> Iterable[str | None]:
    for name in DEFINITIONS:
        value = score.values.get(name)
        yield None if value is None or not math.isfinite(value) else repr(float(value))


def _score(row: Mapping[str, str]) -> Score:
    return Score(
        method=row["method"],
        protocol=row["protocol"],
        sample=row["sample"],
        frame=int(row["frame"]) if row["frame"] else None,
        view_id=int(row["view_id"]),
        role=row["role"],
        leak=row["leak"],
        values={name: float(row[name]) if row[name] else None for name in DEFINITIONS},
    )
