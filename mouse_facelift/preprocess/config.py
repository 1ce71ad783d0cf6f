"""Configuration of `mfl preprocess`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from ..capture.config import InputConfig
from ..config import Config


class SelectionConfig(Config):
    """Which frames of the recording become samples."""

    mode: Literal["uniform", "interval", "list"] = Field(
        "uniform",
        description="uniform: `count` frames spread over the middle; interval: every `step`-th; list: those "
        "given.",
    )
    count: int = Field(
        2000, ge=1, description="uniform: how many frames; all of the middle where it has fewer."
    )
    middle_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="uniform: share of the recording used; the rest is left out at both ends.",
    )
    start: int = Field(0, ge=0, description="interval: first frame.")
    stop: int | None = Field(None, ge=1, description="interval: one past the last frame; null for the end.")
    step: int = Field(5, ge=1, description="interval: distance between frames.")
    frames: list[int] = Field([], description="list: the frame numbers.")
    exclude: list[int] = Field(
        [], description="Frames that are never used, such as jumps in a glued recording."
    )


class GeometryConfig(Config):
    """How a frame's animal is placed in the model's world and how its cameras are re-aimed."""

    cell_mm: float = Field(1.5, gt=0, description="Side of the visual hull's cells in mm.")
    smoothing_frames: float = Field(
        0.0, ge=0, description="Width (sigma, in video frames) of temporal smoothing of the centre; 0 is off."
    )
    scale: Literal["fit", "mean_distance"] | float = Field(
        "fit",
        description="Model units per mm, one for the data set; fit: the largest that keeps the animal in the "
        "box; mean_distance: cameras are on average 2.7 units away; or a number.",
    )
    fit_to: Literal["whole", "body"] = Field(
        "whole",
        description="fit: keep the whole animal in the box, or the body without thin parts such as the tail.",
    )
    fit_percentile: float = Field(
        99.0,
        gt=0,
        le=100,
        description="fit: share of frames, in percent, that must fit; the rest is cut and counted.",
    )
    box: float = Field(
        0.9, gt=0, le=1, description="fit: half side of the box about the origin in model units."
    )
    virtual_camera: Literal["lookat", "crop"] = Field(
        "lookat",
        description="lookat: cameras re-aimed at the animal, centred; crop: a square of the original view, "
        "tracked K.",
    )
    focal: Literal["per_view", "fixed"] = Field(
        "per_view",
        description="lookat: focal length by distance, as if all cameras stood 2.7 away; or 548.99 px (at "
        "512) for all.",
    )

    @field_validator("scale")
    @classmethod
    def _positive(cls, value: str | float) -> str | float:
        if isinstance(value, float) and not 0 < value < float("inf"):
            raise ValueError("a number must be positive")
        return value


class SplitConfig(Config):
    """How samples are divided into training and validation: blocks of time with gaps between them."""

    val_share: float = Field(0.1, ge=0, lt=1, description="Share of samples for validation; 0 for none.")
    blocks: int = Field(4, ge=1, description="Stretches of time that validation is taken from, at most.")
    guard_frames: int = Field(
        20, ge=0, description="Video frames left out on both sides of a validation block, against leakage."
    )


class QualityConfig(Config):
    """Which frames are too bad to use."""

    min_mask_share: float = Field(
        0.0005, ge=0, lt=1, description="Frames with a mask below this share of the picture are dropped."
    )
    min_hull_iou: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Frames where a view's mask agrees less with the other views are dropped, "
        "and the calibration is refused where most do.",
    )
    max_border_views: int = Field(
        3, ge=0, description="Frames where the animal touches the border in more views are dropped."
    )
    max_center_residual: float = Field(
        0.04,
        gt=0,
        le=1,
        description="Frames where the masks' centres are on average farther from their common 3D point are "
        "dropped, and the calibration is refused where most are; a share of the picture's diagonal.",
    )
    worst_shown: int = Field(24, ge=0, description="Samples shown in quality.html, worst first.")


class PreprocessConfig(Config):
    """A recording becomes FaceLift samples."""

    input: InputConfig = Field(description="The recording.")
    output: Path = Field(description="Folder for the samples.")
    overwrite: bool = Field(False, description="Replace samples that were made with other settings.")
    size: int = Field(512, ge=16, le=4096, description="Width and height of the written pictures in pixels.")
    background: int = Field(255, ge=0, le=255, description="Grey level of RGB where alpha is 0.")
    workers: int = Field(0, ge=0, description="Threads; 0 is one per core, at most 8.")
    selection: SelectionConfig = Field(SelectionConfig(), description="Which frames become samples.")
    geometry: GeometryConfig = Field(GeometryConfig(), description="Centre, scale and virtual cameras.")
    split: SplitConfig = Field(SplitConfig(), description="Training and validation.")
    quality: QualityConfig = Field(QualityConfig(), description="Which frames are dropped.")
