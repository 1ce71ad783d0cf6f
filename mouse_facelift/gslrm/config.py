"""Configuration of GS-LRM: the model's sizes and constants, and one training run."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from ..config import Config
from ..training.config import OptimizerConfig, TrainingConfig


class GSLRMConfig(Config):
    """Sizes and constants of the model. The defaults are those of the published weights."""

    patch_size: int = Field(8, ge=1, description="Side of an image patch in pixels; one patch is one token.")
    width: int = Field(1024, ge=1, description="Length of a token.")
    head_width: int = Field(64, ge=1, description="Length of one attention head; divides width.")
    layers: int = Field(24, ge=1, description="Number of transformer blocks.")
    free_gaussians: int = Field(2, ge=1, description="Gaussians that belong to no pixel.")
    sh_degree: int = Field(
        0, ge=0, le=3, description="Degree of the predicted colours; Gaussians keep only degree 0."
    )
    scale_bias: float = Field(
        -2.3,
        description="Added to raw log-scales; about the log of an initial Gaussian's size in model units.",
    )
    scale_max: float = Field(-1.2, description="Largest log-scale.")
    opacity_bias: float = Field(-2.0, description="Added to raw opacity logits.")
    depth_range: float = Field(
        1.8,
        gt=0,
        description="Farthest a Gaussian can lie from its ray's point nearest the origin, model units.",
    )
    depth_anchor: Literal["origin", "hull"] = Field(
        "origin",
        description="Depth is measured from: origin: the ray's point nearest the origin (published weights); "
        "hull: the ray's first point inside every input silhouette, origin where there is none.",
    )
    hull_offset: float = Field(
        0.25, gt=0, description="hull: farthest a Gaussian can lie from that point, model units."
    )
    hull_samples: int = Field(96, ge=8, description="hull: points tested along each ray.")
    tokens: Literal["dense", "foreground"] = Field(
        "dense",
        description="dense: every patch becomes a token (published weights); foreground: only those that "
        "see the animal, so that cost follows the animal and not the picture.",
    )
    token_margin: int = Field(1, ge=0, description="foreground: patches kept around the animal's own.")
    token_multiple: int = Field(
        64,
        ge=1,
        description="foreground: tokens are rounded up to a multiple of this, so that lengths repeat.",
    )
    gradient_checkpointing: bool = Field(
        True, description="Recompute blocks in the backward pass: less memory, about a third more time."
    )

    @model_validator(mode="after")
    def _heads_fill_width(self) -> Self:
        if self.width % self.head_width:
            raise ValueError(f"width {self.width} is not a multiple of head_width {self.head_width}")
        return self


class DataConfig(Config):
    """Samples to train and validate on."""

    train_list: Path = Field(description="List file of training samples, as written by `mfl preprocess`.")
    val_list: Path | None = Field(
        None, description="List file of validation samples; null validates on training samples."
    )
    image_size: int = Field(512, ge=16, description="Side of the images in pixels; a multiple of patch_size.")
    background: float = Field(
        1.0, ge=0, le=1, description="Grey level behind the animal; the published weights know only white, 1."
    )


class StartConfig(Config):
    """Where the weights come from."""

    weights: Path | None = Field(
        None,
        description="Weights to start from (.pt, .safetensors or a folder); null starts from random ones.",
    )


class ViewsConfig(Config):
    """Views drawn at random from each sample in every step."""

    input_views: int = Field(4, ge=1, description="Views shown to the model.")
    target_views: int = Field(4, ge=1, description="Views rendered and compared; they may include inputs.")


class LossConfig(Config):
    """Weights of the terms of the loss."""

    l2: float = Field(1.0, ge=0, description="Weight of the mean squared colour error.")
    ssim: float = Field(0.2, ge=0, description="Weight of 1 - SSIM.")
    alpha: float = Field(0.2, ge=0, description="Weight of the mean squared error of the silhouette.")

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if self.l2 + self.ssim + self.alpha == 0:
            raise ValueError("all loss weights are 0; at least one must be positive")
        return self


class ValidationConfig(Config):
    """What is measured while training, always on the same samples and views."""

    samples: int = Field(4, ge=1, description="Samples, spread evenly over the validation list.")
    input_views: int = Field(4, ge=1, description="Views shown to the model; the others are held out.")


class TrainGSLRMConfig(Config):
    """Train GS-LRM, from random or from existing weights."""

    data: DataConfig
    model: GSLRMConfig = Field(GSLRMConfig(), description="Sizes and constants of the model.")
    start: StartConfig = Field(StartConfig(), description="Where the weights come from.")
    views: ViewsConfig = Field(ViewsConfig(), description="Views drawn in every step.")
    loss: LossConfig = Field(LossConfig(), description="Weights of the loss.")
    validation: ValidationConfig = Field(ValidationConfig(), description="What is measured while training.")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="AdamW and its schedule.")
    training: TrainingConfig = Field(TrainingConfig(), description="Length, precision, checkpoints, logs.")
    overfit: int = Field(
        0, ge=0, description="Train and validate on this many training samples only; 0 uses all."
    )
    output: Path = Field(description="Folder of the run: checkpoints, logs, pictures, final weights.")

    @model_validator(mode="after")
    def _fits_the_model(self) -> Self:
        if self.data.image_size % self.model.patch_size:
            raise ValueError(
                f"data.image_size {self.data.image_size} is not a multiple of "
                f"model.patch_size {self.model.patch_size}"
            )
        if self.model.sh_degree:
            raise ValueError(
                f"model.sh_degree is {self.model.sh_degree}; training renders degree 0 only, set it to 0"
            )
        return self
