"""Rays agree with the camera model they come from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.rays import CameraBatch, pixel_rays, select_views


def batch(*cameras: Camera, dtype: torch.dtype = torch.float64) -> CameraBatch:
    K = torch.tensor(np.stack([camera.K for camera in cameras]), dtype=dtype)
    w2c = torch.tensor(np.stack([camera.w2c for camera in cameras]), dtype=dtype)
    return CameraBatch(K[None], w2c[None])


@settings(max_examples=40, deadline=None)
@given(
    center=st.tuples(*[st.floats(0.5, 4)] * 3),
    focal=st.floats(5, 500),
    aspect=st.floats(0.5, 2),
    principal=st.tuples(st.floats(-10, 30), st.floats(-10, 30)),
    skew=st.floats(-5, 5),
    depth=st.floats(0.1, 10),
)
def test_points_on_a_ray_project_to_its_pixel_centre(
    center: tuple[float, ...],
    focal: float,
    aspect: float,
    principal: tuple[float, float],
    skew: float,
    depth: float,
) -> None:
    height, width = 6, 9
    aimed = Camera.look_at(center, (0, 0, 0), focal, (width, height))
    K = np.array([[focal, skew, principal[0]], [0, focal * aspect, principal[1]], [0, 0, 1]])
    camera = Camera(K, aimed.w2c, width, height)
    cameras = batch(camera)

    origins, directions = pixel_rays(cameras.K, cameras.w2c, height, width)
    assert origins.shape == directions.shape == (1, 1, 3, height, width)
    np.testing.assert_allclose(directions.norm(dim=2), 1, atol=1e-12)
    np.testing.assert_allclose(origins[0, 0, :, 2, 3], camera.center, atol=1e-9)

    points = (origins + depth * directions)[0, 0].permute(1, 2, 0).numpy()
    pixels, depths = camera.project(points)
    v, u = np.mgrid[:height, :width] + 0.5
    assert (depths > 0).all()
    np.testing.assert_allclose(pixels, np.stack([u, v], axis=-1), atol=1e-6)


def test_rays_stay_float32_under_autocast() -> None:
    cameras = batch(Camera.look_at((2, 1, 1), (0, 0, 0), 20, (8, 8)), dtype=torch.float32)
    exact = pixel_rays(cameras.K.double(), cameras.w2c.double(), 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        origins, directions = pixel_rays(cameras.K, cameras.w2c, 8, 8)
    assert origins.dtype == directions.dtype == torch.float32
    torch.testing.assert_close(directions.double(), exact[1], atol=3e-7, rtol=0)
    torch.testing.assert_close(origins.double(), exact[0], atol=3e-7, rtol=0)


def test_views_are_chosen_per_sample() -> None:
    values = torch.arange(12).reshape(2, 3, 2)
    chosen = select_views(values, torch.tensor([[2, 0], [1, 1]]))
    assert chosen.tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]


def test_cameras_of_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(1, 2, 3, 3\).*\(1, 3, 4, 4\)"):
        CameraBatch(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 4, 4))
    with pytest.raises(DataError, match="expected \\[B, V, 3, 3\\]"):
        CameraBatch(torch.zeros(2, 3, 3), torch.zeros(2, 4, 4))
