"""Tiny random models and samples of a two-coloured ball, so that whole inferences run in a second."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_sizes import SIZES as DIFFUSION_SIZES

from mouse_facelift.config import load_config
from mouse_facelift.geometry import Camera
from mouse_facelift.gslrm import GSLRM, GSLRMConfig, save_gslrm
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.samples.format import read_sample, write_list, write_sample

SIZE = 32
RIG = {0: 10.0, 1: 200.0, 2: 100.0, 3: 310.0, 7: 250.0}
"""Azimuth in degrees by camera id, neither in the order of the ring nor without gaps."""

GSLRM_SIZES = GSLRMConfig(width=32, head_width=16, layers=1)


@pytest.fixture(scope="session")
def gslrm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save_gslrm(tmp_path_factory.mktemp("gslrm"), GSLRM_SIZES)


@pytest.fixture(scope="session")
def hull_gslrm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = GSLRM_SIZES.model_copy(update={"depth_anchor": "hull"})
    return _save_gslrm(tmp_path_factory.mktemp("hull"), sizes)


@pytest.fixture(scope="session")
def rig_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline for the cameras of the ball samples, with camera 2 as the reference."""
    folder = tmp_path_factory.mktemp("rig")
    sample = read_sample(_write_ball(folder / "sample"))
    random_pipeline(DIFFUSION_SIZES, Slots.rig([sample], SIZE, reference=2), seed=1).save(folder / "pipeline")
    return folder / "pipeline"


@pytest.fixture(scope="session")
def pose_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that is told its cameras, trained with camera 2 as the reference."""
    folder = tmp_path_factory.mktemp("pose")
    sample = read_sample(_write_ball(folder / "sample"))
    random_pipeline(DIFFUSION_SIZES, Slots.pose([sample], SIZE, reference=2), seed=1).save(
        folder / "pipeline"
    )
    return folder / "pipeline"


@pytest.fixture(scope="session")
def facelift_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("facelift") / "pipeline"
    random_pipeline(DIFFUSION_SIZES, Slots.facelift(SIZE), seed=1).save(folder)
    return folder


@pytest.fixture
def write_ball() -> Callable[..., Path]:
    return _write_ball


@pytest.fixture
def balls(tmp_path: Path) -> Path:
    """A list of two samples."""
    return _write_balls(tmp_path / "data", 2)


@pytest.fixture
def four_balls(tmp_path: Path) -> Path:
    """A list of four samples."""
    return _write_balls(tmp_path / "data", 4)


@pytest.fixture
def config(gslrm: Path, tmp_path: Path) -> Callable[..., InferConfig]:
    """Makes a small configuration; settings are as on the command line."""

    def make(*settings: str) -> InferConfig:
        small = (
            *("turntable.frames=3", "turntable.size=16", "named_view_size=16"),
            *("diffusion.steps=2", "device=cpu"),
        )
        defaults = (f"gslrm={gslrm}", f"output={tmp_path / 'out'}", *small)
        return load_config(InferConfig, None, [*defaults, *settings])

    return make


def _save_gslrm(folder: Path, sizes: GSLRMConfig) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_gslrm(GSLRM(sizes), folder)
    return folder


def _write_balls(folder: Path, count: int) -> Path:
    write_list(
        folder / "data.txt",
        [_write_ball(folder / f"sample_{n:06d}", shift=0.1 * n) for n in range(count)],
    )
    return folder / "data.txt"


def _write_ball(folder: Path, shift: float = 0.0, view_ids: Sequence[int] | None = None) -> Path:
    """Write a sample: a large red ball with a small blue one beside it, so that every view differs."""
    azimuths = {view_id: RIG[view_id] for view_id in view_ids or RIG}
    cameras = [_camera(azimuth) for azimuth in azimuths.values()]
    balls = [((shift, 0.0, 0.0), 0.5, (200, 60, 50)), ((0.6, 0.2, 0.1), 0.2, (40, 60, 190))]
    write_sample(folder, [_draw(camera, balls) for camera in cameras], cameras, list(azimuths))
    return folder


def _camera(azimuth_deg: float) -> Camera:
    angle = np.radians(azimuth_deg)
    return Camera.look_at(2.7 * np.array([np.cos(angle), np.sin(angle), 0.1]), (0, 0, 0), 1.07 * SIZE, SIZE)


def _draw(camera: Camera, balls: list) -> np.ndarray:
    image = np.full((SIZE, SIZE, 4), 255, np.uint8)
    image[..., 3] = 0
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    placed = [(camera.project(center), radius, colour) for center, radius, colour in balls]
    for (pixel, depth), radius, colour in sorted(placed, key=lambda item: -item[0][1]):
        inside = np.hypot(columns - pixel[0], rows - pixel[1]) < camera.K[0, 0] * radius / depth
        image[inside] = (*colour, 255)
    return image
