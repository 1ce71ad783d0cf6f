"""A short fit of a small VAE, so that a pipeline that starts from random weights can picture its animal."""

import logging

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from ..progress import track

log = logging.getLogger(__name__)

KL_WEIGHT = 1e-6
"""Per latent value: enough to keep the posterior from collapsing to points, too little to blur."""
MEASURED = 64
"""Pictures from which the latents' spread and the quality are measured."""


def fit_vae(
    vae: AutoencoderKL, images: Tensor, *, steps: int, lr: float, batch_size: int, seed: int
) -> float:
    """Fit in place, then set `scaling_factor` so that scaled latents have unit variance.

    Args:
        vae: On the device where it shall be fitted; frozen and in eval mode afterwards.
        images: Training pictures, RGB in [0, 1], on any device. [N, 3, H, W]
        steps: Updates.
        lr: Peak learning rate, after a linear warm-up and before a linear decay to 0.
        batch_size: Pictures per update.
        seed: Of the order and of the posterior's noise.

    Returns:
        PSNR in dB of at most MEASURED reconstructed pictures, spread evenly.
    """
    generator = torch.Generator().manual_seed(seed)
    vae.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    warmup = max(1, steps // 8)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )
    for _ in track(range(steps), "fitting the VAE"):
        chosen = torch.randint(len(images), (batch_size,), generator=generator).to(images.device)
        optimizer.zero_grad(set_to_none=True)
        _loss(vae, images[chosen].to(vae.device) * 2 - 1, generator).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    vae.requires_grad_(False).eval()
    psnr, deviation = _measure(vae, images[:: -(-len(images) // MEASURED)].to(vae.device))
    vae.register_to_config(scaling_factor=1 / deviation)
    log.info("VAE fitted: %.1f dB, latents had standard deviation %.2f", psnr, deviation)
    return psnr


def _loss(vae: AutoencoderKL, batch: Tensor, generator: torch.Generator) -> Tensor:
    posterior = vae.encode(batch).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator).to(batch)
    error = vae.decode(posterior.mean + posterior.std * noise).sample - batch
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return error.abs().mean() + error.square().mean() + KL_WEIGHT * kl


@torch.no_grad()
def _measure(vae: AutoencoderKL, pictures: Tensor) -> tuple[float, float]:
    errors, latents = [], []
    for picture in pictures.split(8):
        latent = vae.encode(picture * 2 - 1).latent_dist.mode()
        rebuilt = (vae.decode(latent).sample / 2 + 0.5).clamp(0, 1)
        errors.append((rebuilt - picture).square().flatten(1).mean(1))
        latents.append(latent)
    psnr = -10 * torch.cat(errors).mean().clamp_min(1e-10).log10()
    return float(psnr), float(torch.cat(latents).std())
