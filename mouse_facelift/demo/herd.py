"""Samples of many demo mice, drawn straight at the samples' cameras: what the demo's weights learn from.

Recording, encoding and preprocessing as many animals would take days. Here each moment is drawn once, as
`mfl preprocess` would have left it: re-aimed cameras, soft edges mixed with the room behind, some noise.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..geometry import Camera, Similarity, direction
from ..preprocess.config import GeometryConfig
from ..preprocess.normalize import fitting_scales, lookat_camera, reach
from ..progress import track
from ..samples.format import read_list, write_list, write_sample
from ..samples.training_data import Rig, TrainedSample, TrainedSet, TrainingData
from .animal import MouseShape
from .motion import poses
from .mouse import Mesh, mouse_mesh
from .raster import render_mesh
from .recording import TAIL
from .rig import mammal_rig, random_rig

Array = NDArray[np.float64]

MINUTES = 2.0
"""Length of the walk from which an animal's moments are drawn."""
CENTER_ERROR_MM = 1.5
"""Standard deviation of a measured centre from the true one, per axis."""
MAMMAL_SHARE = 0.25
"""Of the animals that stand in the recorded rig; the others get one of their own."""
LEAST_WALK_SEED = 2**20
"""Of a herd's animals; recordings have smaller ones."""
UP = np.array((0.0, 0.0, 1.0))
GEOMETRY = GeometryConfig()


@dataclass(frozen=True)
class Herd:
    """How many samples of how many animals.

    Attributes:
        mice: Animals, each with a shape, a coat, a walk and a rig of its own.
        moments: Samples of each.
        size: Side of the pictures in pixels.
        extra_views: Views from anywhere above the floor, besides the rig's six; camera ids from 6.
        held_out: Animals, the last ones, whose samples are for validation.
        seed: Of everything; see `LEAST_WALK_SEED`.

    Raises:
        ConfigError: all animals are held out.
    """

    mice: int
    moments: int
    size: int
    extra_views: int = 2
    held_out: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mice <= self.held_out:
            raise ConfigError(
                f"a herd of {self.mice} mice, {self.held_out} of them held out, leaves none for training. "
                "Draw more."
            )

    @property
    def trained(self) -> range:
        """Numbers of the animals for training."""
        return range(self.mice - self.held_out)

    def recording(self, number: int) -> str:
        """What an animal's samples name as their recording."""
        return f"herd {self.seed}, mouse {number:04d}"


@dataclass(frozen=True, eq=False)
class Animal:
    """What chance makes of an animal, before anything is drawn.

    Attributes:
        shape: Its shape and coat.
        walk_seed: Of its motion.
        times_s: When its moments are, seconds since its walk began. [M]
        errors_mm: From the true centre to the measured one, at each moment. [M, 3]
        rig: Six cameras, ids 0 to 5, millimetres.
    """

    shape: MouseShape
    walk_seed: int
    times_s: Array
    errors_mm: Array
    rig: Sequence[Camera]


def write_herd(folder: Path, herd: Herd, processes: int | None = None) -> tuple[Path, Path]:
    """Draw all samples; animals that are there already are kept.

    Args:
        folder: Where `mouse_XXXX/sample_XXXXXX` go.
        herd: What to draw.
        processes: Animals drawn at once; None takes all cores.

    Returns:
        The lists of training and of validation samples.
    """
    folders = [folder / f"mouse_{number:04d}" for number in range(herd.mice)]
    with ProcessPoolExecutor(processes or os.cpu_count(), get_context("spawn")) as pool:
        drawn = pool.map(partial(_write_mouse, herd=herd), folders, range(herd.mice), chunksize=1)
        list(track(drawn, "herd", total=herd.mice))
    count = len(herd.trained)
    parts = {"train": folders[:count], "val": folders[count:]}
    for name, animals in parts.items():
        write_list(
            folder / f"data_{name}.txt",
            [place for animal in animals for place in read_list(animal / "all.txt")],
        )
    return folder / "data_train.txt", folder / "data_val.txt"


def draw_animal(herd: Herd, number: int) -> tuple[Animal, np.random.Generator]:
    """One animal of a herd, and the generator of what chance is yet to decide: its scale and its pictures."""
    rng = np.random.default_rng((herd.seed, number, 17))
    animal = Animal(
        shape=MouseShape.diverse(rng) if rng.random() < 0.5 else MouseShape.random(rng),
        walk_seed=int(rng.integers(LEAST_WALK_SEED, 2**31)),
        times_s=np.sort(rng.uniform(0, 60 * MINUTES, herd.moments)),
        errors_mm=rng.normal(0, CENTER_ERROR_MM, (herd.moments, 3)),
        rig=mammal_rig() if rng.random() < MAMMAL_SHARE else random_rig(int(rng.integers(2**31))),
    )
    return animal, rng


