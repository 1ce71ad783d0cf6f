"""Attention across the views of one object, as a processor for diffusers' stock `Attention`; no weights."""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AttentionMode = Literal["sparse", "dense", "none"]


class MultiViewAttnProcessor:
    """Self-attention whose keys and values also come from other views (facelift_spec.md 6.2).

    The batch is (object, view) flattened, view fastest; the halves of classifier-free guidance are further
    objects. Keys of a view: `sparse`: view 0's tokens, then its own (published weights); `dense`: the tokens
    of all views; `none`: its own.

    Args:
        num_views: Views per object, V.
        mode: Which views a view attends to.
    """

    def __init__(self, num_views: int, mode: AttentionMode) -> None:
        if num_views < 1 or mode not in get_args(AttentionMode):
            raise ValueError(
                f"num_views is {num_views}, mode is {mode!r}; expected at least one view and one of "
                f"{get_args(AttentionMode)}."
            )
        self.num_views = num_views
        self.mode = mode

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Attend.

        Args:
            attn: diffusers' Attention, which owns the projections.
            hidden_states: Tokens. [B*V, L, C]
            *args: Ignored: `attn1` gets neither text nor mask.
            **kwargs: Ignored likewise.

        Returns:
            [B*V, L, C]
        """
        batch, length, _ = hidden_states.shape
        if batch % self.num_views:
            raise ValueError(f"batch of {batch} is not a multiple of {self.num_views} views.")
        query = attn.to_q(hidden_states)
        key, value = (self._gather(project(hidden_states)) for project in (attn.to_k, attn.to_v))
        query, key, value = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value)
        projection, dropout = attn.to_out
        return dropout(projection(attended.transpose(1, 2).reshape(batch, length, -1)))

    def _gather(self, tokens: Tensor) -> Tensor:
        """Lay the tokens that each view may see side by side. [B*V, L, C] -> [B*V, seen, C]"""
        if self.mode == "none":
            return tokens
        views = tokens.unflatten(0, (-1, self.num_views))
        if self.mode == "dense":
            return views.flatten(1, 2).repeat_interleave(self.num_views, dim=0)
        first = views[:, :1].expand_as(views).flatten(0, 1)
        # View 0 sees its own tokens twice, which changes nothing: the average over doubled keys is the same.
        return torch.cat([first, tokens], dim=1)


def install_attention(unet: nn.Module, num_views: int, mode: AttentionMode) -> None:
    """Put the processor on every `attn1` (self-attention) of a UNet; `attn2` (text) stays as it is."""
    for name, module in unet.named_modules():
        if name.endswith(".attn1"):
            module.set_processor(MultiViewAttnProcessor(num_views, mode))
