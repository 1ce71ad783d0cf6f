"""What the UNet is told besides the noisy latents, and how it is dropped for classifier-free guidance.

Ho and Salimans 2022, arXiv 2207.12598.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """Conditioning of B objects with V views each; view 0 is the reference.

    Attributes:
        latents: Latents of the reference picture, the same for all views of an object. [B, V, 4, h, w]
        class_labels: Noised CLIP embedding and the embedding of its noise level. [B, V, 2D]
        prompt_index: Row of the prompt bank that each view is told, int64. [B, V]
        rays: Where each view is seen from (`pose.pose_rays`); None without pose conditioning.
            [B, V, 6, h, w]
    """

    latents: Tensor
    class_labels: Tensor
    prompt_index: Tensor
    rays: Tensor | None = None

    def dropped(self, draw: Tensor, rate: float) -> "Condition":
        """Drop conditions of whole objects in training (facelift_spec.md 6.6).

        What says which view is wanted, prompts and rays, is never dropped.

        Args:
            draw: Uniform in [0, 1). Below r: class labels; r to 2r: both; 2r to 3r: latents. [B]
            rate: r, the share of each of the three cases.
        """
        keep_labels = (draw >= 2 * rate).to(self.class_labels)
        keep_latents = ((draw < rate) | (draw >= 3 * rate)).to(self.latents)
        return replace(
            self,
            latents=self.latents * keep_latents[:, None, None, None, None],
            class_labels=self.class_labels * keep_labels[:, None, None],
        )

    def with_unconditional(self) -> "Condition":
        """Put the same objects without latents and class labels in front. [2B, V, ...]"""
        return Condition(
            torch.cat([torch.zeros_like(self.latents), self.latents]),
            torch.cat([torch.zeros_like(self.class_labels), self.class_labels]),
            torch.cat([self.prompt_index, self.prompt_index]),
            None if self.rays is None else torch.cat([self.rays, self.rays]),
        )
