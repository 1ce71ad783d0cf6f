"""Configuration of `mfl infer`."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..capture.config import ReadingConfig
from ..config import Config, each_once
from ..gaussians.config import FilterConfig
from ..mvdiffusion.config import SamplingConfig
from ..parallel import worker_count
from ..preprocess.config import GeometryConfig, QualityConfig, SelectionConfig

READERS = 4
"""Samples are read by so many threads at most: more would only fill the memory."""


class TurntableConfig(Config):
    """The video around the reconstruction."""

    frames: int = Field(150, ge=0, description="Frames of one turn; 0 writes no video.")
    fps: int = Field(30, ge=1, le=240, description="Frames per second.")
    size: int = Field(512, ge=16, le=4096, multiple_of=2, description="Side of the video in pixels.")
    elevation_deg: float = Field(0.0, gt=-90, lt=90, description="Height of the camera, degrees.")


class RefineConfig(Config):
    """Fitting the Gaussians of a sample to the very views that were shown, after the network.

    Rates are those of the first step; they fall to a tenth along half a cosine.
    """

    steps: int = Field(0, ge=0, description="Updates at most, 0 for none; 100 are plenty.")
    rate_means: float = Field(
        8e-3, ge=0, description="Rate of the centres, as a share of the animal's size (the median distance)."
    )
    rate_quats: float = Field(5e-3, ge=0, description="Rate of the rotations.")
    rate_scales: float = Field(6e-2, ge=0, description="Rate of the logarithms of the scales.")
    rate_opacities: float = Field(0.1, ge=0, description="Rate of the logits of the opacities.")
    rate_colors: float = Field(1.5e-2, ge=0, description="Rate of the colours (harmonics of degree 0).")
    l1: float = Field(0.8, ge=0, description="Weight of the mean absolute colour error.")
    l2: float = Field(0.0, ge=0, description="Weight of the mean squared colour error.")
    ssim: float = Field(0.2, ge=0, description="Weight of 1 - SSIM.")
    alpha: float = Field(1.0, ge=0, description="Weight of the silhouette's mean absolute error.")
    opacity: float = Field(
        0.05,
        ge=0,
        description="Weight of the mean opacity: what no view needs fades.",
    )
    tolerance: float = Field(
        0.01, ge=0, lt=1, description="Ten steps that lower the loss by less than this share count as idle."
    )
    patience: int = Field(2, ge=1, description="Stop after so many times ten idle steps in a row.")


class SequenceCameraConfig(Config):
    """A camera that no rig has, for a video over time."""

    reused: ClassVar[bool] = True

    enabled: bool = Field(True, description="Write this video.")
    azimuth_deg: float = Field(
        270.0, description="Where it stands, degrees from the rig's x axis, counter-clockwise from above."
    )
    elevation_deg: float = Field(30.0, gt=-90, lt=90, description="Its height above the horizon, degrees.")
    fov_deg: float = Field(40.0, ge=5, le=120, description="Its full field of view, degrees.")
    distance_mm: float | None = Field(
        None,
        gt=0,
        description="Distance of what it is aimed at; null: as near as shows every frame's animal.",
    )


class SequenceConfig(Config):
    """The samples' results put together in time, in the folder `sequence`."""

    enabled: bool = Field(False, description="Write a sequence once all samples are done.")
    fps: float = Field(30.0, ge=1, le=240, description="Frames per second of the videos.")
    size: int = Field(512, ge=16, le=4096, multiple_of=2, description="Side of the videos in pixels.")
    fixed: SequenceCameraConfig = Field(
        SequenceCameraConfig(), description="fixed.mp4, a camera that stands still in the rig:"
    )
    follow: SequenceCameraConfig = Field(
        SequenceCameraConfig(), description="follow.mp4, a camera that moves with the animal:"
    )
    turntable: SequenceCameraConfig = Field(
        SequenceCameraConfig(),
        description="turntable.mp4, a camera that goes around the animal as time goes on:",
    )
    turn_s: float = Field(5.0, gt=0, description="Seconds of one turn of the turntable.")
    smoothing_frames: float = Field(
        5.0,
        ge=0,
        description="By how many recorded frames (standard deviation) the path is smoothed that follow and "
        "turntable move along; 0 follows every step.",
    )
    compact: bool = Field(True, description="Write all Gaussians into one file of 8- and 16-bit numbers.")
    flicker: bool = Field(
        True, description="Compare how renderings and real pictures flicker; reads the inputs once more."
    )


