"""Distances in millimetres, on a ball whose answers are known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from one_ball import FURTHER, RADIUS, UNIT_MM, ball_points, camera_at, write_ball

from mouse_facelift.errors import DataError
from mouse_facelift.evaluation.measure import animal_square, nearest_angle_deg, shifted
from mouse_facelift.evaluation.surface import Surface, chamfer_mm, depth_error_mm
from mouse_facelift.gaussians.rendering import Rendering
from mouse_facelift.samples.format import read_sample

SIZE = 128
BALL = Surface(torch.from_numpy(ball_points(20_000)).float(), UNIT_MM)


def cameras(*azimuths: float) -> tuple[torch.Tensor, torch.Tensor]:
    found = [camera_at(azimuth).resized(SIZE, SIZE)[0] for azimuth in azimuths]
    return tuple(
        torch.from_numpy(np.stack([getattr(camera, name) for camera in found])).float()
        for name in ("K", "w2c")
    )


def drawn(K: torch.Tensor, w2c: torch.Tensor, radius: float = RADIUS, shift: float = 0.0) -> Rendering:
    """A ball by ray tracing, its depth along the optical axis, and `shift` farther away."""
    y, x = torch.meshgrid(*[torch.arange(SIZE) + 0.5] * 2, indexing="ij")
    alphas, depths = [], []
    for k, matrix in zip(K, w2c, strict=True):
        rays = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ torch.linalg.inv(k).T
        center = matrix[:3, 3]
        a, b = rays.square().sum(-1), rays @ center
        inside = b.square() - a * (center @ center - radius**2)
        alphas.append((inside > 0).float())
        depths.append((b - inside.clamp_min(0).sqrt()) / a * (inside > 0) + shift * (inside > 0))
    alpha, depth = torch.stack(alphas)[:, None], torch.stack(depths)[:, None]
    return Rendering(alpha.expand(-1, 3, -1, -1), alpha, depth)


def one(picture: Rendering) -> Rendering:
    return Rendering(picture.rgb[0], picture.alpha[0], picture.depth[0])


def test_the_true_depth_has_no_error_and_a_shifted_one_its_shift() -> None:
    K, w2c = cameras(20)
    exact, moved = drawn(K, w2c), drawn(K, w2c, shift=0.1)
    alpha = exact.alpha[0]
    assert depth_error_mm(one(exact), alpha, K[0], w2c[0], BALL) < 0.4
    assert depth_error_mm(one(moved), alpha, K[0], w2c[0], BALL) == pytest.approx(0.1 * UNIT_MM, abs=0.4)


def test_the_back_of_the_ball_is_not_compared() -> None:
    K, w2c = cameras(20)
    # If hidden points counted, their depths, up to a diameter away, would dominate.
    assert (
        depth_error_mm(one(drawn(K, w2c)), drawn(K, w2c).alpha[0], K[0], w2c[0], BALL)
        < 0.05 * RADIUS * UNIT_MM
    )


def test_without_common_pixels_there_is_no_depth_error() -> None:
    K, w2c = cameras(20)
    picture = drawn(K, w2c)
    assert depth_error_mm(one(picture), torch.zeros(1, SIZE, SIZE), K[0], w2c[0], BALL) is None


def test_chamfer_of_the_ball_itself_is_small_and_of_a_larger_one_the_gap() -> None:
    K, w2c = cameras(0, 60, 120, 180, 240, 300)
    same, larger = drawn(K, w2c), drawn(K, w2c, radius=RADIUS * 1.2)
    # A side of the poles is seen by no camera of a level ring, hence not zero.
    assert chamfer_mm(same, K, w2c, BALL) < 0.6
    assert chamfer_mm(larger, K, w2c, BALL) == pytest.approx(0.2 * RADIUS * UNIT_MM, rel=0.15)


def test_nothing_rendered_has_no_chamfer() -> None:
    K, w2c = cameras(0)
    empty = Rendering(torch.ones(1, 3, SIZE, SIZE), *[torch.zeros(1, 1, SIZE, SIZE)] * 2)
    assert chamfer_mm(empty, K, w2c, BALL) is None


def test_a_surface_is_read_in_the_frame_of_its_sample(tmp_path: Path) -> None:
    folder = write_ball(tmp_path / "sample_000010", FURTHER, 10)
    np.savez(folder / "surface.npz", points_mm=np.array([[UNIT_MM, 0, 0]], np.float32))
    surface = Surface.read(read_sample(folder))
    assert surface.unit_mm == pytest.approx(UNIT_MM)
    assert surface.points[0].tolist() == pytest.approx([1, 0, 0])
    np.savez(folder / "surface.npz", points_mm=np.zeros((3, 2), np.float32))
    with pytest.raises(DataError, match=r"shape \(3, 2\)"):
        Surface.read(read_sample(folder))


def test_angles_to_the_nearest_camera() -> None:
    _, w2c = cameras(0, 30, 90, 180)
    found = nearest_angle_deg(w2c, w2c[[0, 3]])
    assert found[0].item() == pytest.approx(0, abs=1e-3)
    assert found[3].item() == pytest.approx(0, abs=1e-3)
    assert found[1].item() == pytest.approx(30, abs=0.2)
    assert found[2].item() == pytest.approx(90, abs=0.6)


def test_a_shifted_picture_keeps_its_background_at_the_edge() -> None:
    moved = shifted(torch.arange(3.0).expand(1, 3, 1, 3), 7)
    assert moved[0, 0, 0].tolist() == [7, 0, 1]


def test_the_square_for_lpips_holds_the_animal_and_stays_inside() -> None:
    alpha = torch.zeros(1, 200, 300)
    alpha[:, 190:200, 100:200] = 1
    rows, columns = animal_square(alpha)
    assert (rows.stop, rows.stop - rows.start, columns.stop - columns.start) == (200, 110, 110)
    assert columns.start <= 100 and columns.stop >= 200
    assert animal_square(torch.zeros(1, 8, 8)) == (slice(0, 8), slice(0, 8))
