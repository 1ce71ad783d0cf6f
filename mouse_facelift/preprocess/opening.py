"""What is known before any frame is looked at: the recording, which frames are wanted, whose work it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..capture.keypoints import keypoint_files, read_keypoints
from ..capture.recording import Recording, open_recording
from ..errors import ConfigError
from ..geometry.cameras import Array
from ..provenance import Run
from ..samples.split import check_clock
from .config import PreprocessConfig
from .selection import candidates
from .workspace import Identity, identify


@dataclass(frozen=True, eq=False)
class Opened:
    """A recording that is to be prepared.

    Attributes:
        config: How.
        recording: Its streams and cameras.
        wanted: The frames to look at first.
        keypoints: 2D key points of all frames, for `centre: keypoints`. [V, frames, K, 2]
        hashes: SHA-256 of every file that the result depends on.
    """

    config: PreprocessConfig
    recording: Recording
    wanted: Sequence[int]
    keypoints: Array | None
    hashes: Mapping[Path, str]

    @property
    def identity(self) -> Identity:
        """What decides the result."""
        return identify(self.config, self.hashes)


def open_input(config: PreprocessConfig, record: Run) -> Opened:
    """Open and check a recording, and hash its files into `record`.

    Raises:
        ConfigError: the selection is empty, or the settings do not fit the recording.
        DataError: the recording is damaged.
        CalibrationError: the calibration is malformed or contradicts the masks.
    """
    recording = open_recording(config.input)
    wanted = candidates(config.selection, recording.frame_count)
    if len(wanted) > 1:
        check_clock(recording.fps, config.split.mode, config.split.val_share, config.split.guard_s)
    _check_skew(config, recording)
    keypoints = None
    files = recording.files
    if config.geometry.centre == "keypoints":
        keypoints = read_keypoints(config.input, recording.camera_ids, recording.frame_count)
        files = [*files, *keypoint_files(config.input, recording.camera_ids)]
    return Opened(config, recording, wanted, keypoints, record.add_inputs(files))


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
