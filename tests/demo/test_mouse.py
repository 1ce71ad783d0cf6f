import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mouse_facelift.demo.anatomy import PARTS
from mouse_facelift.demo.animal import MousePose, MouseShape
from mouse_facelift.demo.motion import poses
from mouse_facelift.demo.mouse import Mesh, mouse_mesh


def part(mesh: Mesh, name: str) -> np.ndarray:
    return mesh.vertices[mesh.part == list(PARTS).index(name)]


@pytest.fixture(scope="module")
def mouse() -> Mesh:
    return mouse_mesh(MouseShape(), MousePose.standing())


def test_the_mouse_has_the_size_of_a_mouse(mouse) -> None:
    body, tail = part(mouse, "body"), part(mouse, "tail")
    length, width, _ = np.ptp(body, axis=0)
    assert 70 < length < 80
    assert 28 < width < 36
    assert 65 < np.ptp(tail[:, 0]) < 85
    assert 25 < body[:, 2].max() < 40
    assert 4000 < len(mouse.vertices) < 8000


def test_random_mice_differ_but_are_mice() -> None:
    rng = np.random.default_rng(5)
    shapes = [MouseShape.random(rng) for _ in range(4)]
    assert len({shape.coat_seed for shape in shapes}) == 4
    for shape in shapes:
        length = np.ptp(part(mouse_mesh(shape, MousePose.standing()), "body")[:, 0])
        assert 68 < length < 84
        assert sum(shape.belly) > sum(shape.back) + 0.8


def test_paws_stand_on_the_floor_and_nothing_is_below_it(mouse) -> None:
    assert mouse.vertices[:, 2].min() == pytest.approx(0, abs=0.05)
    for leg in ("left_foreleg", "right_foreleg", "left_hindleg", "right_hindleg"):
        assert part(mouse, leg)[:, 2].min() < 0.5
    assert part(mouse, "tail")[:, 2].min() < 0.5


def test_every_part_is_closed_and_faces_outward(mouse) -> None:
    faces = mouse.weld[mouse.faces]
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    assert (counts == 2).all()
    a, b, c = (mouse.vertices[mouse.faces[:, i]] for i in range(3))
    six_volumes = np.einsum("fc,fc->f", a, np.cross(b, c))
    volume = np.bincount(mouse.part[mouse.faces[:, 0]], six_volumes) / 6
    assert len(volume) == len(PARTS) and (volume > 0).all()
    assert 20_000 < volume[0] < 50_000, "the trunk of a mouse of 20 to 40 g"


def test_normals_are_unit_and_agree_across_the_seam(mouse) -> None:
    np.testing.assert_allclose(np.linalg.norm(mouse.normals, axis=1), 1, atol=1e-9)
    np.testing.assert_array_equal(mouse.normals, mouse.normals[mouse.weld])
    np.testing.assert_allclose(mouse.vertices, mouse.vertices[mouse.weld], atol=1e-9)


def test_the_back_is_dark_the_belly_light_and_the_texture_closes(mouse) -> None:
    column, row = mouse.uv[mouse.part == 0].round().astype(int).T
    colour = mouse.texture[row, column].mean(axis=1)
    trunk = part(mouse, "body")
    middle = abs(trunk[:, 0] - 15) < 10
    back, belly = middle & (trunk[:, 2] > 28), middle & (trunk[:, 2] < 6)
    assert colour[belly].mean() > 2.5 * colour[back].mean()
    np.testing.assert_allclose(mouse.texture[0], mouse.texture[383], atol=0.02)


def test_a_mouse_elsewhere_is_the_same_mouse(mouse) -> None:
    angle = 0.8
    there = mouse_mesh(MouseShape(), MousePose.standing(30.0, -20.0, angle))
    cos, sin = np.cos(angle), np.sin(angle)
    turned = mouse.vertices @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + (30, -20, 0)
    np.testing.assert_allclose(there.vertices, turned, atol=1e-9)
    np.testing.assert_array_equal(there.faces, mouse.faces)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 30))
def test_any_pose_gives_a_finite_mesh_of_the_same_topology_above_the_floor(seed, time_s) -> None:
    shape = MouseShape.random(np.random.default_rng(seed))
    mesh = mouse_mesh(shape, poses(seed, [time_s])[0])
    assert mesh.vertices.shape == mouse_mesh(MouseShape(), MousePose.standing()).vertices.shape
    assert np.isfinite(mesh.vertices).all() and np.isfinite(mesh.normals).all()
    assert mesh.vertices[:, 2].min() >= 0
    a, b = mesh.vertices[mesh.faces[:, 0]], mesh.vertices[mesh.faces[:, 1]]
    assert np.linalg.norm(a - b, axis=1).max() < 12, "no stretched triangles"
