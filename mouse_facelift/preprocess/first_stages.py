"""The stages that come before any picture: measure the recording, look at its masks, decide."""

import json
from collections.abc import Sequence

import numpy as np

from ..capture.recording import Recording
from ..errors import DataError, MflError
from ..files import atomic_path, write_json
from .config import PreprocessConfig
from .facts import RecordingFacts, inspect
from .first_pass import FirstPass
from .journal import Journal
from .opening import Opened
from .plan import Plan, make_plan
from .shard import Shard
from .workspace import Workspace

FACTS, KEYPOINTS = "recording.json", "keypoints.npy"


def first_stages(
    opened: Opened, workspace: Workspace, journal: Journal, shard: Shard
) -> tuple[RecordingFacts, Plan, FirstPass]:
    """Go through them, or on with them; a recording that is refused leaves nothing behind.

    Args:
        opened: The recording.
        workspace: Begun for `opened.identity`.
        journal: Open for writing.
        shard: The part of the masks that is this process's to begin with.

    Raises:
        DataError: no frame is usable, or a figure is beyond a limit that stops.
        CalibrationError: the masks contradict the calibration.
    """
    config = opened.config
    try:
        facts = recording_facts(config, workspace, opened.recording)
        if opened.keypoints is not None:
            with atomic_path(workspace.work / KEYPOINTS) as temporary:
                np.save(temporary, opened.keypoints)
        first_pass = FirstPass(config, facts, journal)

        def survey(frames: Sequence[int], watch: bool) -> None:
            first_pass.survey(opened.recording, frames, shard, watch)

        return facts, make_plan(config, facts, first_pass, survey, opened.keypoints), first_pass
    except MflError:
        if shard.count == 1:
            workspace.abandon()
        raise


def recording_facts(
    config: PreprocessConfig, workspace: Workspace, recording: Recording | None
) -> RecordingFacts:
    """Those kept in the workspace, or measured and kept.

    Raises:
        DataError: none are kept, and there is no recording to measure.
    """
    path = workspace.work / FACTS
    if path.exists():
        return RecordingFacts.from_json(json.loads(path.read_text(encoding="utf-8")))
    if recording is None:
        raise DataError(f"{path}: is missing. Run a shard again.")
    facts = inspect(recording, config)
    write_json(path, facts.to_json())
    return facts
