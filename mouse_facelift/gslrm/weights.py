"""GS-LRM weights on disk: the published checkpoints, our own folders and our training runs."""

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..config import dump_config
from ..errors import CheckpointError
from ..files import atomic_path, write_json
from ..training.checkpoints import find_checkpoint
from ..training.tensors import read_tensors
from .adapters import merged_state
from .config import GSLRMConfig
from .model import CONDITION_CHANNELS, GSLRM

log = logging.getLogger(__name__)

WEIGHTS_FILE = "gslrm.safetensors"
CONFIG_FILE = "gslrm.json"
IMAGE_SIZE = "image_size"
"""Key of `gslrm.json` that is no part of the model's configuration."""
PUBLISHED_HEAD_WIDTH = 64
RUN_PARTS = ("checkpoints", "weights", "manifest.json")
"""What lies in a training run or in a checkpoint."""
_PUBLISHED = re.compile(r"ckpt_(\d+)\.pt")
LOSS_PREFIX = "loss_calculator."
"""The published file also holds the VGG weights of its training loss; the model has no use for them."""

FREE_TO_CHANGE = {
    "gradient_checkpointing",
    "compile",
    "tokens",
    "token_margin",
    "token_multiple",
    "hull_samples",
}
"""What changes a model's cost, not the meaning of its weights."""

CONSTANTS = ("scale_bias", "scale_max", "opacity_bias", "depth_range", "depth_anchor")
"""What the weights' shapes do not tell, but their meaning rests on."""

OTHER_GAUSSIAN_CHANNELS = 11
"""Values per Gaussian apart from the harmonics: xyz 3, scale 3, quaternion 4, opacity 1."""


def load_gslrm(
    path: str | Path, device: torch.device | str = "cpu", config: GSLRMConfig | None = None
) -> GSLRM:
    """Load a model for inference or as the start of a training.

    Args:
        path: A published `.pt`, a `.safetensors`, a folder written by `save_gslrm`, a training run or one of
            its checkpoints (the newest is taken), or a folder of published `ckpt_*.pt` (the newest is taken).
        device: Where the model goes.
        config: Sizes and constants. None takes those stored beside the weights; a published file stores none,
            so its sizes are read off the tensors, and its constants are the published ones.

    Returns:
        The model in float32 and eval mode.

    Raises:
        CheckpointError: nothing there, unreadable, not a GS-LRM, or contradicting `config`.
    """
    file = find_weights(Path(path))
    state = _read_state(file)
    stored, image_size = _read_config(file)
    config = _choose_config(file, state, stored, config)
    _check_state(file, state, config)
    with torch.device("meta"):
        model = GSLRM(config)
    model.image_size = image_size
    model.load_state_dict({name: value.float().contiguous() for name, value in state.items()}, assign=True)
    return model.to(device).eval()


def save_gslrm(model: GSLRM, folder: Path, image_size: int | None = None) -> None:
    """Write `gslrm.safetensors` and `gslrm.json`, all that `load_gslrm` needs; adapters are merged.

    Args:
        model: What to write.
        folder: Where to.
        image_size: Side of the pictures it was trained on; None keeps what the model knows.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in merged_state(model).items()}
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    size = image_size or model.image_size
    write_json(folder / CONFIG_FILE, dump_config(model.config) | ({IMAGE_SIZE: size} if size else {}))


def infer_config(state: Mapping[str, Tensor], file: Path) -> GSLRMConfig:
    """Read the sizes off a state dict (facelift_spec 11).

    The width of an attention head leaves no trace in it: 64 is assumed, as published, or a single head where
    64 does not divide the width.

    Args:
        state: Parameter name -> value.
        file: Where it comes from, for messages.

    Raises:
        CheckpointError: tensors are missing or make no sense together.
    """
    try:
        width, patch_values = state["patch_embedder.1.weight"].shape
        channels, _ = state["gaussian_upsampler.linear.weight"].shape
        free, _ = state["gaussian_position_embeddings"].shape
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{file}: not the weights of a GS-LRM, lacks or garbles {error} (found {len(state)} tensors)."
        ) from None
    layers = sum(name.startswith("transformer_layers.") and name.endswith("norm1.weight") for name in state)
    head_width = PUBLISHED_HEAD_WIDTH if width % PUBLISHED_HEAD_WIDTH == 0 else width
    if width != GSLRMConfig().width:
        log.warning(
            "%s: width %d is not the published one, and the file does not say how wide an attention head is; "
            "taking %d. Give a config to say otherwise.",
            file,
            width,
            head_width,
        )
    try:
        return GSLRMConfig(
            patch_size=math.isqrt(patch_values // CONDITION_CHANNELS),
            width=width,
            head_width=head_width,
            layers=layers,
            free_gaussians=free,
            sh_degree=math.isqrt((channels - OTHER_GAUSSIAN_CHANNELS) // 3) - 1,
        )
    except ValueError as error:
        raise CheckpointError(f"{file}: fits no GS-LRM: {' '.join(str(error).split())}") from None


def find_weights(path: Path) -> Path:
    """The file that holds the weights; see `load_gslrm` for what `path` may be.

    Raises:
        CheckpointError: there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or folder; expected GS-LRM weights. Check the path.")
    if (path / WEIGHTS_FILE).is_file():
        return path / WEIGHTS_FILE
    published = {int(name[1]): file for file in path.iterdir() if (name := _PUBLISHED.fullmatch(file.name))}
    if published:
        newest = published[max(published)]
        log.info("%s: taking its newest checkpoint, %s", path, newest.name)
        return newest
    if not any((path / name).exists() for name in RUN_PARTS):
        raise CheckpointError(
            f"{path}: holds neither {WEIGHTS_FILE} nor ckpt_*.pt nor checkpoints{_meant(path)}; expected "
            "GS-LRM weights, a training run, or one of its checkpoints."
        )
    file = find_checkpoint(path).weights / WEIGHTS_FILE
    if not file.is_file():
        raise CheckpointError(f"{path}: its checkpoint holds no {WEIGHTS_FILE}; it is of another model.")
    return file


