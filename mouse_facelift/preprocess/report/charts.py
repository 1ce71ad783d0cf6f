"""The page's charts: figures over time and per camera, where the samples lie, and lag curves.

Everything is gathered in bins first, so that a chart of a hundred thousand rows is as small as one of ten.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...geometry.cameras import Array
from ...pages.axes import Axis, drawing, label, line
from ...pages.markup import Markup, join, shown, tag
from .contents import Report
from .figures import Figure, Table, level

BINS = 120
WIDTH, HEIGHT = 700.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 10.0, 8.0, 32.0
CAMERA_WIDTH, CAMERA_ROW = 330.0, 17.0
STRIP_ROW = 20.0
LAG_WIDTH, LAG_HEIGHT = 250.0, 132.0
PARTS = ("train", "val", "guard")
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)


def over_time(table: Table, figure: Figure) -> Markup:
    """Lowest, median and highest value of all views in each stretch of time."""
    values, use, frames = table.column(figure.name), table.use_of(figure), table.frame
    time = time_axis(table.report)
    height = _value_axis(table, figure, HEIGHT - BOTTOM, TOP)
    marks = []
    for first, last, part in _bins(frames, time, len(table.report.samples)):
        measured = part[np.isfinite(values[part])]
        if len(measured) == 0:
            continue
        low, _, _, middle, _, _, high = _quantiles(values[measured], figure)
        worst = measured[_worst(values[measured], figure)]
        text = (
            f"{_frames(frames[part])}: {_words(values[measured], figure)}; farthest: camera "
            f"{table.rows[worst].camera}, frame {frames[worst]}"
        )
        x, width = time(first), max(time(last) - time(first) - 0.6, 1.2)
        top, bottom = height(high), height(low)
        marks.append(
            tag(
                "g",
                tag("title", text),
                tag("rect", x=x, y=top - 0.5, width=width, height=bottom - top + 1, class_="range"),
                tag("rect", x=x, y=height(middle) - 1, width=width, height=2.0, class_="median"),
                class_=level(float(use[measured].max())),
            )
        )
    return drawing(
        WIDTH,
        HEIGHT,
        f"{figure.title} over time",
        _grid(height, LEFT, WIDTH - RIGHT, "%" in figure.form),
        *marks,
        _time_ticks(time, table.report, TOP, HEIGHT - BOTTOM),
        _limit(table.limit_of(figure), height, LEFT, WIDTH - RIGHT),
    )


def by_camera(table: Table, figure: Figure) -> Markup:
    """The spread of a figure in each camera, in their order around the animal."""
    values, use = table.column(figure.name), table.use_of(figure)
    report = table.report
    height = TOP + CAMERA_ROW * len(report.facts.camera_ids) + BOTTOM
    across = _value_axis(table, figure, LEFT, CAMERA_WIDTH - RIGHT)
    marks = []
    for row, number in enumerate(report.azimuth_order):
        part = np.flatnonzero(table.camera == list(report.facts.camera_ids).index(number))
        y = TOP + CAMERA_ROW * (row + 0.5)
        marks.append(label(LEFT - 8, y + 4, str(number), "end"))
        measured = part[np.isfinite(values[part])]
        if len(measured):
            text = f"camera {number}: {_words(values[measured], figure)}"
            marks.append(_spread(_quantiles(values[measured], figure), across, y, use[measured], text))
    bottom = height - BOTTOM
    ticks = across.ticks(4)
    return drawing(
        CAMERA_WIDTH,
        height,
        f"{figure.title} per camera",
        *(line(across(tick), TOP, across(tick), bottom, "grid") for tick in ticks),
        *(label(across(t), bottom + 14, across.label(t, 4, "%" in figure.form)) for t in ticks),
        *marks,
        _limit_across(table.limit_of(figure), across, TOP, bottom),
    )


def sample_strip(report: Report, table: Table) -> Markup:
    """Which stretches of the recording are in which part of the data set, and where frames were dropped."""
    time = time_axis(report)
    lines = {part: [row.frame for row in table.rows if row.part == part] for part in PARTS}
    lines["dropped"] = [frame for frame, *_ in report.dropped]
    lines = {name: frames for name, frames in lines.items() if frames}
    bottom = TOP + STRIP_ROW * len(lines)
    marks = []
    for row, (name, listed) in enumerate(lines.items()):
        y = TOP + STRIP_ROW * row
        marks.append(label(LEFT - 8, y + 14, name, "end"))
        frames = np.array(sorted(set(listed)), np.int64)
        for first, last, part in _bins(frames, time, 2 * len(report.samples)):
            marks.append(
                tag(
                    "rect",
                    tag("title", f"{name}: {len(part)} in {_frames(frames[part])}"),
                    x=time(first),
                    y=y + 3,
                    width=max(time(last) - time(first), 1.2),
                    height=STRIP_ROW - 6,
                    class_=f"part-{name}",
                )
            )
    return drawing(
        WIDTH,
        bottom + BOTTOM,
        "samples over time",
        *marks,
        _time_ticks(time, report, TOP, bottom),
        class_="chart strip",
    )


def lag_curve(entry: Mapping[str, Any], low: float, high: float) -> Markup:
    """Agreement of one camera with all others when its masks are taken so many frames later.

    Args:
        entry: As in `Report.lags`.
        low: Lower end of the vertical axis, the same for all cameras.
        high: Upper end.
    """
    lags = [int(lag) for lag in entry["lags"]]
    values = np.array(entry["hull_iou"], float)
    across = Axis(min(lags), max(lags), LEFT, LAG_WIDTH - 14)
    height = Axis(low, high, LAG_HEIGHT - BOTTOM + 6, TOP + 6)
    bottom = LAG_HEIGHT - BOTTOM + 6
    known = [
        (across(lag), height(value)) for lag, value in zip(lags, values, strict=True) if np.isfinite(value)
    ]
    best = int(entry["best"])
    dots = (
        tag(
            "circle",
            tag("title", f"lag {lag:+d}: {value:.4f}"),
            cx=across(lag),
            cy=height(value),
            r=5.0 if lag == best else 2.5,
            class_="best" if lag == best else "dot",
        )
        for lag, value in zip(lags, values, strict=True)
        if np.isfinite(value)
    )
    ticks = [tick for tick in across.ticks(6) if tick == int(tick)]
    return drawing(
        LAG_WIDTH,
        LAG_HEIGHT,
        f"camera {entry['camera']}: agreement by lag",
        _grid(height, LEFT, LAG_WIDTH - 14, False, 3),
        line(across(0), TOP, across(0), bottom, "zero"),
        *(label(across(tick), bottom + 15, f"{tick:+.0f}" if tick else "0") for tick in ticks),
        tag("polyline", points=_points(known), class_="curve"),
        *dots,
    )


def time_axis(report: Report) -> Axis:
    """From the first to the last chosen frame."""
    frames = [row.frame for row in report.rows] + [frame for frame, *_ in report.dropped]
    return Axis(min(frames), max(frames) + 1, LEFT, WIDTH - RIGHT)


def _bins(
    frames: NDArray[np.int64], time: Axis, most: int
) -> Iterator[tuple[float, float, NDArray[np.intp]]]:
    """Stretches of time of equal length: first and last frame, and the positions in `frames` of each."""
    if len(frames) == 0:
        return
    span = time.high - time.low
    count = int(max(1, min(BINS, most, span)))
    index = ((frames - time.low) * count // span).astype(np.intp)
    order = np.argsort(index, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(index[order])) + 1):
        first = float(index[part[0]])
        yield time.low + first * span / count, time.low + (first + 1) * span / count, part


def _value_axis(table: Table, figure: Figure, start: float, end: float) -> Axis:
    """From the figure's ideal past its worst value, and past its limit where that is not far off."""
    values = table.column(figure.name)
    values = values[np.isfinite(values)]
    limit = table.limit_of(figure)
    if figure.worse == "smaller":
        gap = float((1 - values).max(initial=0.0))
        if limit is not None and 1 - limit <= 2 * gap:
            gap = max(gap, 1 - limit)
        return Axis(max(0.0, 1 - max(1.06 * gap, 0.01)), 1.0, start, end)
    top = float(values.max(initial=0.0))
    if limit is not None and limit <= 2 * top:
        top = max(top, limit)
    return Axis(0.0, 1.06 * top if top > 0 else 1.0, start, end)


