"""Samples of a ball of known surface."""

from pathlib import Path

import numpy as np

from mouse_facelift.geometry import Camera
from mouse_facelift.samples.format import write_sample

SIZE = 32
RADIUS = 0.5
UNIT_MM = 40.0
RIG = {0: 10.0, 1: 200.0, 2: 100.0, 3: 310.0}
FURTHER = {6: 50.0, 7: 250.0}
"""Azimuth in degrees by camera id."""


def ball_points(count: int) -> np.ndarray:
    """Even points on the ball (a Fibonacci lattice), model units. [N, 3]"""
    z = 1 - (2 * np.arange(count) + 1) / count
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    ring = np.sqrt(1 - z**2)
    return RADIUS * np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=1)


def write_ball(folder: Path, azimuths: dict[int, float], frame: int, recording: str = "ball") -> Path:
    """Write a sample of a ball at the origin whose halves differ in colour."""
    cameras = [camera_at(azimuth) for azimuth in azimuths.values()]
    metadata = {
        "frame_index": frame,
        "world_from_model": np.diag([UNIT_MM, UNIT_MM, UNIT_MM, 1.0]).tolist(),
        "source": {"recording": recording},
    }
    write_sample(folder, [draw(camera) for camera in cameras], cameras, list(azimuths), metadata)
    return folder


def camera_at(azimuth_deg: float) -> Camera:
    angle = np.radians(azimuth_deg)
    return Camera.look_at(2.7 * np.array([np.cos(angle), np.sin(angle), 0.1]), (0, 0, 0), 1.07 * SIZE, SIZE)


def draw(camera: Camera) -> np.ndarray:
    image = np.full((SIZE, SIZE, 4), 255, np.uint8)
    image[..., 3] = 0
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    pixel, depth = camera.project((0, 0, 0))
    inside = np.hypot(columns - pixel[0], rows - pixel[1]) < camera.K[0, 0] * RADIUS / depth
    image[inside] = (200, 60, 50, 255)
    image[inside & (rows < SIZE / 2)] = (40, 60, 190, 255)
    return image
