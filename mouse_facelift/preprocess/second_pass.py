"""Second pass: the pictures of the planned frames become samples, on disk or in memory."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..capture.recording import PictureStep, Recording
from ..errors import DataError
from ..geometry import Camera
from ..parallel import overlapped, worker_count
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

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Prepared:
    """One sample in memory: what `write_sample` is given.

    Attributes:
        name: Its folder's name.
        images: Straight RGBA per view. V x [S, S, 4]
        cameras: The cameras of exactly these pixels, model units. V
        view_ids: The recording's camera ids. V
        metadata: The keys beside `frames`.
    """

    name: str
    images: Sequence[NDArray[np.uint8]]
    cameras: Sequence[Camera]
    view_ids: Sequence[int]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Lost:
    """A planned frame that is no sample, and why."""

    frame: int
    reason: str


@dataclass(frozen=True, eq=False)
class SecondPass:
    """Makes samples.

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

        def write(prepared: Prepared) -> None:
            write_sample(
                output / prepared.name,
                prepared.images,
                prepared.cameras,
                prepared.view_ids,
                prepared.metadata,
            )

        for result in track(self._each(recording, samples, write), "samples", len(samples)):
            if isinstance(result, Lost):
                self.first_pass.lose(result.frame, result.reason)

    def prepare(
        self, recording: Recording, samples: Sequence[PlannedSample]
    ) -> Iterator[tuple[PlannedSample, Prepared | Lost]]:
        """Make `samples`, in time order, a few ahead of the caller; what is lost is noted as in `write`."""
        results = self._each(recording, samples, lambda prepared: prepared)
        for sample, result in zip(samples, results, strict=True):
            if isinstance(result, Lost):
                self.first_pass.lose(result.frame, result.reason)
            yield sample, result

    def _each(
        self,
        recording: Recording,
        samples: Sequence[PlannedSample],
        use: Callable[[Prepared], Result],
    ) -> Iterator[Result | Lost]:
        """Prepare and use every sample in threads; the results are in order."""
        by_frame = {sample.frame: sample for sample in samples}

        def work(step: PictureStep) -> Result | Lost:
            prepared = self._prepare(by_frame[step.index], step)
            return prepared if isinstance(prepared, Lost) else use(prepared)

        steps = recording.read_pictures(list(by_frame))
        return overlapped(work, steps, worker_count(self.config.workers))

    def _prepare(self, sample: PlannedSample, step: PictureStep) -> Prepared | Lost:
        images = dict(zip(self.facts.camera_ids, step.images, strict=True))
        broken = [camera for camera, image in images.items() if image is None]
        if broken:
            return Lost(sample.frame, f"camera {', '.join(map(str, broken))}: the picture cannot be decoded")
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
            return Lost(sample.frame, cut.text)
        return Prepared(
            sample.name,
            [view.rgba(self.config.background) for view in views],
            [view.camera for view in views],
            self.facts.camera_ids,
            self._metadata(sample, rows),
        )

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
            "quality": quality_metadata(rows),
            "source": {
                "recording": self.facts.name,
                "time_s": self._time(sample),
                "segment": sample.segment,
            },
        }
