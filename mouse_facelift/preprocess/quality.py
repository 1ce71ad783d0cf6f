"""What was measured of every sample and camera: kept in the sample's cameras file and in quality.csv."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import write_text
from ..samples.format import CAMERAS_FILE, Sample


@dataclass(frozen=True)
class QualityRow:
    """One view of one sample. A figure that could not be measured is NaN.

    Attributes:
        sample: Its folder's name.
        frame: Frame number in the recording.
        time_s: That frame's time; None where the frame rate is unknown.
        segment: Which stretch between jumps of the recording the frame lies in, from 0.
        camera: The recording's camera number.
        part: train, val or guard (in neither).
        center_residual_px: Distance of the mask's centroid from the views' common point, recorded pixels.
        hull_iou: Overlap of the recorded mask with the silhouette of all views' visual hull.
        foreground_share: Mean alpha of the written picture.
        clipped_share: Share of the mask outside the written picture.
        outside_share: Share of the written picture that the recorded one does not cover.
        touches_border: 1 where the animal reaches the recorded picture's border, else 0.
        area_px: The mask's area in the recorded picture.
        area_jump: Relative change of that area since the sample before; 0 for the first of a segment.
        removed_share: Share of the raw mask that was removed as not the animal's.
        warnings: What was found beyond its limit in this frame, separated by semicolons.
    """

    sample: str
    frame: int
    time_s: float | None
    segment: int
    camera: int
    part: str
    center_residual_px: float
    hull_iou: float
    foreground_share: float
    clipped_share: float
    outside_share: float
    touches_border: int
    area_px: int
    area_jump: float
    removed_share: float
    warnings: str


_NOT_STORED = ("sample", "frame", "part")
"""Known from the sample's folder, its `frame_index`, and the lists: a copy could contradict them."""
_STORED = tuple(field.name for field in fields(QualityRow) if field.name not in _NOT_STORED)


def quality_metadata(rows: Sequence[QualityRow]) -> dict[str, Any]:
    """The value of a sample's key `quality`: its rows, one per view, and their warnings without repetition.

    JSON has no NaN: a figure that is not finite is written as null.
    """
    warnings = (text for row in rows for text in row.warnings.split("; ") if text)
    return {
        "rows": [{name: _to_json(getattr(row, name)) for name in _STORED} for row in rows],
        "warnings": list(dict.fromkeys(warnings)),
    }


def rows_of(sample: Sample, part: str) -> list[QualityRow]:
    """Read a sample's rows back, exactly as they were given to `quality_metadata`.

    Args:
        sample: A sample of `mfl preprocess`.
        part: Its part of the split, which only the lists know.

    Raises:
        DataError: the sample's cameras file holds no such rows.
    """
    path, frame = sample.folder / CAMERAS_FILE, sample.frame_index
    try:
        entries = sample.metadata["quality"]["rows"]
        if frame is None or len(entries) != len(sample.views):
            raise ValueError(f"{len(entries)} rows for {len(sample.views)} views, frame {frame}")
        return [
            QualityRow(
                sample=sample.folder.name,
                frame=frame,
                part=part,
                **{name: _from_json(name, entry) for name in _STORED},
            )
            for entry in entries
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: 'quality' is missing or garbled ({error!r}), expected the figures that `mfl "
            "preprocess` writes. Remove the sample's folder and run it again."
        ) from None


def write_quality_csv(path: Path, rows: Sequence[QualityRow]) -> None:
    """Write one line per sample and camera; numbers with six digits, `nan` where nothing was measured."""
    text = io.StringIO()
    names = [field.name for field in fields(QualityRow)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_to_text(getattr(row, name)) for name in names] for row in rows)
    write_text(path, text.getvalue())


def _to_json(value: Any) -> Any:
    """A plain Python value: NumPy's scalars and NaN are not JSON."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, str) else int(value)


def _from_json(name: str, entry: Mapping[str, Any]) -> Any:
    value = entry[name]
    if name == "warnings":
        return str(value)
    if name == "time_s":
        return None if value is None else float(value)
    if name in ("segment", "camera", "touches_border", "area_px"):
        return int(value)
    return math.nan if value is None else float(value)


def _to_text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
