"""An animal of balls with exact masks, for tests that need no files: body, head, and a thin tail."""

import numpy as np

from mouse_facelift.capture.masks import CleanMask, clean_mask
from mouse_facelift.geometry import Camera

ARENA = np.array([50.0, 40.0, 20.0])


def ring(count=6, size=(288, 256), focal=400.0):
    """Cameras around the arena at uneven angles, heights and distances."""
    cameras = []
    for view in range(count):
        angle = 2 * np.pi * view / count + 0.2 * np.sin(3 * view)
        distance = 310 + 40 * np.cos(2 * view)
        offset = np.array([distance * np.cos(angle), distance * np.sin(angle), 60 + 50 * (view % 3)])
        target = ARENA + np.array([0, 0, view - 2.0])
        cameras.append(Camera.look_at(ARENA + offset, target, focal, size))
    return cameras


def animal(position=(0.0, 0.0), yaw=0.3, bend=0.0, rear=0.0):
    """Balls (center [3], radius): the tail bends sideways, the head rears up. In mm, about the arena."""
    along, left = np.array([np.cos(yaw), np.sin(yaw), 0]), np.array([-np.sin(yaw), np.cos(yaw), 0])
    body = ARENA + np.array([*position, 0])
    head = body + 26 * (np.cos(rear) * along + np.sin(rear) * np.array([0, 0, 1]))
    balls = [(body, 19.0), (body + 0.5 * (head - body), 16.0), (head, 11.0)]
    for step in np.linspace(0, 1, 16):
        balls.append((body - (18 + 50 * step) * along + bend * step**2 * left - (0, 0, 14), 3.0))
    return balls


def mask(camera, balls) -> CleanMask:
    """What a camera sees of balls: pixels whose ray passes within the radius of a centre."""
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(camera.K).T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    seen = np.zeros(x.shape, bool)
    for center, radius in balls:
        to_center = camera.R @ center + camera.t
        seen |= to_center @ to_center - (rays @ to_center) ** 2 <= radius**2
    return clean_mask(np.where(seen, np.uint8(255), np.uint8(0)))


def masks(cameras, balls):
    """What all cameras see."""
    return [mask(camera, balls) for camera in cameras]
