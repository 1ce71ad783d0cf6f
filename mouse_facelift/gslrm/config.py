"""Configuration of GS-LRM: the model's sizes and constants, and one training run."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

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
        0, ge=0, le=3, description="Degree of the predicted colours; above 0 they depend on the view."
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
    gradient_checkpointing: bool | Literal["auto"] = Field(
        "auto",
        description="Recompute blocks in the backward pass: less memory, about a third more time; auto: only "
        "where the free memory of the GPU asks for it.",
    )
    compile: bool = Field(
        False,
        description="Compile the blocks with torch.compile on CUDA: some minutes once, then faster training.",
    )

    @model_validator(mode="after")
    def _heads_fill_width(self) -> Self:
        if self.width % self.head_width:
            raise ValueError(f"width {self.width} is not a multiple of head_width {self.head_width}")
        return self


class MixedList(Config):
    """One of several data sets."""

    list: Path = Field(description="List file of training samples.")
    weight: float = Field(
        gt=0, le=1e6, description="How often its samples are drawn, relative to the others' weights."
    )


class DataConfig(Config):
    """Samples to train and validate on."""

    train_list: Path | None = Field(
        None,
        description="List file of training samples, as written by `mfl preprocess`; this or mix is required.",
    )
    mix: list[MixedList] | None = Field(
        None,
        min_length=1,
        description="Several data sets instead, e.g. [{list: A, weight: 0.7}, {list: B, weight: 0.3}]: each "
        "is drawn from by its weight, whatever its size.",
    )
    val_list: Path | None = Field(
        None,
        description="List file of validation samples; null validates on training samples, of a mix on those "
        "of its first list.",
    )
    image_size: int = Field(512, ge=16, description="Side of the images in pixels; a multiple of patch_size.")
    background: float = Field(
        1.0, ge=0, le=1, description="Grey level behind the animal; the published weights know only white, 1."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.train_list is None and self.mix is None:
            raise ValueError(
                "no training samples: set data.train_list to a list file, or data.mix to several with weights"
            )
        if self.train_list is not None and self.mix is not None:
            raise ValueError(
                "both train_list and mix are set; put the list into the mix, or set one of them to null"
            )
        paths = [item.list.resolve() for item in self.mix or ()]
        if len(set(paths)) < len(paths):
            raise ValueError("mix has a list twice; add up its weights instead")
        return self

    @property
    def weighted_lists(self) -> list[tuple[Path, float]]:
        """The list files of training and their weights."""
        if self.train_list is not None:
            return [(self.train_list, 1.0)]
        return [(item.list, item.weight) for item in self.mix or ()]


class StartConfig(Config):
    """Where the weights come from."""

    weights: Path | None = Field(
        None,
        description="Weights to start from (.pt, .safetensors or a folder); null starts from random ones.",
    )


class PartsConfig(Config):
    """Which parameters learn."""

    train: Literal["all", "last_blocks", "lora"] = Field(
        "all",
        description="all; last_blocks: the last blocks of the transformer; lora: low-rank adapters beside "
        "the blocks' frozen weights (needs the `lora` extra).",
    )
    last_blocks: int = Field(4, ge=1, description="last_blocks: how many blocks learn.")
    heads: bool = Field(
        True, description="last_blocks and lora: the heads that turn tokens into Gaussians learn as well."
    )
    lora_rank: int = Field(16, ge=1, description="lora: rank of each adapter.")
    lora_alpha: float = Field(16.0, gt=0, description="lora: adapters are scaled by lora_alpha / lora_rank.")
    lora_targets: list[Literal["to_qkv", "fc", "mlp"]] = Field(
        ["to_qkv", "fc", "mlp"],
        min_length=1,
        description="lora: layers of every block that get an adapter: queries, keys and values; the "
        "attention's output; both layers of the MLP.",
    )


class ViewsConfig(Config):
    """Views drawn at random from each sample in every step."""

    input_views: int | tuple[int, int] = Field(
        4,
        description="Views shown to the model: a number, or [least, most], drawn anew in every step, the "
        "same for a whole batch.",
    )
    target_views: int = Field(4, ge=1, description="Views rendered and compared.")
    targets: Literal["any", "apart"] = Field(
        "apart",
        description="any: targets are drawn from all views (published training: they may be inputs); apart: "
        "from the views that are not inputs, and inputs fill up where those do not suffice.",
    )

    @field_validator("input_views")
    @classmethod
    def _a_range(cls, views: int | tuple[int, int]) -> int | tuple[int, int]:
        least, most = (views, views) if isinstance(views, int) else views
        if not 1 <= least <= most:
            raise ValueError("expected a number of at least 1, or [least, most] with 1 <= least <= most")
        return views

    @property
    def input_range(self) -> tuple[int, int]:
        """Least and most views shown."""
        return (self.input_views,) * 2 if isinstance(self.input_views, int) else self.input_views


class AugmentConfig(Config):
    """Random changes of a sample's whole world, exact: cameras move together and no pixel changes."""

    yaw: bool = Field(False, description="Rotate each sample about the vertical axis by a random angle.")
    scale: tuple[float, float] = Field(
        (1.0, 1.0),
        description="Scale each sample's world about the origin by a random factor from [least, most]. The "
        "animal must stay in the box of +-0.9; samples written with `scale: fit` fill it, so most is 1.",
    )

    @field_validator("scale")
    @classmethod
    def _a_range(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0.25 <= scale[0] <= scale[1] <= 4:
            raise ValueError("expected [least, most] with 0.25 <= least <= most <= 4")
        return scale


class InputAugmentConfig(Config):
    """Random faults of the pictures that the model is shown, as generated views have them; targets stay real.

    Every view gets its own strengths, drawn evenly between none and those given here; 0 switches one off.
    """

    probability: float = Field(0.5, ge=0, le=1, description="Share of the views that are changed.")
    noise: float = Field(
        0.0, ge=0, le=1, description="Strongest Gaussian noise: its standard deviation, colours being 0 to 1."
    )
    blur: float = Field(0.0, ge=0, le=16, description="Strongest Gaussian blur: its sigma in pixels.")
    jpeg: int = Field(
        0, ge=0, le=99, description="Strongest JPEG compression: 100 minus this is the lowest quality."
    )
    colour: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Strongest change of the animal's colours: each channel is multiplied by at most 1 plus, "
        "at least 1 minus this.",
    )
    shift_px: int = Field(
        0,
        ge=0,
        description="Farthest shift in whole pixels along each axis; the camera's principal point moves with "
        "the picture, so every ray still meets what it met; at most a quarter of data.image_size.",
    )


