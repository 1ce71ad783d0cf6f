"""The training objective: what is drawn, and the v-prediction loss of an object's views."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from .conditioning import Condition, predict


@dataclass(frozen=True)
class Draws:
    """Everything random of one loss, in the order in which it is drawn.

    Attributes:
        posterior: Standard normal that samples the targets' latents. [B, V, 4, h, w]
        noise: Standard normal that the model shall find. [B, V, 4, h, w]
        timesteps: One per object, shared by its views. [B]
        embed: Standard normal for the CLIP embedding. [B, V, D]
        drop: Uniform in [0, 1), decides which conditions are dropped. [B]
    """

    posterior: Tensor
    noise: Tensor
    timesteps: Tensor
    embed: Tensor
    drop: Tensor

    @classmethod
    def sample(
        cls, generator: Generator, latents: tuple[int, ...], embed_width: int, timesteps: int
    ) -> "Draws":
        """Draw for latents of shape (B, V, 4, h, w)."""
        objects, views = latents[:2]
        return cls(
            posterior=torch.randn(latents, generator=generator),
            noise=torch.randn(latents, generator=generator),
            timesteps=torch.randint(timesteps, (objects,), generator=generator),
            embed=torch.randn((objects, views, embed_width), generator=generator),
            drop=torch.rand((objects,), generator=generator),
        )

    def to(self, device: torch.device) -> "Draws":
        """Copy to a device."""
        return Draws(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


def diffusion_loss(
    unet: nn.Module,
    latents: Tensor,
    condition: Condition,
    draws: Draws,
    alphas_cumprod: Tensor,
    snr_gamma: float | None,
) -> Tensor:
    """Weighted mean squared error of v (facelift_spec.md 6.6).

    Args:
        unet: A MultiViewUNet, possibly wrapped for training.
        latents: Scaled latents of the true views. [B, V, 4, h, w]
        condition: Dropped where it shall be.
        draws: Noise and timesteps.
        alphas_cumprod: Of the noise schedule. [T]
        snr_gamma: Cap of the min-SNR weight, None for equal weights.

    Returns:
        A scalar, fp32.
    """
    kept = alphas_cumprod.to(latents)[draws.timesteps]
    signal, sigma = (x.sqrt()[:, None, None, None, None] for x in (kept, 1 - kept))
    target = signal * draws.noise - sigma * latents
    predicted = predict(unet, signal * latents + sigma * draws.noise, draws.timesteps, condition)
    error = (predicted.float() - target.float()).square().flatten(1).mean(1)
    return (min_snr_weight(kept, snr_gamma) * error).mean()


def min_snr_weight(alphas_cumprod: Tensor, gamma: float | None) -> Tensor:
    """min(snr, gamma) / snr, as published, although the model predicts v (whose form divides by snr + 1)."""
    if gamma is None:
        return torch.ones_like(alphas_cumprod)
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=gamma) / snr
