"""Tiny random pipelines and a data set of balls, split into training and validation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_sizes import SIZES

from mouse_facelift.config import load_config
from mouse_facelift.geometry import Camera
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.samples.format import read_sample, write_list, write_sample
from mouse_facelift.synthesis.config import SynthesizeConfig

SIZE, LARGE = 32, 48
"""Of MVDiffusion's pictures and of the samples'."""
RIG = {0: 10.0, 1: 200.0, 2: 100.0, 5: 310.0}
"""Azimuth in degrees by camera id."""


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A pipeline of each mode; those of the rig were trained with camera 2 as the reference."""
    folder = tmp_path_factory.mktemp("pipelines")
    sample = read_sample(_write_ball(folder / "sample"))
    slots = {
        "rig": Slots.rig([sample], SIZE, reference=2),
        "pose": Slots.pose([sample], SIZE, reference=2),
        "facelift": Slots.facelift(SIZE),
    }
    for name, meaning in slots.items():
        random_pipeline(SIZES, meaning, seed=1).save(folder / name)
    return {name: folder / name for name in slots}


@pytest.fixture
def balls(tmp_path: Path) -> Path:
    """A data set of three training samples and one for validation."""
    folder = tmp_path / "balls"
    samples = [_write_ball(folder / f"sample_{n:06d}", n) for n in range(4)]
    write_list(folder / "data_train.txt", samples[:3])
    write_list(folder / "data_val.txt", samples[3:])
    return folder


@pytest.fixture
def config(checkpoints: dict[str, Path], balls: Path, tmp_path: Path) -> Callable[..., SynthesizeConfig]:
    """Makes a small configuration for a pipeline; settings are as on the command line."""

    def make(*settings: str, slots: str = "pose") -> SynthesizeConfig:
        given = [f"mvdiffusion={checkpoints[slots]}", f"output={tmp_path / 'new'}", "device=cpu"]
        given += [] if any("_list=" in setting for setting in settings) else [f"input={balls}"]
        return load_config(SynthesizeConfig, None, [*given, "diffusion.steps=2", *settings])

    return make


def _write_ball(folder: Path, number: int = 0) -> Path:
    """A ball that moves from sample to sample, larger pictures than MVDiffusion's."""
    cameras = []
    for azimuth in np.radians(list(RIG.values())):
        center = 2.7 * np.array([np.cos(azimuth), np.sin(azimuth), 0.1])
        cameras.append(Camera.look_at(center, (0, 0, 0), 1.07 * LARGE, LARGE))
    metadata = {
        "frame_index": 10 * number,
        "world_from_model": np.diag([80.0, 80.0, 80.0, 1.0]).tolist(),
        "source": {"recording": "balls"},
        "quality": "of the source's pictures",
    }
    images = [_draw(camera, 0.1 * number) for camera in cameras]
    write_sample(folder, images, cameras, list(RIG), metadata)
    return folder


def _draw(camera: Camera, shift: float) -> np.ndarray:
    image = np.full((LARGE, LARGE, 4), 255, np.uint8)
    image[..., 3] = 0
    pixel, depth = camera.project((shift, 0.0, 0.0))
    rows, columns = np.mgrid[:LARGE, :LARGE] + 0.5
    inside = np.hypot(columns - pixel[0], rows - pixel[1]) < camera.K[0, 0] * 0.5 / depth
    image[inside] = (200, 60, 50, 255)
    return image
