"""Files of prompt embeddings, checked whenever they are read, with a record of what they are of."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...errors import CheckpointError
from ...files import atomic_path
from ...training.tensors import read_tensors

PROMPTS_FILE = "prompt_embeds.safetensors"
TOKENS = 77
"""Length of a padded CLIP text."""
RECORD = "record"
"""Under this name the header of a file tells, as JSON, what it was made of."""


def load_prompt_embeds(path: Path, rows: int, width: int) -> Tensor:
    """Read prompt embeddings and check that they are this model's.

    Args:
        path: A .safetensors file or a .pt file, each with one tensor. The published file is `clr_embeds.pt`.
        rows: Directions that the model has prompts for, P: one per slot unless it is told its cameras.
        width: The UNet's cross_attention_dim, D.

    Returns:
        The embeddings in the file's precision. [P, 77, D]

    Raises:
        CheckpointError: missing, unreadable, of another shape, not floating point, not finite, or zero.
    """
    embeds = _read(path)
    expected = (rows, TOKENS, width)
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
    empty = [row for row in range(rows) if not embeds[row].any()]
    if empty:
        raise CheckpointError(
            f"{path}: prompt embeddings of views {empty} are zero; the file was never filled."
        )
    return embeds


def save_prompt_embeds(path: Path, embeds: Tensor, record: Mapping[str, Any] | None = None) -> None:
    """Write embeddings as safetensors; the file appears under its name only when complete.

    Args:
        path: Where to.
        embeds: [P, 77, D]
        record: What they were made of, JSON-ready; goes into the file's header.
    """
    metadata = {RECORD: json.dumps(record)} if record else None
    with atomic_path(path) as temporary:
        save_file({"prompt_embeds": embeds.detach().cpu().contiguous()}, temporary, metadata)


def read_prompt_azimuths(path: Path) -> tuple[float, ...] | None:
    """Which direction each row was written for, where `mfl prompts` noted it.

    Args:
        path: A file that `load_prompt_embeds` reads.

    Returns:
        Degrees relative to the reference, counter-clockwise seen from above [P]; None for other files, such
        as the published one, and for texts with free words.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected prompt embeddings. Check the path.")
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            azimuths = json.loads((file.metadata() or {}).get(RECORD, "{}")).get("azimuths_deg")
        return None if azimuths is None or None in azimuths else tuple(float(angle) for angle in azimuths)
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: no readable record of its views ({error}). Make it again.") from None


def _read(path: Path) -> Tensor:
    content = read_tensors(path)
    if isinstance(content, dict) and len(content) == 1:
        content = next(iter(content.values()))
    if not isinstance(content, Tensor):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected one tensor.")
    return content
