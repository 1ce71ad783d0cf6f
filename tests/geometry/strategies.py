"""Random but reasonable cameras and points for property tests."""

import numpy as np
from hypothesis import strategies as st

from mouse_facelift.geometry import Camera, Similarity


def rotation(vector):
    """Rotation matrix of a rotation vector (Rodrigues)."""
    vector = np.asarray(vector, float)
    angle = np.linalg.norm(vector)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * across + (1 - np.cos(angle)) * across @ across


def vectors(limit):
    return st.tuples(*[st.floats(-limit, limit)] * 3).map(np.array)


@st.composite
def cameras(draw):
    """A camera some 150 to 600 units away that sees the surroundings of the origin."""
    direction = draw(vectors(1.0).filter(lambda v: np.linalg.norm(v[:2]) > 0.2))
    center = direction / np.linalg.norm(direction) * draw(st.floats(150, 600))
    width, height = draw(st.integers(200, 1200)), draw(st.integers(200, 1200))
    camera = Camera.look_at(center, draw(vectors(20.0)), draw(st.floats(0.8, 2)) * width, (width, height))
    K = camera.K.copy()
    K[1, 1] *= draw(st.floats(0.95, 1.05))
    K[:2, 2] += draw(st.floats(-60, 60)), draw(st.floats(-60, 60))
    K[0, 1] = draw(st.sampled_from([0.0, 0.7]))
    roll = rotation([0, 0, draw(st.floats(-3, 3))])
    return Camera.from_rt(K, roll @ camera.R, roll @ camera.t, width, height)


@st.composite
def similarities(draw):
    return Similarity(draw(st.floats(1e-3, 10)), rotation(draw(vectors(3.0))), draw(vectors(100.0)))


def points(limit=40.0, count=8):
    return st.lists(vectors(limit), min_size=count, max_size=count).map(np.array)
