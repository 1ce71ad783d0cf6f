"""Where views are seen from: rays in the reference camera's frame, the views' order, the nearest prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..errors import DataError
from ..geometry.rays import CameraBatch, pixel_rays, select_views
from .config import MAX_VIEWS, MIN_VIEWS

RAY_CHANNELS = 6


@dataclass(frozen=True, eq=False)
class PosedViews:
    """Pictures and everything that belongs to their cameras, so that all of it is reordered together.

    Attributes:
        rgba: Straight alpha, in [0, 1]; None where only cached encodings are at hand. [B, V, 4, S, S]
        K: Intrinsics in pixels at size S, half-pixel centres. [B, V, 3, 3]
        w2c: World-to-camera, model units. [B, V, 4, 4]
        view_ids: The recording's camera ids. [B, V]
    """

    rgba: Tensor | None
    K: Tensor
    w2c: Tensor
    view_ids: Tensor

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> "PosedViews":
        """The views of a collated batch of samples."""
        return cls(batch.get("rgba"), batch["K"], batch["w2c"], batch["view_ids"])

    @property
    def cameras(self) -> CameraBatch:
        """The cameras alone."""
        return CameraBatch(self.K, self.w2c)

    def reordered(self, order: Tensor) -> "PosedViews":
        """Some of the views, in another order. order: positions, chosen per object [B, k]"""
        rgba = None if self.rgba is None else select_views(self.rgba, order)
        return PosedViews(rgba, *(select_views(x, order) for x in (self.K, self.w2c, self.view_ids)))


def pose_rays(K: Tensor, w2c: Tensor, image_size: int, side: int) -> Tensor:
    """Pluecker coordinates of one ray per latent cell, in the frame of view 0's camera.

    As a network's input they are due to Sitzmann et al. 2021 (arXiv 2106.02634). The ray goes through the
    centre of the square of pixels that the cell stands for. Its moment o x d tells lines of one direction
    apart, wherever on the line o is. View 0's camera stands at the origin, so its own moments are 0, and
    nothing changes when the whole world is moved rigidly.

    Args:
        K: Intrinsics in pixels at `image_size`, half-pixel centres. [B, V, 3, 3]
        w2c: World-to-camera, rigid, OpenCV, in units of the model world. [B, V, 4, 4]
        image_size: Side of the pictures in pixels.
        side: Side of the latents in cells; h = w = side.

    Returns:
        Moment o x d, in units of the model world, then unit direction d. [B, V, 6, h, w], fp32
    """
    scaled = K.double().clone()
    scaled[..., :2, :] *= side / image_size
    origins, directions = pixel_rays(scaled, _from_reference(w2c), side, side)
    moments = torch.linalg.cross(origins, directions, dim=2)
    return torch.cat([moments, directions], dim=2).float()


def relative_azimuths_deg(w2c: Tensor) -> Tensor:
    """How far around the world's z axis each camera stands from view 0's, counter-clockwise from above.

    Args:
        w2c: World-to-camera, Z up, animal at the origin. [B, V, 4, 4]

    Returns:
        Degrees in [-180, 180), fp64. [B, V]
    """
    w2c = w2c.double()
    centers = -(w2c[..., :3, :3] * w2c[..., :3, 3:]).sum(dim=-2)
    azimuths = torch.atan2(centers[..., 1], centers[..., 0]).rad2deg()
    return _signed(azimuths - azimuths[:, :1])


def nearest_prompts(azimuths_deg: Tensor, bank_deg: Sequence[float]) -> Tensor:
    """The row of the prompt bank whose azimuth is nearest, going the shorter way round.

    Args:
        azimuths_deg: Relative azimuths of the views. [B, V]
        bank_deg: Relative azimuths that the rows of the bank were written for. [P]

    Returns:
        Rows, int64; of two equally near ones either. [B, V]
    """
    apart = azimuths_deg[..., None] - azimuths_deg.new_tensor(bank_deg)
    return _signed(apart).abs().argmin(dim=-1)


def draw_order(
    generator: Generator, objects: int, views: int, random_reference: bool, count: int | None
) -> Tensor:
    """Which views of each object a training step takes, its reference first.

    Views lie counter-clockwise around the ring; whichever is the reference, the others follow it in that
    sense. What is not random draws nothing.

    Args:
        generator: On the CPU.
        objects: B
        views: Views there are, V.
        random_reference: Draw the reference; otherwise it is view 0.
        count: Take the reference and as many others, drawn, that there are `count`; None takes all.

    Returns:
        Positions, ring order kept. [B, count]
    """
    order = torch.arange(views).expand(objects, views)
    if random_reference:
        order = (order + torch.randint(views, (objects, 1), generator=generator)) % views
    if count is not None and count < views:
        others = torch.rand((objects, views - 1), generator=generator).argsort(dim=1)[:, : count - 1] + 1
        kept = torch.cat([torch.zeros_like(others[:, :1]), others.sort(dim=1).values], dim=1)
        order = order.gather(1, kept)
    return order


def check_view_count(views: int, what: str) -> None:
    """Refuse numbers of views that pose conditioning is not made for.

    Args:
        views: How many there are.
        what: Who has them, for the message.

    Raises:
        DataError: fewer than MIN_VIEWS or more than MAX_VIEWS.
    """
    if not MIN_VIEWS <= views <= MAX_VIEWS:
        raise DataError(
            f"{what}: the number of views is {views}; MVDiffusion with poses takes {MIN_VIEWS} to "
            f"{MAX_VIEWS}, the reference included."
        )


def _from_reference(w2c: Tensor) -> Tensor:
    """The same cameras in the frame of view 0's; its own becomes the identity to the bit. [B, V, 4, 4]"""
    # In float64: autocast and TF32 leave it alone.
    w2c = w2c.double()
    R, t = w2c[..., :3, :3], w2c[..., :3, 3:]
    relative = torch.eye(4, dtype=w2c.dtype, device=w2c.device).expand_as(w2c).clone()
    relative[:, 1:, :3, :3] = R[:, 1:] @ R[:, :1].mT
    relative[:, 1:, :3, 3:] = t[:, 1:] - relative[:, 1:, :3, :3] @ t[:, :1]
    return relative


def _signed(degrees: Tensor) -> Tensor:
    return (degrees + 180) % 360 - 180
