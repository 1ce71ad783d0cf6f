"""`mfl preprocess`: a recording becomes FaceLift samples.

Two passes over the videos, both streaming: the first reads the masks and finds the animal in 3D, which fixes
the scale of the data set; the second warps the pictures and writes the samples. Everything that was done is
on disk the moment it is done, so a run that was killed goes on where it was, and job arrays share the work.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..capture.keypoints import keypoint_files, read_keypoints
from ..capture.recording import Recording, open_recording
from ..errors import ConfigError, DataError, MflError
from ..files import atomic_path, write_json
from ..geometry.cameras import Array
from ..provenance import Run, check_output
from ..samples.split import check_clock
from .config import PreprocessConfig
from .facts import RecordingFacts, inspect
from .finish import finish
from .first_pass import FirstPass
from .journal import Journal
from .plan import Plan, PlannedSample, make_plan
from .preview import preview
from .second_pass import SecondPass
from .selection import candidates
from .shard import SINGLE, Shard
from .workspace import Workspace, identify

logger = logging.getLogger(__name__)

FACTS, KEYPOINTS = "recording.json", "keypoints.npy"


def run(config: PreprocessConfig, dry_run: bool = False, shard: Shard = SINGLE) -> Path:
    """Make samples of a recording, or go on with it.

    Args:
        config: What to do.
        dry_run: Check and measure the recording, say what would be done and how long it would take; write
            nothing.
        shard: The part of the work that is this process's; with more than one, `merge` comes last.

    Returns:
        The output folder.

    Raises:
        ConfigError: the selection is empty, or the output folder holds samples made with other settings.
        DataError: the recording is damaged, no frame is usable, or a figure is beyond a limit that stops.
        CalibrationError: the calibration is malformed or contradicts the masks.
    """
    record = Run("preprocess", config)
    workspace = Workspace(config.output)
    check_output(config.output)
    recording = open_recording(config.input)
    wanted = candidates(config.selection, recording.frame_count)
    if len(wanted) > 1:
        check_clock(recording.fps, config.split.mode, config.split.val_share, config.split.guard_s)
    _check_skew(config, recording)
    keypoints = _read_keypoints(config, recording)
    identity = identify(config, record.add_inputs(_inputs(config, recording)))
    workspace.check(identity, config.overwrite)
    logger.info(
        "%d cameras, %d frames, %d to be looked at",
        len(recording.cameras),
        recording.frame_count,
        len(wanted),
    )
    if dry_run:
        facts = inspect(recording, config)
        preview(config, recording, facts, wanted, keypoints, record.elapsed)
        return config.output
    if workspace.is_complete(identity):
        logger.info("%s: complete, nothing to do", config.output)
        return config.output
    record.lap("checks")
    workspace.begin(identity)
    with workspace.lock(shard.name), Journal(workspace.work, shard.name) as journal:
        facts, plan, first_pass = _first_stages(config, workspace, recording, keypoints, journal, shard)
        record.lap("masks")
        workspace.take_over()
        left = _unfinished(workspace, plan, first_pass, shard)
        SecondPass(config, facts, plan, first_pass).write(recording, left, config.output)
        record.lap("samples")
        if shard.count > 1:
            logger.info(
                "shard %d of %d done. When all are: mfl preprocess merge output=%s",
                shard.index,
                shard.count,
                config.output,
            )
            return config.output
        finish(config, workspace, identity, facts, plan, first_pass, record)
    return config.output


def merge(config: PreprocessConfig) -> Path:
    """Finish a run that shards have worked on: lists, quality figures, manifest.

    Args:
        config: Of which only `output` is read; the rest is taken from there.

    Raises:
        ConfigError: there is nothing to merge.
        DataError: shards have not finished.
    """
    workspace = Workspace(config.output)
    if workspace.is_merged():
        logger.info("%s: complete, nothing to merge", config.output)
        return config.output
    identity = workspace.unfinished()
    config = PreprocessConfig.model_validate({**identity["settings"], "output": config.output})
    record = Run("preprocess", config)
    facts = _facts(config, workspace, None)
    first_pass = FirstPass(config, facts, Journal(workspace.work, "merge"))

    def must_be_there(frames: Sequence[int], watch: bool) -> None:
        missing = first_pass.missing(frames)
        if missing:
            raise DataError(
                f"{config.output}: {len(missing)} frames have not been looked at, frame {missing[0]} first. "
                "Run the shards that did not finish again."
            )

    stored = workspace.work / KEYPOINTS
    keypoints = np.load(stored) if stored.exists() else None
    plan = make_plan(config, facts, first_pass, must_be_there, keypoints)
    left = _unfinished(workspace, plan, first_pass, SINGLE)
    if left:
        raise DataError(
            f"{config.output}: {len(left)} of {len(plan.samples)} samples are missing, {left[0].name} first. "
            "Run the shards that did not finish again."
        )
    record.add_hashes(identity["inputs"])
    finish(config, workspace, identity, facts, plan, first_pass, record)
    return config.output


def _first_stages(
    config: PreprocessConfig,
    workspace: Workspace,
    recording: Recording,
    keypoints: Array | None,
    journal: Journal,
    shard: Shard,
) -> tuple[RecordingFacts, Plan, FirstPass]:
    """Measure the recording, survey its masks, decide; a recording that is refused leaves nothing behind."""
    try:
        facts = _facts(config, workspace, recording)
        if keypoints is not None:
            with atomic_path(workspace.work / KEYPOINTS) as temporary:
                np.save(temporary, keypoints)
        first_pass = FirstPass(config, facts, journal)

        def survey(frames: Sequence[int], watch: bool) -> None:
            first_pass.survey(recording, frames, shard, watch)

        return facts, make_plan(config, facts, first_pass, survey, keypoints), first_pass
    except MflError:
        if shard.count == 1:
            workspace.abandon()
        raise


def _facts(config: PreprocessConfig, workspace: Workspace, recording: Recording | None) -> RecordingFacts:
    """Kept in the workspace, or measured."""
    path = workspace.work / FACTS
    if path.exists():
        return RecordingFacts.from_json(json.loads(path.read_text(encoding="utf-8")))
    if recording is None:
        raise DataError(f"{path}: is missing. Run a shard again.")
    facts = inspect(recording, config)
    write_json(path, facts.to_json())
    return facts


def _read_keypoints(config: PreprocessConfig, recording: Recording) -> Array | None:
    """None where they are not needed."""
    if config.geometry.centre != "keypoints":
        return None
    return read_keypoints(config.input, recording.camera_ids, recording.frame_count)


def _check_skew(config: PreprocessConfig, recording: Recording) -> None:
    """A crop keeps the recorded K, and the samples' format has no field for skew.

    Raises:
        ConfigError: a camera has some, and views are to be cropped.
    """
    if config.geometry.virtual_camera != "crop":
        return
    for number, camera in zip(recording.camera_ids, recording.cameras, strict=True):
        if camera.K[0, 1] != 0:
            raise ConfigError(
                f"{config.input.recording}: camera {number} has skew {camera.K[0, 1]:.4g}, expected 0 for "
                "geometry.virtual_camera=crop, which keeps the recorded K. Set it to lookat, which does not."
            )


def _unfinished(workspace: Workspace, plan: Plan, first_pass: FirstPass, shard: Shard) -> list[PlannedSample]:
    """What is still to be written of a shard's share."""
    first_pass.refresh()
    return [
        sample
        for sample in shard.share(plan.samples)
        if sample.frame not in first_pass.lost and not workspace.is_finished(sample.name, sample.frame)
    ]


def _inputs(config: PreprocessConfig, recording: Recording) -> list[Path]:
    """Every file that the output depends on."""
    if config.geometry.centre != "keypoints":
        return recording.files
    return [*recording.files, *keypoint_files(config.input, recording.camera_ids)]
