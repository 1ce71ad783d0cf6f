import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mouse_facelift.errors import DataError
from mouse_facelift.gaussians import Gaussians, render
from mouse_facelift.gaussians.similarity import transformed
from mouse_facelift.geometry import Camera, Similarity


def scene(degree: int, count: int = 20, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rest = (degree + 1) ** 2 - 1
    return Gaussians(
        0.3 * draw(count, 3),
        draw(count, 4),
        0.05 + 0.1 * torch.rand(count, 3, generator=generator, dtype=torch.float64),
        torch.rand(count, generator=generator, dtype=torch.float64),
        draw(count, 1, 3),
        0.3 * draw(count, rest, 3) if rest else None,
    )


def covariances(gaussians: Gaussians) -> np.ndarray:
    turns = Rotation.from_quat(gaussians.quats.numpy(), scalar_first=True).as_matrix()
    return np.einsum("nij,nj,nkj->nik", turns, gaussians.scales.numpy() ** 2, turns)


def similarity(rotation: np.ndarray, scale: float = 0.01, center=(50.0, -30.0, 20.0)) -> Similarity:
    return Similarity(scale, rotation, np.array(center))


@given(st.integers(0, 1000), st.floats(0.002, 50.0))
def test_centres_and_covariances_move_as_the_points_do(seed: int, scale: float) -> None:
    change = similarity(Rotation.random(rng=np.random.default_rng(seed)).as_matrix(), scale)
    before = scene(0, seed=seed)
    after = transformed(before, change.world_from_model)
    np.testing.assert_allclose(change.apply(after.means.numpy()), before.means.numpy(), atol=1e-9)
    linear = change.world_from_model[:3, :3]
    expected = linear @ covariances(before) @ linear.T
    np.testing.assert_allclose(covariances(after), expected, rtol=1e-7, atol=1e-9 * expected.max())


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_scene_looks_the_same_from_a_camera_that_moves_along(degree: int) -> None:
    """Harmonics turn with the scene, or colours would be those of other directions."""
    change = similarity(Rotation.from_euler("xyz", [40, -70, 110], degrees=True).as_matrix())
    rig_camera = Camera.look_at((250.0, 60.0, 90.0), change.center, 60.0, 32)
    camera = rig_camera.similarity(change)
    before = scene(degree)
    after = transformed(before, change.world_from_model)
    pictures = [
        render(gaussians, torch.from_numpy(c.K)[None], torch.from_numpy(c.w2c)[None], 32, 32)
        for gaussians, c in ((before, camera), (after, rig_camera))
    ]
    torch.testing.assert_close(pictures[0].rgb, pictures[1].rgb, atol=1e-6, rtol=0)
    torch.testing.assert_close(pictures[0].depth, change.scale * pictures[1].depth, atol=1e-6, rtol=0)
    assert pictures[0].alpha.max() > 0.5


def test_there_and_back_is_where_it_was() -> None:
    change = similarity(Rotation.from_euler("z", 180, degrees=True).as_matrix())
    before = scene(3)
    back = transformed(transformed(before, change.world_from_model), change.model_from_world)
    torch.testing.assert_close(back.means, before.means)
    torch.testing.assert_close(back.sh, before.sh)
    np.testing.assert_allclose(covariances(back), covariances(before), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(
    "matrix",
    [np.diag([1.0, 1, -1, 1]), np.diag([1.0, 2, 1, 1]), np.full((4, 4), np.nan), np.eye(3), np.zeros((4, 4))],
    ids=["mirror", "stretched", "nan", "3x3", "zero"],
)
def test_what_is_no_similarity_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected a similarity"):
        transformed(scene(0), matrix)
