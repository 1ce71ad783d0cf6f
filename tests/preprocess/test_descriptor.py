"""Posture in numbers: the same wherever the animal stands, different where it is different."""

import numpy as np
import pytest
from balls import ARENA, animal, masks, ring
from hypothesis import given, settings
from hypothesis import strategies as st

from mouse_facelift.geometry import Similarity
from mouse_facelift.preprocess.descriptor import describe, posture
from mouse_facelift.preprocess.survey import animal_hull


def turn(angle):
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])


def cloud(**pose):
    """Points inside the balls of a pose, with equal volumes."""
    rng = np.random.default_rng(0)
    parts = [
        center + radius * rng.normal(0, 0.45, (int(radius**3 / 4), 3)) for center, radius in animal(**pose)
    ]
    points = np.concatenate(parts)
    return points, np.full(len(points), 8.0)


def hull(cameras, **pose):
    views = [view.mask for view in masks(cameras, animal(**pose))]
    return animal_hull(views, cameras, animal(**pose)[1][0], 2.0)


@given(
    angle=st.floats(-7, 7),
    shift=st.tuples(*[st.floats(-500, 500)] * 3),
)
@settings(max_examples=25, deadline=None)
def test_where_it_stands_and_which_way_it_faces_makes_no_difference(angle, shift):
    points, volumes = cloud(bend=15.0, rear=0.4)
    moved = points @ turn(angle).T + shift
    np.testing.assert_allclose(posture(moved, volumes), posture(points, volumes), atol=2e-3)


def test_other_postures_are_far_apart():
    lying, rearing = posture(*cloud()), posture(*cloud(rear=1.2))
    left, right = posture(*cloud(bend=30.0)), posture(*cloud(bend=-30.0))
    for one, other in ((lying, rearing), (lying, left), (left, right)):
        assert np.linalg.norm(one - other) > 5
    assert np.linalg.norm(posture(*cloud(rear=0.1)) - lying) < 0.5 * np.linalg.norm(rearing - lying)


def test_moments_and_heights_are_millimetres():
    rng = np.random.default_rng(1)
    points = rng.uniform(-1, 1, (200_000, 3)) * (60, 20, 10) + (7, 8, 9)
    found = posture(points, np.ones(len(points)))
    np.testing.assert_allclose(found[:3], np.array([60, 20, 10]) / np.sqrt(3), rtol=0.02)
    np.testing.assert_allclose(found[3:9], 20 * np.array([0.09, 0.29, 0.49, 0.69, 0.89, 0.98]), atol=0.2)
    assert found[9] == pytest.approx(0, abs=0.5)


def test_the_thin_end_comes_first():
    rng = np.random.default_rng(2)
    along = rng.uniform(-70, 40, 50_000)
    points = np.stack([along, *(rng.uniform(-1, 1, (2, 50_000)) * np.where(along > 0, 15, 3))], 1)
    volumes = np.where(along > 0, 5.0, 0.2)
    for facing in (1.0, -1.0):
        found = posture(facing * points, volumes)
        rows = found[10 : 10 + 16 * 8].reshape(16, 8).sum(1)
        assert rows[:7].max() < 0.7 * rows[7:].max()
        assert found[9] < -5


def test_hull_of_the_same_pose_elsewhere_is_nearer_than_any_other_pose():
    cameras = ring(8)
    one = describe(hull(cameras, yaw=0.3))
    assert one.dtype == np.float32
    assert one.shape == (266,)
    elsewhere = describe(hull(cameras, yaw=2.5, position=(12, -9)))
    rearing = describe(hull(cameras, yaw=0.3, rear=1.2))
    bent = describe(hull(cameras, yaw=0.3, bend=35.0))
    same = np.linalg.norm(one - elsewhere)
    assert same < 0.6 * np.linalg.norm(one - rearing)
    assert same < 0.6 * np.linalg.norm(one - bent)


def test_turning_the_whole_rig_changes_next_to_nothing():
    """The very same masks; only the hull's grid lies otherwise."""
    cameras = ring()
    change = Similarity(1.0, turn(1.1), ARENA + 3)
    views = [view.mask for view in masks(cameras, animal(bend=20.0))]
    start = animal()[1][0]
    one = describe(animal_hull(views, cameras, start, 1.5))
    other = describe(
        animal_hull(views, [camera.similarity(change) for camera in cameras], change.apply(start), 1.5)
    )
    rearing = describe(hull(cameras, bend=20.0, rear=1.0))
    assert np.linalg.norm(one - other) < 0.1 * np.linalg.norm(one - rearing)


def test_up_may_be_any_direction():
    cameras = ring()
    tip = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    views = [view.mask for view in masks(cameras, animal(rear=0.8))]
    start = animal(rear=0.8)[1][0]
    change = Similarity(1.0, tip, np.zeros(3))
    upright = describe(animal_hull(views, cameras, start, 1.5))
    tipped = animal_hull(views, [camera.similarity(change) for camera in cameras], change.apply(start), 1.5)
    assert np.linalg.norm(describe(tipped, tip.T) - upright) < 4
    assert np.linalg.norm(describe(tipped) - upright) > 15
