"""The training objective: what is drawn, and the v-prediction loss of an object's views."""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from .conditioning import Condition


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
        cls,
        generator: Generator,
        latents: tuple[int, ...],
        embed_width: int,
        timesteps: int,
        offset: float = 0.0,
        shared_offset: bool = False,
    ) -> "Draws":
        """Draw for latents of shape (B, V, 4, h, w).

        Args:
            generator: On the CPU.
            latents: Their shape.
            embed_width: D
            timesteps: Of the noise schedule.
            offset: Standard deviation of what is added to the noise of a whole channel, so that the model
                also learns to change the mean brightness. At 0 nothing is drawn for it.
            shared_offset: Whether the views of an object get the same offset.
        """
        objects, views, channels = latents[:3]
        draws = cls(
            posterior=torch.randn(latents, generator=generator),
            noise=torch.randn(latents, generator=generator),
            timesteps=torch.randint(timesteps, (objects,), generator=generator),
            embed=torch.randn((objects, views, embed_width), generator=generator),
            drop=torch.rand((objects,), generator=generator),
        )
        if offset == 0:
            return draws
        size = (objects, 1 if shared_offset else views, channels, 1, 1)
        return replace(draws, noise=draws.noise + offset * torch.randn(size, generator=generator))

    def to(self, device: torch.device) -> "Draws":
        """Copy to a device."""
        return Draws(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


def diffusion_loss(
    denoiser: nn.Module,
    latents: Tensor,
    condition: Condition,
    draws: Draws,
    alphas_cumprod: Tensor,
    snr_gamma: float | None,
) -> Tensor:
    """Weighted mean squared error of v (facelift_spec.md 6.6).

    Args:
        denoiser: A `Denoiser`, possibly wrapped for training.
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
    predicted = denoiser(signal * latents + sigma * draws.noise, draws.timesteps, condition)
    error = (predicted.float() - target.float()).square().flatten(1).mean(1)
    return (min_snr_weight(kept, snr_gamma) * error).mean()


def min_snr_weight(alphas_cumprod: Tensor, gamma: float | None) -> Tensor:
    """min(snr, gamma) / snr (Hang et al. 2023, arXiv 2303.09556).

    As published for FaceLift, although the model predicts v, for which the paper divides by snr + 1.

    Args:
        alphas_cumprod: Of the drawn timesteps. [B]
        gamma: The cap; None weighs all timesteps equally.

    Returns:
        [B]
    """
    if gamma is None:
        return torch.ones_like(alphas_cumprod)
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=gamma) / snr
