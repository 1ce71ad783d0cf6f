"""The 3D view as a piece of HTML, and as a page of its own. Neither loads anything from elsewhere."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import write_text
from ..geometry import FACELIFT_DISTANCE, FACELIFT_FOCAL, Camera, direction
from ..pages.markup import Markup, tag
from .config import START_VIEWS
from .scene import Packed

SCRIPTS = ("sort.js", "camera.js", "splats.js", "viewer.js")
"""In the order in which one builds on another."""

NAMED_VIEWS = {name: START_VIEWS[name] for name in ("front", "right", "back", "left", "top", "bottom")}
"""Buttons: azimuth and elevation in degrees."""

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; worker-src blob:"
"""Content security policy of a page: the browser itself keeps it from loading or sending anything."""

HELP = (
    "3D view: drag or arrow keys turn it, Shift and drag moves it, wheel or + and - zoom, double click resets"
)


@dataclass(frozen=True)
class View:
    """A camera that looks at a point, Z up.

    Attributes:
        azimuth_deg: Where it stands about the z axis, counter-clockwise from +x.
        elevation_deg: How high, in [-90, 90].
        distance: From the target, in the scene's unit.
        focal: Focal length in units of the picture's shorter side.
        target: The point in the middle of the picture.
    """

    azimuth_deg: float = 300.0
    elevation_deg: float = 20.0
    distance: float = FACELIFT_DISTANCE
    focal: float = FACELIFT_FOCAL
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        numbers = (self.azimuth_deg, self.elevation_deg, self.distance, self.focal, *self.target)
        if not (all(map(math.isfinite, numbers)) and self.distance > 0 < self.focal):
            raise DataError(f"{self}: expected finite numbers, and a distance and a focal length above 0.")
        if abs(self.elevation_deg) > 90:
            raise DataError(f"{self}: expected an elevation in [-90, 90] degrees.")

    def camera(self, width: int, height: int) -> Camera:
        """The same camera for `render`: what the page shows in a canvas of this many pixels."""
        azimuth, elevation = np.radians((self.azimuth_deg, self.elevation_deg))
        right, back = direction(azimuth + math.pi / 2, 0.0), direction(azimuth, elevation)
        R = np.stack([right, np.cross(-back, right), -back])
        focal = self.focal * min(width, height)
        K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        return Camera.from_rt(K, R, -R @ (np.asarray(self.target) + self.distance * back), width, height)


@dataclass(frozen=True)
class Scene:
    """What one button shows.

    Attributes:
        name: On the button, such as "direct".
        frames: One packed scene, or one for each time.
    """

    name: str
    frames: Sequence[Packed]

    def __post_init__(self) -> None:
        if not self.frames:
            raise DataError(f"scene '{self.name}' has no frames, expected at least one.")


def splat_viewer(
    scenes: Sequence[Scene],
    *,
    view: View | None = None,
    background: float = 1.0,
    side_by_side: bool = False,
    controls: bool = True,
    fps: float = 25.0,
    height: str = "480px",
    alone: bool = False,
) -> Markup:
    """An interactive 3D view as one HTML element, complete with style, script and data.

    Several may stand in one page. The page may have any policy that allows inline scripts; where it forbids
    workers from blobs, depths are sorted in the page itself.

    Args:
        scenes: Selected by buttons, or side by side; one camera moves all of them.
        view: Where the camera starts.
        background: Grey level behind the Gaussians, in [0, 1].
        side_by_side: Start with all scenes beside each other instead of the first.
        controls: Show the bar with buttons, slider and numbers of Gaussians.
        fps: Frames per second when time plays.
        height: CSS height of the element.
        alone: Nothing else is on the page: take keys and wheel from the start, not only once clicked.

    Raises:
        DataError: no scenes, or sequences of different lengths.
    """
    _check_lengths(scenes)
    settings = {
        "scenes": [_describe(scene) for scene in scenes],
        "view": _start(view or View()),
        "views": NAMED_VIEWS,
        "background": background,
        "side_by_side": side_by_side,
        "fps": fps,
        "alone": alone,
    }
    # In a script element only `</script` and `<!--` mean something, so no `<` may be left.
    settings_text = json.dumps(settings, allow_nan=False).replace("<", "\\u003c")
    data = (base64.b64encode(frame.data).decode() for scene in scenes for frame in scene.frames)
    code = "\n".join(_read(name) for name in SCRIPTS)
    return tag(
        "div",
        tag("style", _read("viewer.css")),
        _stage(),
        tag("div", class_="bar", data_help=HELP) if controls else None,
        tag("script", Markup(settings_text), type="application/json"),
        (tag("script", Markup(text), type="text/plain") for text in data),
        tag("script", Markup(f'(() => {{\n"use strict";\n{code}}})();')),
        class_="splat-viewer",
        style=f"height: {height}",
    )


def write_viewer(path: Path, scenes: Sequence[Scene], title: str, **options: Any) -> None:
    """Write a page that is nothing but the 3D view, and fills the window.

    Args:
        path: The page; it appears under its name only when complete.
        scenes: See `splat_viewer`.
        title: Of the page.
        options: Of `splat_viewer`.

    Raises:
        DataError: as `splat_viewer`.
    """
    body = splat_viewer(scenes, **{"height": "100vh", "alone": True, **options})
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", "body { margin: 0 }"),
    )
    write_text(path, f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n")


def _check_lengths(scenes: Sequence[Scene]) -> None:
    lengths = {len(scene.frames) for scene in scenes} - {1}
    if not scenes or len(lengths) > 1:
        found = ", ".join(f"{scene.name}: {len(scene.frames)}" for scene in scenes) or "none"
        raise DataError(
            f"splat_viewer: frames of the scenes are {found}; expected at least one scene, "
            "and the same number of frames in all that have more than one."
        )


def _stage() -> Markup:
    """Where the picture is, or words in its place."""
    return tag(
        "div",
        tag("canvas", tabindex="0", role="img", aria_label=HELP),
        tag("div", class_="names"),
        tag("p", class_="message", hidden=True),
        tag("noscript", tag("p", "The 3D view needs JavaScript.", class_="message")),
        class_="stage",
    )


def _describe(scene: Scene) -> dict[str, Any]:
    """A scene without its data."""
    frames = [
        {
            "count": len(frame),
            "left_out": frame.left_out,
            "box": frame.box,
            "log_scales": frame.log_scales,
            "color_max": frame.color_max,
        }
        for frame in scene.frames
    ]
    return {"name": scene.name, "frames": frames}


def _start(view: View) -> dict[str, Any]:
    values = asdict(view)
    return {
        "azimuth": values.pop("azimuth_deg"),
        "elevation": values.pop("elevation_deg"),
        **values,
    }


def _read(name: str) -> Markup:
    return Markup(Path(__file__).with_name(name).read_text(encoding="utf-8"))