def _meant(path: Path) -> str:
    """What a folder without weights is instead, or which of its folders has some."""
    if (path / "model_index.json").is_file():
        return " (it is an MVDiffusion pipeline)"
    inside = sorted(file.parent for file in path.glob(f"*/{WEIGHTS_FILE}"))
    return f" ({inside[0]} does)" if inside else ""


def _read_state(file: Path) -> dict[str, Tensor]:
    content = read_tensors(file)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{file}: expected a dictionary of tensors, or one under the key 'model'.")
    kept = {name: value for name, value in state.items() if not name.startswith(LOSS_PREFIX)}
    if len(kept) < len(state):
        log.info(
            "%s: left out %d tensors of the training loss (%s*), kept %d",
            file,
            len(state) - len(kept),
            LOSS_PREFIX,
            len(kept),
        )
    return kept


def _choose_config(
    file: Path, state: Mapping[str, Tensor], stored: GSLRMConfig | None, wanted: GSLRMConfig | None
) -> GSLRMConfig:
    if stored is None:
        if wanted is None and file.name == WEIGHTS_FILE:
            raise CheckpointError(
                f"{file}: {CONFIG_FILE} is not beside it, which holds the model's constants: without them "
                "the same weights mean other Gaussians. Copy the whole folder, or give the training run."
            )
        if wanted is None:
            return infer_config(state, file)
        _warn_of_constants(file, wanted)
        return wanted
    if wanted is None:
        return stored
    then, now = dump_config(stored), dump_config(wanted)
    differences = [
        f"{key} {then[key]}, not {now[key]}"
        for key in then
        if then[key] != now[key] and key not in FREE_TO_CHANGE
    ]
    if differences:
        raise CheckpointError(
            f"{file}: was trained with {'; '.join(differences)}. Set these keys of the model as trained."
        )
    return wanted


def _warn_of_constants(file: Path, wanted: GSLRMConfig) -> None:
    """Weights that come without constants are the published ones, or were trained like them."""
    published, now = dump_config(GSLRMConfig()), dump_config(wanted)
    others = [
        f"{key} {now[key]} (published: {published[key]})" for key in CONSTANTS if now[key] != published[key]
    ]
    if others:
        log.warning(
            "%s stores no constants, and the model has others than the published weights: %s. The same "
            "weights then mean other Gaussians, and only training can repair that.",
            file,
            ", ".join(others),
        )


def _read_config(weights: Path) -> tuple[GSLRMConfig | None, int | None]:
    """What lies beside weights of ours: the configuration, and the side of the training's pictures."""
    file = weights.parent / CONFIG_FILE
    if weights.name != WEIGHTS_FILE or not file.is_file():
        return None, None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        size = content.pop(IMAGE_SIZE, None)
        return GSLRMConfig.model_validate(content), None if size is None else int(size)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: not a GS-LRM configuration: {' '.join(str(error).split())}") from None


def _check_state(file: Path, state: Mapping[str, Tensor], config: GSLRMConfig) -> None:
    with torch.device("meta"):
        expected = GSLRM(config).state_dict()
    faults = [f"missing {name}" for name in expected if name not in state]
    faults += [f"unexpected {name}" for name in state if name not in expected]
    faults += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    if faults:
        shown = "; ".join(faults[:20]) + (f"; and {len(faults) - 20} more" if len(faults) > 20 else "")
        raise CheckpointError(f"{file}: does not fit the model: {shown}.")
