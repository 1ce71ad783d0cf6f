"""A loaded denoiser made fast for sampling: the same numbers up to rounding, but nothing to train or save."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from ..attention_kernels import preferred_attention
from .conditioning import Condition
from .denoiser import Denoiser
from .group_norm import norm_by_channel
from .unet import MultiViewUNet

SHAPES = 32
"""Batch sizes and numbers of views that may be compiled; torch's own limit is 8."""

TUNED = {
    "max_autotune": True,
    "coordinate_descent_tuning": True,
    "coordinate_descent_check_all_directions": True,
    "epilogue_fusion": False,
}
"""Options of torch.compile that diffusers' documentation recommends for its UNets."""


def speed_up(
    denoiser: Denoiser,
    *,
    compile: bool = False,
    tune: bool = False,
    graphs: bool = False,
    channels_last: bool | None = None,
) -> "FastDenoiser":
    """Prepare a denoiser for sampling, on its final device and in its final precision.

    Its UNet is taken over: use only the result from here on, do not train or save it.

    Args:
        denoiser: As loaded.
        compile: Compile the UNet with torch.compile: a minute or so per batch size and number of views.
        tune: Also try many kernels per layer; many minutes.
        graphs: Also replay the compiled UNet as a CUDA graph, for GPUs that outrun Python.
        channels_last: Memory layout of the convolutions; by default where the UNet is compiled, as PyTorch's
            own group norm is slow in it.

    Returns:
        A denoiser with the same UNet and prompts, for sampling only.
    """
    unet = denoiser.unet.eval().requires_grad_(False)
    fuse_projections(unet)
    fast = FastDenoiser(denoiser)
    if compile if channels_last is None else channels_last:
        unet.to(memory_format=torch.channels_last)
    if compile:
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, SHAPES)
        unet.compile(fullgraph=True, dynamic=False, options=compile_options(tune, graphs))
    fast.uses_graphs = compile and graphs
    return fast


def compile_options(tune: bool, graphs: bool) -> dict[str, Any]:
    """Options of torch.compile; see `speed_up`."""
    # In channels-last pictures a 1x1 convolution is a matrix product.
    return {"conv_1x1_as_mm": True, "triton.cudagraphs": graphs, **(TUNED if tune else {})}


def speed_up_vae(vae: AutoencoderKL) -> None:
    """Compile its encoder and its decoder, which makes all views of an object in one batch, in place."""
    options = compile_options(tune=False, graphs=False)
    for part in (vae.encoder, vae.decoder):
        part.to(memory_format=torch.channels_last)
        norm_by_channel(part)
        part.compile(dynamic=False, options=options)


def fuse_projections(unet: MultiViewUNet) -> None:
    """One matrix product for queries, keys and values of every self-attention."""
    for name, module in unet.named_modules():
        if name.endswith(".attn1"):
            module.fuse_projections()


class FastDenoiser(Denoiser):
    """A denoiser that computes what stays constant once.

    Keys and values of the prompts, once per checkpoint; the class embedding, once per condition.

    Args:
        denoiser: Its UNet and prompts are taken over.

    Attributes:
        uses_graphs: The UNet is replayed as a CUDA graph.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser.unet, denoiser.prompt_embeds)
        self.uses_graphs = False
        self._seen: tuple[Condition, Tensor] | None = None
        for name, module in self.unet.named_modules():
            if name.endswith(".attn2"):
                module.set_processor(PromptAttnProcessor(module, self.prompt_embeds))
        # Class labels reach the UNet embedded.
        self.unet.get_class_embed = _as_they_are

    @torch.no_grad()
    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """As `Denoiser.forward`, without gradients."""
        if self.uses_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with preferred_attention(noisy.device):
            return super().forward(noisy, timesteps, condition)

    def _told(self, condition: Condition, like: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the bank [B*V] and class embeddings [B*V, E]; a condition is embedded when first seen."""
        if self._seen is None or self._seen[0] is not condition:
            embed = self.unet.class_embedding
            labels = condition.class_labels.flatten(0, 1).to(next(embed.parameters()))
            self._seen = condition, embed(labels)
        return condition.prompt_index.flatten(), self._seen[1]


class PromptAttnProcessor(nn.Module):
    """Cross-attention to prompts whose keys and values are known: the text is the row of each view.

    Args:
        attn: diffusers' Attention, which owns the projections.
        prompt_embeds: The bank. [P, T, C]
    """

    bank: Tensor

    def __init__(self, attn: Any, prompt_embeds: Tensor) -> None:
        super().__init__()
        with torch.no_grad():
            text = prompt_embeds.to(attn.to_k.weight)
            # [P, T, 2C]
            bank = torch.cat([attn.to_k(text), attn.to_v(text)], dim=2)
        self.register_buffer("bank", bank, persistent=False)

    def forward(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        """Attend.

        Args:
            attn: The same.
            hidden_states: Tokens. [N, L, C]
            encoder_hidden_states: Rows of the bank, int64. [N]
            **_: Ignored: there is no mask.

        Returns:
            [N, L, C]
        """
        query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        text = self.bank[encoder_hidden_states].unflatten(-1, (2, attn.heads, -1))
        key, value = (x.transpose(1, 2) for x in text.unbind(2))
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        projection, dropout = attn.to_out
        return dropout(projection(attended.transpose(1, 2).flatten(2)))


def _as_they_are(sample: Tensor, class_labels: Tensor) -> Tensor:
    return class_labels
