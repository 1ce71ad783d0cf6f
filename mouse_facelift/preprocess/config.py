"""Configuration of `mfl preprocess`."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from ..capture.config import InputConfig
from ..config import Config


class SelectionConfig(Config):
    """Which frames of the recording become samples."""

    mode: Literal["uniform", "interval", "list", "diverse"] = Field(
        "uniform",
        description="uniform: `count` frames spread over the middle; interval: every `step`-th; list: those "
        "given; diverse: the `count` most different postures of the middle.",
    )
    count: int = Field(
        2000, ge=1, description="uniform, diverse: how many frames; all of the middle where it has fewer."
    )
    middle_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="uniform, diverse: share of the recording used; the rest is left out at both ends.",
    )
    candidates: int = Field(
        5, ge=1, description="diverse: frames looked at, evenly spread, for each one that is chosen."
    )
    start: int = Field(0, ge=0, description="interval: first frame.")
    stop: int | None = Field(None, ge=1, description="interval: one past the last frame; null for the end.")
    step: int = Field(5, ge=1, description="interval: distance between frames.")
    frames: list[int] = Field([], description="list: the frame numbers.")
    exclude: list[int] = Field([], description="Frames that are never used.")
    replace_within: int = Field(
        30,
        ge=0,
        description="A frame that fails is replaced by the next good one, at most this many frames later and "
        "before the next chosen one; 0 only drops it. Listed frames are never replaced.",
    )


class GeometryConfig(Config):
    """How a frame's animal is placed in the model's world and how its cameras are re-aimed."""

    centre: Literal["hull", "triangulated", "keypoints", "fixed"] = Field(
        "hull",
        description="What becomes the origin: the middle of the visual hull; the masks' triangulated "
        "centroid; the mean of triangulated key points; or one point for all frames.",
    )
    fixed_centre_mm: tuple[float, float, float] | None = Field(
        None, description="fixed: that point in mm; null takes the median of the hulls' middles."
    )
    up: Literal["auto", "rig", "x", "y", "z", "-x", "-y", "-z"] = Field(
        "auto",
        description="Which way is up in the calibration's world: an axis; rig: the cameras' mean up; auto: "
        "the axis near the cameras' mean up, or the mean itself where no axis is.",
    )
    cell_mm: float = Field(1.5, gt=0, le=10, description="Side of the visual hull's cells in mm.")
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
        "of one size for the data set, tracked K.",
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
    """How samples are divided into training and validation."""

    mode: Literal["blocks", "random"] = Field(
        "blocks",
        description="blocks: stretches of time with gaps between them; random: single frames, which leaks "
        "(neighbours look alike).",
    )
    val_share: float = Field(0.1, ge=0, lt=1, description="Share of samples for validation; 0 for none.")
    blocks: int = Field(
        4, ge=1, description="blocks: stretches of time that validation is taken from, at most."
    )
    guard_s: float = Field(
        1.0,
        ge=0,
        description="blocks: seconds left out on both sides of a validation block, against leakage; less "
        "where the recording is too short.",
    )
    seed: int = Field(0, ge=0, description="random: which frames.")


class Limit(Config):
    """A limit of a quality figure and what happens beyond it."""

    reused: ClassVar[bool] = True
    value: float | None = Field(description="The limit; null for none.")
    action: Literal["warn", "drop", "stop"] = Field(
        description="Beyond it: warn and mark it in the report; drop the frame; or stop the run."
    )


class QualityConfig(Config):
    """Limits of what is measured of every frame and view, and what happens beyond them."""

    mask_share: Limit = Field(
        Limit(value=0.0005, action="drop"), description="Mask area, a share of the picture, at least."
    )
    removed_share: Limit = Field(
        Limit(value=0.3, action="warn"),
        description="Share of the raw mask that cleaning removed, at most.",
    )
    border_views: Limit = Field(
        Limit(value=3, action="drop"), description="Views whose border the animal touches, at most."
    )
    center_residual: Limit = Field(
        Limit(value=0.04, action="drop"),
        description="Mean distance of the masks' centroids from their common 3D point, a share of the "
        "picture's diagonal, at most.",
    )
    hull_iou: Limit = Field(
        Limit(value=0.6, action="drop"),
        description="Overlap of a view's mask with the visual hull of all views, at least.",
    )
    clipped_share: Limit = Field(
        Limit(value=0.02, action="warn"),
        description="Share of the mask that lies outside the written picture, at most.",
    )
    area_jump: Limit = Field(
        Limit(value=None, action="warn"),
        description="Relative change of the mask's area since the sample before, at most.",
    )
    contradiction: Limit = Field(
        Limit(value=0.1, action="stop"),
        description="What leaving out one camera gains in the others' mean overlap with their visual hull, "
        "at most; action drop means warn. A notable gain below is noted in the report.",
    )
    colour_match: Limit = Field(
        Limit(value=0.6, action="stop"),
        description="Correlation of a camera's masks with what moves in its colour video, as a share of that "
        "in other cameras, at least; action drop means warn.",
    )
    sync_lag: Limit = Field(
        Limit(value=0, action="stop"),
        description="Frames by which a camera runs late or early against the others, at most; action drop "
        "means warn.",
    )
    sync_window: int = Field(
        5, ge=0, le=50, description="Largest lag that is looked for, in frames; 0 measures none."
    )
    sync_moments: int = Field(24, ge=1, description="Moments of the recording at which lags are measured.")
    worst_shown: int = Field(24, ge=0, description="Samples shown in quality.html, worst first.")


class PreprocessConfig(Config):
    """A recording becomes FaceLift samples."""

    input: InputConfig = Field(description="The recording.")
    output: Path = Field(description="Folder for the samples.")
    overwrite: bool = Field(
        False, description="Replace samples that were made of other inputs or with other settings."
    )
    size: int = Field(
        512, ge=16, le=4096, multiple_of=8, description="Width and height of the written pictures in pixels."
    )
    background: int = Field(255, ge=0, le=255, description="Grey level of RGB where alpha is 0.")
    workers: int = Field(0, ge=0, description="Threads; 0 is one per core, at most 16.")
    selection: SelectionConfig = Field(SelectionConfig(), description="Which frames become samples.")
    geometry: GeometryConfig = Field(GeometryConfig(), description="Centre, scale and virtual cameras.")
    split: SplitConfig = Field(SplitConfig(), description="Training and validation.")
    quality: QualityConfig = Field(QualityConfig(), description="What is measured, and its limits.")