class LossConfig(Config):
    """Terms of the loss and their weights; 0 leaves a term out."""

    l2: float = Field(1.0, ge=0, description="Weight of the mean squared colour error.")
    ssim: float = Field(0.2, ge=0, description="Weight of 1 - SSIM.")
    alpha: float = Field(0.2, ge=0, description="Weight of the mean squared error of the silhouette.")
    perceptual: float = Field(
        0.0, ge=0, description="Weight of the difference of VGG-19 features; 0.5 as published."
    )
    lpips: float = Field(0.0, ge=0, description="Weight of LPIPS; needs the extra `metrics`.")
    background: float = Field(
        0.0, ge=0, description="Weight of the mean squared colour error where the animal is not."
    )
    hull_depth: float = Field(
        0.0,
        ge=0,
        description="Weight of rendered depth in front of the visual hull or far behind its surface.",
    )
    outside: float = Field(
        0.0,
        ge=0,
        description="Weight of visible Gaussians outside the box that inference keeps, by squared distance.",
    )
    points: float = Field(
        0.0,
        ge=0,
        description="Weight of depths that are not spread about the origin, as in the published pretraining; "
        "for dense tokens and depth_anchor origin.",
    )
    min_opacity: float = Field(
        0.04,
        ge=0,
        lt=1,
        description="Gaussians this transparent or more are not drawn, in training and validation, so that "
        "nothing is lost when `filter.min_opacity` drops them; 0 draws all, as in the published training.",
    )
    region: Literal["full", "masked", "cropped"] = Field(
        "full",
        description="Pixels that l2, ssim, perceptual and lpips compare: full: all, as published; masked: "
        "weighted by the animal's soft alpha; cropped: a window around the animal, one size for all views.",
    )
    crop_margin: int = Field(8, ge=0, description="cropped: pixels kept around the animal.")
    hull_slack: float = Field(
        0.25, gt=0, description="hull_depth: depth behind the hull's surface that is free, model units."
    )
    perceptual_weights: Path | None = Field(
        None,
        description="VGG-19: MatConvNet's .mat as published, torchvision's state dict (.pth, .safetensors) "
        "or the published GS-LRM checkpoint, which holds it.",
    )
    lpips_weights: Path | None = Field(None, description="VGG-16: torchvision's state dict, for lpips.")
    warmup_l2_steps: int = Field(
        500, ge=0, description="First steps, in which perceptual and lpips do not count, as published."
    )
    warmup_points_steps: int = Field(
        0,
        ge=0,
        description="First steps, in which nothing but points counts; 1000 in the published pretraining.",
    )

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if self.l2 + self.ssim + self.alpha == 0:
            raise ValueError("l2, ssim and alpha are all 0; at least one must be positive")
        return self

    @model_validator(mode="after")
    def _weights_of_networks(self) -> Self:
        for term, path in (("perceptual", self.perceptual_weights), ("lpips", self.lpips_weights)):
            if getattr(self, term) and path is None:
                raise ValueError(
                    f"{term} is {getattr(self, term)}, but {term}_weights is not set; give its network's file"
                )
        return self


