"""Writes a synthetic recording of the demo mouse: the files of a real one, and the truth.

The files lie as in the MAMMAL `markerless_mouse_1` sequence; `ground_truth/` adds what no real recording has.
"""

import pickle
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..files import atomic_folder, write_json
from ..geometry import Camera
from ..progress import bar
from ..videos import open_video
from .anatomy import PARTS
from .animal import MouseShape
from .config import RecordingConfig
from .motion import poses
from .mouse import Mesh, mouse_mesh
from .raster import render_mesh
from .rig import ARENA_CENTER_MM, held_out_rig, mammal_rig, random_rig
from .room import backdrop, contact_shadow

NOISE_MARGIN = 64
"""A camera's sensor noise is one larger picture, seen through a window that jumps with every frame."""

HELD_OUT_SAMPLES = 3
"""Samples per pixel along either axis for the pictures that results are judged by."""

TAIL = list(PARTS).index("tail")

CONVENTION = (
    "x_cam = R X + t (w2c), x right, y down, z forward; pixel ~ K x_cam, first pixel's centre at (0.5, 0.5); "
    "world Z up, millimetres, floor at z = 0. In new_cam.pkl the first pixel's centre is at (0, 0)."
)


def write_recording(folder: Path, config: RecordingConfig) -> Path:
    """Render and write a recording. The folder appears whole or not at all; an existing one is replaced.

    Files:
        videos_undist/{0..5}.mp4: Colour, H.264.
        simpleclick_undist/{0..5}.mp4: Masks, white on black, H.264 and so not exactly 0 and 255.
        new_cam.pkl: Six dicts K, R, T as OpenCV stores them (first pixel's centre at 0).
        ground_truth/cameras.json: Six input and four held-out cameras, half-pixel centres.
        ground_truth/vertices.npz: `vertices` [T, N, 3] float32 mm, `faces` [F, 3].
        ground_truth/track.npz: `centroid_mm` (of the surface's area), `body_centroid_mm` (without the tail),
            `bbox_min_mm`, `bbox_max_mm`, each [T, 3].
        ground_truth/masks/frameFFFF_camC.png: Lossless masks of the input cameras, 0 or 255.
        ground_truth/novel_views/frameFFFF_camC.png: Straight RGBA of the mouse alone, held-out cameras.

    The last two are there for `config.truth_frames`. All vertices are held in memory, 92 KB a frame.

    Returns:
        `folder`.
    """
    shape = MouseShape.random(np.random.default_rng((config.seed, 0)))
    path = poses(config.seed, np.arange(config.frames) / config.fps)
    size = config.width, config.height
    inputs = mammal_rig(*size) if config.rig_seed is None else random_rig(config.rig_seed, *size)
    held_out = dict(enumerate(held_out_rig(*size), start=len(inputs)))
    with atomic_folder(folder) as temporary:
        for name in ("videos_undist", "simpleclick_undist", "ground_truth/masks", "ground_truth/novel_views"):
            (temporary / name).mkdir(parents=True)
        _write_calibration(temporary / "new_cam.pkl", inputs)
        truth = temporary / "ground_truth"
        _write_cameras(truth / "cameras.json", inputs, held_out, config)
        vertices, track = [], []
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(config.threads))
            line = stack.enter_context(bar("recording", config.frames))
            stations = [_Station(stack, temporary, i, camera, config) for i, camera in enumerate(inputs)]
            for frame, pose in enumerate(path):
                mesh = mouse_mesh(shape, pose)
                vertices.append(mesh.vertices.astype(np.float32))
                track.append(_locate(mesh))
                is_truth = frame in config.truth_frames
                shadow = contact_shadow(mesh)
                _finish(pool.submit(station.record, frame, mesh, shadow, is_truth) for station in stations)
                if is_truth:
                    _finish(
                        pool.submit(
                            _write_novel_view, _picture(truth / "novel_views", frame, i), mesh, camera
                        )
                        for i, camera in held_out.items()
                    )
                line.advance()
        np.savez(truth / "vertices.npz", vertices=np.stack(vertices), faces=mesh.faces)
        centroid, body, low, high = np.stack(track, axis=1)
        np.savez(
            truth / "track.npz",
            centroid_mm=centroid,
            body_centroid_mm=body,
            bbox_min_mm=low,
            bbox_max_mm=high,
        )
    return folder


