"""Scale, orientation and virtual cameras."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mouse_facelift.errors import ConfigError
from mouse_facelift.geometry import Camera, Similarity
from mouse_facelift.preprocess.config import GeometryConfig
from mouse_facelift.preprocess.normalize import (
    HALF_FIELD,
    IMAGE_MARGIN,
    aim,
    azimuth_order,
    choose_framing,
    choose_up,
    normalized_view,
)
from mouse_facelift.preprocess.warp import View

CENTER = np.array([60.0, 40, 20])
Z = np.array([0.0, 0, 1])


def source_camera():
    camera = Camera.look_at((350, -40, 130), (40, 60, 30), 800.0, (576, 512))
    return Camera(camera.K + np.array([[0, 0, 20.5], [0, 3, -11], [0, 0, 0]]), camera.w2c, 576, 512)


def source_view():
    camera = source_camera()
    alpha = np.zeros((512, 576), np.float32)
    u, v = np.round(camera.project(CENTER)[0]).astype(int)
    alpha[v - 60 : v + 60, u - 40 : u + 40] = 1
    return View(np.full((512, 576, 3), 80, np.uint8), alpha, camera)


def blank(camera):
    size = camera.height, camera.width
    return View(np.zeros((*size, 3), np.uint8), np.zeros(size, np.float32), camera)


def observation(half_extent, center=CENTER, frame=0):
    corners = np.stack(np.meshgrid(*[(-1, 1)] * 3), -1).reshape(-1, 3) * half_extent
    return SimpleNamespace(frame=frame, outline=np.asarray(center) + corners)


def framing_of(items, cameras, **values):
    config = GeometryConfig(**values)
    centers = np.stack([item.outline.mean(0) for item in items])
    return choose_framing(config, items, centers, cameras, choose_up(config, cameras)[0])


def ring(count, height=80.0, up=Z, radius=320.0, shift=0.2):
    """Cameras about the origin, of different sizes; `up` is up in their world."""
    turn = turn_to(up)
    cameras = []
    for index, angle in enumerate(shift + np.arange(count) * 2 * np.pi / count):
        place = np.array([radius * np.cos(angle), radius * np.sin(angle), height])
        size = [(576, 512), (640, 480), (400, 600)][index % 3]
        cameras.append(Camera.look_at(turn @ place, (0, 0, 0), 700.0 + 20 * index, size, up))
    return cameras


def turn_to(up):
    """A rotation that takes Z to `up`."""
    up = np.asarray(up, float) / np.linalg.norm(up)
    if np.array_equal(up, Z):
        return np.eye(3)
    side = np.cross(up, (0.3, 0.5, 0.8))
    side /= np.linalg.norm(side)
    return np.stack([side, np.cross(up, side), up], axis=1)


FAR = [Camera.look_at(CENTER + 3000 * np.array(d), CENTER, 800, 512) for d in ((1, 0, 0), (0, 1, 0.2))]
"""So far away that no picture is the limit."""


# Which way is up


def test_world_with_z_up_is_left_exactly_as_it_is():
    rotation, text = choose_up(GeometryConfig(), ring(6))
    np.testing.assert_array_equal(rotation, np.eye(3))
    assert text.startswith("up is z, 0.0 degrees")


@pytest.mark.parametrize("name", ["x", "y", "z", "-x", "-y", "-z"])
@pytest.mark.parametrize("told", [True, False])
def test_any_axis_can_be_up_and_gives_a_signed_permutation(name, told):
    axis = np.zeros(3)
    axis["xyz".index(name[-1])] = -1 if name.startswith("-") else 1
    rotation, text = choose_up(GeometryConfig(up=name if told else "auto"), ring(5, up=axis, height=150))
    assert f"up is {name}," in text
    np.testing.assert_array_equal(rotation @ axis, Z)
    np.testing.assert_array_equal(np.abs(rotation).sum(0), (1, 1, 1))
    np.testing.assert_array_equal(rotation, np.round(rotation))
    assert np.linalg.det(rotation) == 1


def test_auto_takes_the_mean_up_where_no_axis_is_near():
    up = np.array([1.0, 1, 1]) / np.sqrt(3)
    rotation, text = choose_up(GeometryConfig(), ring(6, up=up))
    np.testing.assert_allclose(rotation @ up, Z, atol=1e-9)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert "mean up (0.58, 0.58, 0.58), 54.7 degrees from" in text


def test_rig_takes_the_mean_up_even_beside_an_axis():
    up = np.array([0.1, 0, 1]) / np.linalg.norm((0.1, 0, 1))
    np.testing.assert_allclose(choose_up(GeometryConfig(up="rig"), ring(6, up=up))[0] @ up, Z, atol=1e-9)
    np.testing.assert_array_equal(choose_up(GeometryConfig(up="auto"), ring(6, up=up))[0], np.eye(3))


@given(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1))
@example((0.0, 1e-5, -1.0))
@example((1e-13, 0.0, -1.0))
@settings(max_examples=50)
def test_up_is_a_proper_rotation_whatever_the_world(up):
    up = np.asarray(up) / np.linalg.norm(up)
    rotation, _ = choose_up(GeometryConfig(up="rig"), ring(4, up=up))
    np.testing.assert_allclose(rotation @ up, Z, atol=1e-9)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_overhead_cameras_cannot_tell_up_and_say_which_axes_it_may_be():
    above = ring(4, height=2000, radius=200)
    with pytest.raises(ConfigError, match=r"geometry\.up .* z where they look down .* -z where they look up"):
        choose_up(GeometryConfig(), above)
    np.testing.assert_array_equal(choose_up(GeometryConfig(up="z"), above)[0], np.eye(3))


def test_azimuth_order_is_that_of_the_ring_seen_from_the_animal_not_of_the_numbers():
    cameras = ring(5)
    shuffled = [3, 0, 4, 1, 2]
    ids = [10 + number for number in shuffled]
    found = azimuth_order([cameras[i] for i in shuffled], ids, np.zeros(3), np.eye(3))
    assert found == (10, 11, 12, 13, 14)
    upside_down = choose_up(GeometryConfig(up="-z"), cameras)[0]
    backwards = azimuth_order(cameras, range(5), np.zeros(3), upside_down)
    turned = backwards[backwards.index(0) :] + backwards[: backwards.index(0)]
    assert turned == (0, 4, 3, 2, 1)


def test_azimuth_order_of_the_reference_rig(shared):
    entries = json.loads((shared / "data/mouse_capture/ground_truth/cameras.json").read_text())["cameras"]
    cameras = [
        Camera.from_rt(np.array(e["K"]), np.array(e["R"]), np.array(e["T"]), 1152, 1024)
        for e in entries
        if e["id"] < 6
    ]
    assert azimuth_order(cameras, range(6), np.array([58.0, 54, 20]), np.eye(3)) == (1, 2, 4, 0, 5, 3)


# Views


def test_animal_is_at_the_origin_and_in_the_middle_of_a_lookat_view():
    similarity = Similarity(0.012, np.eye(3), CENTER)
    view = normalized_view(source_view(), similarity, GeometryConfig(), 512)
    np.testing.assert_allclose(view.camera.project(np.zeros(3))[0], (256, 256), atol=1e-9)
    np.testing.assert_array_equal(view.camera.K[:2, 2], (256, 256))
    assert view.camera.K[0, 0] == view.camera.K[1, 1]
    rows, columns = np.nonzero(view.alpha > 0.5)
    assert abs(columns.mean() - 255.5) < 4
    assert abs(rows.mean() - 255.5) < 4


@pytest.mark.parametrize("size", [256, 384, 512])
def test_per_view_focal_length_shows_the_box_as_from_the_reference_distance(size):
    similarity = Similarity(0.0123, np.eye(3), CENTER)
    camera = normalized_view(source_view(), similarity, GeometryConfig(), size).camera
    distance = np.linalg.norm(camera.center)
    assert distance == pytest.approx(0.0123 * np.linalg.norm(source_camera().center - CENTER))
    assert camera.K[0, 0] == pytest.approx(548.9937744 * size / 512 * distance / 2.7)
    right = camera.R[0] * HALF_FIELD
    assert camera.project(right)[0][0] == pytest.approx(size)


def test_fixed_focal_length_is_the_published_one():
    config = GeometryConfig(focal="fixed")
    camera = normalized_view(source_view(), Similarity(0.01, np.eye(3), CENTER), config, 512).camera
    assert camera.K[0, 0] == 548.9937744


@pytest.mark.parametrize("size", [256, 296, 512])
def test_crop_keeps_the_orientation_and_tracks_the_principal_point(size):
    similarity = Similarity(0.012, np.eye(3), CENTER)
    view = normalized_view(source_view(), similarity, GeometryConfig(virtual_camera="crop"), size, 250.0)
    source = source_camera()
    np.testing.assert_allclose(view.camera.R, source.R)
    np.testing.assert_allclose(np.diag(view.camera.K)[:2], np.diag(source.K)[:2] * size / 250)
    np.testing.assert_allclose(view.camera.project(np.zeros(3))[0], (size / 2, size / 2), atol=1e-9)
    assert abs(view.camera.K[0, 2] - size / 2) > 1


def test_crop_without_its_side_is_a_mistake_of_the_caller():
    config = GeometryConfig(virtual_camera="crop")
    with pytest.raises(ValueError, match="crop_side_px"):
        normalized_view(source_view(), Similarity(0.01, np.eye(3), CENTER), config, 512)


@given(
    st.sampled_from(["lookat", "crop"]),
    st.sampled_from(["per_view", "fixed"]),
    st.sampled_from(["x", "-y", "z"]),
    st.floats(1e-3, 0.1),
    st.sampled_from([64, 256, 512]),
    st.tuples(*[st.floats(-30, 30)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_written_camera_sees_every_point_on_the_ray_of_its_source_pixel(kind, focal, up, scale, size, offset):
    config = GeometryConfig(virtual_camera=kind, focal=focal, up=up)
    camera = source_camera()
    change = Similarity(scale, choose_up(config, [camera])[0], CENTER)
    moved = normalized_view(blank(camera), change, config, size, 300.0).camera
    X = CENTER + np.array(offset)
    np.testing.assert_allclose(moved.center, change.apply(camera.center), rtol=1e-9, atol=1e-9)
    # Back to millimetres, re-aim the written camera onto the source: the pixel must be the source's.
    back = np.linalg.inv(change.model_from_world)
    R = moved.R @ change.rotation
    _, H = camera.reaim(moved.K, R, size, size)
    pixel = H @ [*camera.project(X)[0], 1]
    np.testing.assert_allclose(moved.project(change.apply(X))[0], pixel[:2] / pixel[2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(back, change.world_from_model, rtol=1e-9, atol=1e-9)


def test_camera_straight_above_keeps_its_own_up():
    above = Camera.look_at((0, 0, 300), (0, 0, 0), 500, 200, up=(0, 1, 0))
    assert aim(above, np.array([1.0, 2, 0]), Z)[1] @ above.R[1] > 0.99
    assert aim(above, np.array([1.0, 2, 0]), np.array([0.0, 1, 0]))[1] @ above.R[1] > 0.99


@pytest.mark.parametrize("up", [(0, 0, 1), (0, -1, 0), (1, 1, 1)])
def test_up_of_the_rig_is_up_in_the_picture_and_z_in_the_model(up):
    camera = ring(6, up=np.array(up))[2]
    rotation, _ = choose_up(GeometryConfig(), ring(6, up=np.array(up)))
    moved = normalized_view(blank(camera), Similarity(0.01, rotation, np.zeros(3)), GeometryConfig(), 256)
    foot, head = moved.camera.project(np.array([[0, 0, -0.5], [0, 0, 0.5]]))[0]
    assert head[1] < foot[1]
    assert head[0] == pytest.approx(foot[0])
    elevation = np.degrees(np.arcsin(moved.camera.center[2] / np.linalg.norm(moved.camera.center)))
    assert elevation == pytest.approx(np.degrees(np.arctan2(80, 320)))


# Scale and crop of the data set


def test_fit_fills_the_box_exactly():
    items = [observation((20.0, 50, 30)), observation((60.0, 10, 10)), observation((40.0, 40, 40))]
    framing, cut = framing_of(items, FAR, fit_percentile=100)
    assert framing.scale == pytest.approx(0.9 / 60)
    assert framing.crop_side_px is None
    assert cut == []


def test_fit_measures_the_box_along_the_models_axes():
    up = np.array([1.0, 0, 1]) / np.sqrt(2)
    cameras = ring(6, height=0, up=up, radius=30000)
    long = CENTER + np.outer([-50, 50], up)
    item = SimpleNamespace(frame=0, outline=long)
    assert framing_of([item], cameras, focal="fixed")[0].scale == pytest.approx(0.9 / 50)
    along_z, _ = framing_of([item], cameras, focal="fixed", up="z")
    assert along_z.scale == pytest.approx(0.9 / 50 * np.sqrt(2))


def test_fit_ignores_rare_giants_and_names_them():
    items = [observation((30.0, 30, 30), frame=i) for i in range(199)]
    framing, cut = framing_of([*items, observation((300.0, 30, 30), frame=777)], FAR)
    assert framing.scale == pytest.approx(0.9 / 30)
    assert cut == [777]


def pixels_of(framing, item, cameras, config, size=512):
    """Where the outline lies in the written pictures. [V, N, 2]"""
    change = Similarity(framing.scale, choose_up(config, cameras)[0], item.outline.mean(0))
    views = [normalized_view(blank(c), change, config, size, framing.crop_side_px) for c in cameras]
    return np.stack([view.camera.project(change.apply(item.outline))[0] for view in views])


@pytest.mark.parametrize("values", [{}, {"virtual_camera": "crop"}, {"up": "y"}, {"up": "rig"}])
@pytest.mark.parametrize("count", [2, 6, 16])
def test_fit_keeps_the_animal_inside_every_picture_of_any_rig(values, count):
    cameras = ring(count, radius=170)
    items = [observation((70.0, 60, 20), (0, 0, 10)), observation((30.0, 66, 25), (10, -20, 10))]
    config = GeometryConfig(fit_percentile=100, **values)
    framing, cut = framing_of(items, cameras, fit_percentile=100, **values)
    assert cut == []
    pixels = np.stack([pixels_of(framing, item, cameras, config) for item in items])
    edge = IMAGE_MARGIN / 2 * 512
    assert min(pixels.min(), 512 - pixels.max()) == pytest.approx(edge)


def test_a_larger_number_than_fits_is_taken_and_what_it_cuts_is_named():
    items = [observation((30.0, 30, 30), frame=4), observation((50.0, 30, 30), frame=9)]
    framing, cut = framing_of(items, FAR, scale=0.02)
    assert (framing.scale, cut) == (0.02, [9])


def test_picture_that_a_fixed_focal_length_cuts_is_counted_whatever_the_scale():
    near = [Camera.look_at(CENTER + np.array((0, 150, 0)), CENTER, 800, 512)]
    items = [observation((30.0, 30, 30), frame=4), observation((80.0, 10, 10), frame=9)]
    for scale in ("fit", 0.001):
        assert framing_of(items, near, focal="fixed", scale=scale)[1] == [9]
    assert framing_of(items, near, scale=0.001)[1] == []


def test_mean_distance_is_the_reference_distance():
    offsets = ((200, 0, 0), (0, 400, 0))
    cameras = [Camera.look_at(CENTER + np.array(offset), CENTER, 800, 512) for offset in offsets]
    framing, _ = framing_of([observation((30.0, 30, 30))], cameras, scale="mean_distance")
    assert framing.scale == pytest.approx(2.7 / 300)


def test_crop_side_is_one_for_the_data_set_and_ignores_rare_giants():
    cameras = ring(3)
    items = [observation((30.0, 30, 30), (0, 0, 0), frame=i) for i in range(199)]
    giant = observation((90.0, 30, 30), (0, 0, 0), frame=777)
    usual, none_cut = framing_of(items, cameras, virtual_camera="crop", scale=0.001)
    framing, cut = framing_of([*items, giant], cameras, virtual_camera="crop", scale=0.001)
    assert framing.crop_side_px == usual.crop_side_px
    assert (none_cut, cut) == ([], [777])
    needed = max(np.abs(c.project(items[0].outline)[0] - c.project(np.zeros(3))[0]).max() for c in cameras)
    assert framing.crop_side_px == pytest.approx(2 * needed / (1 - IMAGE_MARGIN))
