"""Plain charts for any figures: lines with bands, means with intervals, stacked bars."""

from collections.abc import Sequence
from dataclasses import dataclass

from .axes import Axis, drawing, label, line
from .markup import Markup, join, number, tag

WIDTH, HEIGHT = 520.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 12.0, 10.0, 40.0
ROW = 26.0
NAMES = 210.0
"""Width of the column of names beside rows."""
VALUES = 150.0
"""Width of the column of values beside rows."""


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: For the legend.
        style: `s1` to `s6`, the page's colours; `s5` is grey and dashed, for what is there to compare with.
        points: Positions, in order of x.
        band: Lower and upper end at each point; empty draws none.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Interval:
    """One row: a mean and its interval.

    Attributes:
        name: At its left.
        style: As of `Series`.
        mean: The dot.
        low: Lower end.
        high: Upper end.
        text: At its right.
    """

    name: str
    style: str
    mean: float
    low: float
    high: float
    text: str


def line_chart(series: Sequence[Series], title: str, x_label: str, y_label: str) -> Markup:
    """Lines over common axes, with dots, bands and a legend.

    Args:
        series: At least one with a point.
        title: Read aloud.
        x_label: Below the axis.
        y_label: Above the axis.
    """
    xs = [x for each in series for x, _ in each.points]
    ys = [y for each in series for _, y in each.points]
    ys += [end for each in series for pair in each.band for end in pair]
    across = Axis(*_spread(xs, 0.02), LEFT, WIDTH - RIGHT)
    height = Axis(*_spread(ys, 0.06), HEIGHT - BOTTOM, TOP + 14)
    chart = drawing(
        WIDTH,
        HEIGHT,
        title,
        _frame(across, height, x_label, y_label),
        *(_curve(each, across, height) for each in series),
    )
    return tag("figure", chart, legend([(each.name, each.style) for each in series]))


def interval_chart(rows: Sequence[Interval], title: str, unit: str, zero: bool = False) -> Markup:
    """A row each with a dot and a line from its lower to its upper end.

    Args:
        rows: At least one.
        title: Read aloud.
        unit: Below the axis.
        zero: Whether 0 is shown, with a line.
    """
    ends = [end for row in rows for end in (row.low, row.mean, row.high)] + ([0.0] if zero else [])
    across = Axis(*_spread(ends, 0.06), NAMES, NAMES + WIDTH)
    marks = [line(across(0.0), TOP, across(0.0), TOP + ROW * len(rows), "zero")] if zero else []
    for index, row in enumerate(rows):
        y = TOP + ROW * (index + 0.5)
        marks += [
            label(NAMES - 12, y + 4, row.name, "end", "name"),
            tag(
                "g",
                tag("title", f"{row.name}: {row.text}"),
                line(across(row.low), y, across(row.high), y, "interval"),
                tag("circle", cx=across(row.mean), cy=y, r=4.5, class_="point"),
                class_=row.style,
            ),
            label(NAMES + WIDTH + 12, y + 4, row.text, "start", "name"),
        ]
    return _rows_chart(across, len(rows), title, unit, marks)


def stacked_bars(
    rows: Sequence[tuple[str, Sequence[float]]],
    parts: Sequence[tuple[str, str]],
    title: str,
    unit: str,
    most: float = 0.0,
) -> Markup:
    """Bars of parts that add up.

    Args:
        rows: Name and sizes, one a part. Not negative.
        parts: Name and style of each part.
        title: Read aloud.
        unit: Below the axis.
        most: The axis reaches at least so far, such as that of a chart to compare with.
    """
    longest = max([most, *(sum(sizes) for _, sizes in rows)])
    across = Axis(0.0, 1.04 * longest or 1.0, NAMES, NAMES + WIDTH)
    marks = []
    for index, (name, sizes) in enumerate(rows):
        y, start = TOP + ROW * index, 0.0
        marks.append(label(NAMES - 12, y + ROW / 2 + 4, name, "end", "name"))
        for (part, style), size in zip(parts, sizes, strict=True):
            box = tag(
                "rect",
                tag("title", f"{name}, {part}: {size:.2g}"),
                x=across(start),
                y=y + 5,
                width=across(start + size) - across(start),
                height=ROW - 10,
                class_=f"bar {style}",
            )
            marks.append(box)
            start += size
        marks.append(label(NAMES + WIDTH + 12, y + ROW / 2 + 4, f"{start:.2g}", "start", "name"))
    return tag("figure", _rows_chart(across, len(rows), title, unit, marks), legend(parts))


def _rows_chart(across: Axis, rows: int, title: str, unit: str, marks: Sequence[Markup]) -> Markup:
    """Marks of rows over a common axis; it scrolls by itself where the page is narrow."""
    bottom, ticks = TOP + ROW * rows, across.ticks(7)
    chart = drawing(
        NAMES + WIDTH + VALUES,
        bottom + 34,
        title,
        *(line(across(tick), TOP, across(tick), bottom, "grid") for tick in ticks),
        *(label(across(tick), bottom + 15, across.label(tick, 7)) for tick in ticks),
        label(NAMES + WIDTH / 2, bottom + 31, unit),
        *marks,
        class_="chart rows",
    )
    return tag("div", chart, class_="scroll")


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Names beside their colours."""
    lines = (tag("span", tag("span", "", class_=f"key {style}"), name) for name, style in entries)
    return tag("p", *lines, class_="legend")


def _curve(series: Series, across: Axis, height: Axis) -> Markup:
    places = [(across(x), height(y)) for x, y in series.points]
    dots = (
        tag("circle", tag("title", f"{series.name}: {y:.4g} at {x:.4g}"), cx=u, cy=v, r=3.0, class_="point")
        for (u, v), (x, y) in zip(places, series.points, strict=True)
    )
    area = None
    if series.band:
        ends = [
            (u, height(low), height(high)) for (u, _), (low, high) in zip(places, series.band, strict=True)
        ]
        outline = [*((u, high) for u, _, high in ends), *((u, low) for u, low, _ in reversed(ends))]
        area = tag("polygon", points=_text(outline), class_="band")
    return tag("g", area, tag("polyline", points=_text(places), class_="series"), *dots, class_=series.style)


def _frame(across: Axis, height: Axis, x_label: str, y_label: str) -> Markup:
    bottom = HEIGHT - BOTTOM
    return join(
        *(line(LEFT, height(tick), WIDTH - RIGHT, height(tick), "grid") for tick in height.ticks(5)),
        *(label(LEFT - 8, height(tick) + 4, height.label(tick, 5), "end") for tick in height.ticks(5)),
        *(line(across(tick), bottom, across(tick), bottom + 4, "tick") for tick in across.ticks(7)),
        *(label(across(tick), bottom + 16, across.label(tick, 7)) for tick in across.ticks(7)),
        line(LEFT, bottom, WIDTH - RIGHT, bottom, "tick"),
        label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, x_label),
        label(0, 11, y_label, "start"),
    )


def _spread(values: Sequence[float], room: float) -> tuple[float, float]:
    """Lowest and highest value with room around them."""
    low, high = min(values), max(values)
    margin = room * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def _text(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{number(x)},{number(y)}" for x, y in places)