class ValidationConfig(Config):
    """What is measured while training, always on the same samples and views."""

    samples: int = Field(4, ge=1, description="Samples, spread evenly over the validation list.")
    input_views: int = Field(
        4, ge=1, description="Views shown to the model, spread evenly; the others are held out."
    )


class TrainGSLRMConfig(Config):
    """Train GS-LRM, from random or from existing weights."""

    data: DataConfig
    model: GSLRMConfig = Field(GSLRMConfig(), description="Sizes and constants of the model.")
    start: StartConfig = Field(StartConfig(), description="Where the weights come from.")
    parts: PartsConfig = Field(PartsConfig(), description="Which parameters learn.")
    views: ViewsConfig = Field(ViewsConfig(), description="Views drawn in every step.")
    augment: AugmentConfig = Field(AugmentConfig(), description="Exact augmentation.")
    input_augment: InputAugmentConfig = Field(
        InputAugmentConfig(), description="Faults of generated views, put on the inputs alone."
    )
    loss: LossConfig = Field(LossConfig(), description="Weights of the loss.")
    validation: ValidationConfig = Field(ValidationConfig(), description="What is measured while training.")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="AdamW and its schedule.")
    training: TrainingConfig = Field(TrainingConfig(), description="Length, precision, checkpoints, logs.")
    overfit: int = Field(
        0,
        ge=0,
        description="Sanity check: train and validate on this many training samples only, and never train on "
        "the views that validation holds out; 0 trains on all.",
    )
    output: Path = Field(description="Folder of the run: checkpoints, logs, pictures, final weights.")

    @model_validator(mode="after")
    def _fits_the_model(self) -> Self:
        if self.data.image_size % self.model.patch_size:
            raise ValueError(
                f"data.image_size {self.data.image_size} is not a multiple of "
                f"model.patch_size {self.model.patch_size}"
            )
        spread = self.loss.points or self.loss.warmup_points_steps
        if spread and (self.model.tokens, self.model.depth_anchor) != ("dense", "origin"):
            raise ValueError(
                f"loss.points spreads the depths of all pixels about the origin, but model.tokens is "
                f"{self.model.tokens} and model.depth_anchor {self.model.depth_anchor}; set loss.points "
                "and loss.warmup_points_steps to 0"
            )
        return self

    @model_validator(mode="after")
    def _overfits_one_list(self) -> Self:
        if self.overfit and self.data.mix is not None:
            raise ValueError(
                f"overfit={self.overfit} learns the first samples of one list, but data.mix has "
                f"{len(self.data.mix)}; set data.mix=null data.train_list=LIST"
            )
        return self

    @model_validator(mode="after")
    def _shift_stays_inside(self) -> Self:
        shift, size = self.input_augment.shift_px, self.data.image_size
        if shift > size // 4:
            raise ValueError(
                f"input_augment.shift_px is {shift}, which may move the animal out of pictures of "
                f"data.image_size={size}; set it to at most {size // 4}, a quarter of them"
            )
        return self

    @model_validator(mode="after")
    def _parts_exist(self) -> Self:
        parts = self.parts
        if parts.train != "all" and self.start.weights is None:
            raise ValueError(
                f"parts.train={parts.train} keeps most weights as they are, but start.weights is null: they "
                "would stay random. Give start.weights, or set parts.train=all"
            )
        if parts.train == "last_blocks" and parts.last_blocks > self.model.layers:
            raise ValueError(
                f"parts.last_blocks is {parts.last_blocks}, but model.layers is {self.model.layers}"
            )
        return self
