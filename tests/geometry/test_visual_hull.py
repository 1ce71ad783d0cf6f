import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.visual_hull import carve, hull_silhouette_iou, mask_iou, reach, silhouette

CENTER = np.array([12.0, -8.0, 25.0])


def ring(size=(576, 512), focal=800.0, target=CENTER):
    angles = np.radians([0, 55, 120, 180, 245, 305])
    heights = [60, 140, 70, 60, 140, 150]
    centers = [(320 * np.cos(a), 320 * np.sin(a), z) for a, z in zip(angles, heights, strict=True)]
    return [Camera.look_at(center, target, focal, size) for center in centers]


def ball(camera, center, radius):
    """Exact mask of a sphere: pixels whose ray passes within `radius` of `center`."""
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(camera.K).T
    to_center = camera.R @ center + camera.t
    along = rays @ to_center / np.linalg.norm(rays, axis=-1)
    return to_center @ to_center - along**2 <= radius**2


@pytest.fixture(scope="module")
def sphere():
    views = ring()
    return [ball(camera, CENTER, 30.0) for camera in views], views


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
        parts = [ball(camera, point, 0.9) for point in tail]
        masks.append(np.any([ball(camera, CENTER, 20.0), *parts], axis=0))
    high = carve(masks, views, CENTER, 90.0, 1.5).bounds()[1]
    assert high[0] > CENTER[0] + 67


@pytest.mark.parametrize("cell", [1.5, 3.0, 5.0])
def test_silhouettes_of_consistent_views_agree(sphere, cell):
    """The exact hull of all views fills every mask: its overlap is 1, ours the documented bit less."""
    masks, views = sphere
    hull = carve(masks, views, CENTER + 0.4, 60.0, cell)
    iou = hull_silhouette_iou(hull, masks, views)
    assert iou.min() > 1 - 0.3 * cell / 30
    assert iou.mean() == pytest.approx(1 - 0.15 * cell / 30, abs=0.1 * cell / 30)


@pytest.mark.parametrize("cell", [1.5, 3.0])
def test_the_drawn_silhouette_is_neither_too_large_nor_too_small(sphere, cell):
    masks, views = sphere
    hull = carve(masks, views, CENTER + 0.4, 60.0, cell)
    for mask, camera in zip(masks, views, strict=True):
        drawn = silhouette(hull, camera)
        assert drawn.shape == mask.shape
        assert drawn.sum() / mask.sum() == pytest.approx(1, abs=0.006)
        np.testing.assert_array_equal(silhouette(hull, camera, 4), drawn[2::4, 2::4])


def test_silhouette_in_a_picture_of_no_view_is_the_shape_of_the_hull(sphere):
    """From the axis of a double cone of silhouettes the hull's true outline is known: here, of two views."""
    distance, radius = 2000.0, 30.0
    centers = CENTER + distance * np.array([[1.0, 0, 0], [0, 1.0, 0]])
    views = [Camera.look_at(center, CENTER, 12_000.0, (512, 512)) for center in centers]
    hull = carve([ball(view, CENTER, radius) for view in views], views, CENTER, 50.0, 1.5)
    above = Camera.look_at(CENTER + np.array([0, 0, distance]), CENTER, 12_000.0, (512, 512), up=(0, 1, 0))
    # Two far views along x and y leave, seen from above, nearly the square about the ball.
    expected = (2 * radius * 12_000 / distance) ** 2
    assert silhouette(hull, above).sum() == pytest.approx(expected, rel=0.03)


def test_overlap_with_a_moved_mask_is_that_of_two_discs(sphere):
    masks, views = sphere
    hull = carve(masks, views, CENTER, 60.0, 1.5)
    drawn = silhouette(hull, views[0])
    for shift in (0, 20, 60):
        moved = np.roll(masks[0], shift, axis=1)
        exact = (masks[0] & moved).sum() / (masks[0] | moved).sum()
        assert mask_iou(drawn, moved) == pytest.approx(exact, abs=0.008)


def test_a_silhouette_shows_only_what_the_camera_sees(sphere):
    hull = carve(*sphere, CENTER, 60.0, 1.5)
    away = Camera.look_at((300, 0, 60), (600, 0, 60), 800.0, (64, 48))
    assert not silhouette(hull, away).any()
    assert silhouette(hull, away, 5).shape == (9, 12)


def test_the_view_out_of_step_shows(sphere):
    masks, views = sphere
    masks = list(masks)
    masks[3] = ball(views[3], CENTER + np.array([0, 20.0, 0]), 30.0)
    iou = hull_silhouette_iou(carve(masks, views, CENTER, 60.0, 1.5), masks, views)
    assert iou.argmin() == 3
    assert iou[3] < 0.75


