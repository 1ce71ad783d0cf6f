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

    Published code lays out a full set of keys for every view. Here no tokens are copied that need not be, and
    view 0 of `sparse` attends to its tokens once: doubled keys leave the average as it is.

    Args:
        num_views: Views per object, V.
        mode: Which views a view attends to.

    Attributes:
        num_views: As given; it may change between calls.
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
        heads = (x.unflatten(0, (-1, self.num_views)) for x in _project(attn, hidden_states))
        attended = self._attend(*heads).reshape(batch, length, -1)
        projection, dropout = attn.to_out
        return dropout(projection(attended))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """All [B, V, L, H, D]; the result may be [B*V, L, H, D] or [B, V*L, H, D]."""
        if self.mode == "dense":
            return _attention(*(x.flatten(1, 2) for x in (query, key, value)))
        if self.mode == "none" or self.num_views == 1:
            return _attention(*(x.flatten(0, 1) for x in (query, key, value)))
        return _sparse(query, key, value)


def _project(attn: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values by head, views of one tensor if the projections are fused. [N, L, H, D]"""
    if attn.fused_projections:
        query, key, value = attn.to_qkv(tokens).unflatten(-1, (3, attn.heads, -1)).unbind(2)
        return query, key, value
    query, key, value = (
        project(tokens).unflatten(-1, (attn.heads, -1)) for project in (attn.to_q, attn.to_k, attn.to_v)
    )
    return query, key, value


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Full attention with heads behind tokens. [N, L, H, D], [N, M, H, D] twice -> [N, L, H, D]"""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2)


def _sparse(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """View 0 by itself; the others over view 0's keys and their own, side by side. [B, V, L, H, D]"""
    first = _attention(query[:, 0], key[:, 0], value[:, 0])
    both = (torch.cat([x[:, :1].expand_as(x[:, 1:]), x[:, 1:]], dim=2).flatten(0, 1) for x in (key, value))
    others = _attention(query[:, 1:].flatten(0, 1), *both)
    return torch.cat([first[:, None], others.unflatten(0, (len(query), -1))], dim=1)


def install_attention(unet: nn.Module, num_views: int, mode: AttentionMode) -> None:
    """Put a processor on every `attn1` (self-attention) of a UNet; `attn2` (text) stays as it is."""
    for name, module in unet.named_modules():
        if name.endswith(".attn1"):
            module.set_processor(MultiViewAttnProcessor(num_views, mode))
