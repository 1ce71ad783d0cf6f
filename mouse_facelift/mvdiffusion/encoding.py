"""Training pictures as the denoiser meets them: VAE posteriors of the views, CLIP embedding of the reference.

They come from pictures (`encode_batch`) or from files (`from_cache`); what follows does not know which.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..samples.datasets import composite
from .frozen import FrozenParts


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the frozen networks say about B objects with V views each; view 0 is the reference.

    Attributes:
        mean: Of the VAE's posterior, scaled, fp32. [B, V, 4, h, w]
        std: Standard deviation of the posterior, scaled, fp32. [B, V, 4, h, w]
        embeds: CLIP embedding of the reference. [B, D]
    """

    mean: Tensor
    std: Tensor
    embeds: Tensor

    @property
    def reference(self) -> Tensor:
        """Latents of the reference picture: the posterior's mode, as published. [B, 4, h, w]"""
        return self.mean[:, 0]

    def sample(self, noise: Tensor) -> Tensor:
        """Latents drawn from the posterior with standard normal noise. [B, V, 4, h, w]"""
        return self.mean + self.std * noise


def encode_batch(frozen: FrozenParts, rgba: Tensor, background: Tensor) -> Encoded:
    """Composite and encode pictures.

    Args:
        frozen: On the pictures' device.
        rgba: Straight alpha, in [0, 1], the reference first. [B, V, 4, S, S]
        background: Grey level of each object. [B]
    """
    views = composite(rgba, background.to(rgba)[:, None, None, None, None])
    mean, logvar = (part.unflatten(0, views.shape[:2]) for part in frozen.posterior(views.flatten(0, 1)))
    return _scaled(frozen, mean, logvar, frozen.image_embeds(views[:, 0], eight_bit=False))


def from_cache(
    frozen: FrozenParts, batch: Mapping[str, Tensor], order: Tensor, background: Tensor, variant: Tensor
) -> Encoded:
    """Choose among the encodings of a collated batch of `latents.CachedLatents`.

    Args:
        frozen: Only its scaling is read; the networks may be anywhere.
        batch: `mean`, `logvar` [B, V, K, G, 4, h, w] and `embeds` [B, V, K, G, D].
        order: Positions of the wanted views, the reference first. [B, k]
        background: Which of the G backgrounds, per object. [B]
        variant: Which of the K jittered versions, per object. [B]
    """
    device = batch["mean"].device
    objects = torch.arange(len(order), device=device)[:, None]
    where = objects, order.to(device), variant.to(device)[:, None], background.to(device)[:, None]
    reference = tuple(index[:, 0] for index in where)
    embeds = batch["embeds"][reference].float()
    return _scaled(frozen, batch["mean"][where], batch["logvar"][where], embeds)


@contextmanager
def encoders_on(frozen: FrozenParts, device: torch.device | str) -> Iterator[None]:
    """Lend VAE and image encoder to a device; afterwards they are on the CPU and their memory is free."""
    encoders = (frozen.vae, frozen.image_encoder)
    try:
        for encoder in encoders:
            # Not ModelMixin.to, which warns at every cast.
            nn.Module.to(encoder, device)
        yield
    finally:
        for encoder in encoders:
            nn.Module.to(encoder, "cpu")


def _scaled(frozen: FrozenParts, mean: Tensor, logvar: Tensor, embeds: Tensor) -> Encoded:
    scale = frozen.vae.config.scaling_factor
    return Encoded(mean.float() * scale, (logvar.float() / 2).exp() * scale, embeds)
