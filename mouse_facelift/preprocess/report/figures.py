"""The figures of the page, and how near each measurement comes to its limit.

One number ranks samples and colours figures: the part of the way from perfect to the limit that a figure has
gone. 0 is perfect, 1 is the limit; past half of it deserves a look, past 1 is beyond.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...geometry.cameras import Array
from ...pages.document import Level
from ..quality import QualityRow
from .contents import Report

LOOK = 0.5
"""Past this part of the way to a limit a figure deserves a look."""
UNMEASURED = 0.51
"""What was not measured deserves a look too."""


@dataclass(frozen=True)
class Figure:
    """A measurement as people read it.

    Attributes:
        name: Field of `QualityRow`.
        title: Its name on the page.
        form: How a value is written.
        meaning: What it tells, in one or two sentences.
        worse: Whether smaller or larger values are worse; None where neither is.
        limit: The key of `QualityConfig` that its way to the limit is measured against, if any.
        binary: Whether it is 0 or 1 in a view, so that the share of views is shown.
    """

    name: str
    title: str
    form: str
    meaning: str
    worse: Literal["smaller", "larger"] | None = "larger"
    limit: str | None = None
    binary: bool = False


FIGURES = (
    Figure(
        "hull_iou",
        "hull agreement",
        "{:.3f}",
        "Overlap (intersection over union) of the recorded mask with the silhouette of all views' visual "
        "hull; 0.97 is as good as perfect for a thin-tailed animal. Low: a wrong mask, a wrong camera, or a "
        "camera out of step.",
        "smaller",
        "hull_iou",
    ),
    Figure(
        "center_residual_px",
        "centre residual",
        "{:.1f} px",
        "Distance in recorded pixels between the mask's centroid and the views' common 3D point. Some tens "
        "of pixels come from the animal's shape; much more in one camera: a wrong calibration or timing.",
        limit="center_residual",
    ),
    Figure(
        "clipped_share",
        "cut off",
        "{:.1%}",
        "Share of the animal that lies outside the written picture.",
        limit="clipped_share",
    ),
    Figure(
        "touches_border",
        "at the border",
        "{:.0%}",
        "Views in which the animal reaches the recorded picture's border, so that a part may be missing.",
        limit="border_views",
        binary=True,
    ),
    Figure(
        "removed_share",
        "removed from the mask",
        "{:.1%}",
        "Share of the raw mask that was cleaned away as not the animal's.",
        limit="removed_share",
    ),
    Figure(
        "area_jump",
        "area jump",
        "{:.0%}",
        "Size of the change of the mask's area since the sample before. A lone spike is a broken mask.",
        limit="area_jump",
    ),
    Figure(
        "foreground_share",
        "animal in the picture",
        "{:.1%}",
        "Share of the written picture that is animal: how much of the resolution it gets.",
        None,
    ),
    Figure(
        "outside_share",
        "not recorded",
        "{:.1%}",
        "Share of the written picture that lies outside the recorded one. It is transparent; harmless unless "
        "the animal reaches the border.",
        None,
    ),
)
"""In the order of the page; `quality.csv` holds them too."""


@dataclass(frozen=True, eq=False)
class Table:
    """All rows as columns, N = T samples x V cameras, with the way to their limits.

    Attributes:
        report: Where they come from.
    """

    report: Report

    @property
    def rows(self) -> Sequence[QualityRow]:
        """The rows themselves. N"""
        return self.report.rows

    @cached_property
    def _columns(self) -> dict[str, Array]:
        names = (*(figure.name for figure in FIGURES), "area_px")
        return {name: np.abs(np.array([getattr(row, name) for row in self.rows], float)) for name in names}

    def column(self, name: str) -> Array:
        """A figure, or `area_px`, of all rows, without sign. [N]"""
        return self._columns[name]

    @cached_property
    def frame(self) -> NDArray[np.int64]:
        """Frame numbers. [N]"""
        return np.array([row.frame for row in self.rows], np.int64)

    @cached_property
    def sample(self) -> NDArray[np.intp]:
        """Position in `report.samples`. [N]"""
        position = {sample.folder.name: index for index, sample in enumerate(self.report.samples)}
        return np.array([position[row.sample] for row in self.rows], np.intp)

    @cached_property
    def camera(self) -> NDArray[np.intp]:
        """Position in `report.facts.camera_ids`. [N]"""
        position = {number: index for index, number in enumerate(self.report.facts.camera_ids)}
        return np.array([position[row.camera] for row in self.rows], np.intp)

    @cached_property
    def use(self) -> dict[str, Array]:
        """Limit's key -> the part of the way to that limit that each row has gone. [N]

        The centre residual is limited in the mean over views, so no view counts for more than its sample's
        mean does. Border contact is limited by the number of views.
        """
        limits = self.report.limits
        cameras = self.report.facts.cameras
        diagonal = np.array([np.hypot(c.width, c.height) for c in cameras])[self.camera]
        pixels = np.array([c.width * c.height for c in cameras], float)[self.camera]
        residual = np.minimum(self.column("center_residual_px") / diagonal, 1)
        mean = self._over_views(residual) / self._over_views(np.ones_like(residual))
        border = self.column("touches_border")
        views = _at_most(self._over_views(border), limits.border_views.value)
        return {
            "hull_iou": _at_least(self.column("hull_iou"), limits.hull_iou.value),
            "center_residual": _at_most(np.minimum(residual, mean), limits.center_residual.value),
            "border_views": np.where(border > 0, views, 0),
            "clipped_share": _at_most(self.column("clipped_share"), limits.clipped_share.value),
            "removed_share": _at_most(self.column("removed_share"), limits.removed_share.value),
            "area_jump": _at_most(self.column("area_jump"), limits.area_jump.value),
            "mask_share": _small(self.column("area_px") / pixels, limits.mask_share.value),
        }

    def use_of(self, figure: Figure) -> Array:
        """The way to its limit of each row's figure; 0 where it has none. [N]"""
        return self.use[figure.limit] if figure.limit else np.zeros(len(self.rows))

    def limit_of(self, figure: Figure) -> float | None:
        """The limit in the figure's unit; None where it has none that a single row could reach."""
        if figure.limit is None or figure.limit == "border_views":
            return None
        limit: float | None = getattr(self.report.limits, figure.limit).value
        if figure.limit == "center_residual" and limit is not None:
            return limit * max(float(np.hypot(c.width, c.height)) for c in self.report.facts.cameras)
        return limit

    @cached_property
    def worst_use(self) -> Array:
        """The largest of `use` in each row. [N]"""
        return np.max(list(self.use.values()), axis=0)

    @cached_property
    def badness(self) -> Array:
        """The largest `worst_use` of each sample's views. [T]"""
        worst = np.zeros(len(self.report.samples))
        np.maximum.at(worst, self.sample, self.worst_use)
        return worst

    def worst_of(self, sample: int) -> tuple[int, str]:
        """The row of a sample that comes nearest to a limit, and that limit's key."""
        positions = np.flatnonzero(self.sample == sample)
        row = positions[np.argmax(self.worst_use[positions])]
        key = max(self.use, key=lambda key: self.use[key][row])
        if key == "center_residual":
            row = positions[np.argmax(np.nan_to_num(self.column("center_residual_px")[positions]))]
        return int(row), key

    def _over_views(self, values: Array) -> Array:
        """Sum over the views of each row's sample. [N]"""
        sums = np.bincount(self.sample, values, len(self.report.samples)).astype(float)
        return sums[self.sample]


def level(use: float) -> Level:
    """What a part of the way to a limit means."""
    if use > 1:
        return "beyond"
    return "look" if use > LOOK else "good"


def _at_most(values: Array, limit: float | None) -> Array:
    """Perfect is 0."""
    if limit is None:
        return np.zeros_like(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        use = np.where(values > 0, values / np.float64(limit), 0.0)
    return np.where(np.isnan(values), UNMEASURED, use)


def _at_least(values: Array, limit: float | None) -> Array:
    """Perfect is 1."""
    return _at_most(1 - values, None if limit is None else 1 - limit)


def _small(values: Array, limit: float | None) -> Array:
    """Perfect is large without bound."""
    if limit is None:
        return np.zeros_like(values)
    with np.errstate(divide="ignore"):
        return np.where(np.isnan(values), UNMEASURED, np.float64(limit) / values)
