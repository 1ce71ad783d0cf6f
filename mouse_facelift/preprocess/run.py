"""`mfl preprocess`: a recording becomes FaceLift samples.

Two passes over the videos, both streaming: the first reads the masks and finds the animal in 3D, which fixes
the scale of the data set; the second warps the pictures and writes the samples.
"""

import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..capture.recording import Recording, TimeStep, open_recording
from ..config import dump_config
from ..errors import ConfigError, DataError
from ..files import write_json
from ..geometry import Similarity
from ..progress import track
from ..provenance import Run
from ..samples.format import Sample, write_list, write_sample
from ..samples.split import split_by_time
from .config import PreprocessConfig
from .normalize import choose_scale, normalized_view, smooth_centers
from .parallel import bounded_map
from .quality import QualityRow, write_quality_csv, write_quality_html
from .selection import select_frames
from .survey import Observation, check_calibration, observe
from .warp import View

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
MAX_WORKERS = 8
DRY_RUN_FRAMES = 5


@dataclass(frozen=True, eq=False)
class _Plan:
    """All that is decided before the first sample is written; T samples in time order."""

    recording: Recording
    observations: list[Observation]
    dropped: list[Observation]
    similarities: list[Similarity]
    parts: list[str]
    cut_frames: int

    @property
    def frames(self) -> list[int]:
        return [item.frame for item in self.observations]


