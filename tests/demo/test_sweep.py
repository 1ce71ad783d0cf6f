import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.demo.sweep import (
    ellipses,
    framed,
    integral,
    profile,
    rounded,
    sweep,
    tube_faces,
    tube_weld,
    two_bones,
)

LEFT = np.array((0.0, 1.0, 0.0))


def sphere(radius: float, rings: int = 40, segments: int = 60) -> np.ndarray:
    angle = np.linspace(0, np.pi, rings)
    points = np.stack([-radius * np.cos(angle), 0 * angle, 0 * angle], axis=1)
    width = radius * np.sin(angle)
    return sweep(framed(points, LEFT), ellipses(width, width, width, segments))


def test_a_swept_sphere_has_the_volume_and_the_outside_of_a_sphere() -> None:
    vertices = sphere(10.0).reshape(-1, 3)
    a, b, c = (vertices[tube_faces(40, 60)[:, i]] for i in range(3))
    volume = np.einsum("fc,fc->", a, np.cross(b, c)) / 6
    assert abs(volume / (4 / 3 * np.pi * 1000) - 1) < 0.01
    outward = np.einsum("fc,fc->f", np.cross(b - a, c - a), a + b + c)
    assert (outward > 0).all()


def test_every_edge_of_a_welded_tube_joins_two_faces() -> None:
    faces = tube_weld(7, 5)[tube_faces(7, 5)]
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    assert (counts == 2).all()
    assert len(np.unique(edges, axis=0)) == len(edges), "neighbours must agree on what is outside"


def test_profile_goes_through_its_numbers() -> None:
    knots, values = (0.0, 0.3, 0.5, 1.0), (1.0, 2.0, 0.5, 3.0)
    np.testing.assert_allclose(profile(np.array(knots), knots, values), values, atol=1e-12)


def test_integral_of_a_line_is_exact() -> None:
    along = np.array((0.0, 0.2, 0.7, 1.0))
    np.testing.assert_allclose(integral(2 * along[:, None], along)[:, 0], along**2, atol=0.06)
    np.testing.assert_allclose(integral(np.ones((4, 1)), along)[:, 0], along)


def test_rounding_keeps_the_ends_and_even_spacing() -> None:
    corner = np.array([(0.0, 0, 0, 1), (10, 0, 0, 2), (10, 10, 0, 3)])
    line = rounded(corner, 20)
    np.testing.assert_allclose(line[[0, -1]], corner[[0, -1]])
    steps = np.linalg.norm(np.diff(line[:, :3], axis=0), axis=1)
    assert steps.max() < 1.1 * steps.min()


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=3), st.floats(5, 20), st.floats(5, 20))
def test_two_bones_keep_their_lengths_within_reach(end, first, second) -> None:
    target = np.array(end)
    target[2] += 0.5
    reach = float(np.linalg.norm(target))
    pole = np.array((0.3, 0.5, -0.8))
    joint = two_bones(np.zeros(3), target, first, second, pole)
    assert np.isfinite(joint).all()
    if abs(first - second) < reach < 0.98 * (first + second):
        assert abs(np.linalg.norm(joint) - first) < 1e-6
        assert abs(np.linalg.norm(target - joint) - second) < 1e-6
