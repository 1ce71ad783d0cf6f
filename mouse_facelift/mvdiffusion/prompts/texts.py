"""What the texts of the views say: words for where a camera stands, put into a style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...geometry import Camera
from .config import PLACE

COMPASS = ("front", "front_left", "left", "back_left", "back", "back_right", "right", "front_right")
"""By eighths of a turn, counter-clockwise seen from above. Front is the reference's side; right is the right
of a subject that looks at the reference camera (facelift_spec.md 1.10)."""

HEIGHTS = (
    (-10.0, "from below"),
    (10.0, "at eye level"),
    (25.0, "slightly from above"),
    (65.0, "from above at an angle"),
    (90.0, "from straight above"),
)
"""Up to which elevation in degrees a phrase holds."""


@dataclass(frozen=True)
class PromptView:
    """One view as its text sees it.

    Attributes:
        word: For example `front_left`.
        azimuth_deg: Of the camera relative to the reference, counter-clockwise seen from above, in [0, 360);
            None where only the word is known.
        elevation_deg: Of the camera as seen from the animal; None where the text says nothing about it.
    """

    word: str
    azimuth_deg: float | None = None
    elevation_deg: float | None = None

    @classmethod
    def at(cls, azimuth_deg: float, elevation_deg: float | None = None) -> "PromptView":
        """A view with the word for its azimuth."""
        return cls(compass_word(azimuth_deg), azimuth_deg % 360, elevation_deg)

    def text(self, template: str) -> str:
        """The template with this view's word, and its height before the final stop."""
        text = template.replace(PLACE, self.word)
        if self.elevation_deg is None:
            return text
        body = text.removesuffix(".")
        return f"{body}, {height_phrase(self.elevation_deg)}{text[len(body) :]}"


def compass_word(azimuth_deg: float) -> str:
    """The nearest of the eight words; halfway between two, the same on both sides of the animal."""
    # Python rounds halves to even numbers, which treats left and right alike.
    return COMPASS[round(math.remainder(azimuth_deg, 360) / 45) % 8]


def height_phrase(elevation_deg: float) -> str:
    """Words for a camera's elevation in [-90, 90]."""
    return next(phrase for limit, phrase in HEIGHTS if elevation_deg <= limit)


def elevation_near_deg(azimuth_deg: float, cameras: Sequence[Camera]) -> float:
    """Elevation of the camera that stands nearest to a direction.

    Args:
        azimuth_deg: Relative to the first camera.
        cameras: About the origin, Z up; the first is the reference.
    """
    target = cameras[0].azimuth_deg + azimuth_deg
    camera = min(cameras, key=lambda camera: abs(math.remainder(camera.azimuth_deg - target, 360)))
    x, y, z = camera.center
    return math.degrees(math.atan2(z, math.hypot(x, y)))
