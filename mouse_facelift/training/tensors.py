"""Reading files of tensors that others wrote: nothing in them is ever run."""

import pickle
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import CheckpointError

UNREADABLE_PICKLE = (
    pickle.UnpicklingError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)
"""What torch's restricted unpickler runs into where bytes are wrong, besides what other files run into."""


def read_tensors(path: Path) -> Any:
    """Read what a .safetensors file, or a .pt or .bin file with nothing but tensors in containers, holds.

    Returns:
        The content, tensors on the CPU.

    Raises:
        CheckpointError: missing, damaged, or a pickle of other things.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected weights. Check the path.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE_PICKLE:
        # torch's own message would tell how to run the file.
        raise CheckpointError(
            f"{path}: not readable as weights: it is damaged, or holds more than tensors, which "
            "could run code and was not run. Fetch it again."
        ) from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{path}: not readable as weights ({first_line}). Fetch it again.") from None
