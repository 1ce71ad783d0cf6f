"""Pictures for the page: the animal's part of a view, and maps of where a prediction errs and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...pages.document import data_url
from ...pages.markup import Markup, tag
from ...pictures import to_uint8

SIDE_PX = 152
"""Side of an embedded picture."""
MARGIN = 1.08
"""Room around the animal."""
FULL_ERROR = 0.4
"""Root mean squared error a pixel from which a map shows its full colour."""
COLOR, MISSING, EXTRA = (0.29, 0.08, 0.42), (0.78, 0.10, 0.08), (0.05, 0.42, 0.78)
"""Full colours of errors: where both animals are, only the true one, only the predicted one."""


@dataclass(frozen=True)
class Strip:
    """One row of pictures of a frame.

    Attributes:
        title: What they show.
        rgb: On white, one a camera. [V, 3, H, W]
        skip: How many of the first columns it leaves empty.
    """

    title: str
    rgb: Tensor
    skip: int = 0


@dataclass(frozen=True)
class Shown:
    """One frame of the page.

    Attributes:
        title: Which frame.
        cameras: Heading of each column.
        window: Left, top, right, bottom of the animal's part, in pixels.
        strips: The rows.
    """

    title: str
    cameras: Sequence[str]
    window: tuple[int, int, int, int]
    strips: Sequence[Strip]


def error_map(rgb: Tensor, alpha: Tensor, true_rgb: Tensor, true_alpha: Tensor) -> Tensor:
    """White where a prediction is right, darker the larger the error, in a colour that says of what kind.

    Args:
        rgb: On white. [V, 3, H, W]
        alpha: [V, 1, H, W]
        true_rgb: On white. [V, 3, H, W]
        true_alpha: [V, 1, H, W]

    Returns:
        [V, 3, H, W]
    """
    error = (rgb.clamp(0, 1) - true_rgb).square().mean(dim=1, keepdim=True).sqrt()
    strength = (error / FULL_ERROR).clamp(0, 1)
    predicted, true = alpha > 0.5, true_alpha > 0.5
    kinds = ((COLOR, predicted & true), (MISSING, true & ~predicted), (EXTRA, predicted & ~true))
    picture = torch.ones_like(rgb)
    for color, area in kinds:
        full = rgb.new_tensor(color)[:, None, None]
        picture = torch.where(area, 1 - strength * (1 - full), picture)
    return picture


def window_of(alpha: Tensor) -> tuple[int, int, int, int]:
    """The smallest square that holds the animal in all views, with room. [V, 1, H, W]

    Returns:
        Left, top, right, bottom in pixels, inside the picture; all of it where there is no animal.
    """
    seen = (alpha > 0.5).any(dim=0)[0]
    height, width = seen.shape
    if not seen.any():
        return 0, 0, width, height
    rows, columns = torch.nonzero(seen, as_tuple=True)
    top, bottom = int(rows.min()), int(rows.max()) + 1
    left, right = int(columns.min()), int(columns.max()) + 1
    side = min(round(MARGIN * max(bottom - top, right - left)), height, width)
    x = min(max((left + right - side) // 2, 0), width - side)
    y = min(max((top + bottom - side) // 2, 0), height - side)
    return x, y, x + side, y + side


def frame_block(shown: Shown) -> Markup:
    """One frame: a table with a row for each strip and a column for each camera."""
    head = tag("tr", tag("th", ""), *(tag("th", name, scope="col") for name in shown.cameras))
    rows = [
        tag(
            "tr",
            tag("th", strip.title, scope="row"),
            *(tag("td") for _ in range(strip.skip)),
            *(
                tag("td", _picture(picture, shown.window, f"{strip.title}, {name}"))
                for picture, name in zip(strip.rgb, shown.cameras[strip.skip :], strict=True)
            ),
        )
        for strip in shown.strips
    ]
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="pictures")
    return tag("article", tag("h3", shown.title), tag("div", table, class_="scroll"))


def key() -> Markup:
    """What the colours of error maps mean."""
    entries: Mapping[str, tuple[float, float, float]] = {
        "wrong colour": COLOR,
        "animal missing": MISSING,
        "animal where there is none": EXTRA,
    }
    parts = (
        tag("span", tag("span", "", class_="key", style=f"background: {_css(color)}"), name)
        for name, color in entries.items()
    )
    return tag("p", "Error maps: ", *parts, class_="legend")


def _picture(rgb: Tensor, window: tuple[int, int, int, int], description: str) -> Markup:
    small = Image.fromarray(_cut(rgb, window)).resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    return tag("img", src=data_url(small), width=SIDE_PX, height=SIDE_PX, alt=description)


def _cut(picture: Tensor, window: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    left, top, right, bottom = window
    return to_uint8(picture[:, top:bottom, left:right])


def _css(color: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * value):02x}" for value in color)
