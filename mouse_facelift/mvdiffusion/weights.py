"""Reading a component's files: JSON and tensors, nothing that could run code."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from ..training.tensors import read_tensors

log = logging.getLogger(__name__)

MODEL_STEM = "diffusion_pytorch_model"
"""How diffusers names the weights of a model."""
TRANSFORMERS_STEMS = ("model", "pytorch_model")
"""How transformers names them, as safetensors and as .bin."""
SUFFIXES = (".safetensors", ".bin")
"""Those that cannot hold anything but tensors come first."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: missing, or not a JSON object.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; the folder is not a complete pipeline.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}).") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected an object.")
    return content


def find_weights(folder: Path, stems: Sequence[str] = (MODEL_STEM,)) -> tuple[Path, str | None]:
    """The file with a component's weights, and its variant as in `model.fp16.safetensors`.

    The plain name goes before any variant; of one name, safetensors before .bin. Among several variants
    nobody can choose for the user: fp16 rounds, non_ema are other weights.

    Args:
        folder: Of the component.
        stems: How its file may be called, without variant and suffix.

    Raises:
        CheckpointError: no weights, or several variants and no plain name.
    """
    names = [f"{stem}{suffix}" for suffix in SUFFIXES for stem in stems]
    for name in names:
        if (folder / name).is_file():
            return folder / name, None
    found = {
        variant: path
        for suffix in reversed(SUFFIXES)
        for stem in stems
        for path in sorted(folder.glob(f"{stem}.*{suffix}"))
        if "." not in (variant := path.name.removeprefix(f"{stem}.").removesuffix(suffix))
    }
    if not found:
        raise CheckpointError(f"{folder}: no weights; expected {' or '.join(names)}.")
    if len(found) > 1:
        raise CheckpointError(
            f"{folder}: weights in the variants {', '.join(sorted(found))}, none without a variant; which "
            "one is meant? Leave only that one there."
        )
    variant, path = next(iter(found.items()))
    log.info("%s: only the variant %s is there, taking it", folder, variant)
    return path, variant


def read_state(folder: Path) -> dict[str, Tensor]:
    """Read a component's state dict from its diffusers folder, safetensors or .bin, in the file's precision.

    Raises:
        CheckpointError: no weights, weights in several variants, or no plain state dict.
    """
    path, _ = find_weights(folder)
    state = read_tensors(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: does not hold a plain state dict of tensors.")
    return state