def _spread(quantiles: Sequence[float], across: Axis, y: float, use: Array, text: str) -> Markup:
    """One camera's range, 5 to 95 %, quartiles and median, coloured by its median and its worst row."""
    low, p5, p25, middle, p75, p95, high = map(across, quantiles)
    return tag(
        "g",
        tag("title", text),
        tag("g", line(low, y, high, y, "whisker"), class_=level(float(use.max()))),
        _bar(p5, p95, y, 7.0, "range"),
        _bar(p25, p75, y, 7.0, "quartiles"),
        _bar(middle - 1, middle + 1, y, 12.0, "median"),
        class_=level(float(np.median(use))),
    )


def _quantiles(values: Array, figure: Figure) -> list[float]:
    """Of a yes-or-no figure there is only the mean, drawn as a bar from 0."""
    if figure.binary:
        return [0.0, 0.0, 0.0, *[float(values.mean())] * 4]
    return [float(value) for value in np.quantile(values, QUANTILES)]


def _words(values: Array, figure: Figure) -> str:
    if figure.binary:
        return f"{shown(float(values.mean()), figure.form)} of {len(values)}"
    low, _, _, middle, _, _, high = (shown(value, figure.form) for value in _quantiles(values, figure))
    return f"median {middle}, {low} to {high}"


