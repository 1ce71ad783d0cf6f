"""What both trainers share: optimizer, schedule, precision, checkpoints, logging."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from ..config import Config


class OptimizerConfig(Config):
    """AdamW and its schedule."""

    kind: Literal["adamw", "adamw_8bit"] = Field(
        "adamw",
        description="adamw_8bit keeps AdamW's momenta in 8 bits: 6 bytes less per parameter; needs a GPU and "
        "the extra adam8bit.",
    )
    lr: float = Field(1e-4, gt=0, description="Peak learning rate.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW momentum coefficients.")
    eps: float = Field(1e-8, gt=0, description="AdamW epsilon.")
    weight_decay: float = Field(
        0.05, ge=0, description="Decay of tensors with two or more axes; others get none."
    )
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="Shape of the learning rate after warm-up."
    )
    warmup_steps: int = Field(500, ge=0, description="Updates of linear warm-up from 0.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    skip_above: float | None = Field(
        None,
        ge=1,
        description="Leave out updates whose gradient is longer than this multiple of max_grad_norm; 20 in "
        "the published GS-LRM training; null leaves out none.",
    )
    clean_gradients: bool = Field(
        False,
        description="Replace NaN in gradients by 0 and infinity by 0.001 instead of leaving out the update, "
        "as in the published GS-LRM training. It hides faults. Without effect in fp16.",
    )


class TrainingConfig(Config):
    """Length, batch, precision, checkpoints and logs of a run."""

    steps: int = Field(20000, ge=1, description="Steps in all: one optimizer update each.")
    batch_size: int = Field(2, ge=1, description="Samples per process and forward pass.")
    gradient_accumulation: int = Field(1, ge=1, description="Forward passes per update.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "bf16", description="Autocast type on a GPU; fp32 on a CPU."
    )
    fsdp: bool = Field(
        False,
        description="Spread parameters, gradients and optimizer over the processes of a run, for models that "
        "do not fit on one GPU; without effect in a single process.",
    )
    ema_decay: float = Field(0.0, ge=0, lt=1, description="Decay of the averaged weights; 0 keeps none.")
    seed: int = Field(777, ge=0, description="Seed of initial weights, data order and noise.")
    workers: int = Field(4, ge=0, description="Data loading processes; 0 loads in the main process.")
    sample_cache: Literal["none", "memory", "disk"] = Field(
        "none",
        description="Decoded pictures. none: decoded in every epoch; memory: kept by every data loading "
        "process for itself; disk: kept in files, made before the first step and shared by all runs.",
    )
    sample_cache_folder: Path | None = Field(
        None, description="Where sample_cache=disk keeps its files; null is sample_cache beside the list."
    )
    max_skipped_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="A step whose loss or gradient is unfit is left out. More than this share of the last "
        "skip_window steps, and at least 3, end the run.",
    )
    skip_window: int = Field(100, ge=1, description="Steps that max_skipped_share looks back on.")
    log_every: int = Field(10, ge=1, description="Steps between lines in log.jsonl.")
    validate_every: int = Field(
        1000, ge=1, description="Steps between validations; the last step always validates."
    )
    checkpoint_every: int = Field(
        1000, ge=1, description="Steps between checkpoints; the last step always saves."
    )
    keep_checkpoints: int = Field(
        3, ge=1, description="Newest checkpoints kept; older ones are deleted unless another key keeps them."
    )
    keep_best: int = Field(
        1, ge=0, description="Checkpoints kept with the best validation after their very step, however old."
    )
    keep_every: int = Field(
        0, ge=0, description="Save every so many steps and keep these checkpoints for good; 0 keeps none so."
    )
    resume: str = Field(
        "auto",
        description="auto: newest checkpoint in the output folder, if any; never: refuse a used folder; "
        "or the path of a run or a checkpoint, which also allows other optimizer settings, and settings "
        "newer than the run.",
    )
    tensorboard: bool = Field(False, description="Write TensorBoard files too; needs the extra tensorboard.")
    wandb: Literal["online", "offline", "disabled"] = Field(
        "disabled", description="Weights & Biases logging."
    )
    wandb_project: str = Field("mouse-facelift", description="Weights & Biases project.")
