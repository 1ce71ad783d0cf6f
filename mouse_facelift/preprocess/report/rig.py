"""The rig in 3D: cameras with their fields of view, the animal's path, the floor, the world's axes.

Every element carries its points in space (`data-points`), and is drawn from them once here, so that the page
shows the rig without any script; report.js draws the same elements again from another side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...geometry import Camera
from ...geometry.cameras import Array
from ...pages.axes import drawing, round_step
from ...pages.markup import Markup, number, tag
from .contents import Report

WIDTH, HEIGHT = 680.0, 500.0
PITCH_DEG = 28.0
DISTANCE = 4.0
"""The viewer's distance in scene radii: near enough to show depth, too far to distort."""
FRUSTUM = 0.24
"""Length of a drawn field of view, as a share of the camera's distance from the animal."""
PATH_POINTS, PATH_COLORS = 900, 24
EARLY, MIDDLE, LATE = (0x2C, 0x6F, 0xBB), (0xA0, 0x5A, 0x9C), (0xE0, 0x8A, 0x1E)
"""Blue to orange, told apart by all eyes, on white and on black."""


@dataclass(frozen=True, eq=False)
class _Scene:
    """Maps the rig's millimetres to the drawing, from one side.

    Attributes:
        rotation: Takes the rig's up to Z. [3, 3]
        middle: What is turned about, after `rotation`. [3]
        radius: Distance of the farthest point.
        yaw: Turn about the vertical, radians.
        pitch: Height of the viewer, radians.
    """

    rotation: Array
    middle: Array
    radius: float
    yaw: float = 0.0
    pitch: float = np.radians(PITCH_DEG)

    def local(self, points: Array) -> Array:
        """Millimetres about the middle, Z up. [..., 3]"""
        return points @ self.rotation.T - self.middle

    def project(self, local: Array) -> Array:
        """Positions in the drawing; the same as `project` in report.js. [..., 3] -> [..., 2]"""
        x, y, z = np.moveaxis(local / self.radius, -1, 0)
        across = np.cos(self.yaw) * x - np.sin(self.yaw) * y
        away = np.sin(self.yaw) * x + np.cos(self.yaw) * y
        up = np.cos(self.pitch) * z + np.sin(self.pitch) * away
        depth = np.cos(self.pitch) * away - np.sin(self.pitch) * z
        # A ring of cameras looks lower, and may be drawn larger, the nearer the viewer is to its plane.
        fitting = min(WIDTH, HEIGHT / (np.sin(self.pitch) + 0.35 * np.cos(self.pitch)))
        zoom = 0.53 * fitting * (DISTANCE - 0.5) / (DISTANCE + depth)
        return np.stack([WIDTH / 2 + zoom * across, HEIGHT / 2 - zoom * up], -1)

    def path(
        self, lines: Sequence[Array], style: str, title: str | None = None, **attributes: object
    ) -> Markup:
        """Lines in space, local coordinates, each [P, 3]."""
        return tag(
            "path",
            tag("title", title) if title else None,
            d="".join(_line(self.project(points)) for points in lines),
            data_points="|".join(_numbers(points) for points in lines),
            class_=style,
            **attributes,
        )

    def word(self, place: Array, text: str, style: str) -> Markup:
        """A word at a local place [3]."""
        x, y = self.project(place)
        return tag("text", text, x=float(x), y=float(y), data_points=_numbers(place[None]), class_=style)


def rig_drawing(report: Report, floor: float | None) -> Markup:
    """The drawing.

    Args:
        report: Cameras, centres and the up direction.
        floor: The animal's lowest height along the up direction in millimetres; None takes its centres'.
    """
    centers = report.centers @ report.facts.rotation.T
    eyes = np.stack([camera.center for camera in report.facts.cameras]) @ report.facts.rotation.T
    ground = float(centers[:, 2].min()) if floor is None else floor
    middle = np.append(np.median(centers[:, :2], axis=0), (ground + float(eyes[:, 2].max())) / 2)
    radius = float(np.linalg.norm(eyes - middle, axis=1).max()) * 1.08
    shown = np.vstack([eyes, np.median(centers, axis=0)])
    scene = _clearest(_Scene(report.facts.rotation, middle, radius), shown - middle)
    step = round_step(radius / 8)
    content = [
        *_floor(scene, ground - middle[2], step),
        *_axes(scene, ground, step),
        *_travel(scene, report, ground - middle[2]),
    ]
    for name, camera in zip(report.facts.camera_ids, report.facts.cameras, strict=True):
        content += _camera(scene, camera, str(name), report.centers, ground - middle[2])
    svg = drawing(
        WIDTH,
        HEIGHT,
        "The rig: cameras and the animal's path",
        *content,
        class_="rig",
        data_view=f"{scene.yaw:.5f} {scene.pitch:.5f}",
        data_radius=radius,
        data_distance=DISTANCE,
        tabindex=0,
    )
    note = f"Squares on the floor are {step:g} mm wide. Path: blue is early, orange is late."
    return tag("figure", svg, tag("figcaption", note), class_="scene")


