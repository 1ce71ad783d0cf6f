"""Second pass: the pictures of the planned frames become samples."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..capture.recording import PictureStep, Recording
from ..errors import DataError
from ..parallel import bounded_map, worker_count
from ..progress import track
from ..samples.format import write_sample
from .config import PreprocessConfig
from .facts import RecordingFacts
from .first_pass import FirstPass
from .limits import Problem, check
from .normalize import normalized_view
from .plan import Plan, PlannedSample
from .quality import QualityRow, quality_metadata
from .warp import View

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SecondPass:
    """Writes samples.

    Attributes:
        config: The run's configuration.
        facts: The recording's cameras and clock.
        plan: What is to be written.
        first_pass: Where the masks are.
    """

    config: PreprocessConfig
    facts: RecordingFacts
    plan: Plan
    first_pass: FirstPass

    def write(self, recording: Recording, samples: Sequence[PlannedSample], output: Path) -> None:
        """Write `samples`, in time order; those that cannot be are noted as lost, with the reason."""
        by_frame = {sample.frame: sample for sample in samples}

        def work(step: PictureStep) -> tuple[int, str]:
            return step.index, self._write_sample(by_frame[step.index], step, output)

        steps = recording.read_pictures(list(by_frame))
        done = bounded_map(work, steps, worker_count(self.config.workers))
        for frame, reason in track(done, "samples", len(samples)):
            if reason:
                self.first_pass.lose(frame, reason)

    def _write_sample(self, sample: PlannedSample, step: PictureStep, output: Path) -> str:
        """Write one sample; returns why not, or nothing."""
        images = dict(zip(self.facts.camera_ids, step.images, strict=True))
        broken = [camera for camera, image in images.items() if image is None]
        if broken:
            return f"camera {', '.join(map(str, broken))}: the picture cannot be decoded"
        views = []
        masks = self.first_pass.masks(sample.frame)
        for image, mask, camera in zip(step.images, masks, self.facts.cameras, strict=True):
            assert image is not None
            view = View(image, mask.astype(np.float32), camera)
            views.append(
                normalized_view(
                    view,
                    sample.similarity,
                    self.config.geometry,
                    self.config.size,
                    self.plan.framing.crop_side_px,
                )
            )
        rows = self._rows(sample, views)
        cut = self._cut(rows)
        if cut and cut.action == "stop":
            raise DataError(f"{self.config.input.recording}: frame {sample.frame}: {cut}.")
        if cut and cut.action == "drop":
            return cut.text
        write_sample(
            output / sample.name,
            [view.rgba(self.config.background) for view in views],
            [view.camera for view in views],
            self.facts.camera_ids,
            self._metadata(sample, rows),
        )
        return ""

    def _cut(self, rows: Sequence[QualityRow]) -> Problem | None:
        """The view that lies outside its picture most, where that is beyond the limit."""
        worst = max(rows, key=lambda row: row.clipped_share)
        return check(self.config.quality.clipped_share, "clipped_share", worst.camera, worst.clipped_share)

    def _rows(self, sample: PlannedSample, views: Sequence[View]) -> list[QualityRow]:
        seen, limits = sample.observation, self.config.quality
        rows = []
        for index, (camera, view) in enumerate(zip(self.facts.camera_ids, views, strict=True)):
            jump = float(sample.area_jump[index])
            found = (
                *(problem for problem in seen.warnings if problem.camera in (None, camera)),
                check(limits.area_jump, "area_jump", camera, abs(jump)),
                check(limits.clipped_share, "clipped_share", camera, view.clipped_share),
            )
            rows.append(
                QualityRow(
                    sample=sample.name,
                    frame=sample.frame,
                    time_s=self._time(sample),
                    segment=sample.segment,
                    camera=camera,
                    part=sample.part,
                    center_residual_px=float(seen.residual_px[index]),
                    hull_iou=float(seen.hull_iou[index]),
                    foreground_share=float(view.alpha.mean()),
                    clipped_share=view.clipped_share,
                    outside_share=view.outside_share,
                    touches_border=int(seen.masks[index].touches_border),
                    area_px=seen.masks[index].area,
                    area_jump=jump,
                    removed_share=seen.masks[index].removed_share,
                    warnings="; ".join(problem.text for problem in found if problem),
                )
            )
        return rows

    def _time(self, sample: PlannedSample) -> float | None:
        return sample.frame / self.facts.fps if self.facts.fps else None

    def _metadata(self, sample: PlannedSample, rows: Sequence[QualityRow]) -> dict[str, Any]:
        """The sample's keys beside `frames`: enough to take any result back to the rig's millimetres."""
        similarity = sample.similarity
        return {
            "frame_index": sample.frame,
            "world_from_model": similarity.world_from_model.tolist(),
            "similarity": {
                "scale": similarity.scale,
                "rotation": similarity.rotation.tolist(),
                "center_mm": similarity.center.tolist(),
            },
            "azimuth_order": list(self.plan.azimuth_order),
            "quality": quality_metadata(rows),
            "source": {
                "recording": self.facts.name,
                "time_s": self._time(sample),
                "segment": sample.segment,
            },
        }
