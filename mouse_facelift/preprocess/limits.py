"""Limits of quality figures, and what is said and done when one is exceeded."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from .config import Limit

Action = Literal["warn", "drop", "stop"]


class _Wording(NamedTuple):
    text: str
    form: str
    at_least: bool


FIGURES = {
    "mask_share": _Wording("mask covers {} of the picture", ".3%", True),
    "removed_share": _Wording("cleaning removed {} of the mask", ".0%", False),
    "border_views": _Wording("the animal touches the border in {} views", ".0f", False),
    "center_residual": _Wording(
        "the masks' centroids lie {} of the picture's diagonal from their common 3D point", ".1%", False
    ),
    "hull_iou": _Wording("mask agrees with the visual hull by {}", ".2f", True),
    "clipped_share": _Wording("{} of the animal lies outside the written picture", ".1%", False),
    "area_jump": _Wording("the mask's area changed by {} since the sample before", ".0%", False),
}
"""Figures of a frame, named as their limits in QualityConfig: the words, the number's format, the side."""


@dataclass(frozen=True)
class Problem:
    """A figure beyond its limit, or a reason why it could not be measured.

    Attributes:
        figure: Name of the limit in QualityConfig.
        camera: Number of the camera; None where it concerns all.
        found: The figure; None where it could not be measured.
        limit: The limit; None where there is none.
        action: What happens.
        text: One sentence without a full stop for messages, with camera, figure, limit and key.
    """

    figure: str
    camera: int | None
    found: float | None
    limit: float | None
    action: Action
    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def kind(self) -> str:
        """What frames with the same problem share, to be counted."""
        where = "" if self.camera is None else f"camera {self.camera}: "
        return f"{where}quality.{self.figure}"


def check(limit: Limit, figure: str, camera: int | None, found: float) -> Problem | None:
    """Compare a figure with its limit; NaN is beyond any.

    Args:
        limit: The limit of that figure.
        figure: Its name in QualityConfig and in `FIGURES`.
        camera: Number of the camera; None where the figure concerns all.
        found: What was measured.
    """
    words = FIGURES[figure]
    if limit.value is None or (found >= limit.value if words.at_least else found <= limit.value):
        return None
    where = "" if camera is None else f"camera {camera}: "
    said = words.text.format(format(found, words.form))
    text = f"{where}{said}, limit {format(limit.value, words.form)} (quality.{figure})"
    return Problem(figure, camera, found, limit.value, limit.action, text)
