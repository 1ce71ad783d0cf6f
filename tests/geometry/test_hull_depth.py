"""The hull of a sphere seen by six cameras is known: the ray enters the cone of every other silhouette."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mouse_facelift.geometry import Camera, Similarity
from mouse_facelift.geometry.hull_depth import BISECTIONS, first_hull_depth
from mouse_facelift.geometry.rays import CameraBatch, pixel_rays

SIZE = 48
RADIUS = 0.5
REACH, SAMPLES = 1.8, 96
STEP = 2 * REACH / (SAMPLES - 1)
DISTANCE = 2.7
PIXEL = DISTANCE / (1.07 * SIZE)
"""Width of a pixel at the origin."""

AZIMUTHS, ELEVATIONS = np.radians([[0, 60, 120, 180, 240, 300], [0, 30, -20, 10, 45, -10]])
DIRECTIONS = [
    np.cos(AZIMUTHS) * np.cos(ELEVATIONS),
    np.sin(AZIMUTHS) * np.cos(ELEVATIONS),
    np.sin(ELEVATIONS),
]
CENTERS = DISTANCE * np.stack(DIRECTIONS, axis=1)


def look_at(center: np.ndarray, focal: float = 1.07 * SIZE) -> Camera:
    return Camera.look_at(center, (0, 0, 0), focal, SIZE)


def disc(camera: Camera) -> Tensor:
    """The exact silhouette of the sphere, pixel centres tested by their rays. [H, W]"""
    origins, directions = rays(batch([camera]))
    miss = torch.linalg.cross(origins.double(), directions.double(), dim=2).norm(dim=2)
    return (miss[0, 0] < RADIUS).float()


def batch(cameras: list[Camera]) -> CameraBatch:
    K, w2c = (
        torch.from_numpy(np.stack([getattr(camera, name) for camera in cameras])).float()[None]
        for name in ("K", "w2c")
    )
    return CameraBatch(K, w2c)


def rays(cameras: CameraBatch) -> tuple[Tensor, Tensor]:
    return pixel_rays(cameras.K, cameras.w2c, SIZE, SIZE)


def depths(alpha: Tensor, cameras: list[Camera], samples: int = SAMPLES) -> Tensor:
    """[V, H, W] -> [V, H, W]."""
    return first_hull_depth(alpha[None], batch(cameras), *rays(batch(cameras)), REACH, samples)[0]


def analytic_entry(cameras: list[Camera], chosen: Tensor) -> Tensor:
    """Where rays enter the intersection of the sphere's viewing cones; NaN where they never are inside.

    A point is in the cone of a camera at C if its angle from the axis is below asin(RADIUS / |C|). Found on a
    fine grid in float64; pixels play no part. chosen: [V, H, W] bool -> [N]
    """
    origins, directions = (values[0].double().movedim(1, -1)[chosen] for values in rays(batch(cameras)))
    distances = torch.linspace(1.5, 3.9, 1201, dtype=torch.float64)
    points = origins[:, None] + distances[:, None] * directions[:, None]
    inside = torch.ones(points.shape[:-1], dtype=torch.bool)
    for camera in cameras:
        center = torch.from_numpy(camera.center)
        offset = points - center
        cosine = (offset @ -center) / (offset.norm(dim=-1) * center.norm())
        inside &= cosine > np.sqrt(1 - (RADIUS / float(center.norm())) ** 2)
    return torch.where(inside.any(-1), distances[inside.long().argmax(-1)], torch.nan)


@pytest.fixture(scope="module")
def cameras() -> list[Camera]:
    return [look_at(center) for center in CENTERS]


@pytest.fixture(scope="module")
def alpha(cameras: list[Camera]) -> Tensor:
    return torch.stack([disc(camera) for camera in cameras])


@pytest.fixture(scope="module")
def found(alpha: Tensor, cameras: list[Camera]) -> Tensor:
    return depths(alpha, cameras)


def test_entry_lies_in_front_of_the_true_surface(found: Tensor, cameras: list[Camera]) -> None:
    origins, directions = (values[0].double() for values in rays(batch(cameras)))
    miss = torch.linalg.cross(origins, directions, dim=1).norm(dim=1)
    # Not at the rim, where half a pixel of silhouette moves the surface along the ray without limit.
    known = found.isfinite() & (miss < 0.85 * RADIUS)
    surface = -(origins * directions).sum(1) - (RADIUS**2 - miss.square()).clamp_min(0).sqrt()
    assert known.sum() > 1000
    assert (found <= surface + PIXEL)[known].all()
    assert (found - surface)[known].mean() < 0


def test_entry_is_that_of_the_analytic_hull(found: Tensor, cameras: list[Camera]) -> None:
    chosen = found.isfinite()
    error = found[chosen] - analytic_entry(cameras, chosen)
    assert error.isfinite().all()
    assert error.median().abs() < 0.2 * PIXEL
    assert error.abs().quantile(0.9) < PIXEL
    # Where a cone is cut at a grazing angle, half a pixel of silhouette moves the entry far.
    assert error.abs().max() < 6 * PIXEL


def test_found_points_project_into_every_silhouette(
    found: Tensor, alpha: Tensor, cameras: list[Camera]
) -> None:
    origins, directions = (values[0].movedim(1, -1) for values in rays(batch(cameras)))
    points = (origins + found[..., None] * directions)[found.isfinite()].double().numpy()
    assert len(points) > 1000
    for camera, silhouette in zip(cameras, alpha, strict=True):
        pixels, depth = camera.project(points)
        # Float32 may put a point on the other side of a pixel border: look a little around it.
        shown = [
            silhouette[tuple(np.floor(pixels + shift).astype(int).T[::-1])].numpy()
            for shift in ([1e-3, 1e-3], [-1e-3, -1e-3], [1e-3, -1e-3], [-1e-3, 1e-3])
        ]
        assert (depth > 0).all()
        assert np.any(shown, axis=0).all()


def test_background_pixels_have_no_depth(found: Tensor, alpha: Tensor) -> None:
    assert found[alpha == 0].isnan().all()
    assert found[alpha == 1].isfinite().double().mean() > 0.97


def test_rays_that_miss_the_others_silhouettes_have_no_depth(alpha: Tensor, cameras: list[Camera]) -> None:
    stray = alpha.clone()
    stray[0, 1:4, 1:4] = 1
    assert depths(stray, cameras)[0, 1:4, 1:4].isnan().all()


def test_empty_silhouettes_give_no_depth(cameras: list[Camera]) -> None:
    assert depths(torch.zeros(6, SIZE, SIZE), cameras).isnan().all()


def test_alpha_counts_as_animal_above_one_half(alpha: Tensor, cameras: list[Camera], found: Tensor) -> None:
    torch.testing.assert_close(depths(0.6 * alpha, cameras), found, equal_nan=True, rtol=0, atol=0)
    assert depths(0.5 * alpha, cameras).isnan().all()


def test_more_samples_change_the_entry_by_no_more_than_the_bisected_step(
    alpha: Tensor, cameras: list[Camera], found: Tensor
) -> None:
    fine = depths(alpha, cameras, samples=8 * SAMPLES)
    both = found.isfinite() & fine.isfinite()
    difference = (found - fine)[both]
    assert (difference.abs() < 1.1 * STEP / 2**BISECTIONS).double().mean() > 0.9
    assert (difference > -STEP / 2**BISECTIONS).all()


def test_view_that_does_not_see_a_point_has_no_say(alpha: Tensor, cameras: list[Camera]) -> None:
    away = Camera.look_at(CENTERS[5], 2 * CENTERS[5], 1.07 * SIZE, SIZE)
    without = depths(alpha[:5], cameras[:5])
    blind = torch.cat([alpha[:5], torch.zeros(1, SIZE, SIZE)])
    torch.testing.assert_close(depths(blind, [*cameras[:5], away])[:5], without, equal_nan=True)


@pytest.mark.parametrize(("blind", "finds"), [(2, True), (3, False)])
def test_more_than_half_of_the_views_must_see_a_point(
    alpha: Tensor, cameras: list[Camera], blind: int, finds: bool
) -> None:
    seeing = len(CENTERS) - blind
    turned = [Camera.look_at(center, 2 * center, 1.07 * SIZE, SIZE) for center in CENTERS[seeing:]]
    silhouettes = torch.cat([alpha[:seeing], torch.zeros(blind, SIZE, SIZE)])
    assert bool(depths(silhouettes, [*cameras[:seeing], *turned]).isfinite().any()) is finds


def test_opposite_cameras_do_not_make_hull_of_the_air_before_them() -> None:
    """Just before a camera, the cameras at its sides see nothing and the opposite one sees animal."""
    cross = [
        look_at(DISTANCE * np.array(center)) for center in ([1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0])
    ]
    found = depths(torch.stack([disc(camera) for camera in cross]), cross)
    assert found[found.isfinite()].min() > DISTANCE - 2 * RADIUS


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(6)))
def test_order_of_the_views_does_not_matter(order: list[int]) -> None:
    cameras = [look_at(center) for center in CENTERS]
    alpha = torch.stack([disc(camera) for camera in cameras])
    permuted = depths(alpha[order], [cameras[i] for i in order])
    torch.testing.assert_close(permuted, depths(alpha, cameras)[order], equal_nan=True, rtol=0, atol=1e-6)


@settings(max_examples=5, deadline=None)
@given(angle=st.floats(-3.1, 3.1))
def test_turning_the_world_about_its_axis_changes_no_depth(angle: float) -> None:
    cameras = [look_at(center) for center in CENTERS]
    alpha = torch.stack([disc(camera) for camera in cameras])
    c, s = np.cos(angle), np.sin(angle)
    turn = Similarity(1.0, np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), np.zeros(3))
    before, after = depths(alpha, cameras), depths(alpha, [camera.similarity(turn) for camera in cameras])
    assert (before.isfinite() == after.isfinite()).double().mean() > 0.999
    both = before.isfinite() & after.isfinite()
    # Rounding decides points on a pixel's border the other way; those few move by up to a pixel.
    assert ((before - after)[both].abs() < 1e-4).double().mean() > 0.95


def test_scenes_of_a_batch_do_not_mix(alpha: Tensor, cameras: list[Camera], found: Tensor) -> None:
    other = [look_at(1.2 * center) for center in CENTERS]
    silhouettes = torch.stack([torch.stack([disc(camera) for camera in other]), alpha])
    both = CameraBatch(*(torch.cat([getattr(batch(c), n) for c in (other, cameras)]) for n in ("K", "w2c")))
    result = first_hull_depth(silhouettes, both, *rays(both), REACH, SAMPLES)
    torch.testing.assert_close(result[1], found, equal_nan=True)


def test_nothing_behind_the_camera_is_found_although_the_search_reaches_there() -> None:
    near = [Camera.look_at(0.4 * c / DISTANCE, (0, 0, 0), 0.3 * SIZE, SIZE) for c in CENTERS]
    found = depths(torch.ones(len(near), SIZE, SIZE), near)
    assert found.isfinite().any()
    assert (found[found.isfinite()] > 0).all()


def test_one_view_alone_has_no_hull() -> None:
    camera = look_at(CENTERS[0])
    assert depths(disc(camera)[None], [camera]).isnan().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_kernel_gives_what_the_operators_give() -> None:
    size, rig = 96, []
    for angle in (0.1, 1.2, 2.2, 3.4, 4.4, 5.5):
        center = (2.7 * np.cos(angle), 2.7 * np.sin(angle), 0.4)
        rig.append(Camera.look_at(center, (0, 0, 0), 103.0, size))
    K, w2c = (
        torch.tensor([x.tolist() for x in values], dtype=torch.float32)[None]
        for values in ([camera.K for camera in rig], [camera.w2c for camera in rig])
    )
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    alpha = ((x - 50) ** 2 / 900 + (y - 46) ** 2 / 500 < 1).float().expand(1, 6, size, size).contiguous()
    found = []
    for device in ("cpu", "cuda"):
        cameras = CameraBatch(K, w2c).to(device)
        rays = pixel_rays(cameras.K, cameras.w2c, size, size)
        found.append(first_hull_depth(alpha.to(device), cameras, *rays, 1.8, 96).cpu())
    cpu, cuda = found
    assert (cpu.isnan() == cuda.isnan()).float().mean() > 0.999
    both = ~cpu.isnan() & ~cuda.isnan()
    # A sample on an outline may fall to either side by rounding.
    assert ((cpu - cuda).abs()[both] < 1e-3).float().mean() > 0.98
