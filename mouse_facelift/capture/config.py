"""Configuration of the recording that is read."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..config import Config


class PlaceConfig(Config):
    """Where the recording lies."""

    recording: Path = Field(description="Folder of the recording: videos, mask videos and calibration.")


class ReadingConfig(Config):
    """How a recording's files are called and how its masks are to be read."""

    videos: str = Field(
        "videos_undist",
        min_length=1,
        description="Sub-folder with the undistorted colour videos 0.mp4, 1.mp4, ..., or with folders 0, 1, "
        "... of PNG frames.",
    )
    masks: str = Field(
        "simpleclick_undist",
        min_length=1,
        description="Sub-folder with the masks, videos or folders of PNG frames of the same names; alpha "
        "takes the alpha channel of the RGBA frames in input.videos.",
    )
    calibration: str = Field(
        "new_cam.pkl",
        min_length=1,
        description="Calibration file inside the recording: new_cam.pkl, camera_params.h5, a DANNCE .mat, an "
        "anipose .toml, a COLMAP text model's folder, transforms.json or our own cameras .json.",
    )
    unit_mm: float = Field(
        1.0, gt=0, description="Millimetres in one unit of the calibration: 1000 where T is in metres."
    )
    undistorted: bool = Field(
        False,
        description="Set to true where the calibration holds lens distortion that the videos no longer have.",
    )
    keypoints: str = Field(
        "keypoints2d_undist",
        min_length=1,
        description="Sub-folder with 2D key points result_view_0.pkl, ...; read for "
        "geometry.centre=keypoints only.",
    )
    fps: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Frames per second; null takes what the first video says."
    )
    frame_offsets: list[Annotated[int, Field(ge=0)]] = Field(
        [],
        description="Frames to skip at the start of each camera's video and masks, in the cameras' order, "
        "where cameras started at different times; empty for none.",
    )
    max_frame_count_difference: int = Field(
        2, ge=0, description="Videos may differ by this many frames; the common range is used."
    )
    jumps: Literal["detect"] | list[Annotated[int, Field(ge=1)]] = Field(
        "detect",
        description="Frames at which a glued recording jumps, borders for smoothing, replacement and splits: "
        "detect, or a list of first frames after a jump (empty: none).",
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


class InputConfig(ReadingConfig, PlaceConfig):
    """Where the recording lies, and how it is to be read."""
