"""The controls of a page, and the loop that does what they ask for.

Controls are moved in viser's threads, which only note it; one thread reads files and changes the scene.
"""

import logging
import time
from collections.abc import Callable, Sequence
from html import escape
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MflError
from ..geometry import Camera
from .config import START_VIEWS, ViewConfig
from .contents import Group, Moment
from .page import View
from .placement import viewpoint
from .shown import Shown, read_moment
from .stage import LAYERS, Stage

if TYPE_CHECKING:
    import viser

log = logging.getLogger(__name__)

STEEPEST_DEG = 89.9
"""A camera that looks straight down does not know where up is."""

BEHIND = 2.0
"""Times the distance of the farthest camera: all of them are in sight."""


class Player:
    """One page.

    Args:
        server: A `viser.ViserServer`.
        groups: What there is to see.
        config: How.

    Raises:
        DataError: the first moment cannot be shown.
    """

    def __init__(self, server: "viser.ViserServer", groups: Sequence[Group], config: ViewConfig) -> None:
        self._server, self._groups, self._config = server, {group.name: group for group in groups}, config
        self._stage = Stage(server, config.background, config.max_gaussians, self._look_through)
        self._requests: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._on_stage: Moment | None = None
        self._place: tuple[Any, float] = (np.zeros(3), 0.0)
        self._reach = 0.0
        self._start_view = "corner"
        self._group = groups[0]
        self._began: tuple[float, int] = (0.0, 0)
        self._add_controls()
        self._show(groups[0].moments[0])

    def run(self) -> None:
        """Serve until interrupted."""
        while True:
            try:
                self._requests.get(timeout=self._until_next() if self._play.value else None)()
            except Empty:
                self._advance()

    def settle(self) -> None:
        """Do what has been asked for so far, and return."""
        while not self._requests.empty():
            self._requests.get()()

    def _add_controls(self) -> None:
        gui, config = self._server.gui, self._config
        longest = max(len(group.moments) for group in self._groups.values())
        names = list(self._groups)
        self._choice = gui.add_dropdown("show", names, initial_value=names[0], visible=len(names) > 1)
        last = max(1, len(self._group.moments) - 1)
        self._time = gui.add_slider("moment", 0, last, 1, 0, visible=len(self._group.moments) > 1)
        self._play = gui.add_checkbox("play", False, visible=longest > 1)
        self._fps = gui.add_slider("fps", 1, max(60, config.fps), 1, config.fps, visible=longest > 1)
        self._text = gui.add_html("")
        rig = any(moment.sample for group in self._groups.values() for moment in group.moments)
        views = [view for view in START_VIEWS if rig or view != "rig"]
        buttons = gui.add_button_group("view", views)
        for layer in LAYERS:
            box = gui.add_checkbox(layer, True, visible=rig or layer not in ("pictures", "cameras"))
            box.on_update(lambda event, layer=layer: self._stage.toggle(layer, event.target.value))
        self._choice.on_update(lambda event: self._requests.put(self._choose))
        self._time.on_update(lambda event: self._requests.put(lambda: self._move(event.client)))
        for control in (self._play, self._fps):
            control.on_update(lambda event: self._requests.put(self._begin))
        buttons.on_click(lambda event: self._requests.put(lambda: self._look(event.client, buttons.value)))

    def _choose(self) -> None:
        """Another group: its moment of the same name, else the one at the same place."""
        group = self._groups[self._choice.value]
        if group is self._group:
            return
        names = [moment.name for moment in group.moments]
        before = self._on_stage.name if self._on_stage else ""
        index = names.index(before) if before in names else min(int(self._time.value), len(names) - 1)
        self._group, place = group, self._place
        with self._server.atomic():
            self._time.max = max(1, len(names) - 1)
            self._time.visible = len(names) > 1
            self._time.value = index
        self._move(None)
        if np.linalg.norm(self._place[0] - place[0]) > 2 * self._place[1]:
            self._start()

    def _move(self, client: Any) -> None:
        """Show the moment of the slider. A user who moves it changes where playing goes on."""
        if client is not None:
            self._begin()
        moment = self._group.moments[min(int(self._time.value), len(self._group.moments) - 1)]
        if moment is self._on_stage:
            return
        try:
            self._show(moment)
        except MflError as error:
            # A damaged file must not end the view of the others.
            log.warning("%s", error)
            self._on_stage = moment
            self._text.content = _html(moment.name, f"cannot be shown: {error}")

    def _until_next(self) -> float:
        """Seconds until the next moment."""
        passed = (time.monotonic() - self._began[0]) * self._fps.value
        return float((1 - passed % 1) / self._fps.value)

    def _begin(self) -> None:
        self._began = time.monotonic(), int(self._time.value)

    def _advance(self) -> None:
        """Moments that come too late are left out, so that time keeps its pace."""
        began, first = self._began
        passed = int((time.monotonic() - began) * self._fps.value)
        self._time.value = (first + passed) % len(self._group.moments)
        self._move(None)

    def _show(self, moment: Moment) -> None:
        shown = read_moment(moment, self._config.frame)
        left_out = self._stage.show(shown)
        self._on_stage = moment
        self._text.content = _describe(shown, left_out)
        before, self._place = self._place, shown.place()
        self._reach = max(
            (float(np.linalg.norm(camera.center - self._place[0])) for camera in shown.cameras()), default=0.0
        )
        self._start_view = self._config.view or ("corner" if shown.gaussians is not None else "rig")
        # The animal may walk while the camera stands still; what has other units would be out of sight.
        if not 0.5 < self._place[1] / max(before[1], 1e-9) < 2:
            self._start()

    def _start(self) -> None:
        """Where the camera starts, for those who are here and those who will come."""
        camera, unit = self._server.initial_camera, self._place[1]
        # Limits first: what is set for those to come does not move those who are here.
        camera.near, camera.far = 0.01 * unit, 1000 * unit
        camera.up, camera.fov = np.array([0.0, 0.0, 1.0]), _fov(1, View().focal)
        camera.position, camera.look_at = self._viewpoint(self._start_view), self._place[0]
        for client in self._server.get_clients().values():
            client.camera.near, client.camera.far = camera.near, camera.far
            self._look(client, self._start_view)

    def _viewpoint(self, view: str) -> Any:
        target, unit = self._place
        azimuth, elevation = START_VIEWS[view]
        distance = View().distance * unit
        if view == "rig":
            distance = max(distance, BEHIND * self._reach)
        return viewpoint(target, distance, azimuth, float(np.clip(elevation, -STEEPEST_DEG, STEEPEST_DEG)))

    def _look(self, client: Any, view: str) -> None:
        with client.atomic():
            client.camera.up_direction = np.array([0.0, 0.0, 1.0])
            client.camera.position = self._viewpoint(view)
            client.camera.look_at = self._place[0]
            client.camera.fov = _fov(1, View().focal)

    def _look_through(self, event: Any, camera: Camera) -> None:
        """Put a user's eye where a camera was; a lens's middle that is not the picture's is left aside."""
        distance = float(np.linalg.norm(camera.center - self._place[0]))
        with event.client.atomic():
            view = event.client.camera
            view.position = camera.center
            view.look_at = camera.center + distance * camera.R[2]
            view.up_direction = -camera.R[1]
            view.fov = _fov(camera.height, camera.K[1, 1])


def _fov(height: float, focal: float) -> float:
    """Vertical field of view in radians."""
    return float(2 * np.arctan(height / (2 * focal)))


def _describe(shown: Shown, left_out: int) -> str:
    """What is shown, as HTML."""
    parts = []
    frame = shown.moment.frame_index
    if frame is None and shown.sample is not None:
        frame = shown.sample.frame_index
    if frame is not None and shown.moment.name != f"frame {frame}":
        parts.append(f"frame {frame}")
    if shown.gaussians is not None:
        parts.append(f"{len(shown.gaussians):,} Gaussians".replace(",", " "))
    if left_out:
        parts.append(f"{left_out:,} of them not drawn".replace(",", " "))
    parts.append("millimetres of the rig" if shown.in_mm else "model units")
    return _html(shown.moment.name, " · ".join(parts))


def _html(name: str, text: str) -> str:
    return f'<div style="margin: 0.5em 1em; font-size: 0.9em"><b>{escape(name)}</b><br>{escape(text)}</div>'
