"""Configuration of `mfl view`, its command line, and the views it can start from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from ..config import Config

START_VIEWS = {
    "corner": (300.0, 20.0),
    "front": (270.0, 0.0),
    "right": (0.0, 0.0),
    "back": (90.0, 0.0),
    "left": (180.0, 0.0),
    "top": (270.0, 90.0),
    "bottom": (270.0, -90.0),
    "rig": (300.0, 30.0),
}
"""Azimuth and elevation in degrees. Sides are those of the axes, right is +x; rig is behind all cameras."""


class ViewConfig(Config):
    """What to show, and where."""

    paths: tuple[Path, ...] = Field(
        min_length=1,
        description="Gaussians (a PLY, results of `mfl infer`, a sequence), samples (a folder, a list, a "
        "folder of samples), or both.",
    )
    frame: Literal["stored", "model", "rig"] = Field(
        "stored",
        description="stored shows Gaussians in the frame of their file; model in the sample's own; rig in "
        "the rig's millimetres.",
    )
    view: Literal["corner", "front", "right", "back", "left", "top", "bottom", "rig"] | None = Field(
        None,
        description="Where the camera starts: sides are those of the axes (right is +x), wherever the "
        "animal looks; rig is behind all cameras; null "
        "takes corner where there are Gaussians, else rig.",
    )
    fps: int = Field(25, ge=1, le=120, description="Moments a second when time plays.")
    max_gaussians: int = Field(
        300_000, ge=1, description="Show this many at once, those with the largest opacity times area."
    )
    background: float = Field(1.0, ge=0, le=1, description="Grey level behind the Gaussians.")
    host: str = Field(
        "localhost",
        description="Address to serve at; 0.0.0.0 lets everybody in the network look, without a password.",
    )
    port: int = Field(8080, ge=1, le=65535, description="The first to try; the next free one is taken.")
    open: bool | None = Field(
        None, description="Open the page in a browser; null does where there is a display of one's own."
    )


def settings(arguments: Sequence[str]) -> list[str]:
    """Paths among the arguments become one setting."""
    paths: list[str] = []
    others: list[str] = []
    for text in arguments:
        (others if "=" in text and not Path(text).exists() else paths).append(text)
    return [*([f"paths={json.dumps(paths)}"] if paths else []), *others]
