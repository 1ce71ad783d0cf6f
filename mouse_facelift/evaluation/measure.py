"""What a reconstruction looks like from given cameras, measured against the truth there."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..gaussians import Gaussians
from ..gaussians.rendering import Rendering, render
from ..inference.inputs import Views
from ..metrics import boundary_distance, finite, outline_in_one_color, psnr, silhouette_iou, ssim
from ..samples.datasets import composite
from .error_split import split_error
from .surface import Surface, chamfer_mm, depth_error_mm

LPIPS_MARGIN = 0.1
LPIPS_SIDE = 64
"""Smallest square that LPIPS compares, in pixels."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""Of pairs of pictures in [0, 1]: [N, 3, H, W] twice -> [N]."""


class Measure:
    """Measures reconstructions of one sample.

    Args:
        views: All its views that are truth: real ones and those of further cameras.
        background: Grey level behind the animal.
        surface: The true surface, if it is known.
        lpips: The learned distance, if it is wanted.
    """

    def __init__(
        self, views: Views, background: float, surface: Surface | None = None, lpips: Distance | None = None
    ) -> None:
        assert views.K is not None and views.w2c is not None
        self.views, self.background, self.surface, self.lpips = views, background, surface, lpips
        self.K, self.w2c = views.K, views.w2c

    def __call__(
        self, gaussians: Gaussians, shown_ids: Sequence[int], measured_ids: Sequence[int]
    ) -> tuple[list[dict[str, float | None]], Tensor]:
        """Render and compare.

        Args:
            gaussians: The reconstruction, model units.
            shown_ids: Cameras whose views it was made from.
            measured_ids: Cameras to look from.

        Returns:
            The figures of `scores.DEFINITIONS` by measured camera, and the pictures. [M, 3, H, W]
        """
        at = [self.views.position(view_id) for view_id in measured_ids]
        shown = [self.views.position(view_id) for view_id in shown_ids]
        device, size = gaussians.means.device, self.views.rgba.shape[-1]
        # The surface is what all cameras see of it, whichever are measured.
        drawn = list(range(len(self.views.view_ids))) if self.surface else at
        K, w2c = self.K[drawn].to(device), self.w2c[drawn].to(device)
        everything = render(gaussians, K, w2c, size, size, self.background)
        picture = _chosen(everything, [drawn.index(view) for view in at])
        rgba = self.views.rgba[at].to(device)
        columns = self._pixels(picture.rgb, picture.alpha, rgba)
        columns["angle_deg"] = nearest_angle_deg(self.w2c[at], self.w2c[shown])
        rows = [{name: finite(value[index]) for name, value in columns.items()} for index in range(len(at))]
        if self.surface:
            whole = chamfer_mm(everything, K, w2c, self.surface)
            for index, (view, row) in enumerate(zip(at, rows, strict=True)):
                one = Rendering(picture.rgb[index], picture.alpha[index], picture.depth[index])
                cameras = self.K[view].to(device), self.w2c[view].to(device)
                row["depth_mm"] = depth_error_mm(one, rgba[index, 3:], *cameras, self.surface)
                row["chamfer_mm"] = whole
        return rows, picture.rgb

    def pictures(
        self, rgb: Tensor, alpha: Tensor, shown_ids: Sequence[int], measured_ids: Sequence[int]
    ) -> list[dict[str, float | None]]:
        """Compare pictures that were not rendered.

        Args:
            rgb: On the background, one for each measured camera. [M, 3, H, W]
            alpha: Their silhouettes. [M, 1, H, W]
            shown_ids: Cameras whose views they were made from.
            measured_ids: Where they are seen from.

        Returns:
            The figures that pixels decide, by measured camera.
        """
        at = [self.views.position(view_id) for view_id in measured_ids]
        shown = [self.views.position(view_id) for view_id in shown_ids]
        columns = self._pixels(rgb, alpha, self.views.rgba[at].to(rgb.device))
        columns["angle_deg"] = nearest_angle_deg(self.w2c[at], self.w2c[shown])
        return [{name: finite(value[index]) for name, value in columns.items()} for index in range(len(at))]

    def _pixels(self, rgb: Tensor, alpha: Tensor, rgba: Tensor) -> dict[str, Tensor]:
        """Figures that pixels alone decide, and those of the trivial predictions. [M] each"""
        real, true = composite(rgba, self.background), rgba[:, 3:]
        split = split_error(rgb, alpha, real, true)
        trivial = {
            "psnr_white_db": torch.ones_like(real),
            "psnr_outline_db": outline_in_one_color(rgba, self.background),
            "psnr_shift_db": shifted(real, self.background),
        }
        figures = {
            "psnr_animal_db": psnr(rgb, real, true),
            "psnr_full_db": psnr(rgb, real),
            "ssim_animal": ssim(rgb, real, true),
            "iou": silhouette_iou(alpha, true),
            "boundary_px": boundary_distance(alpha, true),
            "psnr_object_db": split.psnr_db,
            "error_missing": split.missing,
            "error_extra": split.extra,
            "error_colour": split.colour,
            **{name: psnr(prediction, real, true) for name, prediction in trivial.items()},
        }
        if self.lpips is not None:
            figures["lpips"] = self._lpips(rgb, real, true)
        return figures

    def _lpips(self, rgb: Tensor, real: Tensor, alpha: Tensor) -> Tensor:
        assert self.lpips is not None
        distances = []
        for one, truth, silhouette in zip(rgb, real, alpha, strict=True):
            rows, columns = animal_square(silhouette)
            pair = (picture[None, :, rows, columns].clamp(0, 1) for picture in (one, truth))
            distances.append(self.lpips(*pair))
        return torch.cat(distances)


