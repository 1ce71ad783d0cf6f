"""Rays, orders and prompts of views whose cameras are known."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera, Similarity
from mouse_facelift.mvdiffusion.pose import (
    PosedViews,
    check_view_count,
    draw_order,
    nearest_prompts,
    pose_rays,
    relative_azimuths_deg,
)
from mouse_facelift.mvdiffusion.slots import FACELIFT_RELATIVE_DEG, Slots

SIZE, SIDE = 32, 8

angles = st.floats(0, 360, allow_nan=False)
heights = st.floats(-0.8, 2.0, allow_nan=False)
rings = st.lists(st.tuples(angles, heights), min_size=2, max_size=16)


def camera(azimuth_deg: float, height: float, focal: float = 34.0) -> Camera:
    angle = np.radians(azimuth_deg)
    return Camera.look_at((2.7 * np.cos(angle), 2.7 * np.sin(angle), height), (0.1, 0, 0), focal, SIZE)


def stacked(cameras: list[Camera]) -> tuple[Tensor, Tensor]:
    K = torch.from_numpy(np.stack([c.K for c in cameras]))[None]
    return K, torch.from_numpy(np.stack([c.w2c for c in cameras]))[None]


def rays(cameras: list[Camera]) -> Tensor:
    return pose_rays(*stacked(cameras), SIZE, SIDE)[0]


def turned(axis: tuple[float, float, float], angle: float) -> np.ndarray:
    """Rotation matrix by Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@given(
    rings,
    st.tuples(*[st.floats(-1, 1, allow_nan=False)] * 3).filter(lambda axis: np.linalg.norm(axis) > 0.1),
    st.floats(-3, 3, allow_nan=False),
    st.tuples(*[st.floats(-5, 5, allow_nan=False)] * 3),
)
def test_rays_do_not_change_when_the_world_is_moved(
    ring: list, axis: tuple, angle: float, shift: tuple
) -> None:
    cameras = [camera(*place) for place in ring]
    change = Similarity(1.0, turned(axis, angle), np.array(shift))
    moved = [c.similarity(change) for c in cameras]
    torch.testing.assert_close(rays(moved), rays(cameras), atol=1e-5, rtol=0)


