"""A toy animal seen by a ring of cameras, as sample folders."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_sizes import SIZES

from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.rays import CameraBatch
from mouse_facelift.mvdiffusion.config import TrainMVDiffConfig
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.samples.format import write_list, write_sample

RIG = {0: 10.0, 1: 200.0, 2: 100.0, 3: 310.0}
"""Azimuth in degrees by camera id, not in the order of the ring."""


@pytest.fixture
def tiny_pipeline() -> MVDiffusionPipeline:
    return random_pipeline(SIZES, Slots.facelift(32), seed=1)


@pytest.fixture
def pose_pipeline() -> MVDiffusionPipeline:
    """Told its cameras; those stored are an uneven ring of four, and so are its prompts' directions."""
    cameras = tuple(_camera(azimuth, 32) for azimuth in (0.0, 80.0, 170.0, 290.0))
    return random_pipeline(SIZES, Slots("pose", (0, 1, 2, 3), cameras), seed=1)


@pytest.fixture
def ring() -> Callable[..., CameraBatch]:
    """Makes cameras spread evenly around the animal, at 32 pixels."""

    def make(views: int, turn_deg: float = 0.0) -> CameraBatch:
        cameras = [_camera(turn_deg + 360 * view / views, 32) for view in range(views)]
        K, w2c = (torch.from_numpy(np.stack([getattr(c, name) for c in cameras])) for name in ("K", "w2c"))
        return CameraBatch(K[None].float(), w2c[None].float())

    return make


@pytest.fixture
def write_samples() -> Callable[..., Path]:
    return _write_samples


@pytest.fixture
def train_config(tmp_path: Path) -> Callable[..., TrainMVDiffConfig]:
    """Makes a configuration for four updates on two toy samples; `changes` are nested values."""
    train = _write_samples(tmp_path / "data", 2)

    def make(**changes: dict) -> TrainMVDiffConfig:
        values: dict = {
            "data": {"train_list": train, "val_list": train, "image_size": 32},
            "start": {"kind": "random", "sizes": SIZES.model_dump(), "vae_steps": 5},
            "training": {
                "steps": 4,
                "batch_size": 2,
                "precision": "fp32",
                "workers": 0,
                "log_every": 1,
                "validate_every": 4,
                "checkpoint_every": 2,
            },
            "validation": {"samples": 1, "sampling": {"steps": 2}},
            "optimizer": {"lr": 1e-3, "warmup_steps": 0},
            "output": tmp_path / "run",
        }
        for section, content in changes.items():
            values[section] = {**values.get(section, {}), **content} if isinstance(content, dict) else content
        return TrainMVDiffConfig.model_validate(values)

    return make


def _write_samples(
    folder: Path, count: int, azimuths: dict[int, float] | None = None, size: int = 32
) -> Path:
    """Write samples and their list: head, body and tail as discs, drawn far to near. Returns the list."""
    rng = np.random.default_rng(5)
    folders = []
    for number in range(count):
        turn = rng.uniform(0, 2 * np.pi)
        axis = np.array([np.cos(turn), np.sin(turn), 0.0])
        parts = [
            (axis * 0.45, 0.22, (200, 120, 90)),
            (np.zeros(3), 0.4, (70, 60, 60)),
            (-axis * 0.6, 0.1, (230, 170, 160)),
        ]
        views = azimuths or RIG
        cameras = [_camera(angle, size) for angle in views.values()]
        images = [_draw(camera, parts) for camera in cameras]
        path = folder / f"sample_{number:06d}"
        write_sample(path, images, cameras, list(views))
        folders.append(path)
    write_list(folder / "data.txt", folders)
    return folder / "data.txt"


def _camera(azimuth_deg: float, size: int) -> Camera:
    angle = np.radians(azimuth_deg)
    center = 2.7 * np.array([np.cos(angle), np.sin(angle), 0.0])
    return Camera.look_at(center, (0, 0, 0), 1.07 * size, size)


def _draw(camera: Camera, parts: list) -> np.ndarray:
    image = np.full((camera.height, camera.width, 4), 255, np.uint8)
    image[..., 3] = 0
    rows, columns = np.mgrid[: camera.height, : camera.width] + 0.5
    placed = [(camera.project(center), radius, colour) for center, radius, colour in parts]
    for (pixel, depth), radius, colour in sorted(placed, key=lambda item: -item[0][1]):
        inside = np.hypot(columns - pixel[0], rows - pixel[1]) < camera.K[0, 0] * radius / depth
        image[inside] = (*colour, 255)
    return image