def nearest_angle_deg(w2c: Tensor, shown: Tensor) -> Tensor:
    """Angle at the origin between each camera and the nearest of those that were shown.

    Args:
        w2c: World-to-camera, the animal at the origin. [V, 4, 4]
        shown: Likewise. [S, 4, 4]

    Returns:
        Degrees. [V]
    """
    one, other = _directions(w2c), _directions(shown)
    # The length of the cross product is exact where the cosine is not: at 0 and 180 degrees.
    crossed = torch.linalg.cross(
        one[:, None].expand(-1, len(other), -1), other[None].expand(len(one), -1, -1)
    )
    angles = torch.atan2(crossed.norm(dim=-1), one @ other.T)
    return angles.amin(dim=1).rad2deg()


def shifted(pictures: Tensor, background: float) -> Tensor:
    """Pictures moved by one pixel to the right. [V, 3, H, W]"""
    moved = pictures.roll(1, dims=-1)
    moved[..., 0] = background
    return moved


def animal_square(silhouette: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the square that LPIPS compares: about the animal's box, inside the picture.

    Args:
        silhouette: [1, H, W]
    """
    height, width = silhouette.shape[-2:]
    y, x = torch.nonzero(silhouette[0] > 0.5, as_tuple=True)
    if not len(x):
        return slice(0, height), slice(0, width)
    box = [(int(axis.min()), int(axis.max()) + 1) for axis in (y, x)]
    side = max(LPIPS_SIDE, round((1 + LPIPS_MARGIN) * max(high - low for low, high in box)))
    rows, columns = (
        _window(low, high, side, length) for (low, high), length in zip(box, (height, width), strict=True)
    )
    return rows, columns


def _window(low: int, high: int, side: int, length: int) -> slice:
    side = min(side, length)
    start = min(max(0, (low + high - side) // 2), length - side)
    return slice(start, start + side)


def _directions(w2c: Tensor) -> Tensor:
    """Unit vectors from the origin to the cameras, in double precision. [V, 3]"""
    matrix = w2c.double()
    centers = -(matrix[:, :3, :3].mT @ matrix[:, :3, 3:])[..., 0]
    return centers / centers.norm(dim=-1, keepdim=True)


def _chosen(picture: Rendering, at: Sequence[int]) -> Rendering:
    index = list(at)
    return Rendering(picture.rgb[index], picture.alpha[index], picture.depth[index])
