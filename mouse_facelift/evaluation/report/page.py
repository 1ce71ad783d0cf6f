"""The page itself: the decision first, then what it rests on, then how it was measured."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from ...pages.document import Level, facts, html_table, section, verdict, write_page
from ...pages.markup import Markup, join, shown, tag
from ...pages.plots import Interval, Series, interval_chart, line_chart, stacked_bars
from ...words import several
from ..decision import FEWEST_FRAMES, Contrast, mapping_of
from ..error_split import PARTS
from ..gaps import COMMON, FIGURES, Figure, Gap
from ..leaks import VERDICTS, Verdict
from ..pairs import DECIDING
from ..scores import DEFINITIONS, Score
from ..summary import LOUD
from .contents import Arm, Comparison
from .pictures import frame_block, key

COLUMNS: Mapping[str, tuple[str, str]] = {
    DECIDING: ("PSNR, all errors", "{:.2f}"),
    "psnr_animal_db": ("PSNR on the animal", "{:.2f}"),
    "ssim_animal": ("SSIM on the animal", "{:.3f}"),
    "iou": ("silhouette IoU", "{:.3f}"),
    "boundary_px": ("outline, px", "{:.2f}"),
    "lpips": ("LPIPS", "{:.3f}"),
    "depth_mm": ("depth, mm", "{:.2f}"),
    "chamfer_mm": ("Chamfer, mm", "{:.2f}"),
}
"""Figures of the table of arms; those that no arm has are left out."""
BASELINES = {
    "psnr_white_db": "white picture",
    "psnr_outline_db": "true outline in one colour",
    "psnr_shift_db": "truth moved by one pixel",
}
"""Trivial pictures, by their PSNR on the animal."""
EXACT_IOU = {"psnr_white_db": "0", "psnr_outline_db": "1"}
"""Trivial pictures whose silhouettes are empty or true."""
CONTRASTS = {
    "total": ("direct − e2e", "what e2e lacks"),
    "generation": ("direct − generated views", "what the generated views lack"),
    "loss": ("generated views − e2e", "what GS-LRM loses on them"),
    "excess": ("domain gap", "what it loses beyond its loss on real views"),
    "tuned": ("e2e, synthetic-trained − before", "measured effect"),
}
ANGLE_STEP = 20
ANGLE_CHARTS = {
    DECIDING: "PSNR with all errors, dB",
    "psnr_animal_db": "PSNR on the animal, dB",
    "iou": "silhouette IoU",
    "boundary_px": "distance of the outlines, px",
}
SPLIT_STYLES = (("animal missing", "s2"), ("animal where there is none", "s6"), ("wrong colour", "s1"))
ALL = "all cameras"


def write_comparison_html(path: Path, comparison: Comparison) -> None:
    """Write one self-contained page. Nothing is loaded from elsewhere.

    Args:
        path: The page.
        comparison: What to show.
    """
    sections = [
        _verdict(comparison),
        _ways_down(comparison),
        facts(comparison.facts),
        section("reading", "How to read this page", _reading(comparison)),
        section("arms", "How good each is", *_arms(comparison)),
        section("differences", "The differences that decide", *_differences(comparison)),
        section("errors", "Where e2e errs", *_errors(comparison)),
        section("angle", "How far from what was shown", *_angles(comparison)),
        section("novel", "Cameras that no model has seen", *_novel(comparison)) if comparison.novel else None,
        section("gap", "Generated views against real ones", *_gap(comparison.gap)),
        section("pictures", "Pictures", *_pictures(comparison)) if comparison.shown else None,
        section("view", "In 3D", *_viewer(comparison.viewer)) if comparison.viewer else None,
        section("methods", "How it was measured", *_methods(comparison)),
    ]
    styles = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    write_page(path, "e2e or direct: what to train next", *sections, styles=styles)


def _verdict(comparison: Comparison) -> Markup:
    decision = comparison.decision
    cautions = [
        *_leak_lines(comparison.leaks),
        *(("look", text) for text in comparison.cautions),
        *_below_baseline(comparison),
    ]
    found: list[tuple[Level, str]] = [("good", reason) for reason in decision.reasons]
    if decision.margin is not None:
        text = f"Margin: {decision.margin}, {decision.margin_is}"
        if decision.ceiling is not None:
            text += f"; {decision.ceiling} if it then lost nothing at all"
        found.insert(0, ("good", f"{text}."))
    doubtful = decision.strategy == "undecided" or any(level == "beyond" for level, _ in cautions)
    return verdict("look" if doubtful else "good", decision.headline, [*found, *cautions])


def _ways_down(comparison: Comparison) -> Markup | None:
    """Links to what there is to look at, which lies below all the figures."""
    there = {"#view": ("the animal in 3D", comparison.viewer), "#pictures": ("pictures", comparison.shown)}
    links = [tag("a", title, href=anchor) for anchor, (title, content) in there.items() if content]
    return tag("nav", "Below: ", *((link, " ") for link in links)) if links else None


def _leak_lines(leaks: Mapping[str, int]) -> Iterator[tuple[Level, str]]:
    """What training had seen; what it may have seen makes the answer doubtful."""
    total = sum(leaks.values())
    if total and leaks.get("clean", 0) == total:
        yield "good", "No frame and no camera that is measured was trained on."
    for mark, count in sorted(leaks.items()):
        if mark != "clean" and count:
            level: Level = "beyond" if mark in LOUD else "look"
            which = "All" if count == total else f"{count} of {total}"
            yield level, f"{which} scores are marked \u201c{mark}\u201d: {VERDICTS[cast(Verdict, mark)]}."


def _below_baseline(comparison: Comparison) -> Iterator[tuple[Level, str]]:
    """Arms that a silhouette in one colour would beat."""
    low, flat = [], 0.0
    for arm in comparison.arms:
        means = comparison.means[arm.name]
        own, trivial = means.get("psnr_animal_db"), means.get("psnr_outline_db")
        if own is not None and trivial is not None and own.mean < trivial.mean:
            low.append(f"{arm.title} ({own.mean:.2f} dB)")
            flat = trivial.mean
    if low:
        yield (
            "look",
            f"On the animal worse than the true outline in one colour ({flat:.2f} dB): {', '.join(low)}. "
            "Such models are far from done; more training may change the answer.",
        )


def _arms(comparison: Comparison) -> Iterator[Markup]:
    yield tag("p", "Every arm at the same cameras of the same frames: ", _places(comparison.scores), ".")
    yield _table(comparison.arms, comparison.means)
    yield interval_chart(
        [
            _row(arm.title, arm.style, value, f"{value.mean:.2f} dB")
            for arm in comparison.arms
            if (value := comparison.means[arm.name].get(DECIDING)) is not None
        ]
        + _baseline_rows(comparison),
        "PSNR with all errors, by arm",
        "PSNR with all errors charged to the animal, dB",
    )
    yield tag("dl", *([tag("dt", a.title), tag("dd", a.meaning)] for a in comparison.arms), class_="facts")


def _table(arms: Sequence[Arm], means: Mapping[str, Mapping[str, Contrast]]) -> Markup:
    """Arms by figures, means above their intervals, and trivial pictures below."""
    names = [name for name in COLUMNS if any(name in values for values in means.values())]
    lines: list[list[str]] = []
    for arm in arms:
        cells = [_cell(means[arm.name].get(name), COLUMNS[name][1]) for name in names]
        lines.append([join(tag("span", "", class_=f"key {arm.style}"), arm.title), *cells])
    reference = next(iter(means.values()), {})
    for name, title in BASELINES.items():
        value = reference.get(name)
        if value is not None:
            known = {"psnr_animal_db": _cell(value, "{:.2f}"), "iou": Markup(EXACT_IOU.get(name, ""))}
            if name in EXACT_IOU:
                # Nothing lies outside the true silhouette, so both errors are the same.
                known[DECIDING] = known["psnr_animal_db"]
            lines.append([tag("i", title), *(known.get(column, Markup("")) for column in names)])
    return html_table(["", *(COLUMNS[name][0] for name in names)], lines)


def _baseline_rows(comparison: Comparison) -> list[Interval]:
    """Trivial pictures in the chart of arms: those whose PSNR with all errors is known."""
    means = next(iter(comparison.means.values()), {})
    return [
        _row(BASELINES[name], "s5", value, f"{value.mean:.2f} dB")
        for name in EXACT_IOU
        if (value := means.get(name)) is not None
    ]


def _row(name: str, style: str, value: Contrast, text: str) -> Interval:
    """A row of a chart; a dot alone where there is no interval."""
    low, high = (end if math.isfinite(end) else value.mean for end in (value.low, value.high))
    return Interval(name, style, value.mean, low, high, text)


def _cell(value: Contrast | None, form: str) -> Markup:
    if value is None:
        return Markup("–")
    ends = f"{shown(value.low, form)} to {shown(value.high, form)}"
    return join(shown(value.mean, form), tag("small", ends) if math.isfinite(value.low) else None)


def _differences(comparison: Comparison) -> Iterator[Markup]:
    yield tag(
        "p",
        "Means of paired differences over frames, with their intervals; to the right of 0 the first is "
        f"better. Less than {comparison.relevant_db:g} dB does not matter.",
    )
    yield interval_chart(
        [
            _row(CONTRASTS[name][0], "s1", value, str(value))
            for name, value in mapping_of(comparison.contrasts).items()
        ],
        "Differences between arms",
        "dB",
        zero=True,
    )
    rows = [[*CONTRASTS[name], str(value)] for name, value in mapping_of(comparison.contrasts).items()]
    yield html_table(["difference", "what it is", "mean (interval)"], rows, words=(0, 1))


def _errors(comparison: Comparison) -> Iterator[Markup]:
    yield tag(
        "p",
        "The squared error over both silhouettes, per pixel of the true animal, split without remainder: "
        "animal that is missing, animal where there is none, and wrong colour where both are. Beside each "
        "camera its angle to the nearest one whose view was shown; below, what the true outline in one "
        "colour would cost.",
    )
    charts = {}
    for name in ("e2e", "direct"):
        scores = comparison.scores.get(f"{name}{comparison.base}", ())
        charts[name] = [
            *((_camera(camera, chosen), _parts(chosen)) for camera, chosen in _by_camera(scores).items()),
            (ALL, _parts(scores)),
            (BASELINES["psnr_outline_db"], [0.0, 0.0, _outline_error(scores)]),
        ]
    most = max(sum(parts) for rows in charts.values() for _, parts in rows)
    for name, rows in charts.items():
        missing, extra, colour = dict(rows)[ALL]
        whole = missing + extra + colour
        share = (missing + extra) / whole if whole > 0 else 0.0
        yield tag(
            "h3", name, tag("small", f"{share:.0%} of the error is a wrong silhouette, the rest colour")
        )
        yield stacked_bars(rows, SPLIT_STYLES, f"Parts of the error of {name}", "mean squared error", most)


def _angles(comparison: Comparison) -> Iterator[Markup]:
    yield tag(
        "p",
        "By the angle, seen from the animal, between the measured camera and the nearest one whose view was "
        f"shown, in steps of {ANGLE_STEP}\u00b0: medians, and bands that hold half of the places.",
    )
    charts = []
    for column, title in ANGLE_CHARTS.items():
        series = [
            curve
            for arm in comparison.arms
            if not arm.name.startswith("shown")
            and (curve := _curve(comparison.scores[arm.name], column, arm.title, arm.style)) is not None
        ]
        if column in (DECIDING, "psnr_animal_db"):
            e2e = comparison.scores[f"e2e{comparison.base}"]
            trivial = _curve(e2e, "psnr_outline_db", BASELINES["psnr_outline_db"], "s5")
            series += [trivial] if trivial is not None else []
        if series:
            charts.append(line_chart(series, title, "angle to the nearest shown view, degrees", title))
    yield tag("div", *charts, class_="pair")


def _curve(scores: Sequence[Score], column: str, name: str, style: str) -> Series | None:
    """Medians and quartiles of the places in each step of the angle."""
    steps: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for score in scores:
        angle, value = score.values.get("angle_deg"), score.values.get(column)
        if angle is not None and value is not None:
            steps[int(angle // ANGLE_STEP)].append((angle, value))
    if not steps:
        return None
    points, band = [], []
    for _, pairs in sorted(steps.items()):
        group = np.array(pairs)
        low, middle, high = (float(value) for value in np.quantile(group[:, 1], (0.25, 0.5, 0.75)))
        points.append((float(group[:, 0].mean()), middle))
        band.append((low, high))
    return Series(name, style, points, band)


def _novel(comparison: Comparison) -> Iterator[Markup]:
    yield tag(
        "p",
        "True pictures from further cameras. Direct is shown all real views here, e2e its one: ",
        _places(comparison.novel),
        ".",
    )
    if comparison.novel_total is not None:
        yield tag("p", f"Direct \u2212 e2e, all errors: {comparison.novel_total}.")
    arms = [arm for arm in comparison.arms if arm.name in comparison.novel]
    yield _table(arms, comparison.novel_means)


def _gap(gap: Gap | None) -> Iterator[Markup]:
    if gap is None:
        yield tag("p", "Not measured: no generated view stands at a real camera.")
        return
    yield tag(
        "p",
        "Both at the same cameras and on the same pixels: inside both silhouettes, away from their outlines.",
    )
    if all(gap.spectra.values()):
        series = [
            Series(f"{side} views", style, list(zip(gap.frequencies, gap.spectra[side], strict=True)))
            for side, style in (("real", "s3"), ("generated", "s2"))
        ]
        label = "power of the luma, dB (squared grey levels)"
        chart = line_chart(series, "Sharpness spectrum", "spatial frequency, cycles a pixel", label)
        yield tag("div", chart, class_="chart-box")
    yield tag("div", _colors(gap), class_="chart-box wide")
    rows = []
    for name, figure in FIGURES.items():
        real, made = gap.figures[name]["real"], gap.figures[name]["generated"]
        values = ("–" if name == "fine_db" else _spread(real, figure), _spread(made, figure))
        rows.append([figure.title, *values, figure.meaning])
    yield html_table(["", "real", "generated", "what it is"], rows, words=(0, 3))
    rows = [
        [figure.title, _spread(gap.common[name], figure), figure.meaning] for name, figure in COMMON.items()
    ]
    yield html_table(["between them", "", "what it is"], rows, words=(0, 2))


def _colors(gap: Gap) -> Markup:
    """Means and spreads of the colours, real beside generated."""
    rows = []
    for axis, title in (("l", "L*"), ("a", "a*"), ("b", "b*")):
        for side, style in (("real", "s3"), ("generated", "s2")):
            mean = float(np.nanmean(gap.figures[f"lab_{axis}"][side]))
            spread = float(np.nanmean(gap.figures[f"spread_{axis}"][side]))
            text = f"{mean:.1f} ± {spread:.1f}"
            rows.append(Interval(f"{title} {side}", style, mean, mean - spread, mean + spread, text))
    chart = interval_chart(rows, "Colour of the animal", "CIELAB: mean and standard deviation over pixels")
    return tag("figure", chart)


def _spread(values: Sequence[float], figure: Figure) -> Markup:
    known = np.array([value for value in values if math.isfinite(value)])
    if len(known) == 0:
        return Markup("–")
    low, middle, high = (shown(float(value), figure.form) for value in np.quantile(known, (0.1, 0.5, 0.9)))
    return join(middle, tag("small", f"{low} to {high}"))


def _pictures(comparison: Comparison) -> Iterator[Markup]:
    yield key()
    yield from (frame_block(each) for each in comparison.shown)


def _viewer(viewer: str) -> Iterator[Markup]:
    yield tag("p", "One frame, direct (all views shown) beside e2e; drag to turn both.")
    yield Markup(viewer)


def _methods(comparison: Comparison) -> Iterator[Markup]:
    yield tag("p", METHOD)
    yield tag("h3", "The decision")
    yield from (tag("p", text) for text in LOGIC)
    yield tag("h3", "Figures")
    titles = {name: title for name, (title, _) in COLUMNS.items()} | BASELINES
    names = [*titles, "angle_deg", *(f"error_{part}" for part in PARTS)]
    lines = (
        [tag("dt", titles.get(name), tag("small", name)), tag("dd", DEFINITIONS[name])] for name in names
    )
    yield tag("dl", *lines, class_="facts definitions")


def _reading(comparison: Comparison) -> Markup:
    return facts([*READING, ("does not matter", f"a difference below {comparison.relevant_db:g} dB")])


READING = (
    ("direct", "all real camera views \u2192 GS-LRM \u2192 the animal in 3D"),
    ("e2e", "one real camera view \u2192 MVDiffusion draws the other views \u2192 GS-LRM \u2192 3D"),
    ("5a", "train GS-LRM further on views that MVDiffusion drew, so that it learns to put up with them"),
    ("5b", "keep training on real views, and spend the effort elsewhere, such as on MVDiffusion"),
    (
        "PSNR, dB",
        "how near a picture is to the real one; higher is better. 3 dB more is half the squared error, 6 dB "
        "half the error. With all errors, a wrong outline counts as much as a wrong colour",
    ),
    (
        "small numbers",
        "intervals: had other moments of the same recording been measured, the mean would likely lie there",
    ),
    (
        "trivial pictures",
        "what needs no model, such as the true outline filled with one colour; below it a model shows little",
    ),
)
METHOD = (
    "Direct is shown all real views but one, and is measured at that one, for each camera in turn. e2e is "
    "shown one real view and is measured at all others. Only places (a camera of a frame) that every arm "
    "predicts are compared. Figures are means over the cameras of a frame, then over frames; their intervals "
    "come from drawing the frames again, neighbours together as configured, all cameras of a frame at once. "
    "Everything is measured on white."
)
LOGIC = (
    "V are the generated views themselves, before GS-LRM; E is e2e's rendering, after it; D is direct's, of "
    "a camera that it was not shown; R is direct's of a camera that it was shown. All against the real view, "
    "by the PSNR of all errors: colour and silhouette both count.",
    "V \u2212 E is what GS-LRM loses on generated views. If it were as faithful to them as to real ones, its "
    "error there (R) would add to theirs (V), as errors that know nothing of each other do. What E lacks "
    "against that sum is the domain gap. Where it clearly is above 0, training GS-LRM on generated views "
    "(5a) has something to win: about the gap, and no more than V \u2212 E as long as GS-LRM only copies "
    "what it is shown.",
    "Where E is not below V, or what GS-LRM loses it loses on real views too, generated views in the "
    "training have nothing of their own to mend: keep real ones (5b), and make MVDiffusion better where D is "
    "above V. Where an interval says neither, nothing is claimed. \u201cClearly\u201d means that the "
    f"interval excludes 0 and rests on at least {FEWEST_FRAMES} frames.",
    "Two caveats. GS-LRM sees several generated views at once and could learn what is wrong with all of "
    "them, such as a tint: then it could pass V. And e2e's GS-LRM is shown a generated view of the measured "
    "camera, direct's is shown none, so D \u2212 E is what a user gets, not a fair match of two inputs. Both "
    "are settled by trying: with gslrm_synthetic the measured difference decides instead.",
)


def _by_camera(scores: Sequence[Score]) -> dict[int, list[Score]]:
    return {view: [s for s in scores if s.view_id == view] for view in sorted({s.view_id for s in scores})}


def _camera(view_id: int, scores: Sequence[Score]) -> str:
    angles = [angle for score in scores if (angle := score.values.get("angle_deg")) is not None]
    return f"camera {view_id}, {np.mean(angles):.0f}\u00b0" if angles else f"camera {view_id}"


def _outline_error(scores: Sequence[Score]) -> float:
    """Mean squared error of the true outline in one colour."""
    known = [value for score in scores if (value := score.values.get("psnr_outline_db")) is not None]
    return float(np.mean([10 ** (-value / 10) for value in known])) if known else 0.0


def _parts(scores: Sequence[Score]) -> list[float]:
    """Mean of each part of the error."""
    columns = ([score.values.get(f"error_{part}") for score in scores] for part in PARTS)
    known = ([value for value in column if value is not None] for column in columns)
    return [float(np.mean(values)) if values else 0.0 for values in known]


def _places(scores: Mapping[str, Sequence[Score]]) -> str:
    places = {score.place for each in scores.values() for score in each}
    frames = len({sample for sample, _ in places})
    return f"{len(places)} places, {several(frames, 'frame')}"
