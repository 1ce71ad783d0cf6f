"""Small results, samples and sequences, and a server that only notes what it is asked for."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mouse_facelift.gaussians import Gaussians
from mouse_facelift.gaussians.compact import open_compact
from mouse_facelift.gaussians.similarity import transformed
from mouse_facelift.geometry import Camera, Similarity
from mouse_facelift.samples.format import write_sample

SIDE = 16
TURN = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])


def world_from_model(frame: int = 0) -> NDArray[np.float64]:
    """A mouse 45 mm to the unit that walks 2 mm a frame, its feet near the floor."""
    return Similarity(1 / 45, TURN, np.array([30.0 + 2 * frame, -20, 25])).world_from_model


def cloud(count: int = 50, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(count, 12, generator=generator)
    return Gaussians(
        means=draw[:, :3] - 0.5,
        quats=draw[:, 3:7] - 0.5,
        scales=0.001 + 0.02 * draw[:, 7:10],
        opacities=0.3 + 0.6 * draw[:, 10],
        sh0=(draw[:, None, 9:12] - 0.5) * 2,
    )


def cameras(count: int = 3) -> list[Camera]:
    angles = 0.3 + 2 * np.pi * np.arange(count) / count
    centers = [(3 * np.cos(angle), 3 * np.sin(angle), 1.0) for angle in angles]
    return [Camera.look_at(center, (0, 0, 0), 1.1 * SIDE, SIDE) for center in centers]


def make_sample(folder: Path, frame: int = 0, views: int = 3) -> Path:
    pictures = [np.full((SIDE, SIDE, 4), 50 * number, np.uint8) for number in range(views)]
    facts = {"frame_index": frame, "world_from_model": world_from_model(frame).tolist()}
    write_sample(folder, pictures, cameras(views), [10 * number for number in range(views)], facts)
    return folder


def make_result(folder: Path, frame: int = 0, output_frame: str = "model") -> Path:
    matrix, scene = world_from_model(frame), cloud(seed=frame)
    folder.mkdir(parents=True)
    (transformed(scene, matrix) if output_frame == "rig" else scene).save_ply(folder / "gaussians.ply")
    facts = {"frame_index": frame, "world_from_model": matrix.tolist(), "output_frame": output_frame}
    (folder / "metrics.json").write_text(json.dumps(facts))
    return folder


def make_sequence(folder: Path, frames: range) -> Path:
    folder.mkdir(parents=True)
    with open_compact(folder / "gaussians.npz") as writer:
        for frame in frames:
            writer.write(cloud(seed=frame), frame, world_from_model(frame))
    return folder


class Node(SimpleNamespace):
    """A node of a scene, or a control: values, and functions to call on events."""

    def on_click(self, function: Callable[[Any], None]) -> None:
        self.clicked = function

    def on_update(self, function: Callable[[Any], None]) -> None:
        self.updated = function

    def set_gaussians(self, **arrays: Any) -> None:
        self.__dict__.update(arrays)

    def remove(self) -> None:
        self.removed = True

    def move(self, value: Any, client: Any) -> None:
        """As a user does."""
        self.value = value
        self.updated(SimpleNamespace(client=client, target=self))


class Nodes:
    """Has an `add_...` for everything, and keeps what was added last under each name."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.added: list[str] = []

    def set_background_image(self, image: NDArray[np.uint8], **options: Any) -> None:
        self.background = image

    def __getattr__(self, method: str) -> Callable[..., Node]:
        if not method.startswith("add_"):
            raise AttributeError(method)

        def add(name: str, *values: Any, **options: Any) -> Node:
            value = options.get("initial_value", values[-1] if values else None)
            key = "text" if method == "add_html" else name
            self.nodes[key] = Node(**{"visible": True, "value": value, **options})
            self.added.append(key)
            return self.nodes[key]

        return add

    def of(self, layer: str) -> dict[str, Node]:
        """Nodes below a name that are still there."""
        return {
            name: node
            for name, node in self.nodes.items()
            if name.startswith(f"/{layer}/") and not hasattr(node, "removed")
        }


class StandIn:
    """Takes the place of a `viser.ViserServer`."""

    def __init__(self) -> None:
        self.scene, self.gui, self.clients = Nodes(), Nodes(), {}
        self.initial_camera = SimpleNamespace()

    @contextmanager
    def atomic(self) -> Iterator[None]:
        yield

    def get_clients(self) -> dict[int, Any]:
        return self.clients


class Client:
    """A user who looks."""

    def __init__(self) -> None:
        self.camera = SimpleNamespace()

    @contextmanager
    def atomic(self) -> Iterator[None]:
        yield
