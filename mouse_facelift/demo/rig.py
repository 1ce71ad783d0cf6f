"""The cameras of the demo: six as recorded for the MAMMAL mouse rig, or drawn, and four held-out ones."""

import numpy as np
from numpy.typing import NDArray

from ..geometry import Camera, direction

ARENA_CENTER_MM = (58.0, 54.0, 0.0)
AIM_MM = (66.0, 36.0, 30.0)
"""Near where the recorded optical axes meet; the two cameras whose heading is not recorded aim here."""

FULL_SIZE = (1152, 1024)

# Distance from the world origin (mm), elevation, azimuth (deg) and fx, cx (px, first pixel's centre at 0) as
# recorded for the real rig; then pitch below the horizon and heading of the axis (deg; None: at AIM_MM).
_INPUT = (
    (246.1, 14.9, -147.0, 1632.3, 601.36, -0.75, 35.5),
    (414.5, 20.6, 34.0, 1556.8, 623.0, 13.7, -143.6),
    (363.7, 11.3, 86.1, 1630.3, 611.0, 1.6, None),
    (340.0, 10.7, -11.3, 1606.2, 583.0, 1.1, None),
    (318.3, 26.5, 144.0, 1618.3, 641.0, 15.9, -23.7),
    (305.7, 30.8, -64.1, 1636.9, 614.0, 22.0, 99.2),
)
# Recorded for camera 0 only (fy 1639.30, cy 491.22) and taken over for the others.
_FY_OVER_FX = 1639.30 / 1632.31
_CY = 491.22

_HELD_OUT_AIM_MM = (58.0, 54.0, 22.0)
_HELD_OUT_DISTANCE_MM = 318.0
_HELD_OUT_FOCAL = 1600.0
_HELD_OUT = ((62.0, 66.0), (110.0, 34.0), (-100.0, 8.0), (-165.0, 46.0))
"""Azimuth and elevation in degrees, as seen from the aim."""


def mammal_rig(width: int = FULL_SIZE[0], height: int = FULL_SIZE[1]) -> list[Camera]:
    """The six input cameras, ids 0..5, millimetres, for pictures of `width` x `height` pixels."""
    return [_input_camera(*numbers).resized(width, height)[0] for numbers in _INPUT]


def random_rig(seed: int, width: int = FULL_SIZE[0], height: int = FULL_SIZE[1]) -> list[Camera]:
    """Six input cameras of another laboratory: around the arena like the recorded ones, but elsewhere.

    Azimuths about 60 degrees apart, elevations of 5 to 40 degrees, 280 to 430 mm away with focal lengths to
    match, axes that miss the arena's centre by some millimetres, a slight roll. Ids go round the ring.
    """
    rng = np.random.default_rng((seed, 11))
    cameras = []
    for azimuth in 60 * np.arange(6) + rng.uniform(-14, 14, 6):
        target = np.add(ARENA_CENTER_MM, (*rng.uniform(-12, 12, 2), rng.uniform(15, 35)))
        distance = rng.uniform(280, 430)
        center = target + distance * _direction(azimuth, rng.uniform(5, 40))
        focal = distance * rng.uniform(4.3, 5.0)
        aimed = Camera.look_at(center, target, focal, FULL_SIZE)
        roll = np.radians(rng.uniform(-4, 4))
        R = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]) @ aimed.R
        K = aimed.K.copy()
        K[:2, 2] += rng.uniform((-40, -30), (40, 30))
        camera = Camera.from_rt(K, R, -R @ center, *FULL_SIZE)
        cameras.append(camera.resized(width, height)[0])
    return cameras


def held_out_rig(width: int = FULL_SIZE[0], height: int = FULL_SIZE[1]) -> list[Camera]:
    """Four more cameras, ids 6..9, between and above the six, for judging novel views."""
    cameras = []
    for azimuth, elevation in _HELD_OUT:
        center = _HELD_OUT_AIM_MM + _HELD_OUT_DISTANCE_MM * _direction(azimuth, elevation)
        full = Camera.look_at(center, _HELD_OUT_AIM_MM, _HELD_OUT_FOCAL, FULL_SIZE)
        cameras.append(full.resized(width, height)[0])
    return cameras


def _input_camera(
    distance: float,
    elevation: float,
    azimuth: float,
    fx: float,
    cx: float,
    pitch_down: float,
    heading: float | None,
) -> Camera:
    center = distance * _direction(azimuth, elevation)
    if heading is None:
        heading = float(np.degrees(np.arctan2(AIM_MM[1] - center[1], AIM_MM[0] - center[0])))
    target = center + _direction(heading, -pitch_down)
    R = Camera.look_at(center, target, fx, FULL_SIZE).R
    K = np.array([[fx, 0, cx + 0.5], [0, fx * _FY_OVER_FX, _CY + 0.5], [0, 0, 1]])
    return Camera.from_rt(K, R, -R @ center, *FULL_SIZE)


def _direction(azimuth_deg: float, elevation_deg: float) -> NDArray[np.float64]:
    return direction(*np.radians((azimuth_deg, elevation_deg)))
