"""Configuration of the recording that is read."""

from pathlib import Path

from pydantic import Field

from ..config import Config


class InputConfig(Config):
    """Where the recording lies and how its masks are to be read."""

    recording: Path = Field(description="Folder of the recording: videos, mask videos and calibration.")
    videos: str = Field(
        "videos_undist",
        min_length=1,
        description="Sub-folder with the undistorted colour videos 0.mp4, 1.mp4, ...",
    )
    masks: str = Field(
        "simpleclick_undist", min_length=1, description="Sub-folder with the mask videos of the same names."
    )
    calibration: str = Field(
        "new_cam.pkl", min_length=1, description="Calibration file inside the recording: R, T, K per camera."
    )
    max_frame_count_difference: int = Field(
        2, ge=0, description="Videos may differ by this many frames; the common range is used."
    )
    mask_inverted: bool = Field(False, description="Set to true where the animal is black on white.")
    mask_threshold: int = Field(127, ge=0, le=254, description="Mask grey levels above this are the animal.")
    mask_join_distance: float = Field(
        0.03,
        ge=0,
        le=1,
        description="Parts this near to the largest one stay (a tail cut off by a whisker), as a share of "
        "the width.",
    )
    mask_max_hole: float = Field(
        0.005,
        ge=0,
        le=1,
        description="Holes up to this share of the animal's area are filled; larger ones are real.",
    )
