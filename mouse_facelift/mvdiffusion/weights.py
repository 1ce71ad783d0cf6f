"""Reading a component's files: JSON and tensors, nothing that could run code."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from ..training.tensors import read_tensors

WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


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


def read_state(folder: Path) -> dict[str, Tensor]:
    """Read a component's state dict from its diffusers folder, safetensors or .bin.

    Raises:
        CheckpointError: no weights, or no plain state dict.
    """
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder}: no weights; expected {' or '.join(WEIGHT_FILES)}.")
    state = read_tensors(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: does not hold a plain state dict of tensors.")
    return state
