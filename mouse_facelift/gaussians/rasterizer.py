"""Differentiable Gaussian splatting in plain torch: exact, and fast enough to train small images on a CPU.

Tiles with lists of similar length are drawn together as dense arrays of [tiles, pixels, splats] that fit the
cache. The backward pass computes them again, so memory does not grow with the number of (splat, pixel) pairs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .gaussians import Gaussians
from .harmonics import sh_colors
from .projection import project
from .tiles import GSPLAT, MIN_ALPHA, Grid, Rules, TileLists, list_tiles

MIN_TRANSMITTANCE = 1e-4
"""A pixel is finished before the splat that would let less than this through."""

CHUNK = 1 << 18
"""(Splat, pixel) pairs drawn at once; a few such arrays fit a CPU's cache."""

OPACITY, COLORS = 5, 6
"""Columns of the splat table: center 0:2, conic 2:5, opacity 5, colour 6:9, depth 9."""

TINY = 1e-30
"""Stands for an opacity of 0 under a logarithm."""


def rasterize(
    gaussians: Gaussians, K: Tensor, w2c: Tensor, width: int, height: int, rules: Rules = GSPLAT
) -> Tensor:
    """Draw B scenes of N Gaussians into V images each, on a black background.

    Args:
        gaussians: Batched, float32 or float64. [B, N, ...]
        K: Intrinsics in pixels, half-pixel centres, no skew. [B, V, 3, 3]
        w2c: World-to-camera. [B, V, 4, 4]
        width: Image width in pixels.
        height: Image height in pixels.
        rules: Whose conventions to follow.

    Returns:
        Red, green, blue and depth, each summed with the splats' weights, and the sum of the weights, which is
        the image's alpha. Differentiable in everything but the image size. [B, V, 5, H, W]
    """
    splats = project(gaussians, K, w2c, width, height, symmetric_limits=rules.symmetric_limits)
    shape = splats.depth.shape
    opacities = gaussians.opacities[:, None].expand(shape)
    grid = Grid(shape[0] * shape[1], width, height, rules.tile)
    lists = list_tiles(splats, opacities, grid, rules)
    colors = view_colors(gaussians, w2c)
    table = torch.cat(
        [splats.center, splats.conic, opacities[..., None], colors, splats.depth[..., None]], -1
    )
    # The last row is a splat that covers nothing, to fill lists up with.
    drawn: Tensor = _Composite.apply(F.pad(table.flatten(0, 2), (0, 0, 0, 1)), lists, grid, rules.max_alpha)
    return grid.assemble(drawn).unflatten(0, shape[:2])


def view_colors(gaussians: Gaussians, w2c: Tensor) -> Tensor:
    """Colour of each Gaussian as each camera sees it.

    Args:
        gaussians: Batched. [B, N, ...]
        w2c: World-to-camera, rigid. [B, V, 4, 4]

    Returns:
        At least 0, not limited above. [B, V, N, 3]
    """
    shape = (*w2c.shape[:2], len(gaussians), 3)
    if gaussians.sh_rest is None:
        return gaussians.rgb[:, None].expand(shape)
    centers = -(w2c[..., :3, :3] * w2c[..., :3, 3:]).sum(-2)
    directions = F.normalize(gaussians.means[:, None] - centers[:, :, None], dim=-1)
    return sh_colors(gaussians.sh[:, None], directions)


