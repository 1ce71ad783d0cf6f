"""A moment as nodes of a viser scene: Gaussians, cameras with their pictures, box and floor.

Nodes are changed in place where they can be, so that nothing blinks when time plays and nothing piles up.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..gaussians.similarity import quaternion
from ..geometry import Camera
from ..samples.format import SampleView, read_rgba
from .placement import pane
from .scene import most_important
from .shown import FLOOR_MM, Shown
from .splats import splat_arrays

if TYPE_CHECKING:
    import viser

LAYERS = ("gaussians", "pictures", "cameras", "box", "floor")
"""What can be hidden."""

FINENESS = 100.0
"""Of Gaussians: they are sent in hundredths of a model unit."""

PICTURE_SIDE = 512
"""Larger pictures are shown in so many pixels."""

PICTURE_DEPTH = 0.35
"""How far a picture is before its camera, of the way to the animal."""

FLOOR_SQUARES = 6
"""On a side."""

FLOOR_CONTRAST, SQUARE_CONTRAST = 0.2, 0.4
"""Of lines of centimetres and of squares, with the background."""

CAMERA_COLOR, BOX_COLOR = (40, 90, 200), (40, 140, 60)

Pictures = Sequence[NDArray[np.uint8]]


class Stage:
    """What a page shows. One thread calls all methods but `toggle`.

    Args:
        server: A `viser.ViserServer`.
        background: Grey level, in [0, 1].
        max_gaussians: See `most_important`.
        on_picture: Called with a click on a picture and the camera that took it, by any thread.
    """

    def __init__(
        self,
        server: "viser.ViserServer",
        background: float,
        max_gaussians: int,
        on_picture: Callable[[Any, Camera], None],
    ) -> None:
        self._server, self._scene = server, server.scene
        self._background, self._max_gaussians, self._on_picture = background, max_gaussians, on_picture
        self._layers = {name: self._scene.add_frame(f"/{name}", show_axes=False) for name in LAYERS}
        self._nodes: dict[str, Any] = {}
        self._cameras: dict[str, Camera] = {}
        self._rig: tuple[Any, ...] = ()
        level = np.full((1, 1, 3), round(255 * background), np.uint8)
        self._scene.set_background_image(level, format="png")

    def toggle(self, layer: str, visible: bool) -> None:
        """Show or hide one of `LAYERS`."""
        self._layers[layer].visible = visible

    def show(self, shown: Shown) -> int:
        """Replace what is there.

        Returns:
            How many visible Gaussians there was no room for.

        Raises:
            DataError: a picture cannot be read, or Gaussians are not finite.
        """
        matrix = shown.world_from_model
        rig = (shown.moment.sample, shown.in_mm, None if matrix is None else matrix.tobytes())
        views = shown.sample.views if shown.sample and shown.from_model is not None else ()
        pictures = None if rig == self._rig else [self._picture(view) for view in views]
        with self._server.atomic():
            left_out = self._show_gaussians(shown)
            if pictures is not None:
                self._show_cameras(shown, views, pictures)
                self._show_lines("/box/edges", shown.box(), BOX_COLOR)
                self._show_floor(shown)
                self._rig = rig
        return left_out

    def _show_gaussians(self, shown: Shown) -> int:
        name = "/gaussians/splats"
        if shown.gaussians is None or len(shown.gaussians) == 0:
            self._remove(name)
            return 0
        visible, left_out = most_important(shown.gaussians, self._max_gaussians)
        fineness = FINENESS / shown.place()[1]
        arrays = splat_arrays(visible, fineness)
        node = self._nodes.get(name)
        if node is None:
            self._nodes[name] = self._scene.add_gaussian_splats(name, **arrays, scale=1 / fineness)
        else:
            node.set_gaussians(**arrays)
            node.scale = 1 / fineness
        return left_out

    def _show_cameras(self, shown: Shown, views: Sequence[SampleView], pictures: Pictures) -> None:
        names = [f"/pictures/{view.view_id}" for view in views]
        for gone in self._cameras.keys() - set(names):
            self._remove(gone)
            self._remove(gone.replace("pictures", "cameras"))
        self._cameras = dict(zip(names, shown.cameras(), strict=True))
        target, edges = shown.place()[0], []
        for (name, camera), view, picture in zip(self._cameras.items(), views, pictures, strict=True):
            depth = PICTURE_DEPTH * float(np.linalg.norm(camera.center - target))
            middle, width, height, lines = pane(camera, depth)
            edges.append(lines)
            new = name not in self._nodes
            sizes: dict[str, Any] = {"render_width": width, "render_height": height}
            place: dict[str, Any] = {"position": middle, "wxyz": quaternion(camera.R.T)}
            node = self._put("add_image", name, {"format": "png"}, image=picture, **sizes, **place)
            if new:
                # The camera may be another one by the time of the click.
                node.on_click(lambda event, name=name: self._on_picture(event, self._cameras[name]))
            label = f"/cameras/{view.view_id}"
            self._put("add_label", label, text=f"camera {view.view_id}", position=camera.center)
        self._show_lines("/cameras/edges", np.concatenate(edges) if edges else None, CAMERA_COLOR)

    def _show_lines(self, name: str, points: NDArray[np.float64] | None, color: tuple[int, int, int]) -> None:
        # viser keeps a colour for each end, so that another number of lines needs new ones.
        if points is None or (name in self._nodes and len(self._nodes[name].points) != len(points)):
            self._remove(name)
        if points is not None:
            fixed = {"colors": color, "thickness": 1.5, "thickness_units": "screen"}
            self._put("add_line_segments", name, fixed, points=points.astype(np.float32))

    def _show_floor(self, shown: Shown) -> None:
        name, floor = "/floor/squares", shown.floor()
        if floor is None:
            self._remove(name)
            return
        corner, axes, mm = floor
        side = FLOOR_SQUARES * FLOOR_MM * mm
        away = -1 if self._background >= 0.5 else 1
        cell, square = (
            (round(255 * (self._background + away * contrast)),) * 3
            for contrast in (FLOOR_CONTRAST, SQUARE_CONTRAST)
        )
        fixed = {"cell_color": cell, "section_color": square, "shadow_opacity": 0.0}
        sizes = {"width": side, "height": side, "cell_size": 10 * mm, "section_size": FLOOR_MM * mm}
        sizes["fade_distance"] = 10 * side
        self._put("add_grid", name, fixed, position=corner, wxyz=quaternion(axes), **sizes)

    def _put(self, add: str, name: str, /, fixed: Mapping[str, Any] | None = None, **values: Any) -> Any:
        """Add a node, or change the values of the one that is there."""
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = getattr(self._scene, add)(name, **values, **(fixed or {}))
        else:
            for key, value in values.items():
                setattr(node, key, value)
        return node

    def _remove(self, name: str) -> None:
        node = self._nodes.pop(name, None)
        if node is not None:
            node.remove()

    def _picture(self, view: SampleView) -> NDArray[np.uint8]:
        """A view on the background. [H, W, 3]"""
        rgba = read_rgba(view.file).astype(np.float32)
        alpha = rgba[..., 3:] / 255
        picture = alpha * rgba[..., :3] + (1 - alpha) * 255 * self._background
        height, width = picture.shape[:2]
        share = PICTURE_SIDE / max(height, width)
        if share < 1:
            size = round(share * width), round(share * height)
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        return picture.round().astype(np.uint8)
