"""What the page is made of: a run's measurements, its samples on disk, and the facts of its recording."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...geometry.cameras import Array
from ...samples.format import Sample
from ..config import QualityConfig
from ..facts import RecordingFacts
from ..quality import QualityRow


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """Everything that `write_quality_html` shows. V cameras, T samples.

    Attributes:
        facts: The recording.
        rows: All measurements, V per sample.
        samples: The written samples; pictures and cameras are read from disk. T
        summary: Head lines of the run, such as how many samples there are.
        dropped: Chosen frames that are no samples: frame, reasons, and the frame that took its place or None.
        jumps: First frames after a jump.
        azimuth_order: Camera numbers counter-clockwise as seen from above. V
        centers: The animal's centre in millimetres. [T, 3]
        scale: Model units per millimetre.
        limits: What counts as beyond a limit, and how many samples are shown.
        notes: What the run, and reading the recording, warned about.
    """

    facts: RecordingFacts
    rows: Sequence[QualityRow]
    samples: Sequence[Sample]
    summary: Mapping[str, object]
    dropped: Sequence[tuple[int, Sequence[str], int | None]]
    jumps: Sequence[int]
    azimuth_order: Sequence[int]
    centers: Array
    scale: float
    limits: QualityConfig
    notes: Sequence[str] = ()
