"""`first_hull_depth` as one CUDA kernel: a ray walks until it enters the hull; nothing is stored between."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .hull_depth import BISECTIONS

BLOCK = 128
"""Rays per program; neighbours in the picture, which enter the hull at about the same step."""


def first_entry(
    silhouettes: Tensor, projections: Tensor, origins: Tensor, directions: Tensor, radius: float, samples: int
) -> Tensor:
    """See `hull_depth.first_hull_depth`, which gives the same up to rounding.

    Args:
        silhouettes: Whether a pixel shows the animal; bool, contiguous. [B, V, H, W]
        projections: `K [R | t]` of every view. [B, V, 3, 4]
        origins: Of the pixels' rays. [B, V, 3, H, W]
        directions: Unit length. [B, V, 3, H, W]
        radius: How far a ray is searched on both sides of its point nearest the world origin.
        samples: Points tested along it.

    Returns:
        [B, V, H, W]; NaN where there is none.
    """
    scenes, views, height, width = silhouettes.shape
    depth = torch.full(silhouettes.shape, torch.nan, device=silhouettes.device)
    grid = triton.cdiv(views * height * width, BLOCK), scenes
    with torch.cuda.device(silhouettes.device):
        _first_entry[grid](
            silhouettes.view(torch.uint8),
            projections.contiguous(),
            origins.contiguous(),
            directions.contiguous(),
            depth,
            height,
            width,
            -radius,
            2 * radius / (samples - 1),
            samples,
            views,
            BISECTIONS=BISECTIONS,
            BLOCK=BLOCK,
        )
    return depth


@triton.jit
def _inside(
    x,
    y,
    z,
    t,
    active,
    silhouettes,
    projections,
    height,
    width,
    VIEWS: tl.constexpr,
):
    """Whether every view that sees the points shows the animal there, and more than half see them."""
    inside = active & (t > 0)
    votes = tl.zeros_like(x).to(tl.int32)
    for view in tl.static_range(VIEWS):
        p = projections + 12 * view
        u = tl.load(p) * x + tl.load(p + 1) * y + tl.load(p + 2) * z + tl.load(p + 3)
        v = tl.load(p + 4) * x + tl.load(p + 5) * y + tl.load(p + 6) * z + tl.load(p + 7)
        w = tl.load(p + 8) * x + tl.load(p + 9) * y + tl.load(p + 10) * z + tl.load(p + 11)
        column, row = tl.floor(u / w), tl.floor(v / w)
        seen = (w > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        place = row.to(tl.int32) * width + column.to(tl.int32)
        shown = tl.load(silhouettes + view * height * width + place, mask=seen & inside, other=0)
        inside = inside & ((shown != 0) | (seen == 0))
        votes += seen.to(tl.int32)
    return inside & (votes > 1) & (2 * votes > VIEWS)


@triton.jit
def _first_entry(
    silhouettes,
    projections,
    origins,
    directions,
    depth,
    height,
    width,
    start,
    step,
    samples,
    VIEWS: tl.constexpr,
    BISECTIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    pixels = height * width
    ray = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    silhouettes += tl.program_id(1).to(tl.int64) * VIEWS * pixels
    projections += tl.program_id(1) * VIEWS * 12
    active = tl.load(silhouettes + ray, mask=ray < VIEWS * pixels, other=0) != 0
    if tl.sum(active.to(tl.int32)) == 0:
        return
    place = tl.program_id(1).to(tl.int64) * VIEWS * 3 * pixels + (ray // pixels) * 3 * pixels + ray % pixels
    ox = tl.load(origins + place, mask=active, other=0.0)
    oy = tl.load(origins + place + pixels, mask=active, other=0.0)
    oz = tl.load(origins + place + 2 * pixels, mask=active, other=0.0)
    dx = tl.load(directions + place, mask=active, other=0.0)
    dy = tl.load(directions + place + pixels, mask=active, other=0.0)
    dz = tl.load(directions + place + 2 * pixels, mask=active, other=0.0)
    first = start - (ox * dx + oy * dy + oz * dz)

    entry = tl.zeros_like(ox)
    waiting = active
    count = 0
    while (count < samples) & (tl.sum(waiting.to(tl.int32)) > 0):
        t = first + count * step
        hit = _inside(
            ox + t * dx, oy + t * dy, oz + t * dz, t, waiting, silhouettes, projections, height, width, VIEWS
        )
        entry = tl.where(hit, t, entry)
        waiting = waiting & (hit == 0)
        count += 1

    found = active & (waiting == 0)
    before = entry - step
    for _ in tl.static_range(BISECTIONS):
        t = (before + entry) / 2
        hit = _inside(
            ox + t * dx, oy + t * dy, oz + t * dz, t, found, silhouettes, projections, height, width, VIEWS
        )
        entry = tl.where(hit, t, entry)
        before = tl.where(hit, before, t)
    tl.store(depth + tl.program_id(1).to(tl.int64) * VIEWS * pixels + ray, entry, mask=found)
