"""From posed images to patch vectors and back: nine conditioning channels, the published patch order."""

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


def unpatchify(tokens: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """Undo `patchify`: values per pixel, such as those of the pixel Gaussians, become images.

    Args:
        tokens: [B, V * H/p * W/p, p * p * C]
        patch_size: Side p of a patch.
        height: H in pixels.
        width: W in pixels.

    Returns:
        [B, V, C, H, W]
    """
    p = patch_size
    patches = tokens.reshape(len(tokens), -1, height // p, width // p, p, p, tokens.shape[-1] // (p * p))
    return patches.permute(0, 1, 6, 2, 4, 3, 5).flatten(5).flatten(3, 4)


class Patchify(nn.Module):
    """`patchify` as a layer."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, images: Tensor) -> Tensor:
        """[B, V, C, H, W] -> [B, V * H/p * W/p, p * p * C]."""
        return patchify(images, self.patch_size)