@given(rings)
def test_reference_stands_at_the_origin_and_looks_along_z(ring: list) -> None:
    found = rays([camera(*place) for place in ring])
    assert not found[0, :3].any()
    middle = found[0, 3:, SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2 - 1 : SIDE // 2 + 1].mean((1, 2))
    torch.testing.assert_close(middle / middle.norm(), torch.tensor([0.0, 0, 1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, 3:].norm(dim=1), torch.ones(len(ring), SIDE, SIDE))
    torch.testing.assert_close(
        (found[:, :3] * found[:, 3:]).sum(1), torch.zeros(len(ring), SIDE, SIDE), atol=1e-5, rtol=0
    )


@given(st.integers(0, SIDE - 1), st.integers(0, SIDE - 1), angles, heights)
def test_ray_goes_through_the_centre_of_its_cell(
    row: int, column: int, azimuth: float, height: float
) -> None:
    cameras = [camera(10, 0.3), camera(azimuth, height, focal=50)]
    moment, direction = rays(cameras)[1, :, row, column].double().numpy().reshape(2, 3)
    nearest_origin = np.cross(direction, moment)
    in_world = np.stack([nearest_origin + far * direction for far in (7, 12)]) - cameras[0].t
    pixels, _ = cameras[1].project(in_world @ cameras[0].R)
    cell = SIZE / SIDE
    expected = (column + 0.5) * cell, (row + 0.5) * cell
    np.testing.assert_allclose(pixels, [expected, expected], atol=2e-3)


def test_rays_of_a_batch_are_those_of_its_objects() -> None:
    first, second = ([camera(a, h) for a, h in ring] for ring in ([(0, 0), (90, 1)], [(30, 0.5), (200, 0)]))
    K, w2c = (torch.cat(parts) for parts in zip(stacked(first), stacked(second), strict=True))
    together = pose_rays(K, w2c, SIZE, SIDE)
    assert torch.equal(together[0], rays(first))
    assert torch.equal(together[1], rays(second))


@given(st.lists(angles, min_size=2, max_size=16), st.floats(0, 360), heights)
def test_relative_azimuths_are_counter_clockwise_and_survive_a_turn(
    azimuths: list[float], turn: float, height: float
) -> None:
    expected = np.array(azimuths) - azimuths[0]
    for start in (0.0, turn):
        _, w2c = stacked([camera(start + azimuth, height) for azimuth in azimuths])
        found = relative_azimuths_deg(w2c)[0].numpy()
        assert found[0] == 0
        assert ((found >= -180) & (found < 180)).all()
        np.testing.assert_allclose((found - expected + 180) % 360 - 180, 0, atol=1e-6)


def test_published_cameras_take_the_published_prompts() -> None:
    slots = Slots.facelift(SIZE)
    azimuths = relative_azimuths_deg(torch.from_numpy(slots.w2c)[None])
    assert nearest_prompts(azimuths, FACELIFT_RELATIVE_DEG).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_view_takes_the_prompt_that_is_nearest_the_shorter_way_round() -> None:
    azimuths = torch.tensor([[0.0, 20.0, 40.0, -70.0, 170.0, -170.0, 359.0]])
    assert nearest_prompts(azimuths, FACELIFT_RELATIVE_DEG).tolist() == [[0, 0, 5, 2, 3, 3, 0]]


@given(st.integers(2, 16), st.integers(1, 4), st.integers(0, 10**6), st.booleans(), st.data())
def test_order_begins_with_the_reference_and_keeps_the_ring(
    views: int, objects: int, seed: int, random: bool, data: st.DataObject
) -> None:
    count = data.draw(st.one_of(st.none(), st.integers(2, views)))
    order = draw_order(Generator().manual_seed(seed), objects, views, random, count)
    assert order.shape == (objects, count or views)
    for row in order.tolist():
        assert len(set(row)) == len(row)
        steps = [(after - before) % views for before, after in pairwise(row)]
        assert sum(steps) < views
        assert random or row[0] == 0
    assert torch.equal(order, draw_order(Generator().manual_seed(seed), objects, views, random, count))


def test_fixed_order_draws_nothing() -> None:
    generator = Generator().manual_seed(3)
    before = generator.get_state()
    for count in (None, 6):
        assert draw_order(generator, 2, 6, False, count).tolist() == [list(range(6))] * 2
    assert torch.equal(generator.get_state(), before)


def test_every_view_becomes_reference_and_every_other_view_is_chosen() -> None:
    order = draw_order(Generator().manual_seed(0), 400, 6, True, 3)
    assert order[:, 0].bincount(minlength=6).min() > 40
    assert ((order[:, 1:] - order[:, :1]) % 6).flatten().bincount(minlength=6)[1:].min() > 110


def test_pictures_and_cameras_are_reordered_together() -> None:
    number = torch.arange(6.0).expand(2, 6)
    views = PosedViews(
        number[..., None, None, None].expand(2, 6, 4, 2, 2),
        number[..., None, None].expand(2, 6, 3, 3),
        number[..., None, None].expand(2, 6, 4, 4),
        number.long(),
    )
    order = torch.tensor([[2, 4, 0], [5, 1, 3]])
    moved = views.reordered(order)
    assert moved.rgba is not None
    for values in (moved.rgba[:, :, 0, 0, 0], moved.K[:, :, 0, 0], moved.w2c[:, :, 0, 0], moved.view_ids):
        assert torch.equal(values.long(), order)
    assert PosedViews(None, views.K, views.w2c, views.view_ids).reordered(order).rgba is None


@pytest.mark.parametrize("views", [1, 17])
def test_too_few_and_too_many_views_are_refused(views: int) -> None:
    with pytest.raises(DataError, match=rf"here: the number of views is {views}; .* takes 2 to 16"):
        check_view_count(views, "here")
