"""One call that draws Gaussians into images: gsplat on a GPU, plain torch elsewhere, the same conventions."""

import functools
import types
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import DataError, DependencyError
from .gaussians import Gaussians
from .projection import DILATION_PX2, NEAR
from .rasterizer import rasterize

FAR = 1e10
"""Nothing is too far away to be drawn, world units."""

Backend = Literal["auto", "gsplat", "torch"]


@dataclass(frozen=True)
class Rendering:
    """Images of Gaussians, differentiable.

    Attributes:
        rgb: On the background; not clamped, it may exceed 1. [..., V, 3, H, W]
        alpha: Coverage in [0, 1]. [..., V, 1, H, W]
        depth: Expected depth along the optical axis, world units: the mean over what covers the pixel, and 0
            where nothing does. [..., V, 1, H, W]
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor


def render(
    gaussians: Gaussians,
    K: Tensor,
    w2c: Tensor,
    width: int,
    height: int,
    background: float | Tensor | None = None,
    backend: Backend = "auto",
) -> Rendering:
    """Draw one scene, or a batch of B scenes, into V images each.

    The rules are those of 3D Gaussian splatting: near plane 0.2, 0.3 pixel^2 added to every splat without
    changing its opacity, nothing drawn below an alpha of 1/255. Both backends cap alpha at 0.999, as gsplat
    does. Computed in float32 (float64 stays float64 with the torch backend), also under autocast; call
    `backward` outside autocast, as torch advises.

    Args:
        gaussians: One scene [N, ...] or a batch [B, N, ...].
        K: Intrinsics in pixels, half-pixel centres, no skew. [V, 3, 3] or [B, V, 3, 3]
        w2c: World-to-camera. [V, 4, 4] or [B, V, 4, 4]
        width: Image width in pixels.
        height: Image height in pixels.
        background: Grey level, or a colour [3]; white by default.
        backend: `auto` is gsplat for Gaussians on a CUDA device and torch for others. Gradients reach the
            cameras with torch; with gsplat they reach `w2c` only.

    Raises:
        DataError: shapes do not match.
        DependencyError: gsplat is asked for and cannot run here.
    """
    _check(gaussians, K, w2c, background)
    batched = K.ndim == 4
    if not batched:
        gaussians, K, w2c = gaussians[None], K[None], w2c[None]
    device, dtype = gaussians.means.device, gaussians.means.dtype
    on_gpu = backend == "gsplat" or (backend == "auto" and device.type == "cuda")
    dtype = torch.float64 if dtype == torch.float64 and not on_gpu else torch.float32
    gaussians, K, w2c = gaussians.to(dtype), K.to(device, dtype), w2c.to(device, dtype)
    with torch.autocast(device.type, enabled=False):
        # gsplat is not made for empty scenes.
        draw = _rasterize_gsplat if on_gpu and len(gaussians) else rasterize
        rgb, depth, alpha = draw(gaussians, K, w2c, width, height).split((3, 1, 1), dim=2)
        rgb = rgb + (1 - alpha) * _behind(background, rgb)
        depth = depth / alpha.clamp_min(1e-10)
    return Rendering(rgb, alpha, depth) if batched else Rendering(rgb[0], alpha[0], depth[0])


def _behind(background: float | Tensor | None, rgb: Tensor) -> float | Tensor:
    """The background as a factor. A number stays one: as a tensor it would make the host wait for the GPU."""
    if isinstance(background, Tensor):
        return background.to(rgb).view(-1, 1, 1)
    return 1.0 if background is None else background


def _rasterize_gsplat(gaussians: Gaussians, K: Tensor, w2c: Tensor, width: int, height: int) -> Tensor:
    """The same as `rasterize`, by gsplat. [B, V, 5, H, W]"""
    device = gaussians.means.device
    if device.type != "cuda":
        raise DependencyError(
            f"render: backend 'gsplat' needs Gaussians on a CUDA device, they are on '{device}'. "
            "Move them there, or use backend 'torch' or 'auto'."
        )
    image, alpha, _ = _gsplat().rasterization(
        means=gaussians.means,
        quats=gaussians.quats,
        scales=gaussians.scales,
        opacities=gaussians.opacities,
        colors=gaussians.rgb if gaussians.sh_rest is None else gaussians.sh,
        viewmats=w2c,
        Ks=K,
        width=width,
        height=height,
        near_plane=NEAR,
        far_plane=FAR,
        eps2d=DILATION_PX2,
        sh_degree=gaussians.sh_degree or None,
        # Every camera sees most of the animal, so there is little to leave out by packing.
        packed=False,
        # A pixel's Gaussian is small: small tiles leave out more of what does not reach a pixel.
        tile_size=8,
        render_mode="RGB+D",
        rasterize_mode="classic",
    )
    return torch.cat([image, alpha], dim=-1).movedim(-1, 2)


@functools.cache
def _gsplat() -> types.ModuleType:
    """Import gsplat and compile or load its kernels now, so that a failure is told apart from one in use."""
    try:
        import gsplat
        from gsplat.cuda import _backend
    except (ImportError, OSError, RuntimeError) as error:
        raise DependencyError(
            f"render: gsplat cannot be loaded ({error}). Install gsplat for this torch and CUDA version, "
            "or use the torch backend."
        ) from error
    if _backend._C is None:
        raise DependencyError(
            "render: gsplat has no compiled kernels and found no CUDA toolkit to compile them with. Install "
            "a gsplat wheel built for this torch and CUDA version, or the CUDA toolkit (nvcc), or use the "
            "torch backend."
        )
    return gsplat


def _check(gaussians: Gaussians, K: Tensor, w2c: Tensor, background: float | Tensor | None) -> None:
    lead = tuple(gaussians.means.shape[:-2])
    if len(lead) > 1 or K.shape[:-3] != lead or K.shape[-2:] != (3, 3):
        raise DataError(
            f"render: K has shape {tuple(K.shape)}, expected {(*lead, 'V', 3, 3)} "
            f"for Gaussians with batch axes {lead} (at most one)."
        )
    if w2c.shape != (*K.shape[:-2], 4, 4):
        raise DataError(
            f"render: w2c has shape {tuple(w2c.shape)}, expected {(*K.shape[:-2], 4, 4)} to match K."
        )
    if isinstance(background, Tensor) and background.shape not in ((), (3,)):
        raise DataError(f"render: background has shape {tuple(background.shape)}, expected a number or [3].")