def training_data(herd: Herd) -> TrainingData:
    """What training on a herd sees, an entry per animal.

    Of the views from anywhere it says no place: each was there for one picture. A trainer, which knows
    samples alone, takes every place for another rig, and so every sample for another recording.
    """
    sets = []
    for number in herd.trained:
        rig = draw_animal(herd, number)[0].rig
        centers = {view: _rounded(camera.center) for view, camera in enumerate(rig)}
        moments = tuple(TrainedSample(_name(moment), moment, "") for moment in range(herd.moments))
        seen = tuple(range(len(rig) + herd.extra_views))
        sets.append(TrainedSet(Rig(herd.recording(number), centers), seen, (), moments))
    return TrainingData(tuple(sets))


def _rounded(place: Array) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in place.round(1))
    return x, y, z


def _name(moment: int) -> str:
    return f"sample_{moment:06d}"


def _write_mouse(folder: Path, number: int, herd: Herd) -> None:
    """One animal's samples; its list is written last."""
    if (folder / "all.txt").is_file():
        return
    cv2.setNumThreads(1)
    animal, rng = draw_animal(herd, number)
    rig = animal.rig
    meshes = [mouse_mesh(animal.shape, pose) for pose in poses(animal.walk_seed, animal.times_s)]
    centers = [_body(mesh).mean(0) + error for mesh, error in zip(meshes, animal.errors_mm, strict=True)]
    scale = _scale(meshes, centers, rig, rng)
    written = []
    for moment, (mesh, center) in enumerate(zip(meshes, centers, strict=True)):
        similarity = Similarity(scale, np.eye(3), center)
        cameras = [*rig, *_anywhere(herd.extra_views, center, rng)]
        aimed = [_aimed(camera, similarity, herd.size) for camera in cameras]
        sample = write_sample(
            folder / _name(moment),
            [_picture(mesh, camera, rng) for camera in aimed],
            [camera.similarity(similarity) for camera in aimed],
            range(len(aimed)),
            {
                "frame_index": moment,
                "world_from_model": similarity.world_from_model.tolist(),
                "source": {"recording": herd.recording(number)},
            },
        )
        written.append(sample.folder)
    write_list(folder / "all.txt", written)


def _body(mesh: Mesh) -> Array:
    """Vertices without the tail. [N, 3]"""
    return mesh.vertices[mesh.part != TAIL]


def _scale(
    meshes: Sequence[Mesh], centers: Sequence[Array], rig: Sequence[Camera], rng: np.random.Generator
) -> float:
    """Model units per mm: the body just fits the box and the pictures, as preprocess chooses it, or less."""
    bodies = [(_body(mesh), center) for mesh, center in zip(meshes, centers, strict=True)]
    extents = np.array([np.abs(body - center).max() for body, center in bodies])
    reaches = np.array([reach(GEOMETRY, body, center, rig, UP) for body, center in bodies])
    return float(fitting_scales(GEOMETRY, extents, reaches).min() * rng.uniform(0.85, 1.0))


def _anywhere(count: int, center: Array, rng: np.random.Generator) -> list[Camera]:
    """Cameras around the animal, from level to nearly overhead, millimetres."""
    cameras = []
    for _ in range(count):
        azimuth, elevation = rng.uniform(0, 2 * np.pi), np.arcsin(rng.uniform(0, 0.97))
        away = rng.uniform(280, 430) * direction(azimuth, elevation)
        cameras.append(Camera.look_at(center + away, center, 1600.0, 512))
    return cameras


def _aimed(camera: Camera, similarity: Similarity, size: int) -> Camera:
    """The sample's camera, still in millimetres."""
    K, R = lookat_camera(camera, similarity, GEOMETRY, size)
    return Camera.from_rt(K, R, -R @ camera.center, size, size)


def _picture(mesh: Mesh, camera: Camera, rng: np.random.Generator) -> NDArray[np.uint8]:
    """As cut from a video by its mask: at the edge the room shines through. [S, S, 4]"""
    fine, _ = camera.resized(2 * camera.width, 2 * camera.height)
    seen = render_mesh(mesh, fine, samples=1)
    room = rng.uniform(0.35, 0.95) + rng.normal(0, 0.02, 3)
    alpha = seen.alpha[..., None]
    mixed = seen.rgb * alpha + room * (1 - alpha)
    layers = np.dstack([mixed, (alpha >= 0.5).astype(np.float64)]).astype(np.float32)
    layers = cv2.GaussianBlur(layers, (0, 0), rng.uniform(0.5, 1.3))
    layers = cv2.resize(layers, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    layers[..., :3] += rng.normal(0, rng.uniform(0.0, 0.012), layers[..., :3].shape).astype(np.float32)
    layers[layers[..., 3] < 0.5 / 255] = (1, 1, 1, 0)
    return np.round(255 * layers.clip(0, 1)).astype(np.uint8)
