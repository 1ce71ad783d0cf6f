import time

import numpy as np
import pytest

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.visual_hull import carve, hull_silhouette_iou, reach

CENTER = np.array([12.0, -8.0, 25.0])


def ring(size=(576, 512), focal=800.0, target=CENTER):
    angles = np.radians([0, 55, 120, 180, 245, 305])
    heights = [60, 140, 70, 60, 140, 150]
    centers = [(320 * np.cos(a), 320 * np.sin(a), z) for a, z in zip(angles, heights, strict=True)]
    return [Camera.look_at(center, target, focal, size) for center in centers]


def silhouette(camera, center, radius):
    """Exact mask of a sphere: pixels whose ray passes within `radius` of `center`."""
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(camera.K).T
    to_center = camera.R @ center + camera.t
    along = rays @ to_center / np.linalg.norm(rays, axis=-1)
    return to_center @ to_center - along**2 <= radius**2


@pytest.fixture(scope="module")
def sphere():
    views = ring()
    return [silhouette(camera, CENTER, 30.0) for camera in views], views


def test_hull_of_a_sphere_holds_the_sphere_and_little_more(sphere):
    hull = carve(*sphere, CENTER + 5, 60.0, 1.5)
    distance = np.linalg.norm(hull.cells - CENTER, axis=1)
    volume = len(hull.cells) * 1.5**3
    assert 4 / 3 * np.pi * 30**3 < volume < 1.3 * 4 / 3 * np.pi * 32**3
    assert distance.max() < 42
    low, high = hull.bounds()
    np.testing.assert_allclose((high - low) / 2, 30, atol=4.5)
    np.testing.assert_allclose(hull.center(), CENTER, atol=1.5)


def test_coarse_levels_lose_no_cell(sphere):
    """Every cell that a dense test keeps is kept by the octree."""
    masks, views = sphere
    octree = carve(masks, views, CENTER, 40.0, 2.5)
    dense = carve(masks, views, CENTER, 2.5 * 4, 2.5)  # One level: no coarse test at all.
    inside = np.abs(octree.cells - CENTER).max(1) < 10
    assert inside.sum() == len(dense.cells)


def test_thin_parts_survive():
    views = ring((288, 256), 400.0)
    tail = CENTER + np.linspace(0, 1, 50)[:, None] * (70.0, 0, 0)
    masks = []
    for camera in views:
        parts = [silhouette(camera, point, 0.9) for point in tail]
        masks.append(np.any([silhouette(camera, CENTER, 20.0), *parts], axis=0))
    high = carve(masks, views, CENTER, 90.0, 1.5).bounds()[1]
    assert high[0] > CENTER[0] + 67


def test_silhouettes_of_consistent_views_agree(sphere):
    hull = carve(*sphere, CENTER, 60.0, 1.5)
    assert hull_silhouette_iou(hull, *sphere).min() > 0.98


def test_the_view_out_of_step_shows(sphere):
    masks, views = sphere
    masks = list(masks)
    masks[3] = silhouette(views[3], CENTER + np.array([0, 20.0, 0]), 30.0)
    iou = hull_silhouette_iou(carve(masks, views, CENTER, 60.0, 1.5), masks, views)
    assert iou.argmin() == 3
    assert iou[3] < 0.75


def test_masks_that_share_no_space_give_an_empty_hull(sphere):
    masks, views = sphere
    far = [silhouette(views[0], CENTER + np.array([0, 0, 80.0]), 15.0), *masks[1:]]
    hull = carve(far, views, CENTER, 60.0, 1.5)
    assert len(hull.cells) == 0
    assert (hull_silhouette_iou(hull, far, views) == 0).all()
    with pytest.raises(DataError, match="empty"):
        hull.bounds()


def test_animal_cut_by_one_picture_goes_on_outside_it():
    views = ring()
    views[0] = Camera.look_at(views[0].center, CENTER + np.array([0, 75.0, 0]), 800.0, (288, 512))
    masks = [silhouette(camera, CENTER, 30.0) for camera in views]
    assert masks[0][:, -1].any() or masks[0][:, 0].any()
    hull = carve(masks, views, CENTER, 60.0, 1.5)
    low, high = hull.bounds()
    np.testing.assert_allclose((high - low) / 2, 30, atol=5)


def test_space_outside_the_pictures_is_carved_when_the_animal_is_whole(sphere):
    masks, views = sphere
    hull = carve(masks, views, CENTER, 400.0, 3.0)
    assert np.linalg.norm(hull.cells - CENTER, axis=1).max() < 45


def test_reach_bounds_the_animal(sphere):
    for mask, camera in zip(*sphere, strict=True):
        assert 30 <= reach(mask, camera, CENTER) < 30 * 1.6


def test_speed_at_full_size():
    views = ring((1152, 1024), 1600.0)
    masks = [silhouette(camera, CENTER, 27.0) for camera in views]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        carve(masks, views, CENTER, 120.0, 1.5)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5  # About 0.05 on one idle core; the limit only catches a change of order.
