"""The run in plain words: is it good, and what needs a look?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...pages.document import Level
from ...pages.markup import shown
from ...words import several
from .contents import Report
from .figures import FIGURES, Table, level

MANY_DROPPED = 0.1
"""Share of the chosen frames that may fail before that itself deserves a look."""
CLEAR_EVIDENCE = 2.0
"""A convention wins clearly where the next best leaves this many times its residual."""


@dataclass(frozen=True)
class Finding:
    """One sentence and how bad it is."""

    level: Level
    text: str


def findings(report: Report, table: Table) -> list[Finding]:
    """What can be said of a run, worst first."""
    found = [
        *_samples(report, table),
        *_dropped(report),
        *_timing(report),
        *_calibration(report),
        *_streams(report),
        *(Finding("look", _sentence(note)) for note in report.notes),
    ]
    order = ("beyond", "look", "good")
    return sorted(found, key=lambda finding: order.index(finding.level))


def headline(found: list[Finding]) -> tuple[Level, str]:
    """The verdict in a line."""
    worst = found[0].level
    count = sum(finding.level != "good" for finding in found)
    points = "one point" if count == 1 else f"{count} points"
    if worst == "good":
        return worst, "Good: everything is far from its limit."
    if worst == "look":
        return worst, f"Good to use, but {points} below should be looked at."
    return worst, f"Beyond the limits: see to {points} below before use."


def way(use: float) -> str:
    """How far a figure has gone to its limit, in words."""
    if use > 1:
        return "beyond the limit"
    return f"{use:.0%} of the way to the limit"


def measured(table: Table, row: int, key: str) -> str:
    """A row's figure that the limit `key` is about, in words."""
    figure = next((figure for figure in FIGURES if figure.limit == key), None)
    if figure is None:
        return f"mask of {table.rows[row].area_px} px"
    if figure.binary:
        return figure.title
    return f"{figure.title} {shown(float(table.column(figure.name)[row]), figure.form)}"


def _samples(report: Report, table: Table) -> Iterator[Finding]:
    total = len(report.samples)
    count = {name: sum(level(use) == name for use in table.badness) for name in ("beyond", "look")}
    worst = int(table.badness.argmax())
    row, key = table.worst_of(worst)
    where = (
        f"{report.samples[worst].folder.name}, camera {table.rows[row].camera}: {measured(table, row, key)}"
    )
    if count["beyond"]:
        yield Finding("beyond", f"{_of(count['beyond'], total)} beyond a limit, farthest {where}.")
    if count["look"]:
        yield Finding(
            "look",
            f"{_of(count['look'], total)} more than half way to a limit"
            + (f", farthest {where}, {way(table.badness[worst])}." if not count["beyond"] else "."),
        )
    if not count["beyond"] and not count["look"]:
        nearest = f"; the nearest is {where}, {way(table.badness[worst])}" if table.badness[worst] > 0 else ""
        yield Finding("good", f"No figure of any sample is more than half way to its limit{nearest}.")
    support = table.column("hull_iou")
    if np.isfinite(support).any():
        low, middle = np.nanmin(support), np.nanmedian(support)
        yield Finding(
            "good",
            f"The cameras' masks agree in 3D by {middle:.1%} in the median view, {low:.1%} in the worst.",
        )


def _dropped(report: Report) -> Iterator[Finding]:
    count = len(report.dropped)
    if not count:
        yield Finding("good", "Every chosen frame became a sample.")
        return
    replaced = sum(other is not None for _, _, other in report.dropped)
    chosen = len(report.samples) + count - replaced
    name: Level = "look" if count > MANY_DROPPED * chosen else "good"
    yield Finding(
        name,
        f"{count} of {several(chosen, 'chosen frame')} failed; {replaced} replaced by a later one.",
    )


def _timing(report: Report) -> Iterator[Finding]:
    limit = report.limits.sync_lag.value
    for entry in report.facts.lags:
        text, far = lag_text(entry), abs(int(entry["best"]))
        if entry["conclusive"] and limit is not None and far > limit:
            yield Finding("beyond", f"Camera {entry['camera']} {text}.")
        elif far and entry["conclusive"]:
            yield Finding("look", f"Camera {entry['camera']} {text}.")
        if entry.get("mask_lag"):
            yield Finding(
                "beyond",
                f"Camera {entry['camera']}: masks and video are {abs(int(entry['mask_lag']))} frames apart.",
            )
    unclear = [str(entry["camera"]) for entry in report.facts.lags if not entry["conclusive"]]
    if unclear:
        yield Finding("look", f"Too little motion to tell whether camera {', '.join(unclear)} is in step.")
    elif report.facts.lags and not any(int(entry["best"]) for entry in report.facts.lags):
        yield Finding("good", f"All {len(report.facts.lags)} cameras are in step to the frame.")
    if not report.facts.lags:
        yield Finding(
            "look",
            "Whether the cameras are in step was not measured (quality.sync_window, recording length).",
        )


def lag_text(entry: Mapping[str, Any]) -> str:
    """A camera's timing against the others, in words."""
    best = int(entry["best"])
    if not entry["conclusive"]:
        return "cannot be told: too little motion"
    if best == 0:
        return "is in step"
    size = several(abs(best), "frame")
    if best > 0:
        return f"runs {size} late: add {best} to its place in input.frame_offsets"
    return f"runs {size} early: add {-best} to the other cameras' places in input.frame_offsets"


def _calibration(report: Report) -> Iterator[Finding]:
    facts = report.facts
    tried = sorted(residual for item in facts.evidence if (residual := residual_of(item)) is not None)
    if len(tried) < 2:
        return
    best, other = max(tried[0], 1e-4), tried[1]
    text = (
        f"The calibration is read as \u201c{facts.convention}\u201d: the centres of the masks meet within "
        f"{percent(tried[0])} of the picture's diagonal, under any other reading within {percent(other)}."
    )
    yield Finding("good" if other > CLEAR_EVIDENCE * best else "look", text)


def percent(share: float) -> str:
    """A share with three digits."""
    return f"{100 * share:.3g}%"


def residual_of(evidence: Mapping[str, Any]) -> float | None:
    """The residual of a reading of the calibration; None where it was not possible."""
    value = evidence.get("residual_share")
    possible = evidence.get("possible", True) and value is not None and np.isfinite(value)
    return float(value) if possible and value is not None else None


def _streams(report: Report) -> Iterator[Finding]:
    used = report.facts.frame_count
    counts = {int(count) for pair in report.facts.frame_counts.values() for count in pair}
    if len(counts) > 1:
        yield Finding(
            "look",
            f"Videos and masks have {min(counts)} to {max(counts)} frames; {used} are used.",
        )
    elif counts:
        yield Finding("good", f"All videos and masks have {min(counts)} frames.")
    if report.jumps:
        places = ", ".join(str(jump) for jump in report.jumps[:8]) + (
            ", ..." if len(report.jumps) > 8 else ""
        )
        yield Finding("good", f"The recording jumps at frame {places}: nothing is smoothed or split across.")


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:].rstrip(".") + "."


def _of(count: int, total: int) -> str:
    return f"{count} of {several(total, 'sample')} {'is' if count == 1 else 'are'}"