class ReconstructionConfig(Config):
    """How views become Gaussians; shared by all commands that reconstruct."""

    mode: Literal["direct", "e2e"] = Field(
        "direct", description="direct: real views to Gaussians; e2e: one view, MVDiffusion, then Gaussians."
    )
    gslrm: Path = Field(description="GS-LRM weights: a file, folder, training run or one of its checkpoints.")
    mvdiffusion: Path | None = Field(
        None, description="MVDiffusion pipeline folder, training run or checkpoint (mode e2e)."
    )
    image_size: int | None = Field(
        None,
        ge=16,
        description="Side of GS-LRM's input and of what is measured, in pixels; null shows it pictures as "
        "large as in its training (where its weights tell), and measures at the views' own size.",
    )
    input_views: list[int] | None = Field(
        None,
        min_length=2,
        description="Camera ids shown to GS-LRM (mode direct), the others are held out; null shows all.",
    )
    reference_view: int | None = Field(
        None,
        description="Camera id of the one view (mode e2e); null takes that of MVDiffusion's training, or the "
        "first of a sample that lacks it, where the model is not tied to a rig.",
    )
    background: float = Field(
        1.0, ge=0, le=1, description="Grey level behind the animal; 1 (white) in mode e2e."
    )
    diffusion: SamplingConfig = Field(SamplingConfig(), description="Sampling of MVDiffusion.")
    compile: bool = Field(
        False,
        description="Compile MVDiffusion with torch.compile (mode e2e): minutes at the start, then less time "
        "a sample; pays on a GPU from some hundred samples on.",
    )
    filter: FilterConfig = Field(FilterConfig(), description="Which Gaussians are kept.")
    refine: RefineConfig = Field(RefineConfig(), description="Fitting to the shown views.")
    seed: int = Field(4, ge=0, description="Seed of the sampling noise, the same for every sample.")
    device: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="Where to compute; auto takes a GPU if there is one."
    )

    _views_once = field_validator("input_views")(each_once)

    @model_validator(mode="after")
    def _fits_the_mode(self) -> Self:
        if self.mode == "direct":
            if self.mvdiffusion is not None or self.compile:
                unused = "compile" if self.mvdiffusion is None else "mvdiffusion"
                raise ValueError(f"mode direct does not use {unused}; remove it or set mode=e2e")
            if self.reference_view is not None:
                raise ValueError("mode direct has no reference_view; set input_views, or mode=e2e")
            return self
        if self.mvdiffusion is None:
            raise ValueError("mode e2e needs mvdiffusion=DIR, an MVDiffusion pipeline folder or training run")
        if self.input_views is not None:
            raise ValueError("mode e2e shows one view, not input_views; set reference_view, or mode=direct")
        if self.background != 1:
            raise ValueError(
                f"background is {self.background}, but mode e2e needs 1: MVDiffusion makes its views on white"
            )
        return self


class RecordingConfig(Config):
    """How the frames of a recording are chosen and prepared: the keys of `mfl preprocess`."""

    input: ReadingConfig = Field(ReadingConfig(), description="The recording's files.")
    size: int = Field(
        512, ge=16, le=4096, multiple_of=8, description="Width and height of the prepared pictures in pixels."
    )
    workers: int = Field(0, ge=0, description="Threads; 0 is one per core, at most 16.")
    selection: SelectionConfig = Field(SelectionConfig(), description="Which frames are reconstructed.")
    geometry: GeometryConfig = Field(
        GeometryConfig(),
        description="Centre, scale and virtual cameras; give the scale of the models' training.",
    )
    quality: QualityConfig = Field(QualityConfig(), description="What is measured, and its limits.")


class InferConfig(ReconstructionConfig):
    """Reconstruct samples."""

    input: Path = Field(
        description="A sample folder, a list file, a folder of samples, a recording (prepared in memory as "
        "`preprocess` says), or (mode e2e) one picture with alpha or with a mask."
    )
    mask: Path | None = Field(
        None, description="Grey picture, white on the animal, of a lone picture that has no alpha (mode e2e)."
    )
    preprocess: RecordingConfig = Field(
        RecordingConfig(), description="How a recording's frames are chosen and prepared."
    )
    output: Path = Field(description="Folder of the results, one folder per sample.")
    limit: int = Field(0, ge=0, description="Take the first N samples only; 0 takes all.")
    image_fill: float = Field(
        0.6, gt=0, le=1, description="Share of the side that the animal of a lone picture gets (mode e2e)."
    )
    batch_size: int = Field(
        1,
        ge=1,
        description="Samples whose views MVDiffusion makes at once (mode e2e); more use a large GPU better.",
    )
    output_frame: Literal["model", "rig"] = Field(
        "model",
        description="Coordinates of gaussians.ply: the model's, or the rig's in millimetres.",
    )
    named_views: bool = Field(
        True, description="Render from the top, front, right, bottom, back and left into novel_*.png."
    )
    named_view_size: int = Field(512, ge=16, le=4096, description="Side of these pictures in pixels.")
    depth: bool = Field(True, description="Write the depth at every real camera, 16 bits.")
    alpha: bool = Field(True, description="Write the coverage at every real camera.")
    turntable: TurntableConfig = Field(TurntableConfig(), description="The video.")
    page: bool = Field(True, description="Write view.html, a 3D view for any browser that needs no network.")
    sequence: SequenceConfig = Field(SequenceConfig(), description="The samples put together in time.")
    workers: int = Field(
        0,
        ge=0,
        description="Threads that write results while the next are computed, and at most 4 that read ahead; "
        "0 is one per core, at most 16.",
    )
    overwrite: bool = Field(False, description="Do finished samples again instead of keeping them.")

    @property
    def readers(self) -> int:
        """Threads that read ahead."""
        return min(READERS, worker_count(self.workers))

    @model_validator(mode="after")
    def _mask_fits_the_mode(self) -> Self:
        if self.mode == "direct" and self.mask is not None:
            raise ValueError("mode direct does not use mask; remove it or set mode=e2e")
        return self

    @model_validator(mode="after")
    def _several_at_once(self) -> Self:
        if self.mode == "direct" and self.batch_size > 1:
            raise ValueError("mode direct does not use batch_size; remove it or set mode=e2e")
        return self
