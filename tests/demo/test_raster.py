import time

import numpy as np
import pytest

from mouse_facelift.demo.animal import MousePose, MouseShape
from mouse_facelift.demo.mouse import mouse_mesh
from mouse_facelift.demo.raster import Fragments, rasterize, render_mesh
from mouse_facelift.geometry import Camera


def facing(width: int = 64, height: int = 48, focal: float = 50.0) -> Camera:
    """A camera at the origin that looks along +z, x right, y down."""
    K = [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]
    return Camera.from_rt(K, np.eye(3), np.zeros(3), width, height)


def at_pixels(camera: Camera, pixels: list[tuple[float, float]], depth: float | np.ndarray) -> np.ndarray:
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(camera.K).T
    return rays * np.broadcast_to(depth, len(pixels))[:, None]


def full(seen: Fragments, values: np.ndarray, camera: Camera) -> np.ndarray:
    """Values per sample on the whole picture of one sample a pixel."""
    picture = np.zeros((camera.height, camera.width))
    part = seen.image(values)
    picture[seen.top : seen.top + part.shape[0], seen.left : seen.left + part.shape[1]] = part
    return picture


QUAD = np.array([(0, 1, 2), (0, 2, 3)])


def test_a_quad_covers_the_pixels_whose_centres_it_holds() -> None:
    camera = facing()
    vertices = at_pixels(camera, [(10.4, 5.6), (20.6, 5.6), (20.6, 17.4), (10.4, 17.4)], 3.0)
    seen = rasterize(vertices, QUAD, camera)
    covered = full(seen, np.ones(len(seen.face)), camera)
    expected = np.zeros((48, 64))
    expected[6:17, 10:21] = 1
    np.testing.assert_array_equal(covered, expected)
    np.testing.assert_allclose(seen.depth, 3.0)
    np.testing.assert_allclose(seen.weights.sum(axis=1), 1.0)


def test_a_triangle_covers_its_area() -> None:
    camera = facing(200, 200)
    corners = [(13.2, 20.1), (180.7, 61.3), (60.9, 170.2)]
    seen = rasterize(at_pixels(camera, corners, (2.0, 3.0, 5.0)), np.array([(0, 1, 2)]), camera, samples=2)
    (ax, ay), (bx, by), (cx, cy) = corners
    area = 0.5 * abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay))
    assert abs(len(seen.face) / 4 - area) < 0.002 * area


def test_depth_of_a_slanted_plane_is_exact_at_pixel_centres() -> None:
    camera = facing()
    normal, distance = np.array((0.4, -0.2, 1.0)), 6.0
    corners = [(5.0, 4.0), (60.0, 6.0), (55.0, 44.0), (3.0, 40.0)]
    rays = at_pixels(camera, corners, 1.0)
    vertices = rays * (distance / (rays @ normal))[:, None]
    seen = rasterize(vertices, QUAD, camera)
    centres = np.column_stack([seen.column + seen.left + 0.5, seen.row + seen.top + 0.5])
    expected = distance / (at_pixels(camera, centres, 1.0) @ normal)
    np.testing.assert_allclose(seen.depth, expected, rtol=1e-10)
    points = np.einsum("mk,mkc->mc", seen.weights, vertices[QUAD[seen.face]])
    np.testing.assert_allclose(camera.project(points)[0], centres, atol=1e-9)


def test_neighbouring_triangles_leave_no_gap() -> None:
    camera = facing()
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(8, 56, 13), np.linspace(8, 40, 9))
    inner = (x > 8) & (x < 56) & (y > 8) & (y < 40)
    x, y = x + inner * rng.uniform(-1.5, 1.5, x.shape), y + inner * rng.uniform(-1.5, 1.5, x.shape)
    grid = np.arange(x.size).reshape(x.shape)
    faces = np.concatenate(
        [
            np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:]], -1).reshape(-1, 3),
            np.stack([grid[:-1, :-1], grid[1:, 1:], grid[1:, :-1]], -1).reshape(-1, 3),
        ]
    )
    vertices = at_pixels(camera, np.column_stack([x.ravel(), y.ravel()]), 4.0)
    seen = rasterize(vertices, faces, camera)
    covered = full(seen, np.ones(len(seen.face)), camera)
    assert covered[8:40, 8:56].all()
    assert covered.sum() == 32 * 48


def test_the_nearest_surface_wins_whatever_the_order() -> None:
    camera = facing()
    square = [(10, 10), (30, 10), (30, 30), (10, 30)]
    vertices = np.concatenate([at_pixels(camera, square, 5.0), at_pixels(camera, square, 2.0)])
    for faces in (np.concatenate([QUAD, QUAD + 4]), np.concatenate([QUAD + 4, QUAD])):
        seen = rasterize(vertices, faces, camera)
        np.testing.assert_allclose(seen.depth, 2.0)
        assert (faces[seen.face] >= 4).all()


def test_culling_drops_triangles_seen_from_behind() -> None:
    camera = facing()
    vertices = at_pixels(camera, [(10, 10), (30, 10), (30, 30)], 5.0)
    clockwise = np.array([(0, 1, 2)])
    assert len(rasterize(vertices, clockwise, camera, cull=True).face) == 0
    assert len(rasterize(vertices, clockwise[:, ::-1], camera, cull=True).face) > 0


@pytest.mark.parametrize("shift", [(200.0, 0, 0), (0, 0, -50.0)])
def test_a_mouse_out_of_sight_gives_an_empty_picture(shift) -> None:
    mesh = mouse_mesh(MouseShape(), MousePose.standing())
    moved = type(mesh)(**{**vars(mesh), "vertices": mesh.vertices * 0.01 + np.array((0, 0, 5.0)) + shift})
    picture = render_mesh(moved, facing())
    assert picture.alpha.max() == 0 and picture.rgb.shape == (48, 64, 3) and picture.depth.shape == (48, 64)


def test_a_picture_that_cuts_the_mouse_agrees_with_the_whole_one() -> None:
    mesh = mouse_mesh(MouseShape(), MousePose.standing())
    camera = Camera.look_at((250, 150, 60), (20, 0, 15), 300.0, (160, 120))
    whole = render_mesh(mesh, camera)
    cut_camera, _ = camera.affine(np.eye(2), (-70, -50), 60, 40)
    cut = render_mesh(mesh, cut_camera)
    for name in ("rgb", "alpha", "depth"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name)[50:90, 70:130], atol=1e-4)
    assert 0 < cut.alpha.mean() < 1


def test_alpha_depth_and_colour_of_a_rendered_mouse() -> None:
    mesh = mouse_mesh(MouseShape(), MousePose.standing())
    camera = Camera.look_at((0, 300, 20), (-10, 0, 20), 500.0, (320, 160))
    started = time.process_time()
    picture = render_mesh(mesh, camera)
    assert time.process_time() - started < 1.0
    assert set(np.unique(picture.alpha)) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    solid = picture.alpha == 1
    assert 270 < picture.depth[solid].min() < picture.depth[solid].max() < 330
    assert not picture.rgb[picture.alpha == 0].any()
    assert picture.rgb.dtype == np.float32 and picture.rgb.min() >= 0 and picture.rgb.max() <= 1
