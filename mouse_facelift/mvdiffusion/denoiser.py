"""What is trained: the multi-view UNet and the bank of prompt embeddings that its views choose from."""

import torch
from torch import Tensor, nn

from .conditioning import Condition
from .unet import MultiViewUNet


class Denoiser(nn.Module):
    """Predicts v of all views of some objects, told where the views are and what the reference shows.

    Args:
        unet: Takes the rays as further input channels where it is pose-conditioned.
        prompt_embeds: The bank of prompts. [P, T, C]
        learned_prompts: Train the bank too.

    Attributes:
        unet: As given.
        prompt_embeds: The bank in fp32, a parameter that needs no gradient unless it is learned. [P, T, C]
        undecayed: Weight decay would draw the prompts towards 0, where no text lies.
    """

    undecayed = frozenset(["prompt_embeds"])

    def __init__(self, unet: MultiViewUNet, prompt_embeds: Tensor, learned_prompts: bool = False) -> None:
        super().__init__()
        self.unet = unet
        self.prompt_embeds = nn.Parameter(
            prompt_embeds.detach().float().clone(), requires_grad=learned_prompts
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """Run the UNet on objects with any number of views.

        Args:
            noisy: [B, V, 4, h, w]
            timesteps: One per object. [B]
            condition: Of the same objects.

        Returns:
            The prediction of v. [B, V, 4, h, w]
        """
        views = noisy.shape[1]
        self.unet.attend_across(views)
        parts = (noisy, condition.latents, condition.rays)
        sample = torch.cat([part.to(noisy) for part in parts if part is not None], dim=2)
        text, labels = self._told(condition, noisy)
        prediction = self.unet(
            sample.flatten(0, 1),
            timesteps.repeat_interleave(views),
            encoder_hidden_states=text,
            class_labels=labels,
        ).sample
        return prediction.unflatten(0, (-1, views))

    def _told(self, condition: Condition, like: Tensor) -> tuple[Tensor, Tensor]:
        """What the UNet takes as text [B*V, T, C] and as class labels [B*V, 2D], in the type of `like`."""
        text = self.prompt_embeds[condition.prompt_index]
        return text.flatten(0, 1).to(like), condition.class_labels.flatten(0, 1).to(like)