def test_masks_that_share_no_space_give_an_empty_hull(sphere):
    masks, views = sphere
    far = [ball(views[0], CENTER + np.array([0, 0, 80.0]), 15.0), *masks[1:]]
    hull = carve(far, views, CENTER, 60.0, 1.5)
    assert len(hull.cells) == 0
    assert (hull_silhouette_iou(hull, far, views) == 0).all()
    with pytest.raises(DataError, match="empty"):
        hull.bounds()


def test_animal_cut_by_one_picture_goes_on_outside_it():
    views = ring()
    views[0] = Camera.look_at(views[0].center, CENTER + np.array([0, 75.0, 0]), 800.0, (288, 512))
    masks = [ball(camera, CENTER, 30.0) for camera in views]
    assert masks[0][:, -1].any() or masks[0][:, 0].any()
    hull = carve(masks, views, CENTER, 60.0, 1.5)
    low, high = hull.bounds()
    np.testing.assert_allclose((high - low) / 2, 30, atol=5)


def test_space_outside_the_pictures_is_carved_when_the_animal_is_whole(sphere):
    masks, views = sphere
    hull = carve(masks, views, CENTER, 400.0, 3.0)
    assert np.linalg.norm(hull.cells - CENTER, axis=1).max() < 45


def test_bounds_do_not_follow_the_grid(sphere):
    """The grid starts at the search cube's centre; the animal does not move when that does."""
    centers = [carve(*sphere, CENTER + shift, 60.0, 3.0).center() for shift in np.linspace(0, 3, 7)]
    middles = []
    for shift in np.linspace(0, 3, 7):
        cells = carve(*sphere, CENTER + shift, 60.0, 3.0).cells
        middles.append((cells.min(0) + cells.max(0)) / 2)
    assert np.ptp(centers, axis=0).max() < 0.9
    assert np.ptp(centers, axis=0).max() < 0.6 * np.ptp(middles, axis=0).max()


def test_cells_know_how_deep_they_lie(sphere):
    hull = carve(*sphere, CENTER, 60.0, 1.5)
    depth = 30 - np.linalg.norm(hull.cells - CENTER, axis=1)
    assert hull.outside.max() <= 0.75
    assert (np.diff(hull.outside) <= 0).all()
    # The hull holds the ball, so no cell lies deeper in the ball than in the hull.
    assert (-hull.outside >= depth - 1.0).all()
    core = depth > 22
    np.testing.assert_allclose(-hull.outside[core], depth[core], atol=2.2)


def test_trimmed_bounds_leave_the_tail_out():
    views = ring((288, 256), 400.0)
    tail = CENTER + np.linspace(0, 1, 30)[:, None] * (70.0, 0, 0)
    masks = [
        np.any([ball(camera, CENTER, 20.0), *[ball(camera, point, 1.5) for point in tail]], axis=0)
        for camera in views
    ]
    hull = carve(masks, views, CENTER, 90.0, 1.5)
    assert hull.bounds()[1][0] > CENTER[0] + 69
    assert hull.bounds(0.03)[1][0] < CENTER[0] + 25


DETERMINISM = """
import hashlib, sys
import cv2
sys.path.insert(0, {tests!r})
from test_visual_hull import *
cv2.setNumThreads({threads})
views = ring()
masks = [ball(camera, CENTER, 30.0) for camera in views]
hull = carve(masks, views, CENTER + 0.3, 60.0, 1.5)
parts = [hull.cells, hull.outside, hull_silhouette_iou(hull, masks, views), silhouette(hull, views[0])]
print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


def test_result_is_the_same_for_any_number_of_threads():
    hashes = set()
    for threads in (1, 4):
        code = DETERMINISM.format(tests=str(Path(__file__).parent), threads=threads)
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        run = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        hashes.add(run.stdout)
    assert len(hashes) == 1


def test_reach_bounds_the_animal(sphere):
    for mask, camera in zip(*sphere, strict=True):
        assert 30 <= reach(mask, camera, CENTER) < 30 * 1.6


def test_speed_at_full_size():
    views = ring((1152, 1024), 1600.0)
    masks = [ball(camera, CENTER, 27.0) for camera in views]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        hull_silhouette_iou(carve(masks, views, CENTER, 120.0, 1.5), masks, views)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.2  # About 0.015 on one idle core; the limit only catches a change of order.