def _bar(left: float, right: float, y: float, height: float, style: str) -> Markup:
    return tag("rect", x=left, y=y - height / 2, width=max(right - left, 1.0), height=height, class_=style)


def _grid(axis: Axis, left: float, right: float, percent: bool, most: int = 4) -> Markup:
    """Horizontal lines with their values."""
    return join(
        join(
            line(left, axis(tick), right, axis(tick), "grid"),
            label(left - 8, axis(tick) + 4, axis.label(tick, most, percent), "end"),
        )
        for tick in axis.ticks(most)
    )


def _time_ticks(time: Axis, report: Report, top: float, bottom: float) -> Markup:
    """Frame numbers, their seconds below, and the recording's jumps."""
    ticks = [tick for tick in time.ticks(8) if tick == int(tick)]
    parts = []
    for tick in ticks:
        x = time(tick)
        parts += [line(x, bottom, x, bottom + 4, "tick"), label(x, bottom + 15, f"{tick:.0f}")]
        if report.facts.fps:
            parts.append(label(x, bottom + 28, f"{tick / report.facts.fps:.1f} s", style="faint"))
    for jump in report.jumps:
        if time.low < jump < time.high:
            mark = line(time(jump), top, time(jump), bottom, "jump")
            parts.append(tag("g", tag("title", f"the recording jumps at frame {jump}"), mark))
    return join(line(time.start, bottom, time.end, bottom, "tick"), *parts)


def _limit(limit: float | None, axis: Axis, left: float, right: float) -> Markup | None:
    if limit is None or not axis.low <= limit <= axis.high:
        return None
    return line(left, axis(limit), right, axis(limit), "limit")


def _limit_across(limit: float | None, axis: Axis, top: float, bottom: float) -> Markup | None:
    if limit is None or not axis.low <= limit <= axis.high:
        return None
    return line(axis(limit), top, axis(limit), bottom, "limit")


def _worst(values: Array, figure: Figure) -> int:
    return int(values.argmin() if figure.worse == "smaller" else values.argmax())


def _frames(frames: Sequence[int] | NDArray[np.int64]) -> str:
    first, last = int(min(frames)), int(max(frames))
    return f"frame {first}" if first == last else f"frames {first} to {last}"


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