def run(config: PreprocessConfig, dry_run: bool = False) -> Path:
    """Make samples of a recording.

    Args:
        config: What to do.
        dry_run: Check the recording, the selection, the output folder, and the calibration on a few frames;
            write nothing.

    Returns:
        The output folder.

    Raises:
        ConfigError: the selection is empty, or the output folder holds samples made with other settings.
        DataError: the recording is damaged, or no frame is usable.
        CalibrationError: the calibration is malformed or contradicts the masks.
    """
    record = Run("preprocess", config)
    recording = open_recording(config.input)
    frames = select_frames(config.selection, recording.frame_count)
    same = _check_output(config)
    logger.info(
        "%d cameras, %d frames, %d selected", len(recording.cameras), recording.frame_count, len(frames)
    )
    if dry_run:
        _survey(config, recording, frames[:: max(1, len(frames) // DRY_RUN_FRAMES)])
        return config.output
    record.add_inputs(recording.files)
    plan = _plan(config, recording, frames)
    record.lap("masks")
    _clear(config.output, keep={_name(position) for position in range(len(plan.frames))} if same else set())
    write_json(config.output / MANIFEST, _manifest(config, plan, complete=False))
    samples, rows = _write_samples(config, plan)
    for part in ("train", "val"):
        chosen = [sample.folder for sample, name in zip(samples, plan.parts, strict=True) if name == part]
        write_list(config.output / f"data_{part}.txt", chosen)
    write_quality_csv(config.output / "quality.csv", rows)
    write_quality_html(
        config.output / "quality.html", rows, samples, _summary(plan), config.quality.worst_shown
    )
    write_json(config.output / MANIFEST, _manifest(config, plan, complete=True))
    record.lap("samples")
    record.write(config.output, {"samples": len(samples), "dropped": len(plan.dropped)})
    logger.info("%d samples written to %s, %d frames dropped", len(samples), config.output, len(plan.dropped))
    return config.output


def _survey(config: PreprocessConfig, recording: Recording, frames: Sequence[int]) -> list[Observation]:
    """First pass: the masks."""

    def survey(step: TimeStep) -> Observation:
        return observe(step, recording.cameras, recording.camera_ids, config.geometry, config.quality)

    steps = recording.frames(frames, images=False)
    observations = list(track(bounded_map(survey, steps, _workers(config)), "masks", len(frames)))
    check_calibration(observations, recording.cameras, config.quality)
    return observations


def _plan(config: PreprocessConfig, recording: Recording, frames: Sequence[int]) -> _Plan:
    observations = _survey(config, recording, frames)
    usable = [item for item in observations if not item.problems]
    dropped = [item for item in observations if item.problems]
    if not usable:
        reasons = Counter(problem for item in dropped for problem in item.problems).most_common(3)
        listed = "; ".join(f"{problem} ({count} frames)" for problem, count in reasons)
        raise DataError(
            f"{config.input.recording}: none of {len(frames)} frames can be used: {listed}. Repair the "
            "recording, or change the thresholds named."
        )
    numbers = [item.frame for item in usable]
    centers = np.stack([item.center for item in usable])
    centers = smooth_centers(numbers, centers, config.geometry.smoothing_frames)
    scale, cut = choose_scale(config.geometry, usable, centers, recording.cameras)
    if cut:
        logger.warning(
            "in %d of %d frames a part of the animal leaves the box or a picture", cut, len(usable)
        )
    similarities = [Similarity(scale, np.eye(3), center) for center in centers]
    return _Plan(recording, usable, dropped, similarities, _parts(config, numbers), cut)


def _parts(config: PreprocessConfig, frames: Sequence[int]) -> list[str]:
    split = split_by_time(frames, config.split.val_share, config.split.blocks, config.split.guard_frames)
    parts = ["train"] * len(frames)
    for name, positions in (("val", split.val), ("guard", split.guard)):
        for position in positions:
            parts[position] = name
    return parts


def _write_samples(config: PreprocessConfig, plan: _Plan) -> tuple[list[Sample], list[QualityRow]]:
    """Second pass: the pictures of all usable frames."""

    def write(job: tuple[int, TimeStep]) -> tuple[Sample, list[QualityRow]]:
        return _write_sample(config, plan, *job)

    steps = enumerate(plan.recording.frames(plan.frames))
    results = list(track(bounded_map(write, steps, _workers(config)), "samples", len(plan.frames)))
    return [sample for sample, _ in results], [row for _, rows in results for row in rows]


def _write_sample(
    config: PreprocessConfig, plan: _Plan, position: int, step: TimeStep
) -> tuple[Sample, list[QualityRow]]:
    similarity, recording = plan.similarities[position], plan.recording
    views = []
    for image, mask, camera in zip(step.images, step.masks, recording.cameras, strict=True):
        view = View(image, mask.mask.astype(np.float32), camera)
        views.append(normalized_view(view, similarity, config.geometry, config.size))
    name = _name(position)
    rows = _rows(plan, position, name, views)
    sample = write_sample(
        config.output / name,
        [view.rgba(config.background) for view in views],
        [view.camera for view in views],
        recording.camera_ids,
        _metadata(config, plan, position, rows),
    )
    return sample, rows


def _rows(plan: _Plan, position: int, name: str, views: Sequence[View]) -> list[QualityRow]:
    observation = plan.observations[position]
    before = plan.observations[max(position - 1, 0)]
    rows = []
    for index, (camera, view, mask) in enumerate(
        zip(plan.recording.camera_ids, views, observation.masks, strict=True)
    ):
        rows.append(
            QualityRow(
                sample=name,
                frame=observation.frame,
                camera=camera,
                part=plan.parts[position],
                center_residual_px=float(observation.residual_px[index]),
                hull_iou=float(observation.hull_iou[index]),
                foreground_share=float(view.alpha.mean()),
                clipped_share=view.clipped_share,
                outside_share=view.outside_share,
                touches_border=int(mask.touches_border),
                area_px=mask.area,
                area_jump=mask.area / before.masks[index].area - 1,
                removed_share=mask.removed_share,
            )
        )
    return rows


def _metadata(
    config: PreprocessConfig, plan: _Plan, position: int, rows: Sequence[QualityRow]
) -> dict[str, Any]:
    """The sample's keys beside `frames`: enough to take any result back to the rig's millimetres."""
    similarity, fps = plan.similarities[position], plan.recording.fps
    measured = ("center_residual_px", "hull_iou", "clipped_share", "foreground_share")
    return {
        "frame_index": plan.frames[position],
        "world_from_model": similarity.world_from_model.tolist(),
        "similarity": {
            "scale": similarity.scale,
            "rotation": similarity.rotation.tolist(),
            "center_mm": similarity.center.tolist(),
        },
        "quality": {name: [round(getattr(row, name), 6) for row in rows] for name in measured},
        "source": {
            "recording": config.input.recording.name,
            "time_s": plan.frames[position] / fps if fps else None,
        },
    }


def _manifest(config: PreprocessConfig, plan: _Plan, complete: bool) -> dict[str, Any]:
    """What the folder holds. Samples are listed only once all of them are there."""
    samples = [
        {"name": _name(position), "frame": frame, "part": plan.parts[position]}
        for position, frame in enumerate(plan.frames)
    ]
    return {
        "complete": complete,
        "counts": {**Counter(plan.parts), "samples": len(samples), "dropped": len(plan.dropped)},
        "scale": plan.similarities[0].scale,
        "cut_frames": plan.cut_frames,
        "cameras": list(plan.recording.camera_ids),
        "frame_count": plan.recording.frame_count,
        "fps": plan.recording.fps,
        "samples": samples if complete else [],
        "dropped": [{"frame": item.frame, "reasons": list(item.problems)} for item in plan.dropped],
        "config": _settings(config),
    }


def _summary(plan: _Plan) -> dict[str, object]:
    reasons = Counter(problem for item in plan.dropped for problem in item.problems)
    parts = Counter(plan.parts)
    divided = f"{parts['train']} train, {parts['val']} val, {parts['guard']} guard (in neither)"
    return {
        "samples": f"{len(plan.frames)}: {divided}",
        "frames dropped": len(plan.dropped),
        **{f"dropped: {reason}": count for reason, count in reasons.most_common()},
        "frames cut by the box or a picture": plan.cut_frames,
        "scale": f"{plan.similarities[0].scale:.6g} units per mm",
    }


def _settings(config: PreprocessConfig) -> dict[str, Any]:
    """The settings that decide what is written."""
    settings = dump_config(config)
    return {key: value for key, value in settings.items() if key not in ("output", "overwrite", "workers")}


def _check_output(config: PreprocessConfig) -> bool:
    """Whether the output folder holds samples of these very settings.

    Raises:
        ConfigError: it holds others, and `overwrite` is off; or nothing can be written there.
    """
    manifest = config.output / MANIFEST
    _check_writable(config.output)
    try:
        found = json.loads(manifest.read_text(encoding="utf-8")).get("config")
    except FileNotFoundError:
        found = None
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        raise ConfigError(f"{manifest}: not a manifest. Remove it, or set another output.") from None
    if found == _settings(config):
        return True
    if _samples(config.output) and not config.overwrite:
        raise ConfigError(
            f"{config.output}: holds samples made with other settings. Set another output, or "
            "overwrite=true to replace them."
        )
    return False


def _check_writable(output: Path) -> None:
    """Refuse an output folder that cannot be made or written, before the long first pass."""
    existing = next(place for place in (output, *output.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise ConfigError(f"{existing}: is a file, expected a folder for the samples. Set another output.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{output}: {existing} is not writable. Set another output, or its permissions.")


def _samples(output: Path) -> list[Path]:
    if not output.is_dir():
        return []
    return sorted(path for path in output.iterdir() if re.fullmatch(r"sample_\d{6}", path.name))


def _name(position: int) -> str:
    return f"sample_{position:06d}"


def _clear(output: Path, keep: set[str]) -> None:
    """Remove what an earlier run left, apart from samples that will be replaced one by one."""
    for folder in _samples(output):
        if folder.name not in keep:
            shutil.rmtree(folder)
    for name in ("data_train.txt", "data_val.txt", "quality.csv", "quality.html", MANIFEST):
        (output / name).unlink(missing_ok=True)


def _workers(config: PreprocessConfig) -> int:
    return config.workers or min(MAX_WORKERS, os.cpu_count() or 1)
