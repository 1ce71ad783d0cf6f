"""The multi-view UNet: diffusers' stock UNet2DConditionModel with multi-view attention, no own weights."""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ..errors import CheckpointError
from .attention import AttentionMode, install_attention
from .weights import read_json, read_state

log = logging.getLogger(__name__)

LATENT_CHANNELS = 4
INPUT_CHANNELS = 2 * LATENT_CHANNELS
"""Noisy latents, then the reference picture's latents."""

_STOCK = frozenset(inspect.signature(UNet2DConditionModel.__init__).parameters) - {"self"}
_MUST_BE = {
    "selfattn_block": "custom",
    "cd_attention_last": False,
    "cd_attention_mid": False,
    "addition_downsample": False,
}
"""Published switches of parts that this UNet does not have: any other value means other weights."""
_WITHOUT_EFFECT = frozenset(
    [
        "addition_channels",
        "decay",
        "inv_gamma",
        "min_decay",
        "optimization_step",
        "power",
        "update_after_step",
        "use_ema_warmup",
    ]
)
"""Published keys, and those of an EMA folder, that change nothing."""


class MultiViewUNet(UNet2DConditionModel):
    """Predicts v of V views' latents at once (facelift_spec.md 6.1, 6.2).

    State-dict keys and `config.json` are those of the published weights. Call it as diffusers' UNet:
    `unet(sample [B*V, 8, h, w], timesteps [B*V], encoder_hidden_states [B*V, T, C], class_labels=[B*V, 2D])`.

    Args:
        num_views: Views per object, V.
        attention: Which views a view attends to.
        **stock: diffusers' UNet2DConditionModel arguments.
    """

    def __init__(self, num_views: int = 6, attention: AttentionMode = "sparse", **stock: Any) -> None:
        super().__init__(**stock)
        self.set_views(num_views, attention)

    @property
    def num_views(self) -> int:
        """Views per object, V."""
        return self.config.num_views

    @property
    def attention(self) -> AttentionMode:
        """Which views a view attends to."""
        return _attention_mode(self.config)

    def set_views(self, num_views: int, attention: AttentionMode) -> None:
        """Change the number of views or the attention mode; the weights fit any."""
        install_attention(self, num_views, attention)
        self.register_to_config(
            num_views=num_views,
            multiview_attention=attention != "none",
            sparse_mv_attention=attention == "sparse",
        )

    @classmethod
    def from_pretrained(cls, folder: Path, widen: bool = False) -> "MultiViewUNet":
        """Read a UNet in diffusers' layout, ours or the published one, in the file's precision.

        Args:
            folder: Holds `config.json` and the weights as safetensors or .bin.
            widen: Accept a UNet for 4 input channels (plain SD 2.1-unCLIP) and give it 4 more that start
                at 0. One with 8 is left as it is: zeroing would erase what it learned of the reference.

        Raises:
            CheckpointError: a file is missing or damaged, or keys or shapes are not exactly this model's.
        """
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder.parent}: no {folder.name}; the folder is not a complete pipeline."
            )
        num_views, attention, stock = parse_config(read_json(folder / "config.json"), folder / "config.json")
        state = read_state(folder)
        if widen:
            state = widen_conv_in(state)
            stock["in_channels"] = INPUT_CHANNELS
        if stock.get("in_channels") != INPUT_CHANNELS:
            raise CheckpointError(
                f"{folder}: this UNet takes {stock.get('in_channels')} input channels, expected "
                f"{INPUT_CHANNELS} (noisy and reference latents). To start from plain SD 2.1-unCLIP "
                "set start.kind=sd21unclip."
            )
        with torch.device("meta"):
            unet = cls(num_views, attention, **stock)
        try:
            unet.load_state_dict(state, strict=True, assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"{folder}: the weights do not fit config.json: {error}") from None
        return unet.eval()


def parse_config(config: Mapping[str, Any], where: Path | str) -> tuple[int, AttentionMode, dict[str, Any]]:
    """Split a published or stock `config.json` into number of views, attention mode and stock arguments.

    Block names such as CrossAttnDownBlockMV2D become the stock ones.

    Raises:
        CheckpointError: a key is unknown, or asks for parts that this UNet does not have.
    """
    ours = {"num_views", "multiview_attention", "sparse_mv_attention"}
    for key, value in config.items():
        if key in _MUST_BE and value != _MUST_BE[key]:
            raise CheckpointError(f"{where}: {key} is {value!r}, only {_MUST_BE[key]!r} is supported.")
        if key.startswith("_") or key in _STOCK or key in ours or key in _MUST_BE or key in _WITHOUT_EFFECT:
            continue
        raise CheckpointError(
            f"{where}: unknown key '{key}'. It may change the model, so it is not ignored; "
            "is this the UNet of another method, or of a newer diffusers?"
        )
    stock = {key: _stock_names(value) for key, value in config.items() if key in _STOCK}
    return int(config.get("num_views", 6)), _attention_mode(config), stock


def widen_conv_in(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a UNet for noisy latents alone zero weights for the reference latents; 8 channels stay untouched.

    Raises:
        CheckpointError: conv_in has neither 4 nor 8 input channels.
    """
    weight = state.get("conv_in.weight")
    if weight is None:
        raise CheckpointError(f"found no conv_in among {len(state)} tensors; expected the weights of a UNet.")
    channels = weight.shape[1]
    if channels == INPUT_CHANNELS:
        return dict(state)
    if channels != LATENT_CHANNELS:
        raise CheckpointError(
            f"conv_in has {channels} input channels, expected {LATENT_CHANNELS} or {INPUT_CHANNELS}."
        )
    log.info("conv_in widened from %d to %d channels, the new ones start at 0", channels, INPUT_CHANNELS)
    return {**state, "conv_in.weight": torch.cat([weight, torch.zeros_like(weight)], dim=1)}


def _attention_mode(config: Mapping[str, Any]) -> AttentionMode:
    if not config.get("multiview_attention", True):
        return "none"
    return "sparse" if config.get("sparse_mv_attention", True) else "dense"


def _stock_names(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("MV2D", "2D")
    if isinstance(value, list | tuple):
        return type(value)(_stock_names(item) for item in value)
    return value
