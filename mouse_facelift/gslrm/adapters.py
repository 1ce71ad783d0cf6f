"""Which parameters of GS-LRM learn: all, the last blocks or low-rank adapters; adapters as plain weights.

LoRA (Hu et al., ICLR 2022) through peft: a frozen layer W gets a trained B A beside it, and afterwards
`W + alpha / rank * B A` is a layer like any other.
"""

import logging
from typing import Any, cast

from torch import Tensor, nn

from ..errors import DependencyError
from .config import PartsConfig
from .model import GSLRM

log = logging.getLogger(__name__)

ADAPTER = "default"
LAYERS = {"to_qkv": r"attn\.to_qkv", "fc": r"attn\.fc", "mlp": r"mlp\.mlp\.[02]"}
"""Where the targets of `parts.lora_targets` lie in a block."""


def choose_parts(model: GSLRM, parts: PartsConfig) -> None:
    """Freeze what shall not learn; with `lora`, put adapters into the model. New adapters change no output.

    Args:
        model: Changed in place. The adapters' weights are drawn from torch's global generator.
        parts: What learns.

    Raises:
        DependencyError: adapters are asked for and peft is not installed.
    """
    if parts.train == "lora":
        _add_adapters(model, parts)
    elif parts.train == "last_blocks":
        model.requires_grad_(False)
        model.transformer_layers[-parts.last_blocks :].requires_grad_(True)
    if parts.train != "all" and parts.heads:
        model.gaussian_upsampler.requires_grad_(True)
        model.pixel_gaussian_decoder.requires_grad_(True)
    log.info("%s are trained", trained_share(model))


def trained_share(module: nn.Module) -> str:
    """How much of a module learns, such as "2.1 of 303.6 M parameters (0.7 %)"."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    total, trained = sum(count for count, _ in counts), sum(count for count, learns in counts if learns)
    digits = 1 if total >= 1e6 else 3
    share = 100 * trained / total
    return f"{trained / 1e6:.{digits}f} of {total / 1e6:.{digits}f} M parameters ({share:.1f} %)"


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the plain model that computes the same: adapters are added to their layers."""
    merged = {}
    for key, value in model.state_dict().items():
        layer, inside, parameter = key.partition(".base_layer.")
        if inside:
            adapted = cast(Any, model.get_submodule(layer))
            merged[f"{layer}.{parameter}"] = value + adapted.get_delta_weight(ADAPTER)
        elif ".lora_" not in key:
            merged[key] = value
    return merged


def _add_adapters(model: GSLRM, parts: PartsConfig) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise DependencyError(
            f"parts.train=lora needs peft, which cannot be imported ({error}). "
            "Run: pip install 'mouse-facelift[lora]'"
        ) from None
    layers = "|".join(LAYERS[target] for target in parts.lora_targets)
    config = LoraConfig(
        r=parts.lora_rank,
        lora_alpha=parts.lora_alpha,
        target_modules=rf"transformer_layers\.\d+\.({layers})",
    )
    inject_adapter_in_model(config, model, ADAPTER)
