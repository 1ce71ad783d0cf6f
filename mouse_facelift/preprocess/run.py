"""`mfl preprocess`: a recording becomes FaceLift samples.

Two passes over the videos, both streaming: the first reads the masks and finds the animal in 3D, which fixes
the scale of the data set; the second warps the pictures and writes the samples. Everything that was done is
on disk the moment it is done, so a run that was killed goes on where it was, and job arrays share the work.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError
from ..provenance import Run, check_output
from .config import PreprocessConfig
from .facts import inspect
from .finish import finish
from .first_pass import FirstPass
from .first_stages import KEYPOINTS, first_stages, recording_facts
from .journal import Journal
from .opening import open_input
from .plan import Plan, PlannedSample, make_plan
from .preview import preview
from .second_pass import SecondPass
from .shard import SINGLE, Shard
from .workspace import Workspace

logger = logging.getLogger(__name__)


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
        ConfigError: the selection is empty, or the output folder holds samples made with other settings, or
            is of another command.
        DataError: the recording is damaged, no frame is usable, or a figure is beyond a limit that stops.
        CalibrationError: the calibration is malformed or contradicts the masks.
    """
    record = Run("preprocess", config)
    workspace = Workspace(config.output)
    check_output(config.output)
    if config.output.resolve() == config.input.recording.resolve():
        raise ConfigError(f"output={config.output} is the recording itself. Set another output.")
    opened = open_input(config, record)
    recording, identity = opened.recording, opened.identity
    workspace.check(identity, config.overwrite)
    logger.info(
        "%d cameras, %d frames, %d to be looked at",
        len(recording.cameras),
        recording.frame_count,
        len(opened.wanted),
    )
    if dry_run:
        facts = inspect(recording, config)
        preview(config, recording, facts, opened.wanted, opened.keypoints, record.elapsed)
        return config.output
    if workspace.is_complete(identity):
        logger.info("%s: complete, nothing to do", config.output)
        return config.output
    record.lap("checks")
    workspace.begin(identity)
    with workspace.lock(shard.name), Journal(workspace.work, shard.name) as journal:
        facts, plan, first_pass = first_stages(opened, workspace, journal, shard)
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
    facts = recording_facts(config, workspace, None)
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


def _unfinished(workspace: Workspace, plan: Plan, first_pass: FirstPass, shard: Shard) -> list[PlannedSample]:
    """What is still to be written of a shard's share."""
    first_pass.refresh()
    return [
        sample
        for sample in shard.share(plan.samples)
        if sample.frame not in first_pass.lost and not workspace.is_finished(sample.name, sample.frame)
    ]
