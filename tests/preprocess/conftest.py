"""A small rendered recording of two joined balls, exact to the pixel."""

import pickle
from pathlib import Path

import av
import numpy as np
import pytest

from mouse_facelift.geometry import Camera

WIDTH, HEIGHT, FRAMES = 240, 192, 16
BODY, HEAD = 26.0, 15.0


def ball_centers(frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Body and head in mm: the animal walks and turns."""
    angle = 0.15 * frame
    body = np.array([5.0 + 3 * frame, 70.0 - 3 * frame, 26.0])
    return body, body + 33 * np.array([np.cos(angle), np.sin(angle), 0.2])


def rig() -> list[Camera]:
    """Four cameras as a calibration file has them: integer pixel centres."""
    cameras = []
    for angle, height in zip(np.radians([10, 95, 190, 275]), (90, 140, 80, 150), strict=True):
        center = np.array([50 + 310 * np.cos(angle), 20 + 310 * np.sin(angle), height])
        camera = Camera.look_at(center, (55, 22, 25), 330.0, (WIDTH, HEIGHT))
        camera.K[:2, 2] += (3.5, -5.0)
        cameras.append(camera)
    return cameras


def render(camera: Camera, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB and mask; `camera.K` has integer pixel centres."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(camera.K).T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for center, radius in zip(ball_centers(frame), (BODY, HEAD), strict=True):
        to_center = camera.R @ center + camera.t
        mask |= to_center @ to_center - (rays @ to_center) ** 2 <= radius**2
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    image[mask] = (70, 60, 50)
    return image, mask


def write_video(path: Path, pictures: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "8"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def build(folder: Path, change=None) -> Path:
    """Write a recording; `change(view, frame, image, mask)` may spoil pictures."""
    cameras = rig()
    for view, camera in enumerate(cameras):
        images, masks = [], []
        for frame in range(FRAMES):
            image, mask = render(camera, frame)
            if change:
                image, mask = change(view, frame, image, mask)
            images.append(image)
            masks.append(np.repeat(np.where(mask, 255, 0).astype(np.uint8)[..., None], 3, -1))
        write_video(folder / "videos_undist" / f"{view}.mp4", images)
        write_video(folder / "simpleclick_undist" / f"{view}.mp4", masks)
    entries = [{"K": camera.K, "R": camera.R, "T": camera.t} for camera in cameras]
    (folder / "new_cam.pkl").write_bytes(pickle.dumps(entries, protocol=3))
    return folder


@pytest.fixture(scope="session")
def recording_folder(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("recording") / "balls")


@pytest.fixture(scope="session")
def build_recording():
    return build


@pytest.fixture(scope="session")
def animal():
    """Body and head centres in mm of a frame, and their radii."""
    return lambda frame: (ball_centers(frame), (BODY, HEAD))


@pytest.fixture(scope="session")
def rendered():
    """Picture and mask of a view at any moment of the walk."""
    return lambda view, frame: render(rig()[view], frame)
