"""Text embeddings of the slots, made once and stored: no tokenizer or text encoder at run time."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError
from ..files import atomic_path
from ..training.tensors import read_tensors

PROMPTS_FILE = "prompt_embeds.safetensors"
TOKENS = 77
"""Length of a padded CLIP text."""


def load_prompt_embeds(path: Path, views: int, width: int) -> Tensor:
    """Read prompt embeddings and check that they are this model's.

    Args:
        path: A .safetensors file or a .pt file, each with one tensor. The published file is `clr_embeds.pt`.
        views: Slots of the model, V.
        width: The UNet's cross_attention_dim, D.

    Returns:
        The embeddings in the file's precision. [V, 77, D]

    Raises:
        CheckpointError: missing, unreadable, of another shape, not floating point, not finite, or zero.
    """
    embeds = _read(path)
    expected = (views, TOKENS, width)
    if tuple(embeds.shape) != expected:
        raise CheckpointError(
            f"{path}: prompt embeddings have shape {tuple(embeds.shape)}, expected {expected} (views, "
            "tokens, cross_attention_dim). Encode one text per view with the text encoder of this very UNet; "
            "a last axis of 768 comes from CLIP ViT-L, SD 2.1-unCLIP needs 1024."
        )
    if not embeds.is_floating_point():
        raise CheckpointError(f"{path}: prompt embeddings are {embeds.dtype}, expected floating point.")
    if not torch.isfinite(embeds).all():
        raise CheckpointError(f"{path}: prompt embeddings hold NaN or infinity.")
    empty = [view for view in range(views) if not embeds[view].any()]
    if empty:
        raise CheckpointError(
            f"{path}: prompt embeddings of views {empty} are zero; the file was never filled."
        )
    return embeds


def save_prompt_embeds(path: Path, embeds: Tensor) -> None:
    """Write embeddings [V, 77, D] as safetensors."""
    with atomic_path(path) as temporary:
        save_file({"prompt_embeds": embeds.detach().cpu().contiguous()}, temporary)


def _read(path: Path) -> Tensor:
    content = read_tensors(path)
    if isinstance(content, dict) and len(content) == 1:
        content = next(iter(content.values()))
    if not isinstance(content, Tensor):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected one tensor.")
    return content
