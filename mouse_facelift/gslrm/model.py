"""GS-LRM (Zhang et al., ECCV 2024) as FaceLift uses it: posed views in, one Gaussian per pixel out.

The parameter names are those of the published checkpoint; facelift_spec section 2 gives every formula.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import DataError
from ..gaussians.gaussians import Gaussians
from ..geometry.hull_depth import first_hull_depth
from ..geometry.rays import CameraBatch, pixel_rays
from .attention import attention
from .config import GSLRMConfig
from .graphs import GraphedBlocks
from .tokens import Patchify, foreground_patches, patchify, posed_images

INIT_STD = 0.02
ACTIVATION_BYTES = 36
"""What a block keeps for the backward pass, per token and channel: measured, half precision."""
MEMORY_SHARE = 0.6
"""Of the free memory that activations may take; rendering and the optimizer need the rest."""
CONDITION_CHANNELS = 9


@dataclass(frozen=True)
class RawGaussians:
    """What the network predicts, before the activations.

    The free Gaussians come first, then the pixels', ordered (view, patch row, patch column, row, column).

    Attributes:
        means: Centres in model units; a pixel's Gaussian lies on its ray. [B, N, 3]
        sh: Spherical harmonics, degree 0 first. [B, N, S, 3]
        log_scales: [B, N, 3]
        quats: wxyz, not normalised. [B, N, 4]
        logit_opacities: [B, N]
    """

    means: Tensor
    sh: Tensor
    log_scales: Tensor
    quats: Tensor
    logit_opacities: Tensor

    def activate(self) -> Gaussians:
        """Apply exp, sigmoid and normalisation."""
        return Gaussians(
            means=self.means,
            quats=F.normalize(self.quats, dim=-1),
            scales=self.log_scales.exp(),
            opacities=self.logit_opacities.sigmoid(),
            sh0=self.sh[..., :1, :],
            sh_rest=self.sh[..., 1:, :] if self.sh.shape[-2] > 1 else None,
        )


class GSLRM(nn.Module):
    """Six, four or any number of posed views -> Gaussians, in one pass.

    The order of the views does not matter; there is no positional embedding, the rays say where a token is.
    That also allows leaving out tokens of background (of which some fill up the number, see
    `foreground_patches`: those may be other ones in another order of views, or in another batch).
    """

    def __init__(self, config: GSLRMConfig) -> None:
        super().__init__()
        self.config = config
        width, pixels = config.width, config.patch_size**2
        # xyz, harmonics, log-scale, quaternion, opacity
        self.split = (3, 3 * (config.sh_degree + 1) ** 2, 3, 4, 1)

        self.gaussian_position_embeddings = nn.Parameter(torch.empty(config.free_gaussians, width))
        self.patch_embedder = nn.Sequential(
            Patchify(config.patch_size), _linear(pixels * CONDITION_CHANNELS, width)
        )
        self.input_layer_norm = _norm(width)
        self.transformer_layers = nn.ModuleList(Block(width, config.head_width) for _ in range(config.layers))
        self.gaussian_upsampler = FreeGaussianHead(width, sum(self.split))
        self.pixel_gaussian_decoder = nn.Sequential(_norm(width), _linear(width, pixels * sum(self.split)))
        nn.init.normal_(self.gaussian_position_embeddings, std=INIT_STD)
        self.image_size: int | None = None
        """Side of the pictures it was trained on, where the weights tell it."""
        self.graphs: GraphedBlocks | None = None
        """Set for inference only: a graph keeps the addresses of the parameters."""

    def forward(self, images: Tensor, cameras: CameraBatch) -> Gaussians:
        """Predict the scene.

        Args:
            images: In [0, 1], already composited on the background the model was trained with (white for the
                published weights). A fourth channel is the silhouette: needed with `depth_anchor: hull` and
                `tokens: foreground`, else ignored. [B, V, 3 or 4, H, W]
            cameras: Cameras of exactly these pixels, model units.

        Returns:
            `free_gaussians` and one Gaussian for each pixel of the tokens' patches (`V * H * W` if dense) per
            sample, float32, batched [B, N, ...].

        Raises:
            DataError: shapes do not belong together, H or W is not a multiple of the patch size, or the
                silhouettes are needed and not given.
        """
        return self.raw_gaussians(images, cameras).activate()

    def raw_gaussians(self, images: Tensor, cameras: CameraBatch) -> RawGaussians:
        """As `forward`, without the activations: means are final, the constant biases are added."""
        _check(images, cameras, self.config)
        origins, directions = pixel_rays(cameras.K, cameras.w2c, *images.shape[-2:])
        kept = self._kept_patches(images)
        tokens = self.trunk(posed_images(images[:, :, :3], origins, directions), kept)
        # In half precision depths would come in steps of up to 0.016 (facelift_spec 1.14).
        with torch.autocast(tokens.device.type, enabled=False):
            depth, reach = self._anchor(images, cameras, origins, directions)
            anchors = self._per_gaussian(origins + depth * directions, kept)
            return self._decode(tokens.float(), anchors, self._per_gaussian(reach * directions, kept))

    def trunk(self, conditioned: Tensor, kept: Tensor | None = None) -> Tensor:
        """Nine-channel images to tokens, the free ones first.

        Args:
            conditioned: [B, V, 9, H, W]
            kept: Indices of the patches that become tokens, ascending; None takes all. [B, K]

        Returns:
            [B, free_gaussians + K, width]
        """
        cut, embed = self.patch_embedder
        patches = cut(conditioned)
        if kept is not None:
            patches = take(patches, kept)
        free = self.gaussian_position_embeddings.expand(len(conditioned), -1, -1)
        # Concatenating with a float32 tensor keeps the residual stream in float32 under autocast.
        x = self.input_layer_norm(torch.cat([free, embed(patches)], dim=1))
        if self.graphs is not None and self.graphs.suits(x):
            return self.graphs(self._blocks, x)
        return self._blocks(x)

    def hold_weights(self, dtype: torch.dtype) -> None:
        """Keep the blocks' matrices as autocast would convert them at every call; for inference only."""
        for layer in self.transformer_layers.modules():
            if isinstance(layer, nn.Linear):
                layer.weight = nn.Parameter(layer.weight.to(dtype), requires_grad=False)

    def compile_blocks(self) -> None:
        """Let torch.compile fuse each block's small steps; the parameters' names stay."""
        for block in self.transformer_layers:
            block.compile(dynamic=False)

    def _blocks(self, x: Tensor) -> Tensor:
        """[B, L, width] -> [B, L, width]"""
        recompute = self.training and torch.is_grad_enabled() and self._recomputes(x)
        for block in self.transformer_layers:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x

    def _recomputes(self, x: Tensor) -> bool:
        """Whether the backward pass recomputes the blocks: as configured, or where memory asks for it."""
        setting = self.config.gradient_checkpointing
        if setting != "auto":
            return setting
        if x.device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(x.device)
        cached = torch.cuda.memory_reserved(x.device) - torch.cuda.memory_allocated(x.device)
        needed = x.shape[0] * x.shape[1] * self.config.width * self.config.layers * ACTIVATION_BYTES
        return needed > MEMORY_SHARE * (free + cached)

    def _anchor(
        self, images: Tensor, cameras: CameraBatch, origins: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Depth that each pixel's offset is measured from, and the largest offset. [B, V, 1, H, W] each"""
        depth = -(origins * directions).sum(dim=2, keepdim=True)
        reach = torch.full_like(depth, self.config.depth_range)
        if self.config.depth_anchor == "hull":
            hull = first_hull_depth(
                images[:, :, 3],
                cameras,
                origins,
                directions,
                self.config.depth_range,
                self.config.hull_samples,
            ).unsqueeze(2)
            depth = torch.where(hull.isnan(), depth, hull)
            reach = torch.where(hull.isnan(), reach, self.config.hull_offset)
        return depth, reach

    def _kept_patches(self, images: Tensor) -> Tensor | None:
        if self.config.tokens == "dense":
            return None
        settings = self.config
        return foreground_patches(
            images[:, :, 3], settings.patch_size, settings.token_margin, settings.token_multiple
        )

    def _decode(self, tokens: Tensor, anchors: Tensor, steps: Tensor) -> RawGaussians:
        """Tokens, and per pixel the anchor point and the largest step from it [B, N, 3], to Gaussians."""
        free_tokens, pixel_tokens = tokens.tensor_split([self.config.free_gaussians], dim=1)
        free = self.gaussian_upsampler(free_tokens)
        pixel = self.pixel_gaussian_decoder(pixel_tokens).unflatten(-1, (-1, sum(self.split))).flatten(1, 2)

        xyz, sh, scale, quats, opacity = torch.cat([free, pixel], dim=1).split(self.split, dim=-1)
        n = self.config.free_gaussians
        free_means = xyz[:, :n]
        if self.config.depth_anchor == "hull":
            # From scratch they drift out of the model's box, where the clean-up of results cuts them off.
            free_means = free_means.tanh()
        signed = 2 * xyz[:, n:].mean(dim=-1, keepdim=True).sigmoid() - 1
        return RawGaussians(
            means=torch.cat([free_means, anchors + signed * steps], dim=1),
            sh=sh.unflatten(-1, (-1, 3)),
            log_scales=(scale + self.config.scale_bias).clamp(max=self.config.scale_max),
            quats=quats,
            logit_opacities=opacity[..., 0] + self.config.opacity_bias,
        )

    def _per_gaussian(self, images: Tensor, kept: Tensor | None) -> Tensor:
        """Values per pixel [B, V, 3, H, W] in the order of the pixel Gaussians. [B, N, 3]"""
        patches = patchify(images, self.config.patch_size)
        if kept is not None:
            patches = take(patches, kept)
        return patches.reshape(len(images), -1, images.shape[2])


class Block(nn.Module):
    """Pre-norm transformer block without biases."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.norm1 = _norm(width)
        self.norm2 = _norm(width)
        self.attn = Attention(width, head_width)
        self.mlp = FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, width] -> [B, L, width]."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Attention(nn.Module):
    """Full self-attention over the tokens of all views."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.to_qkv = _linear(width, 3 * width)
        self.fc = _linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, width] -> [B, L, width]."""
        q, k, v = self.to_qkv(x).unflatten(-1, (3, -1, self.head_width)).permute(2, 0, 3, 1, 4)
        return self.fc(attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two layers with an erf GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(_linear(width, 4 * width), nn.GELU(), _linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        return self.mlp(x)


class FreeGaussianHead(nn.Module):
    """One Gaussian from each free token."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.layernorm = _norm(width)
        self.linear = _linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, free, width] -> [B, free, channels]."""
        return self.linear(self.layernorm(x))


def take(patches: Tensor, kept: Tensor) -> Tensor:
    """Rows of each sample. [B, L, C] and indices [B, K] -> [B, K, C]"""
    return patches.gather(1, kept[..., None].expand(-1, -1, patches.shape[-1]))


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=INIT_STD)
    return layer


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-5, bias=False)


def _check(images: Tensor, cameras: CameraBatch, config: GSLRMConfig) -> None:
    shape = tuple(images.shape)
    if images.ndim != 5 or shape[2] not in (3, 4) or not images.is_floating_point():
        raise DataError(
            f"images have shape {shape} and type {images.dtype}, "
            "expected float [B, V, 3 or 4, H, W] in [0, 1]."
        )
    if shape[2] != 4 and (config.depth_anchor == "hull" or config.tokens == "foreground"):
        raise DataError(
            f"images have {shape[2]} channels, but depth_anchor is {config.depth_anchor} and tokens is "
            f"{config.tokens}: a fourth channel with the silhouette is needed."
        )
    if cameras.K.shape[:2] != shape[:2]:
        raise DataError(
            f"images hold {shape[:2]} (samples, views), cameras {tuple(cameras.K.shape[:2])}; "
            "expected one camera per view."
        )