class _Station:
    """One input camera: its backdrop, its noise and its two open videos."""

    def __init__(
        self, stack: ExitStack, folder: Path, index: int, camera: Camera, config: RecordingConfig
    ) -> None:
        self._index = index
        self._camera = camera
        self._masks = folder / "ground_truth" / "masks"
        size = (config.width, config.height, config.fps)
        videos = folder / "videos_undist", folder / "simpleclick_undist"
        self._colour, self._mask = (
            stack.enter_context(open_video(place / f"{index}.mp4", *size, crf))
            for place, crf in zip(videos, (config.crf, config.mask_crf), strict=True)
        )
        self._backdrop = backdrop(camera, config.seed)
        self._rng = np.random.default_rng((config.seed, 5, index))
        shape = (config.height + NOISE_MARGIN, config.width + NOISE_MARGIN, 3)
        self._noise = np.float32(config.noise) * self._rng.standard_normal(shape, np.float32)

    def record(self, frame: int, mesh: Mesh, shadow: NDArray[np.float32], is_truth: bool) -> None:
        """Take one picture and its mask."""
        seen = render_mesh(mesh, self._camera)
        alpha = seen.alpha[..., None]
        picture = seen.rgb * alpha + self._backdrop.shaded(shadow) * (1 - alpha)
        top, left = self._rng.integers(0, NOISE_MARGIN, 2)
        noise = self._noise[top : top + self._camera.height, left : left + self._camera.width]
        self._colour.write(np.clip(255 * picture + noise + 0.5, 0, 255).astype(np.uint8))
        mask = np.where(seen.alpha >= 0.5, 255, 0).astype(np.uint8)
        self._mask.write(np.repeat(mask[..., None], 3, axis=2))
        if is_truth:
            Image.fromarray(mask).save(_picture(self._masks, frame, self._index))


def _write_novel_view(path: Path, mesh: Mesh, camera: Camera) -> None:
    seen = render_mesh(mesh, camera, HELD_OUT_SAMPLES)
    rgba = np.concatenate([seen.rgb, seen.alpha[..., None]], axis=2)
    Image.fromarray(np.round(255 * rgba).astype(np.uint8)).save(path, compress_level=3)


def _write_calibration(path: Path, cameras: list[Camera]) -> None:
    entries = []
    for camera in cameras:
        K = camera.K.copy()
        K[:2, 2] -= 0.5
        entries.append({"K": K, "R": camera.R.copy(), "T": camera.t.copy()})
    path.write_bytes(pickle.dumps(entries, protocol=3))


def _write_cameras(
    path: Path, inputs: list[Camera], held_out: dict[int, Camera], config: RecordingConfig
) -> None:
    entries = [
        {
            "id": index,
            "role": "held_out" if index in held_out else "input",
            "width": camera.width,
            "height": camera.height,
            "K": camera.K.tolist(),
            "w2c": camera.w2c.tolist(),
        }
        for index, camera in {**dict(enumerate(inputs)), **held_out}.items()
    ]
    content = {
        "convention": CONVENTION,
        "arena_center_mm": list(ARENA_CENTER_MM),
        "fps": config.fps,
        "frames": config.frames,
        "truth_frames": list(config.truth_frames),
        "cameras": entries,
    }
    write_json(path, content)


def _locate(mesh: Mesh) -> NDArray[np.float64]:
    """Centroid, centroid without tail, and least and greatest corner, mm. [4, 3]"""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    middle = (a + b + c) / 3
    trunk = np.where(mesh.part[mesh.faces[:, 0]] == TAIL, 0.0, area)
    corners = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    return np.stack([area @ middle / area.sum(), trunk @ middle / trunk.sum(), *corners])


def _picture(folder: Path, frame: int, camera: int) -> Path:
    return folder / f"frame{frame:04d}_cam{camera}.png"


def _finish(tasks: Iterable[Future[None]]) -> None:
    """Start all tasks, then wait for each and raise what it raised."""
    for task in list(tasks):
        task.result()
