"""Which splats each tile of each image has to draw, in depth order: the integer half of rasterising."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .projection import NEAR, Splats

MIN_ALPHA = 1 / 255
"""A splat is not drawn where it would cover less than this."""


@dataclass(frozen=True)
class Rules:
    """Where rasterizers differ. Everything else (dilation, near plane, 1/255, 1e-4) is common.

    Attributes:
        max_alpha: A splat covers a pixel at most this much.
        tile: Side of the square tiles in pixels. A splat is evaluated in every pixel of the tiles it touches.
        three_sigma: A splat touches the tiles of its 3-sigma square, which cuts opaque ones off where their
            alpha is still above 1/255, instead of all tiles where it has an alpha of 1/255.
        symmetric_limits: See `project`.
    """

    max_alpha: float
    tile: int
    three_sigma: bool = False
    symmetric_limits: bool = False


GSPLAT = Rules(max_alpha=0.999, tile=4)
"""gsplat >= 1.5: its 16-pixel tiles cut nothing off; smaller ones give the same picture faster on a CPU."""

PUBLISHED = Rules(max_alpha=0.99, tile=16, three_sigma=True, symmetric_limits=True)
"""The rasterizer that the published FaceLift weights were trained with (Kerbl et al. 2023)."""


@dataclass(frozen=True)
class Grid:
    """The tiles of I images of one size, numbered image by image and row by row.

    Attributes:
        images: I.
        width: Image width in pixels.
        height: Image height in pixels.
        tile: Side of a tile in pixels.
    """

    images: int
    width: int
    height: int
    tile: int

    @property
    def columns(self) -> int:
        """Tiles in a row; the last may reach beyond the image."""
        return -(-self.width // self.tile)

    @property
    def rows(self) -> int:
        """Tiles in a column."""
        return -(-self.height // self.tile)

    @property
    def tiles(self) -> int:
        """Tiles in all images."""
        return self.images * self.rows * self.columns

    def centers(self, tiles: Tensor) -> Tensor:
        """Middle of tiles in pixels of their image. [T] -> [T, 2]"""
        within = tiles % (self.rows * self.columns)
        row = torch.div(within, self.columns, rounding_mode="floor")
        return (torch.stack([within - row * self.columns, row], -1) + 0.5) * self.tile

    def assemble(self, values: Tensor) -> Tensor:
        """Put the pixels of tiles together. [tiles, tile * tile, C] -> [I, C, H, W]"""
        channels, side = values.shape[-1], self.tile
        blocks = values.view(self.images, self.rows, self.columns, side, side, channels)
        images = blocks.permute(0, 5, 1, 3, 2, 4).reshape(
            self.images, channels, self.rows * side, self.columns * side
        )
        return images[..., : self.height, : self.width]


@dataclass(frozen=True)
class TileLists:
    """What to draw, tile by tile; tiles that draw nothing are left out and the longest lists come first.

    Attributes:
        splats: All lists one after another, near to far in each. [P] int64
        tiles: Tile number of each list. [T] int64
        starts: Where each list begins in `splats`. [T] int64
        counts: Its length, descending. [T] int64
    """

    splats: Tensor
    tiles: Tensor
    starts: Tensor
    counts: Tensor

    def chunks(self, budget: int, padding: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield groups of lists of similar length as rectangles of about `budget` entries.

        Args:
            budget: Entries per rectangle; a longer list comes alone.
            padding: Splat number that fills the lists up.

        Yields:
            Tile numbers [t] and their splats [t, length of the longest].
        """
        lengths = self.counts.tolist()
        first = 0
        while first < len(lengths):
            chunk = slice(first, first + max(1, budget // lengths[first]))
            place = torch.arange(lengths[first], device=self.splats.device)
            used = place < self.counts[chunk, None]
            entry = (self.starts[chunk, None] + place).clamp_max_(len(self.splats) - 1)
            yield self.tiles[chunk], torch.where(used, self.splats.take(entry), padding)
            first = chunk.stop


@torch.no_grad()
def list_tiles(splats: Splats, opacities: Tensor, grid: Grid, rules: Rules) -> TileLists:
    """Find the tiles that each splat touches.

    Args:
        splats: Projected Gaussians; they are numbered in the order of [B, V, N].
        opacities: [B, V, N]
        grid: The tiles of the B * V images.
        rules: What counts as touching.
    """
    count = opacities.shape[-1]
    radius = reach_px(splats, opacities, rules).flatten(0, 2)
    center = splats.center.flatten(0, 2)
    size = center.new_tensor([grid.width, grid.height])
    # First and last pixel whose centre is within the radius; the published rule rounds differently.
    lowest, highest = center - radius - 0.5, (center + radius - 0.5).floor()
    lowest, highest = (lowest.floor(), highest - 1) if rules.three_sigma else (lowest.ceil(), highest)
    lowest, highest = lowest.clamp_min(0), torch.minimum(highest, size - 1)
    drawn = (lowest <= highest).all(-1) & (splats.depth > NEAR).flatten() & (opacities >= MIN_ALPHA).flatten()
    # Scales of infinity, or so large that their squares are, would spoil every pixel.
    drawn &= splats.conic.isfinite().all(-1).flatten()
    visible = drawn.nonzero()[:, 0]
    visible = visible[_ascending(splats.depth.flatten()[visible])]

    first = (lowest[visible] / grid.tile).long()
    extent = (highest[visible] / grid.tile).long() - first + 1
    image = torch.div(visible, count, rounding_mode="floor")
    corner = (image * grid.rows + first[:, 1]) * grid.columns + first[:, 0]
    touched = extent.prod(-1)
    owner = torch.repeat_interleave(touched)
    within = torch.arange(len(owner), device=owner.device) - (touched.cumsum(0) - touched).take(owner)
    columns = extent[:, 0].take(owner)
    row = torch.div(within, columns, rounding_mode="floor")
    tile = corner.take(owner) + row * (grid.columns - columns) + within

    # Entries are in depth order, so a stable sort by tile leaves each list in depth order.
    order = torch.sort(tile.int(), stable=True).indices
    counts = torch.bincount(tile, minlength=grid.tiles)
    tiles = torch.argsort(counts, descending=True)[: int((counts > 0).sum())]
    return TileLists(
        visible.take(owner.take(order)), tiles, (counts.cumsum(0) - counts)[tiles], counts[tiles]
    )


def reach_px(splats: Splats, opacities: Tensor, rules: Rules) -> Tensor:
    """How far splats reach along x and y in pixels. [B, V, N, 2]"""
    xx, xy, yy = splats.covariance.unbind(-1)
    if rules.three_sigma:
        mean = (xx + yy) / 2
        largest = mean + (mean.square() - xx * yy + xy.square()).clamp_min(0.1).sqrt()
        return (3 * largest.sqrt()).ceil()[..., None].expand(*largest.shape, 2)
    reach = (2 * (opacities / MIN_ALPHA).clamp_min(1).log()).sqrt()
    return reach[..., None] * torch.stack([xx, yy], -1).sqrt()


def _ascending(depth: Tensor) -> Tensor:
    """Indices that sort positive floats; their bits sort like integers, which is several times faster."""
    bits = depth.contiguous().view(torch.int32 if depth.dtype == torch.float32 else torch.int64)
    return torch.sort(bits, stable=True).indices
