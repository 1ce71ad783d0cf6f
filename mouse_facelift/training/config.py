"""What both trainers share: optimizer, schedule, precision, checkpoints, logging."""

from typing import Literal

from pydantic import Field

from ..config import Config


class OptimizerConfig(Config):
    """AdamW and its schedule."""

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


class TrainingConfig(Config):
    """Length, batch, precision, checkpoints and logs of a run."""

    steps: int = Field(20000, ge=1, description="Optimizer updates in all.")
    batch_size: int = Field(2, ge=1, description="Samples per process and forward pass.")
    gradient_accumulation: int = Field(1, ge=1, description="Forward passes per update.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "bf16", description="Autocast type on a GPU; fp32 on a CPU."
    )
    ema_decay: float = Field(0.0, ge=0, lt=1, description="Decay of the averaged weights; 0 keeps none.")
    seed: int = Field(777, ge=0, description="Seed of initial weights, data order and noise.")
    workers: int = Field(4, ge=0, description="Data loading processes; 0 loads in the main process.")
    cache_samples: bool = Field(
        False, description="Keep decoded samples in memory, once in every data loading process."
    )
    log_every: int = Field(10, ge=1, description="Steps between lines in log.jsonl.")
    validate_every: int = Field(
        1000, ge=1, description="Steps between validations; the last step always validates."
    )
    checkpoint_every: int = Field(
        1000, ge=1, description="Steps between checkpoints; the last step always saves."
    )
    keep_checkpoints: int = Field(3, ge=1, description="Newest checkpoints kept; older ones are deleted.")
    resume: str = Field(
        "auto",
        description="auto: newest checkpoint in the output folder, if any; never: refuse a used folder; "
        "or the path of a checkpoint.",
    )
    wandb: Literal["online", "offline", "disabled"] = Field(
        "disabled", description="Weights & Biases logging."
    )
    wandb_project: str = Field("mouse-facelift", description="Weights & Biases project.")
