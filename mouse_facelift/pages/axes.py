"""Axes of SVG charts: positions, round ticks, and their labels."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .markup import Markup, number, tag


@dataclass(frozen=True)
class Axis:
    """A linear map from values to picture coordinates; `low` lies at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value lies; values outside are moved to the nearer end."""
        share = (value - self.low) / ((self.high - self.low) or 1)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round values inside the axis, at most about `most` of them."""
        step = self.step(most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def step(self, most: int) -> float:
        """1, 2 or 5 times a power of ten, so that about `most` ticks fit."""
        return round_step((self.high - self.low) / most)

    def label(self, value: float, most: int, percent: bool = False) -> str:
        """A tick's text, with as many digits as the step needs."""
        factor = 100 if percent else 1
        digits = max(0, -math.floor(math.log10(self.step(most) * factor) + 1e-9))
        return f"{factor * value:,.{digits}f}{'%' if percent else ''}".replace("-0%", "0%")


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... (and their tenths) that is not below `least`."""
    if not least > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    """A straight line of a CSS class."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=style)


def label(x: float, y: float, text: str, anchor: str = "middle", style: str | None = None) -> Markup:
    """A word at a place."""
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_=style)


def drawing(
    width: float,
    height: float,
    title: str,
    *content: Markup | Iterable[Markup] | None,
    class_: str = "chart",
    **attributes: object,
) -> Markup:
    """An SVG picture that scales with the page; `title` is read aloud."""
    return tag(
        "svg",
        tag("title", title),
        *content,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        class_=class_,
        **attributes,
    )
