"""Configuration of `mfl train-mvdiff`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ..config import Config
from ..hub import check_revision
from ..training.config import OptimizerConfig, TrainingConfig

MIN_VIEWS, MAX_VIEWS = 2, 16
"""Views of one object, the reference included."""


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
        "stand in FaceLift's six directions (diffusion.conditioning=slot only).",
    )
    reference_view: int | Literal["first", "random"] = Field(
        "first",
        description="Camera id whose picture is given to the model, first of the sample, or random: another "
        "one for every object and step (diffusion.conditioning=pose only).",
    )
    slot_order: Literal["counter_clockwise", "clockwise"] = Field(
        "counter_clockwise",
        description="Order of the rig's cameras seen from above; FaceLift's slots and prompts run clockwise; "
        "only for diffusion.conditioning=slot.",
    )
    views_per_object: int | None = Field(
        None,
        ge=MIN_VIEWS,
        le=MAX_VIEWS,
        description="Train on the reference and as many random others that there are so many views; null "
        "takes all (diffusion.conditioning=pose only).",
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
        "UNet gets four more input channels that start at 0; run: an earlier run of ours, one of its "
        "checkpoints, or an exported pipeline; random: small random weights.",
    )
    path: Path | None = Field(
        None, description="Folder of the weights; not for random. Goes before hub where both are given."
    )
    hub: str | None = Field(
        None, description="Hugging Face repository owner/name to take the weights from; needs revision."
    )
    revision: str | None = Field(None, description="Commit of hub, all 40 digits of its hash.")
    subfolder: str | None = Field(
        None, description="Folder inside hub, such as mvdiffusion/pipeckpts; null for its top."
    )
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

    @field_validator("revision")
    @classmethod
    def _pinned(cls, revision: str | None) -> str | None:
        return None if revision is None else check_revision(revision)

    @model_validator(mode="after")
    def _one_place(self) -> "StartConfig":
        if self.kind == "random" and (self.path or self.hub):
            raise ValueError(f"kind random takes no path and no hub, found {self.path or self.hub}")
        if self.kind != "random" and self.path is None and self.hub is None:
            raise ValueError(f"kind {self.kind} needs path, the folder with its weights, or hub and revision")
        if self.hub is None and (self.revision or self.subfolder):
            raise ValueError("revision and subfolder belong to hub; give start.hub=owner/name or remove them")
        if self.hub is not None and self.revision is None:
            raise ValueError(f"hub {self.hub} needs revision, a full commit hash: main may change tomorrow")
        if self.hub and not self.path and self.kind != "run" and not self.prompt_embeds:
            raise ValueError(
                f"hub {self.hub} needs prompt_embeds: published repositories come without. Take FaceLift's "
                "clr_embeds.pt, or make them with `mfl prompts`"
            )
        return self


class DiffusionConfig(Config):
    """What the model is told, and the training objective."""

    conditioning: Literal["pose", "slot"] = Field(
        "pose",
        description="pose: each view is told its rays relative to the reference's camera; slot: a view is "
        "known by its place alone, as in the published weights.",
    )
    learned_prompts: bool = Field(
        False, description="Train the prompt embeddings too, from those of the start on."
    )
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
    noise_offset: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Standard deviation of noise added to whole latent channels, so that brightness is "
        "learned too; 0 as published.",
    )
    noise_offset_shared: bool = Field(
        False, description="Add the same channel noise to all views of an object (noise_offset above 0)."
    )
    gradient_checkpointing: bool | Literal["auto"] = Field(
        "auto",
        description="Compute activations twice instead of keeping them; auto: on a GPU that they would not "
        "fit, by an estimate.",
    )

    @model_validator(mode="after")
    def _something_is_shared(self) -> "DiffusionConfig":
        if self.noise_offset_shared and self.noise_offset == 0:
            raise ValueError("noise_offset_shared is true, but noise_offset is 0; set it, or remove both")
        return self


class SamplingConfig(Config):
    """How views are made from noise; the defaults are those of the published pipeline."""

    solver: Literal["ddim", "unipc", "dpmpp"] = Field(
        "ddim",
        description="ddim: as published, with 50 steps; unipc, dpmpp: deterministic, second order, 10 to 25 "
        "steps are enough.",
    )
    steps: int = Field(50, ge=1, le=1000, description="Denoising steps.")
    guidance: float = Field(3.0, ge=1, description="Classifier-free guidance; 1 switches it off.")
    eta: float = Field(
        1.0, ge=0, le=1, description="Noise added back in each step of ddim; 0 makes it deterministic."
    )

    @model_validator(mode="after")
    def _eta_is_for_ddim(self) -> "SamplingConfig":
        if self.solver != "ddim" and self.eta != 1:
            raise ValueError(f"solver {self.solver} adds no noise; remove eta {self.eta:g} or use ddim")
        return self


class ValidationConfig(Config):
    """Fixed samples with fixed noise, so that steps and runs can be compared."""

    samples: int = Field(4, ge=1, description="Samples, spread evenly over the validation list.")
    # Nearer to the exact path than 50 steps of deterministic ddim, and no noise hides small differences.
    sampling: SamplingConfig = Field(
        SamplingConfig(solver="unipc", steps=20), description="How the views are made."
    )
    seed: int = Field(4, ge=0, description="Seed of the sampling noise.")


class AugmentConfig(Config):
    """Colour jitter of the animal in training, one draw per sample for all its views; 0 leaves it out."""

    brightness: float = Field(
        0.0, ge=0, lt=1, description="Colours are multiplied by a random factor within 1 plus or minus this."
    )
    contrast: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Distances from the animal's mean colour are multiplied by a random factor within 1 plus "
        "or minus this.",
    )
    saturation: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Distances from grey are multiplied by a random factor within 1 plus or minus this.",
    )

    @property
    def enabled(self) -> bool:
        """Whether anything is jittered."""
        return self.brightness > 0 or self.contrast > 0 or self.saturation > 0


class CacheConfig(Config):
    """VAE latents and CLIP embeddings of the training samples, computed once and kept on disk."""

    latents: bool = Field(
        False, description="Encode all training samples before training; VAE and CLIP then leave the GPU."
    )
    folder: Path | None = Field(
        None,
        description="Where the encodings lie, several runs may share it; null is `latents` in the output "
        "folder.",
    )
    variants: int = Field(
        4, ge=1, le=16, description="Colour-jittered versions kept of each sample; one without augment."
    )


class MVDiffOptimizerConfig(OptimizerConfig):
    """AdamW with the defaults of diffusion fine-tuning."""

    lr: float = Field(5e-5, gt=0, description="Peak learning rate.")
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW momentum coefficients.")
    weight_decay: float = Field(
        0.01, ge=0, description="Decay of tensors with two or more axes; others and prompts get none."
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
    augment: AugmentConfig = Field(AugmentConfig(), description="Colour jitter.")
    cache: CacheConfig = Field(CacheConfig(), description="Encodings kept on disk.")
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

    @model_validator(mode="after")
    def _samples_are_kept_once(self) -> "TrainMVDiffConfig":
        if self.cache.latents and self.training.sample_cache != "none":
            raise ValueError(
                f"training.sample_cache is {self.training.sample_cache}, but cache.latents reads pictures "
                "only once. Set training.sample_cache=none, or cache.latents=false"
            )
        return self

    @model_validator(mode="after")
    def _data_fit_the_conditioning(self) -> "TrainMVDiffConfig":
        data, for_pose = self.data, "set diffusion.conditioning=pose"
        if self.diffusion.conditioning == "slot":
            if data.reference_view == "random":
                raise ValueError(
                    "data.reference_view is random, but with diffusion.conditioning=slot a view is known by "
                    "its place alone: the same place would mean other directions from step to step, which "
                    f"makes the targets ambiguous. Name a camera, or {for_pose}"
                )
            if data.views_per_object is not None:
                raise ValueError(
                    f"data.views_per_object is {data.views_per_object}, but with diffusion.conditioning=slot "
                    f"every object has all slots. Remove it, or {for_pose}"
                )
        elif data.slots == "facelift" or data.slot_order == "clockwise":
            given = "slots=facelift" if data.slots == "facelift" else "slot_order=clockwise"
            raise ValueError(
                f"data.{given} is for slots, but with diffusion.conditioning=pose the model is told each "
                "sample's own cameras. Remove it, or set diffusion.conditioning=slot"
            )
        return self
