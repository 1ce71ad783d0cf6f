"""What the UNet is told besides the noisy latents, and how it is dropped for classifier-free guidance."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Condition:
    """Conditioning of B objects with V views each.

    Attributes:
        latents: Latents of the reference picture, the same for all views of an object. [B, V, 4, h, w]
        class_labels: Noised CLIP embedding and the embedding of its noise level. [B, V, 2D]
        prompts: Text embeddings of the slots. [B, V, T, C]
    """

    latents: Tensor
    class_labels: Tensor
    prompts: Tensor

    def dropped(self, draw: Tensor, rate: float) -> "Condition":
        """Drop conditions of whole objects in training; text is never dropped (facelift_spec.md 6.6).

        Args:
            draw: Uniform in [0, 1). Below r: class labels; r to 2r: both; 2r to 3r: latents. [B]
            rate: r, the share of each of the three cases.
        """
        keep_labels = (draw >= 2 * rate).to(self.class_labels)
        keep_latents = ((draw < rate) | (draw >= 3 * rate)).to(self.latents)
        return Condition(
            self.latents * keep_latents[:, None, None, None, None],
            self.class_labels * keep_labels[:, None, None],
            self.prompts,
        )

    def with_unconditional(self) -> "Condition":
        """Put the unconditional objects in front: no latents, no class labels, the same text. [2B, V, ...]"""
        return Condition(
            torch.cat([torch.zeros_like(self.latents), self.latents]),
            torch.cat([torch.zeros_like(self.class_labels), self.class_labels]),
            torch.cat([self.prompts, self.prompts]),
        )


def predict(unet: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
    """Run the UNet on objects with views.

    Args:
        unet: A MultiViewUNet, possibly wrapped for training.
        noisy: [B, V, 4, h, w]
        timesteps: One per object. [B]
        condition: Of the same objects.

    Returns:
        The prediction of v. [B, V, 4, h, w]
    """
    views = noisy.shape[1]
    prediction = unet(
        torch.cat([noisy, condition.latents.to(noisy)], dim=2).flatten(0, 1),
        timesteps.repeat_interleave(views),
        encoder_hidden_states=condition.prompts.flatten(0, 1).to(noisy),
        class_labels=condition.class_labels.flatten(0, 1).to(noisy),
    ).sample
    return prediction.unflatten(0, (-1, views))
