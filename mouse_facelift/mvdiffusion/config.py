"""Configuration of `mfl train-mvdiff`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ..config import Config
from ..training.config import OptimizerConfig, TrainingConfig


class DataConfig(Config):
    """Training samples and what their views mean."""

    train_list: Path = Field(description="List file of training samples, as written by `mfl preprocess`.")
    val_list: Path = Field(description="List file of validation samples.")
    image_size: int = Field(
        512, ge=16, description="Side in pixels of the pictures the model takes and makes."
    )
    slots: Literal["rig", "facelift"] = Field(
        "rig",
        description="rig: the recording's cameras around the ring; facelift: samples whose cameras 0 to 5 "
        "stand in FaceLift's six directions.",
    )
    reference_view: int | Literal["first"] = Field(
        "first", description="Camera id whose picture is given to the model (slot 0); rig only."
    )
    slot_order: Literal["counter_clockwise", "clockwise"] = Field(
        "counter_clockwise",
        description="Order of the rig's cameras seen from above; FaceLift's slots and prompts run clockwise; "
        "rig only.",
    )
    background: Literal["white", "three_choices"] = Field(
        "three_choices",
        description="Behind the animal in training: white, or white, black or grey by chance.",
    )

    @model_validator(mode="after")
    def _reference_is_free(self) -> "DataConfig":
        if self.slots == "facelift" and self.reference_view != "first":
            raise ValueError(f"slots facelift shows camera 0; remove reference_view {self.reference_view}")
        return self


class ComponentSizes(Config):
    """Sizes of a pipeline with random weights; the defaults train on a CPU at 64 pixels."""

    unet_channels: tuple[int, ...] = Field(
        (32, 64), min_length=2, description="Channels per UNet level; multiples of 8."
    )
    unet_layers: int = Field(1, ge=1, description="Residual blocks per UNet level.")
    head_channels: int = Field(
        16, ge=8, description="Channels per attention head; divides all UNet channels."
    )
    vae_channels: tuple[int, ...] = Field(
        (16, 32, 32), min_length=1, description="Channels per VAE level; each level after the first halves."
    )
    prompt_width: int = Field(32, ge=8, description="Width of the prompt embeddings.")
    clip_size: int = Field(32, ge=8, description="Side of the image encoder's input, a multiple of 8.")
    clip_width: int = Field(32, ge=8, description="Width of the image encoder, a multiple of 8.")
    clip_layers: int = Field(2, ge=1, description="Layers of the image encoder.")
    embed_width: int = Field(16, ge=4, description="Width of the image embedding.")

    @model_validator(mode="after")
    def _divisible(self) -> "ComponentSizes":
        if any(channels % self.head_channels or channels % 8 for channels in self.unet_channels):
            raise ValueError(
                f"unet_channels {self.unet_channels} must be multiples of 8 and of "
                f"head_channels {self.head_channels}"
            )
        if any(channels % 8 for channels in (*self.vae_channels, self.clip_size, self.clip_width)):
            raise ValueError("vae_channels, clip_size and clip_width must be multiples of 8")
        return self


class StartConfig(Config):
    """Where the weights come from."""

    kind: Literal["facelift", "sd21unclip", "run", "random"] = Field(
        "facelift",
        description="facelift: the published pipeline; sd21unclip: plain Stable Diffusion 2.1-unCLIP, whose "
        "UNet gets four more input channels that start at 0; run: an earlier run of ours; random: small "
        "random weights.",
    )
    path: Path | None = Field(None, description="Folder of the weights; not for random.")
    prompt_embeds: Path | None = Field(
        None,
        description="Text embeddings of the slots; by default those of the folder, or random for random.",
    )
    sizes: ComponentSizes = Field(ComponentSizes(), description="Sizes for random.")
    vae_steps: int = Field(
        300, ge=1, description="Updates of the VAE on the training pictures before training; random only."
    )
    vae_lr: float = Field(4e-3, gt=0, description="Learning rate of the VAE; random only.")
    vae_batch_size: int = Field(3, ge=1, description="Pictures per update of the VAE; random only.")

    @model_validator(mode="after")
    def _path_given(self) -> "StartConfig":
        if self.kind != "random" and self.path is None:
            raise ValueError(f"kind {self.kind} needs path, the folder with its weights")
        if self.kind == "random" and self.path is not None:
            raise ValueError(f"kind random takes no path, found {self.path}")
        return self


class DiffusionConfig(Config):
    """The training objective."""

    snr_gamma: float | None = Field(
        5.0,
        gt=0,
        description="Cap of the signal-to-noise weight (min-SNR); null weighs all timesteps equally.",
    )
    condition_drop_rate: float = Field(
        0.05,
        ge=0,
        le=1 / 3,
        description="Share of objects that lose the image embedding; as many lose the reference latents, and "
        "as many lose both.",
    )
    attention: Literal["sparse", "dense", "none"] = Field(
        "sparse",
        description="What a view attends to: sparse: the reference and itself (published weights); dense: "
        "all views; none: itself.",
    )


class ValidationConfig(Config):
    """Fixed samples with fixed noise, so that steps and runs can be compared."""

    samples: int = Field(4, ge=1, description="Samples, spread evenly over the validation list.")
    steps: int = Field(20, ge=1, le=1000, description="Sampling steps.")
    guidance: float = Field(3.0, ge=0, description="Classifier-free guidance; 1 switches it off.")
    seed: int = Field(4, ge=0, description="Seed of the sampling noise.")


class MVDiffOptimizerConfig(OptimizerConfig):
    """AdamW with the defaults of diffusion fine-tuning."""

    lr: float = Field(5e-5, gt=0, description="Peak learning rate.")
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW momentum coefficients.")
    weight_decay: float = Field(
        0.01, ge=0, description="Decay of tensors with two or more axes; others get none."
    )
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="Shape of the learning rate after warm-up."
    )
    warmup_steps: int = Field(100, ge=0, description="Updates of linear warm-up from 0.")


class MVDiffTrainingConfig(TrainingConfig):
    """Length and averaging with the defaults of diffusion fine-tuning."""

    steps: int = Field(2000, ge=1, description="Optimizer updates in all.")
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="Decay of the averaged weights; 0 keeps none.")
    validate_every: int = Field(
        250, ge=1, description="Steps between validations; the last step always validates."
    )


class TrainMVDiffConfig(Config):
    """`mfl train-mvdiff`: fine-tune the multi-view diffusion on samples."""

    data: DataConfig = Field(description="Training samples.")
    start: StartConfig = Field(description="Where the weights come from.")
    diffusion: DiffusionConfig = Field(DiffusionConfig(), description="Training objective.")
    optimizer: MVDiffOptimizerConfig = Field(MVDiffOptimizerConfig(), description="AdamW and its schedule.")
    training: MVDiffTrainingConfig = Field(
        MVDiffTrainingConfig(), description="Length, batch, precision, checkpoints and logs."
    )
    validation: ValidationConfig = Field(ValidationConfig(), description="Fixed validation.")
    output: Path = Field(description="Folder of the run.")
    overfit: int = Field(
        0, ge=0, description="Train and validate on this many training samples only; 0 uses all."
    )
