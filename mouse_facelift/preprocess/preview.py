"""`--dry-run`: a few frames go through everything, beside the output folder, and the rest is arithmetic."""

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..capture.recording import Recording
from ..files import free_bytes
from ..geometry.cameras import Array
from ..words import data_size, duration
from .config import PreprocessConfig, SelectionConfig
from .facts import RecordingFacts
from .first_pass import FirstPass
from .journal import Journal
from .plan import Plan, make_plan
from .second_pass import SecondPass
from .shard import SINGLE

logger = logging.getLogger(__name__)

REPORT_SECONDS = 4.0
"""About what the quality page takes, whatever the number of samples."""
TRIAL_FRAMES = 24
"""Neighbours in the selection, so that decoding what lies between them is in the measured time."""


@dataclass(frozen=True, eq=False)
class Trial:
    """What a few frames took.

    Attributes:
        plan: What was decided for them.
        mask_seconds: First pass, per frame.
        sample_seconds: Second pass, per sample.
        sample_bytes: Size of a sample's files.
    """

    plan: Plan
    mask_seconds: float
    sample_seconds: float
    sample_bytes: float


def preview(
    config: PreprocessConfig,
    recording: Recording,
    facts: RecordingFacts,
    wanted: Sequence[int],
    keypoints: Array | None,
    spent: float,
) -> None:
    """Say what a run would do, how long it would take and how much disk it would fill.

    Args:
        config: The run's configuration.
        recording: The recording.
        facts: What is known of it.
        wanted: The frames that the run would look at.
        keypoints: 2D key points of all frames, where the configuration needs them.
        spent: Seconds that the checks so far have taken; a run makes them too.

    Raises:
        DataError: none of the frames that were tried can be used.
        CalibrationError: the masks contradict the cameras in most of them.
    """
    trial = _try(config, recording, facts, wanted, keypoints)
    selection = config.selection
    samples = min(selection.count, len(wanted)) if selection.mode == "diverse" else len(wanted)
    seconds = spent + trial.mask_seconds * len(wanted) + trial.sample_seconds * samples
    seconds += REPORT_SECONDS
    for line in (*_recording_lines(facts), *_trial_lines(trial)):
        logger.info("%s", line)
    free = free_bytes(config.output)
    needed = trial.sample_bytes * samples
    logger.info(
        "would write %d samples to %s: about %s, %s of disk (%s free)",
        samples,
        config.output,
        duration(seconds),
        data_size(needed),
        data_size(free),
    )
    if needed > free:
        logger.warning("the disk of %s is too small: free some, or set another output", config.output)


def _try(
    config: PreprocessConfig,
    recording: Recording,
    facts: RecordingFacts,
    wanted: Sequence[int],
    keypoints: Array | None,
) -> Trial:
    first = max(0, (len(wanted) - TRIAL_FRAMES) // 2)
    frames = list(wanted[first : first + TRIAL_FRAMES])
    with tempfile.TemporaryDirectory(prefix="mfl-dry-run-") as name:
        output = Path(name)
        selection = SelectionConfig(mode="list", frames=frames)
        small = config.model_copy(update={"output": output, "selection": selection})
        with Journal(output / "journal", "trial") as journal:
            first_pass = FirstPass(small, facts, journal)

            def survey(wanted: Sequence[int], watch: bool) -> None:
                first_pass.survey(recording, wanted, SINGLE, watch)

            clock = [time.perf_counter()]
            plan = make_plan(small, facts, first_pass, survey, keypoints)
            clock.append(time.perf_counter())
            SecondPass(small, facts, plan, first_pass).write(recording, plan.samples, output)
            clock.append(time.perf_counter())
        written = [path.stat().st_size for path in output.glob("sample_*/**/*") if path.is_file()]
        masks, samples = np.diff(clock)
        count = len(plan.samples)
        return Trial(plan, float(masks) / len(frames), float(samples) / count, sum(written) / count)


def _recording_lines(facts: RecordingFacts) -> list[str]:
    size = f"{facts.cameras[0].width}x{facts.cameras[0].height}"
    length = f", {facts.frame_count / facts.fps:.1f} s at {facts.fps:g}/s" if facts.fps else ""
    lines = [f"{facts.name}: {len(facts.cameras)} cameras, {size}, {facts.frame_count} frames{length}"]
    lines += [f"calibration: {facts.convention}"]
    for lag in facts.lags:
        late = f"late by {lag['best']} frames" if lag["best"] else "in step"
        step = late if lag["conclusive"] else "in step as far as can be told"
        lines.append(f"camera {lag['camera']}: {step}")
    return [*lines, *facts.notes]


def _trial_lines(trial: Trial) -> list[str]:
    plan = trial.plan
    iou = np.array([sample.observation.hull_iou for sample in plan.samples])
    residual = np.array([sample.observation.residual_px for sample in plan.samples])
    lines = [
        f"{len(plan.samples)} of {len(plan.samples) + len(plan.dropped)} frames tried are good: agreement of "
        f"masks and hull {np.median(iou):.3f} (worst {iou.min():.3f}), centre residual "
        f"{np.median(residual):.1f} px (worst {residual.max():.1f})",
        f"scale about {plan.framing.scale:.5g} units per mm",
    ]
    return lines + [f"frame {item.frame} dropped: {'; '.join(item.reasons)}" for item in plan.dropped]
