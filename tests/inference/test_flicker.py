import pytest
import torch

from mouse_facelift.gaussians import Gaussians
from mouse_facelift.gaussians.turntable import turntable_cameras
from mouse_facelift.inference.flicker import Flicker
from mouse_facelift.inference.inputs import Views

SIZE = 24


def moment(level: float, drawn: float) -> tuple[Views, Gaussians]:
    """A grey square, and a Gaussian so large that it fills it with another grey."""
    cameras = turntable_cameras(2, SIZE)
    K, w2c = (
        torch.stack([torch.from_numpy(getattr(camera, name)) for camera in cameras]).float()
        for name in ("K", "w2c")
    )
    rgba = torch.full((2, 4, SIZE, SIZE), level)
    rgba[:, 3] = 0
    rgba[:, 3, 8:16, 8:16] = 1
    scene = Gaussians(
        torch.zeros(30, 3),
        torch.tensor([1.0, 0, 0, 0]).expand(30, 4),
        torch.full((30, 3), 1.0),
        torch.full((30,), 0.9),
        torch.full((30, 1, 3), (drawn - 0.5) / 0.28209479177387814),
    )
    return Views(rgba, (4, 7), K, w2c), scene


def measure(levels: list[float], drawn: list[float], frames: list[int]) -> dict:
    flicker = Flicker(step=1, background=1.0)
    for frame, real, made in zip(frames, levels, drawn, strict=True):
        flicker.add(frame, *moment(real, made))
    return flicker.result()


def test_it_is_the_second_difference_so_that_steady_change_does_not_flicker() -> None:
    result = measure([0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.5, 0.6], [0, 1, 2, 3])
    assert result["triples"] == 2
    assert result["real"] == pytest.approx(0, abs=1e-6)
    assert result["rendered"] == pytest.approx(0.2, abs=1e-3)
    assert [view["view_id"] for view in result["views"]] == [4, 7]


def test_the_ratio_is_of_renderings_to_real_pictures() -> None:
    result = measure([0.2, 0.6, 0.2], [0.3, 0.4, 0.3], [5, 6, 7])
    assert result["real"] == pytest.approx(0.8, abs=1e-3)
    assert result["ratio"] == pytest.approx(0.25, abs=5e-3)


def test_moments_with_a_gap_are_not_compared() -> None:
    result = measure([0.2, 0.6, 0.2], [0.3, 0.4, 0.3], [5, 6, 8])
    assert (result["triples"], result["ratio"], result["views"]) == (0, None, [])
