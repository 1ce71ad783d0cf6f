"""What the page is made of: a run's measurements, its samples on disk, and the facts of its recording."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...geometry import Camera
from ...geometry.cameras import Array
from ...samples.format import Sample
from ..config import QualityConfig
from ..quality import QualityRow


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """Everything that `write_quality_html` shows. V cameras, T samples.

    Attributes:
        name: The recording's name.
        rows: All measurements, V per sample.
        samples: The written samples; pictures and cameras are read from disk. T
        summary: Head lines of the run, such as how many samples there are and the scale.
        dropped: Chosen frames that are no samples: frame, reasons, and the frame that took its place or None.
        frame_count: Frames of the recording.
        frame_counts: Camera number, as text -> frames of its video and of its masks.
        fps: Frames per second; 0 where unknown.
        jumps: First frames after a jump.
        convention: How the calibration's numbers were read.
        evidence: Every reading tried: `convention`, `residual_share`, `frames`, `possible`, `reason`.
        lags: Per camera: `camera`, `lags`, `hull_iou`, `best`, `gain`, `conclusive`, `mask_lag`; or empty.
        camera_ids: The recording's camera numbers. V
        cameras: The recorded cameras in millimetres. V
        azimuth_order: Camera numbers counter-clockwise as seen from above. V
        centers: The animal's centre in millimetres. [T, 3]
        scale: Model units per millimetre.
        limits: What counts as beyond a limit, and how many samples are shown.
        rotation: Takes the rig's up direction to Z. [3, 3]
        notes: What the run warned about.
    """

    name: str
    rows: Sequence[QualityRow]
    samples: Sequence[Sample]
    summary: Mapping[str, object]
    dropped: Sequence[tuple[int, Sequence[str], int | None]]
    frame_count: int
    frame_counts: Mapping[str, Sequence[int]]
    fps: float
    jumps: Sequence[int]
    convention: str
    evidence: Sequence[Mapping[str, Any]]
    lags: Sequence[Mapping[str, Any]]
    camera_ids: Sequence[int]
    cameras: Sequence[Camera]
    azimuth_order: Sequence[int]
    centers: Array
    scale: float
    limits: QualityConfig
    rotation: Array = field(default_factory=lambda: np.eye(3))
    notes: Sequence[str] = ()
