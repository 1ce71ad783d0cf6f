"""From posed images to patches: nine conditioning channels, the published order, and which to keep."""

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from ..errors import DataError


def posed_images(rgb: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
    """Stack colour and ray into the model's nine input channels (facelift_spec 2.2).

    A ray is its direction and its point nearest the world origin, so the camera's distance plays no part.

    Args:
        rgb: In [0, 1]. [B, V, 3, H, W]
        origins: Camera centres, model units. [B, V, 3, H, W]
        directions: Unit length. [B, V, 3, H, W]

    Returns:
        Colour in [-1, 1], direction, nearest point. [B, V, 9, H, W]
    """
    along = (origins * directions).sum(dim=2, keepdim=True)
    return cat([2 * rgb - 1, directions, origins - along * directions], dim=2)


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images into patches, one vector each (facelift_spec 2.3).

    Args:
        images: [B, V, C, H, W]
        patch_size: Side p of a patch; divides H and W.

    Returns:
        [B, V * H/p * W/p, p * p * C], tokens ordered (view, patch row, patch column), values ordered
        (row in patch, column in patch, channel).

    Raises:
        DataError: H or W is not a multiple of p.
    """
    B, V, C, H, W = images.shape
    p = patch_size
    if H % p or W % p:
        raise DataError(
            f"images are {W}x{H} pixels, expected both to be multiples of the patch size {p}. Resize them."
        )
    patches = images.reshape(B, V, C, H // p, p, W // p, p)
    return patches.permute(0, 1, 3, 5, 4, 6, 2).reshape(B, V * (H // p) * (W // p), p * p * C)


def foreground_patches(alpha: Tensor, patch_size: int, margin: int, multiple: int) -> Tensor:
    """Choose the patches that see the animal, the same number in every sample of a batch.

    The largest need counts, rounded up; the others are filled with their nearest background patches (by
    city-block distance), so that attention needs no mask.

    Args:
        alpha: Silhouettes. [B, V, H, W]
        patch_size: Side p of a patch; divides H and W.
        margin: Patches kept around those with alpha above 0, in rings of eight neighbours.
        multiple: The number of patches is a multiple of this, or all patches.

    Returns:
        Indices into the tokens of `patchify`, ascending. [B, K]
    """
    covered = F.max_pool2d((alpha > 0).float(), patch_size)
    near = F.max_pool2d(covered, 2 * margin + 1, stride=1, padding=margin) > 0
    distance = _city_block_distance(near).flatten(1)
    needed = int(near.flatten(1).sum(dim=1).max())
    count = min(distance.shape[1], -(-needed // multiple) * multiple)
    return distance.argsort(dim=1, stable=True)[:, :count].sort(dim=1).values


def _city_block_distance(mask: Tensor) -> Tensor:
    """Steps to the nearest True in the same image; large where there is none. [..., H, W]"""
    height, width = mask.shape[-2:]
    distance = torch.where(mask, 0, 2 * (height + width))
    for axis, length in ((-1, width), (-2, height)):
        place = torch.arange(length, device=mask.device)
        place = place if axis == -1 else place[:, None]
        before = (distance - place).cummin(axis).values + place
        after = (distance + place).flip(axis).cummin(axis).values.flip(axis) - place
        distance = torch.minimum(before, after)
    return distance


class Patchify(nn.Module):
    """`patchify` as a layer."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, images: Tensor) -> Tensor:
        """[B, V, C, H, W] -> [B, V * H/p * W/p, p * p * C]."""
        return patchify(images, self.patch_size)
