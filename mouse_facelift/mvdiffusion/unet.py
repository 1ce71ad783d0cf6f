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
from .attention import AttentionMode, MultiViewAttnProcessor, install_attention
from .pose import RAY_CHANNELS
from .weights import read_json, read_state

log = logging.getLogger(__name__)

LATENT_CHANNELS = 4
INPUT_CHANNELS = 2 * LATENT_CHANNELS
"""Noisy latents, then the reference picture's latents."""
POSE_CHANNELS = INPUT_CHANNELS + RAY_CHANNELS
"""With pose conditioning, the views' rays come last."""

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
    `unet(sample [B*V, 8, h, w], timesteps [B*V], encoder_hidden_states [B*V, T, C], class_labels=[B*V, 2D])`,
    with 14 input channels where it is pose-conditioned.

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

    @property
    def has_pose(self) -> bool:
        """Whether the views' rays are among the input channels."""
        return self.config.in_channels == POSE_CHANNELS

    def set_views(self, num_views: int, attention: AttentionMode) -> None:
        """Change the number of views or the attention mode; the weights fit any."""
        install_attention(self, num_views, attention)
        self._attended_views = num_views
        self.register_to_config(
            num_views=num_views,
            multiview_attention=attention != "none",
            sparse_mv_attention=attention == "sparse",
        )

    def attend_across(self, num_views: int) -> None:
        """Tell the attention how many views the next objects have; `config.json` stays as it is."""
        if num_views == self._attended_views:
            return
        for processor in self.attn_processors.values():
            if isinstance(processor, MultiViewAttnProcessor):
                processor.num_views = num_views
        self._attended_views = num_views

    @classmethod
    def from_pretrained(cls, folder: Path, widen: bool = False, pose: bool | None = None) -> "MultiViewUNet":
        """Read a UNet in diffusers' layout, ours or the published one, in the file's precision.

        Args:
            folder: Holds `config.json` and the weights as safetensors or .bin.
            widen: Accept a UNet for 4 input channels (plain SD 2.1-unCLIP) and give it 4 more that start
                at 0. Those of one with 8 are left as they are: zeroing would erase what it learned of the
                reference.
            pose: True gives a UNet without rays 6 more channels that start at 0, False refuses one with rays,
                None takes what is there.

        Raises:
            CheckpointError: a file is missing or damaged, or keys or shapes are not exactly this model's.
        """
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder.parent}: no {folder.name}; the folder is not a complete pipeline."
            )
        num_views, attention, stock = parse_config(read_json(folder / "config.json"), folder / "config.json")
        state = read_state(folder)
        channels = stock.get("in_channels")
        if channels not in (INPUT_CHANNELS, POSE_CHANNELS) and not (widen and channels == LATENT_CHANNELS):
            raise CheckpointError(
                f"{folder}: this UNet takes {channels} input channels, expected {INPUT_CHANNELS} (noisy and "
                f"reference latents) or {POSE_CHANNELS} (and rays). To start from plain SD 2.1-unCLIP set "
                "start.kind=sd21unclip."
            )
        if pose is False and channels == POSE_CHANNELS:
            raise CheckpointError(
                f"{folder}: this UNet was trained with diffusion.conditioning=pose ({POSE_CHANNELS} input "
                "channels) and cannot go on without rays. Set diffusion.conditioning=pose, or start from "
                "other weights."
            )
        if pose or widen:
            state = widen_conv_in(state, POSE_CHANNELS if pose else INPUT_CHANNELS)
            stock["in_channels"] = state["conv_in.weight"].shape[1]
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


def widen_conv_in(state: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Add input channels that start at 0 to a UNet; those it has stay untouched.

    Args:
        state: Weights of a UNet for noisy latents, noisy and reference latents, or these and rays.
        channels: Input channels that it shall have at least.

    Raises:
        CheckpointError: conv_in is missing or has another number of input channels.
    """
    weight = state.get("conv_in.weight")
    if weight is None:
        raise CheckpointError(f"found no conv_in among {len(state)} tensors; expected the weights of a UNet.")
    found = weight.shape[1]
    if found not in (LATENT_CHANNELS, INPUT_CHANNELS, POSE_CHANNELS):
        raise CheckpointError(
            f"conv_in has {found} input channels, expected {LATENT_CHANNELS}, {INPUT_CHANNELS} or "
            f"{POSE_CHANNELS}."
        )
    if found >= channels:
        return dict(state)
    log.info("conv_in widened from %d to %d channels, the new ones start at 0", found, channels)
    zeros = weight.new_zeros(weight.shape[0], channels - found, *weight.shape[2:])
    return {**state, "conv_in.weight": torch.cat([weight, zeros], dim=1)}


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
