"""The samples that are shown with their pictures: the worst first, and typical ones to compare with."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ...pages.markup import Markup, tag
from ...parallel import overlapped, worker_count
from ..quality import QualityRow
from .figures import Table, level
from .pictures import HullSample, HullView, overlay, thumbnail
from .verdict import measured, way

TYPICAL = 6
"""Samples shown for comparison, evenly spread over time."""
THUMBNAIL_PX = 200
"""Side of a thumbnail, less where many cameras would make the page too large."""
PAGE_BYTES = 3_000_000
"""About what all thumbnails together may take, before they are written as text."""
BYTES_PER_PIXEL = 0.6
"""Of a typical thumbnail."""
ALWAYS_SHOWN = ("hull_iou", "center_residual")
"""Limits whose figures stand under every picture; the others only where they deserve a look."""
SUSPECT_OUTLINE = 0.9
"""An outline that agrees less with the animal's than this is marked; it has no limit."""


class Gallery:
    """Chooses samples and draws them.

    Args:
        base: The page's folder.
        table: All measurements.
    """

    def __init__(self, base: Path, table: Table) -> None:
        self.base, self.table, self.report = base, table, table.report
        shown_count = min(self.report.limits.worst_shown, len(self.report.samples))
        ranked = np.lexsort((np.arange(len(table.badness)), -table.badness))
        self.worst = [int(index) for index in ranked[:shown_count]]
        rest = sorted(int(index) for index in ranked[shown_count:])
        count = min(TYPICAL, shown_count, len(rest))
        self.typical = [rest[int((index + 0.5) * len(rest) / count)] for index in range(count)]

    @property
    def lowest_mm(self) -> float | None:
        """Where the floor is: the median over typical samples of the animal's lowest point, along up."""
        drawn = [self._drawn[index].lowest_mm for index in self.typical or self.worst]
        known = [height for height in drawn if height is not None]
        return float(np.median(known)) if known else None

    def sections(self) -> Markup:
        """The part of the page with pictures."""
        text = (
            f"{len(self.worst)} of {len(self.report.samples)}, ordered by the figure that comes nearest to "
            "its limit. The line is the outline of the visual hull, carved from the written pictures through "
            "the written cameras: it runs along the animal where pixels and cameras belong together. A click "
            "opens the picture."
        )
        return tag(
            "section",
            tag("h2", "Samples, worst first"),
            tag("p", text),
            tag("input", type="checkbox", id="outlines", checked=True),
            tag("label", " Show the outlines", for_="outlines"),
            *map(self._block, self.worst),
            tag("h2", "Typical samples") if self.typical else None,
            *map(self._block, self.typical),
            id="samples",
        )

    @cached_property
    def _drawn(self) -> dict[int, HullSample]:
        """The chosen samples beside their hulls."""
        chosen = sorted({*self.worst, *self.typical})

        def draw(index: int) -> HullSample:
            return overlay(self.report.samples[index], self.report.facts.rotation)

        return dict(zip(chosen, overlapped(draw, chosen, worker_count(0)), strict=True))

    @cached_property
    def _side_px(self) -> int:
        pictures = len(self._drawn) * len(self.report.facts.camera_ids)
        fitting = math.sqrt(PAGE_BYTES / (max(pictures, 1) * BYTES_PER_PIXEL))
        return min(THUMBNAIL_PX, int(fitting) // 8 * 8)

    def _block(self, index: int) -> Markup:
        """One sample: its heading and its views around the animal."""
        sample, drawn = self.report.samples[index], self._drawn[index]
        positions = [int(position) for position in np.flatnonzero(self.table.sample == index)]
        by_camera = {self.table.rows[position].camera: position for position in positions}
        views = {view.view_id: hull for view, hull in zip(sample.views, drawn.views, strict=True)}
        figures = [
            self._view(by_camera[number], views[number], drawn.window) for number in self.report.azimuth_order
        ]
        return tag(
            "article",
            self._heading(index, self.table.rows[positions[0]], drawn.window),
            tag("div", *figures, class_="views"),
        )

    def _heading(self, index: int, row: QualityRow, window: float) -> Markup:
        position, key = self.table.worst_of(index)
        use = float(self.table.worst_use[position])
        time = "" if row.time_s is None else f" ({row.time_s:.2f} s)"
        facts = [f"frame {row.frame}{time}", row.part]
        if self.report.jumps:
            facts.append(f"segment {row.segment + 1}")
        if window < 1:
            facts.append(f"middle {window:.0%} of the pictures")
        camera = self.table.rows[position].camera
        why = (
            f"camera {camera}, {measured(self.table, position, key)}: {way(use)}"
            if use > 0
            else "no figure off its best"
        )
        warnings = dict.fromkeys(text for text in row.warnings.split("; ") if text)
        return tag(
            "header",
            tag("h3", row.sample),
            tag("span", " · ".join(facts)),
            tag("span", why, class_=f"why {level(use)}"),
            *(tag("p", text, class_="look") for text in warnings),
        )

    def _view(self, position: int, view: HullView, window: float) -> Markup:
        row = self.table.rows[position]
        description = f"{row.sample}, camera {row.camera}, with the outline of the visual hull"
        link = view.file.relative_to(self.base).as_posix()
        name = f"hull-{row.sample}-{row.camera}"
        picture = tag("a", thumbnail(view, window, self._side_px, name, description), href=link)
        return tag(
            "figure",
            picture,
            tag("figcaption", tag("b", f"camera {row.camera}"), *self._lines(position, view)),
        )

    def _lines(self, position: int, view: HullView) -> Sequence[Markup]:
        """Figures of a view in words, and how well the outline drawn here fits the written animal."""
        lines = []
        for key in self.table.use:
            state = level(float(self.table.use[key][position]))
            if key in ALWAYS_SHOWN or state != "good":
                lines.append(tag("span", measured(self.table, position, key), class_=state))
        state = "good" if view.iou >= SUSPECT_OUTLINE else "look"
        lines.append(tag("span", f"outline {view.iou:.3f}", class_=state))
        return lines
