import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from mouse_facelift.gaussians import Gaussians, Rendering, render, turntable
from mouse_facelift.gaussians.turntable import (
    NAMED_VIEWS,
    named_cameras,
    orbit_camera,
    render_turntable,
    turntable_cameras,
)
from mouse_facelift.pictures import to_uint8
from mouse_facelift.videos import write_video
from mouse_facelift.viewer.config import START_VIEWS


def ball(center: tuple[float, float, float], color: float) -> Gaussians:
    return Gaussians(
        torch.tensor([center], dtype=torch.float32),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.full((1, 3), 0.2),
        torch.tensor([0.9]),
        torch.full((1, 1, 3), color),
    )


def test_turntable_starts_in_front_and_turns_counter_clockwise():
    cameras = turntable_cameras(4, 512)
    assert [round(camera.azimuth_deg, 6) % 360 for camera in cameras] == [270, 0, 90, 180]
    for camera in cameras:
        assert np.linalg.norm(camera.center) == pytest.approx(2.7)
        assert camera.K[0, 0] == camera.K[1, 1] == pytest.approx(548.9937744, abs=1e-4)
        np.testing.assert_allclose(camera.project([0, 0, 0])[0], (256, 256), atol=1e-9)
        assert camera.project([0, 0, 0.1])[0][1] < 256, "up is up"


def test_named_cameras_stand_where_their_names_say():
    cameras = named_cameras(512)
    assert list(cameras) == ["top", "front_high", "right", "bottom", "back_high", "left"]
    for name, (elevation, azimuth) in NAMED_VIEWS.items():
        camera = cameras[name]
        assert camera.azimuth_deg == pytest.approx(azimuth, abs=1e-9)
        assert camera.center[2] == pytest.approx(2.7 * math.sin(math.radians(elevation)))
        assert np.linalg.norm(camera.center) == pytest.approx(2.7)
        assert camera.K[0, 0] == pytest.approx(548.99, abs=0.01)
        np.testing.assert_allclose(camera.project([0, 0, 0])[0], (256, 256), atol=1e-9)
    assert cameras["right"].center[0] > 0 > cameras["left"].center[0]


@pytest.mark.parametrize("size", [16, 512])
def test_few_frames_are_drawn_at_once_however_small_they_are(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds all Gaussians projected: 150 frames of a large scene would be gigabytes."""
    together = []

    def count(scene: Gaussians, K: torch.Tensor, *args: object) -> Rendering:
        together.append(len(K))
        empty = torch.zeros(len(K), 1, 2, 2)
        return Rendering(empty.expand(-1, 3, -1, -1), empty, empty)

    monkeypatch.setattr(turntable, "render", count)
    assert len(list(render_turntable(ball((0, 0, 0), 0.5), 20, size))) == 20
    assert together == [8, 8, 4]


def test_turntable_elevation_lifts_the_cameras():
    for camera in turntable_cameras(3, 64, elevation_deg=30, radius=2.0):
        assert camera.center[2] == pytest.approx(2 * math.sin(math.radians(30)))
        assert np.linalg.norm(camera.center) == pytest.approx(2)


def test_turntable_frames_are_drawn_one_at_a_time_as_asked():
    color = torch.tensor([0.0, 0.5, 1.0])
    turntable = render_turntable(ball((0.4, 0, 0), -5.0), 4, 32, background=color)
    front, right = next(turntable), next(turntable)
    assert front.shape == (32, 32, 3)
    assert front.dtype == np.uint8
    assert front[0, 0].tolist() == [0, 128, 255]
    assert front[:, :16, 2].astype(int).sum() > front[:, 16:, 2].astype(int).sum(), (
        "+x is right from the front"
    )
    np.testing.assert_array_equal(right[:, :, 2], right[:, ::-1, 2])


def test_turntable_is_drawn_without_a_graph():
    gaussians = ball((0, 0, 0), 0.0)
    gaussians.means.requires_grad_()
    assert len(list(render_turntable(gaussians, 2, 8))) == 2
    assert torch.is_grad_enabled()


def test_rendered_turntable_becomes_a_video(tmp_path: Path):
    gaussians = ball((0.2, 0.1, 0), 1.0)
    write_video(tmp_path / "x.mp4", render_turntable(gaussians, 3, 32))
    with av.open(str(tmp_path / "x.mp4")) as container:
        first = next(container.decode(video=0)).reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
    camera = turntable_cameras(3, 32)[0]
    K, w2c = (torch.from_numpy(matrix).float()[None] for matrix in (camera.K, camera.w2c))
    expected = to_uint8(render(gaussians, K, w2c, 32, 32).rgb[0])
    assert np.abs(first.astype(int) - expected).mean() < 4


def test_sides_are_named_as_in_the_viewer() -> None:
    for name, (_, azimuth) in NAMED_VIEWS.items():
        assert azimuth == START_VIEWS[name.removesuffix("_high")][0]
        assert np.sign(orbit_camera(azimuth, 0.0, 8).center.round(9)[0]) == {"right": 1, "left": -1}.get(
            name, 0
        )
