"""The page itself: sections in the order in which a reader asks."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...geometry.cameras import Array
from ...pages.document import facts, html_table, section, verdict, write_page
from ...pages.markup import Markup, join, shown, tag
from .charts import by_camera, lag_curve, over_time, sample_strip
from .contents import Report
from .figures import FIGURES, Figure, Table, level
from .gallery import Gallery
from .rig import rig_drawing
from .verdict import findings, headline, lag_text, percent, residual_of

LISTED_FRAMES = 400
"""Dropped frames listed one by one; manifest.json has all."""
LISTED_REASONS = 30


def write_quality_html(path: Path, report: Report) -> None:
    """Write one self-contained page: a verdict, the rig, all figures, and the worst samples first.

    Nothing is loaded from elsewhere; links lead to the samples' pictures, relative to the page. The same
    report and samples give the same bytes.

    Args:
        path: The page, in the samples' common folder.
        report: What to show.

    Raises:
        DataError: a picture of a sample cannot be read.
    """
    table = Table(report)
    gallery = Gallery(path.parent, table)
    sections = [
        _verdict(report, table),
        section("facts", "The data set", _facts(report), sample_strip(report, table)),
        section("rig", "Cameras", _rig(report, gallery.lowest_mm), _evidence(report)),
        section("timing", "Synchronization", *_timing(report)),
        section("figures", "Figures over time and per camera", *_figures(table)),
        section("dropped", "Dropped and replaced frames", *_dropped(report)),
        gallery.sections(),
    ]
    here = Path(__file__)
    write_page(
        path,
        f"Quality of {report.facts.name}",
        *sections,
        styles=here.with_name("report.css").read_text(encoding="utf-8"),
        script=here.with_name("report.js").read_text(encoding="utf-8"),
    )


def _verdict(report: Report, table: Table) -> Markup:
    found = findings(report, table)
    worst, text = headline(found)
    return verdict(worst, text, [(item.level, item.text) for item in found])


def _facts(report: Report) -> Markup:
    sizes = {(camera.width, camera.height) for camera in report.facts.cameras}
    lines = {
        "cameras around the animal": ", ".join(map(str, report.azimuth_order)),
        "recorded pictures": " or ".join(sorted(f"{width} × {height} px" for width, height in sizes)),
        "recording": f"{report.facts.frame_count} frames"
        + (f" at {report.facts.fps:g} per second" if report.facts.fps else ""),
        "scale": f"{report.scale:.6g} model units per mm",
        "calibration read as": report.facts.convention,
        **report.summary,
    }
    return facts([(key, str(value)) for key, value in lines.items()])


def _rig(report: Report, lowest_mm: float | None) -> Markup:
    return tag("div", rig_drawing(report, lowest_mm), _rig_table(report), class_="beside")


def _rig_table(report: Report) -> Markup:
    """Where each camera stands as seen from the animal, and how much it recorded."""
    middle = np.median(report.centers, axis=0)
    lags = {entry["camera"]: entry for entry in report.facts.lags}
    lines = []
    for name in report.azimuth_order:
        camera = report.facts.cameras[list(report.facts.camera_ids).index(name)]
        x, y, z = report.facts.rotation @ (camera.center - middle)
        counts = report.facts.frame_counts.get(str(name), ())
        lag = lags.get(name)
        lines.append(
            [
                str(name),
                f"{np.degrees(np.arctan2(y, x)) % 360:.0f}°",
                f"{np.degrees(np.arctan2(z, np.hypot(x, y))):.0f}°",
                f"{np.linalg.norm((x, y, z)):.0f}",
                f"{camera.K[0, 0]:.0f}",
                " / ".join(str(count) for count in dict.fromkeys(counts)) or "–",
                "–" if lag is None or not lag["conclusive"] else f"{lag['best']:+d}" if lag["best"] else "0",
            ]
        )
    head = ["camera", "azimuth", "elevation", "distance mm", "focal px", "frames"]
    return html_table([*head, "lag"], lines)


def _evidence(report: Report) -> Markup | None:
    if not report.facts.evidence:
        return None
    lines = []
    for item in report.facts.evidence:
        residual = residual_of(item)
        lines.append(
            [
                str(item["convention"]),
                "–" if residual is None else percent(residual),
                str(item.get("frames", "–")),
                str(item.get("reason", "")),
            ]
        )
    head = ["reading of the calibration", "residual, share of the diagonal", "frames", "why not"]
    return join(tag("h3", "How the calibration was understood"), html_table(head, lines, words=(0, 3)))


def _timing(report: Report) -> Iterator[Markup]:
    if not any(entry["hull_iou"] for entry in report.facts.lags):
        yield tag("p", "Not measured: it is off, or too few moments show the animal in every view.")
        return
    yield tag(
        "p",
        "Agreement of each camera's masks, taken some frames later or earlier, with the hull of all other "
        "cameras. The peak (ring) belongs on lag 0 (dashed).",
    )
    values = np.array([value for entry in report.facts.lags for value in entry["hull_iou"]], float)
    values = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
    low, high = float(values.min()), float(values.max())
    room = max(0.05 * (high - low), 1e-3)
    limit = report.limits.sync_lag.value
    curves = []
    for entry in (entry for entry in report.facts.lags if entry["hull_iou"]):
        late = entry["conclusive"] and limit is not None and abs(entry["best"]) > limit
        words = tag("figcaption", tag("b", f"camera {entry['camera']} "), lag_text(entry))
        curves.append(
            tag("figure", lag_curve(entry, low - room, high + room), words, class_="beyond" if late else None)
        )
    yield tag("div", *curves, class_="tiles")


def _figures(table: Table) -> Iterator[Markup]:
    yield tag(
        "p",
        "Bars reach from the lowest to the highest view in a stretch of time, dark lines are medians; per "
        "camera, boxes hold half and 90% of the samples. Dashed: the limit. Point at a mark to read it.",
    )
    flat = []
    for figure in FIGURES:
        values = table.column(figure.name)
        values = values[np.isfinite(values)]
        if len(values) == 0:
            flat.append(f"{figure.title}: not measured")
        elif values.min() == values.max():
            flat.append(f"{figure.title}: {shown(float(values[0]), figure.form)}")
        else:
            limit = getattr(table.report.limits, figure.limit).value if figure.limit else None
            yield tag(
                "div",
                tag(
                    "h3",
                    figure.title,
                    tag("small", _limit_text(figure, limit)) if limit is not None else None,
                ),
                tag("p", figure.meaning),
                tag("div", over_time(table, figure), by_camera(table, figure), class_="pair"),
                class_="figure",
            )
    if flat:
        yield tag("p", f"The same in every view of every sample: {'; '.join(flat)}.")
    yield _camera_table(table)


def _limit_text(figure: Figure, limit: float) -> str:
    """The limit as the configuration has it."""
    key = f"quality.{figure.limit}"
    if figure.limit == "border_views":
        return f" at most {limit:g} views of a sample ({key})"
    if figure.limit == "center_residual":
        return f" mean of a sample's views at most {limit:.3g} of the diagonal ({key})"
    return f" at {'least' if figure.worse == 'smaller' else 'most'} {limit:g} ({key})"


def _camera_table(table: Table) -> Markup:
    """Median and worst of each figure, per camera."""
    columns = {figure: (table.column(figure.name), table.use_of(figure)) for figure in FIGURES}
    lines = []
    for name in table.report.azimuth_order:
        part = table.camera == list(table.report.facts.camera_ids).index(name)
        lines.append([str(name), *(_summary(f, v[part], u[part]) for f, (v, u) in columns.items())])
    return join(
        tag("h3", "All figures per camera: median (worst); share of the views at the border"),
        html_table(["camera", *(figure.title for figure in FIGURES)], lines),
    )


def _summary(figure: Figure, values: Array, use: Array) -> Markup:
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Markup("–")
    if figure.binary:
        return join(f"{np.mean(values):.1%}")
    worst = float(values.min() if figure.worse == "smaller" else values.max())
    text = tag("span", f"({shown(worst, figure.form)})", class_=level(float(use.max())))
    return join(f"{shown(float(np.median(values)), figure.form)} ", text)


def _dropped(report: Report) -> Iterator[Markup]:
    if not report.dropped:
        yield tag("p", "None.")
        return
    groups: dict[str, list[int]] = defaultdict(list)
    replaced: Counter[str] = Counter()
    for frame, reasons, other in report.dropped:
        for reason in dict.fromkeys(_general(reason) for reason in reasons):
            groups[reason].append(frame)
            replaced[reason] += other is not None
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    lines = [
        [reason, str(len(frames)), str(replaced[reason]), f"{min(frames)} to {max(frames)}"]
        for reason, frames in ranked[:LISTED_REASONS]
    ]
    yield html_table(["reason", "frames", "replaced", "from frame to frame"], lines)
    entries = (
        tag("li", f"{frame}", f" → {other}" if other is not None else " dropped", f": {'; '.join(reasons)}")
        for frame, reasons, other in report.dropped[:LISTED_FRAMES]
    )
    more = len(report.dropped) - LISTED_FRAMES
    yield tag(
        "details",
        tag("summary", "Every frame"),
        tag("ul", *entries, class_="frames"),
        tag("p", f"{more} more in manifest.json.") if more > 0 else None,
    )


def _general(reason: str) -> str:
    """A reason without its figures, so that frames that failed alike are counted together."""
    return re.sub(r"(?<!camera )(?<![\w.])\d+(\.\d+)?( ?%)?", "…", reason)
