"""Configuration of `mfl infer`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ..config import Config
from ..gaussians.config import FilterConfig
from ..mvdiffusion.config import SamplingConfig


class TurntableConfig(Config):
    """The video around the reconstruction."""

    frames: int = Field(150, ge=0, description="Frames of one turn; 0 writes no video.")
    fps: int = Field(30, ge=1, le=240, description="Frames per second.")
    size: int = Field(512, ge=16, le=4096, multiple_of=2, description="Side of the video in pixels.")
    elevation_deg: float = Field(0.0, gt=-90, lt=90, description="Height of the camera, degrees.")


class InferConfig(Config):
    """Reconstruct samples."""

    mode: Literal["direct", "e2e"] = Field(
        "direct", description="direct: real views to Gaussians; e2e: one view, MVDiffusion, then Gaussians."
    )
    gslrm: Path = Field(description="GS-LRM weights: a file, folder, training run or one of its checkpoints.")
    mvdiffusion: Path | None = Field(
        None, description="MVDiffusion pipeline folder, training run or checkpoint (mode e2e)."
    )
    input: Path = Field(
        description="A sample folder, a list file, a folder of samples, or (mode e2e) one picture with alpha."
    )
    output: Path = Field(description="Folder of the results, one folder per sample.")
    limit: int = Field(0, ge=0, description="Take the first N samples only; 0 takes all.")
    image_size: int | None = Field(
        None, ge=16, description="Side of GS-LRM's input in pixels; null keeps the size of its views."
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
    image_fill: float = Field(
        0.6, gt=0, le=1, description="Share of the side that the animal of a lone picture gets (mode e2e)."
    )
    background: float = Field(
        1.0, ge=0, le=1, description="Grey level behind the animal; 1 (white) in mode e2e."
    )
    diffusion: SamplingConfig = Field(SamplingConfig(), description="Sampling of MVDiffusion.")
    batch_size: int = Field(
        1,
        ge=1,
        description="Samples whose views MVDiffusion makes at once (mode e2e); more use a large GPU better.",
    )
    compile: bool = Field(
        False,
        description="Compile MVDiffusion with torch.compile (mode e2e): minutes at the start, then less time "
        "a sample; pays on a GPU from some hundred samples on.",
    )
    filter: FilterConfig = Field(FilterConfig(), description="Which Gaussians are kept.")
    turntable: TurntableConfig = Field(TurntableConfig(), description="The video.")
    seed: int = Field(4, ge=0, description="Seed of the sampling noise, the same for every sample.")
    device: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="Where to compute; auto takes a GPU if there is one."
    )
    overwrite: bool = Field(False, description="Do finished samples again instead of keeping them.")

    @field_validator("input_views")
    @classmethod
    def _views_once(cls, views: list[int] | None) -> list[int] | None:
        if views is not None and len(set(views)) < len(views):
            raise ValueError("every camera id should be there once")
        return views

    @model_validator(mode="after")
    def _fits_the_mode(self) -> Self:
        if self.mode == "direct":
            unused = {
                "mvdiffusion": self.mvdiffusion is not None,
                "compile": self.compile,
                "batch_size": self.batch_size > 1,
            }
            for given in (name for name, is_set in unused.items() if is_set):
                raise ValueError(f"mode direct does not use {given}; remove it or set mode=e2e")
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
