import numpy as np
import pytest
import torch

from mouse_facelift.errors import DataError
from mouse_facelift.gaussians import render
from mouse_facelift.gaussians.hull_start import hull_start
from mouse_facelift.geometry import Camera
from mouse_facelift.metrics import silhouette_iou

SIZE = 64


def ball_views(radius: float = 0.4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A ball, red where x > 0 and blue elsewhere, seen by eight cameras."""
    rgba, cameras = [], []
    for number in range(8):
        angle = 2 * np.pi * number / 8
        height = 1.2 if number % 2 else -0.6
        center = np.array([2.5 * np.cos(angle), 2.5 * np.sin(angle), height])
        camera = Camera.look_at(center, (0, 0, 0), 1.1 * SIZE, SIZE)
        rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
        pixels = np.stack([columns, rows, np.ones_like(rows)], -1)
        ways = pixels @ np.linalg.inv(camera.K).T @ camera.R
        ways /= np.linalg.norm(ways, axis=-1, keepdims=True)
        along = ways @ center
        below = along**2 - (center @ center - radius**2)
        hit = center + (-along - np.sqrt(below.clip(0)))[..., None] * ways
        picture = np.ones((SIZE, SIZE, 4))
        picture[..., :3] = np.where(hit[..., :1] > 0, (0.9, 0.1, 0.1), (0.1, 0.1, 0.9))
        picture[..., 3] = below > 0
        rgba.append(picture)
        cameras.append(camera)
    K, w2c = (np.stack([getattr(camera, name) for camera in cameras]) for name in ("K", "w2c"))
    pictures = torch.from_numpy(np.stack(rgba)).permute(0, 3, 1, 2).float()
    return pictures, torch.from_numpy(K).float(), torch.from_numpy(w2c).float()


def test_it_fills_the_silhouettes_with_the_colours_that_are_seen() -> None:
    rgba, K, w2c = ball_views()
    start = hull_start(rgba, K, w2c)
    assert (start.scales == start.scales[0, 0]).all()
    drawn = render(start, K, w2c, SIZE, SIZE)
    assert silhouette_iou(drawn.alpha, rgba[:, 3:]).min() > 0.85
    far = start.means[:, 0].abs() > 0.15
    red = start.rgb[:, 0] > start.rgb[:, 2]
    assert (red == (start.means[:, 0] > 0))[far].float().mean() > 0.95


def test_finer_cells_make_more_gaussians() -> None:
    views = ball_views()
    assert len(hull_start(*views, cell_px=1.0)) > 1.5 * len(hull_start(*views, cell_px=2.0))


def test_silhouettes_that_share_no_space_are_refused() -> None:
    rgba, K, w2c = ball_views(radius=0.1)
    rgba[0] = rgba[0].roll(20, dims=-1)
    with pytest.raises(DataError, match="no point of space"):
        hull_start(rgba, K, w2c)


def test_a_camera_that_looks_away_is_refused() -> None:
    rgba, K, w2c = ball_views()
    w2c[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])) @ w2c[0]
    with pytest.raises(DataError, match="looks away"):
        hull_start(rgba, K, w2c)