def _clearest(scene: _Scene, points: Array) -> _Scene:
    """The side from which no two points cover each other."""
    sides = [
        _Scene(scene.rotation, scene.middle, scene.radius, float(yaw))
        for yaw in np.radians(np.arange(0, 360, 10))
    ]

    def gap(side: _Scene) -> float:
        drawn = side.project(points)
        apart = np.linalg.norm(drawn[:, None] - drawn, axis=-1)
        return round(float(apart[np.triu_indices(len(drawn), 1)].min(initial=np.inf)), 3)

    return max(sides, key=gap)


def _floor(scene: _Scene, height: float, step: float) -> list[Markup]:
    """A square grid under the animal."""
    reach = step * np.floor(0.65 * scene.radius / step)
    lines = []
    for place in np.arange(-reach, reach + step / 2, step):
        lines.append(np.array([[place, -reach, height], [place, reach, height]]))
        lines.append(np.array([[-reach, place, height], [reach, place, height]]))
    return [scene.path(lines, "floor")]


def _axes(scene: _Scene, ground: float, step: float) -> list[Markup]:
    """The calibration's axes at its origin; on the floor under the animal where the origin is far away."""
    origin = scene.local(np.zeros(3))
    if np.linalg.norm(origin) > scene.radius:
        origin = np.array([0, 0, ground - scene.middle[2]])
    parts = []
    for name, direction in zip("xyz", scene.rotation.T, strict=True):
        tip = origin + 2 * step * direction
        parts.append(scene.path([np.stack([origin, tip])], f"axis axis-{name}"))
        parts.append(scene.word(origin + 2.25 * step * direction, name, f"axis-{name}"))
    return parts


def _travel(scene: _Scene, report: Report, floor: float) -> list[Markup]:
    """The animal's path, coloured by time, and its shadow on the floor; broken where the recording jumps."""
    first_rows = report.rows[:: len(report.facts.camera_ids)]
    segments = np.array([row.segment for row in first_rows])
    every = max(1, len(segments) // PATH_POINTS)
    path = scene.local(report.centers)
    parts, shadow = [], []
    for segment in np.unique(segments):
        places = np.flatnonzero(segments == segment)[::every]
        ends = np.unique(np.linspace(0, len(places) - 1, PATH_COLORS + 1).astype(int))
        shadow.append(path[places] * (1, 1, 0) + (0, 0, floor))
        for start, stop in pairwise(ends) if len(ends) > 1 else ((0, 0),):
            piece = places[start : stop + 1]
            color = _color(float(piece.mean()) / max(len(segments) - 1, 1))
            title = f"frames {first_rows[piece[0]].frame} to {first_rows[piece[-1]].frame}"
            line = path[piece] if len(piece) > 1 else np.repeat(path[piece], 2, axis=0)
            parts.append(scene.path([line], "travel", title, stroke=color))
    return [scene.path(shadow, "shadow"), *parts]


def _camera(scene: _Scene, camera: Camera, name: str, centers: Array, floor: float) -> list[Markup]:
    """A camera's field of view, its axis up to the animal, its foot on the floor, and its number."""
    _, depths = camera.project(centers)
    reach = abs(float(np.median(depths)))
    width, height = camera.width, camera.height
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    pixels = np.column_stack([np.vstack([corners, [[width / 2, height / 2]]]), np.ones(5)])
    rays = pixels @ np.linalg.inv(camera.K).T
    eye = camera.center
    far = scene.local(eye + FRUSTUM * reach * rays[:4] @ camera.R)
    look = scene.local(eye + np.outer((0, reach), rays[4] @ camera.R))
    top = far[:2].mean(0) + 0.35 * (far[0] - far[3])
    eye = scene.local(eye)
    foot = eye * (1, 1, 0) + (0, 0, floor)
    return [
        scene.path([np.stack([eye, foot])], "stem"),
        scene.path([look], "look"),
        scene.path([np.vstack([far, far[:1]])], "image"),
        scene.path([np.stack([eye, corner]) for corner in far], "frustum"),
        scene.path([np.stack([far[0], top, far[1]])], "top"),
        scene.word(eye + 0.045 * scene.radius * np.array([0, 0, 1.0]), name, "camera-name"),
    ]


def _color(share: float) -> str:
    """The path's colour after a share of the time."""
    low, high = (EARLY, MIDDLE) if share < 0.5 else (MIDDLE, LATE)
    part = 2 * share if share < 0.5 else 2 * share - 1
    return "#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in zip(low, high, strict=True))


def _line(points: Array) -> str:
    return "M" + "L".join(f"{number(x)},{number(y)}" for x, y in points)


def _numbers(points: Array) -> str:
    return " ".join(",".join(number(value) for value in point) for point in points)