class _Composite(torch.autograd.Function):
    """Front-to-back compositing of a table of splats [M, 10] into tiles [tiles, pixels, 5].

    With coverage a_i and transmittance T_i = prod_{j<i} (1 - a_j), a pixel is sum_i w_i f_i, w_i = a_i T_i.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, lists: TileLists, grid: Grid, max_alpha: float) -> Tensor:
        ctx.save_for_backward(table)
        ctx.settings = lists, grid, max_alpha
        basis = _pixel_basis(grid.tile, table)
        image = table.new_zeros(grid.tiles, len(basis), 5)
        for tiles, members in lists.chunks(CHUNK // len(basis), padding=len(table) - 1):
            splats = F.embedding(members, table)
            weights, _ = _weights(splats, grid.centers(tiles), basis, max_alpha)
            image[tiles] = (_features(splats) @ weights.mT).mT
        return image

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """With h_i = f_i . g for a pixel's gradient g: dL/da_i = T_i h_i - sum_{j>i} w_j h_j / (1 - a_i)."""
        (table,) = ctx.saved_tensors
        lists, grid, max_alpha = ctx.settings
        basis = _pixel_basis(grid.tile, table)
        result = torch.zeros_like(table)
        cap = table.new_tensor(max_alpha)
        for tiles, members in lists.chunks(CHUNK // len(basis), padding=len(table) - 1):
            splats, middle, gradient = F.embedding(members, table), grid.centers(tiles), gradients[0][tiles]
            weights, odds = _weights(splats, middle, basis, max_alpha)
            shares = (gradient @ _features(splats)).mul_(weights)
            up_to = shares.cumsum(-1)
            behind = up_to[..., -1:] - up_to
            of_exponent = shares.addcmul_(behind, odds, value=-1)
            if splats[..., OPACITY].max() > max_alpha:
                of_exponent.masked_fill_(odds >= cap / (1 - cap), 0)
            of_splats = _exponent_gradient(splats, middle, basis.T @ of_exponent)
            of_splats = torch.cat([of_splats, gradient[..., :4].mT @ weights], 1)
            result.index_add_(0, members.flatten(), of_splats.mT.flatten(0, 1))
        return result, None, None, None


def _weights(splats: Tensor, middle: Tensor, basis: Tensor, max_alpha: float) -> tuple[Tensor, Tensor]:
    """Weights a_i T_i of a chunk's splats and the odds a_i / (1 - a_i). [t, pixels, K] each"""
    alpha = (basis @ _exponent(splats, middle)).exp_()
    alpha = torch.threshold_(alpha, MIN_ALPHA, 0).clamp_max_(max_alpha)
    through = 1 - alpha
    # T_i = T_{i+1} / (1 - a_i), and the pixel is finished at the first T_{i+1} that is too small.
    next_transmittance = torch.threshold_(through.cumprod(-1), MIN_TRANSMITTANCE, 0)
    odds = alpha.div_(through)
    return next_transmittance.mul_(odds), odds


def _exponent(splats: Tensor, middle: Tensor) -> Tensor:
    """Logarithm of a splat's coverage as a polynomial in a pixel's offset from the tile's middle.

    Offsets within the tile keep the numbers small, and turn its evaluation into a matrix product.

    Args:
        splats: Rows of the table. [t, K, 10]
        middle: Of the tiles, in pixels. [t, 2]

    Returns:
        Coefficients of `_pixel_basis`. [t, 6, K]
    """
    x, y = (splats[..., :2] - middle[:, None]).unbind(-1)
    xx, xy, yy, opacity = splats[..., 2:COLORS].unbind(-1)
    u, v = xx * x + xy * y, xy * x + yy * y
    peak = opacity.clamp_min(TINY).log() - 0.5 * (u * x + v * y)
    return torch.stack([peak, u, v, -0.5 * xx, -xy, -0.5 * yy], 1)


def _exponent_gradient(splats: Tensor, middle: Tensor, moments: Tensor) -> Tensor:
    """From the gradient of `_exponent`'s result to that of centers, conics and opacities. [t, 6, K] both"""
    x, y = (splats[..., :2] - middle[:, None]).unbind(-1)
    xx, xy, yy, opacity = splats[..., 2:COLORS].unbind(-1)
    one, u, v, uu, uv, vv = moments.unbind(1)
    dx, dy = u - x * one, v - y * one
    of_center = xx * dx + xy * dy, xy * dx + yy * dy
    of_conic = 0.5 * (x * (u + dx) - uu), x * v + y * dx - uv, 0.5 * (y * (v + dy) - vv)
    return torch.stack([*of_center, *of_conic, one / opacity.clamp_min(TINY)], 1)


def _features(splats: Tensor) -> Tensor:
    """What is summed: colour, depth and one. [t, 5, K]"""
    return torch.cat([splats[..., COLORS:].mT, torch.ones_like(splats[..., :1]).mT], 1)


def _pixel_basis(tile: int, like: Tensor) -> Tensor:
    """Monomials 1, u, v, u^2, u v, v^2 of the offsets of a tile's pixels from its middle. [tile * tile, 6]"""
    offset = torch.arange(tile, dtype=like.dtype, device=like.device) - (tile - 1) / 2
    v, u = (axis.flatten() for axis in torch.meshgrid(offset, offset, indexing="ij"))
    return torch.stack([torch.ones_like(u), u, v, u * u, u * v, v * v], 1)
