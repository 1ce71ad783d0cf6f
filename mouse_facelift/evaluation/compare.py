"""`mfl evaluate compare`: e2e against direct at the same places, the domain gap, and what to train next."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import write_json
from ..gaussians import Gaussians
from ..inference.models import choose_device
from ..mvdiffusion.folders import load_slots, locate
from ..provenance import Run, check_maker, check_output
from ..samples.datasets import composite
from ..spacing import spread_evenly
from ..viewer import Scene, pack, splat_viewer
from .bootstrap import alike_neighbours
from .compare_config import CompareConfig
from .config import EvaluateConfig
from .decision import Contrast, decide, mapping_of
from .extras import KeptComparison, read_pictures
from .gaps import Gap, gather
from .pairs import (
    DECIDING,
    arms_of,
    common,
    contrasts_of,
    deciding_differences,
    difference_of,
    means_of,
    novel_arms,
)
from .report.contents import Arm, Comparison
from .report.page import write_comparison_html
from .report.pictures import Shown, Strip, error_map, window_of
from .run import find_all, find_lpips, finish, measure_method, rehearse
from .scores import DEFINITIONS, Score, write_scores
from .subjects import Subject

log = logging.getLogger(__name__)

COMMAND = "evaluate compare"
PAGE, TABLE, NUMBERS = "compare.html", "compare.csv", "compare.json"

OF_TAG = {"": "as it is", "_real": "real-trained", "_synthetic": "synthetic-trained"}
ARMS = {
    "direct": ("direct", "all real views but one, GS-LRM; measured at the one that it was not shown"),
    "e2e": ("e2e", "one real view, MVDiffusion, GS-LRM; measured at the other cameras"),
    "generated": ("generated views", "MVDiffusion's views themselves, before GS-LRM"),
    "shown": ("direct, shown", "direct of all real views, measured at a view that it was shown: it copies"),
}
STYLES = {"direct": "s1", "e2e": "s2", "generated": "s4", "shown": "s5"}
TAGGED_STYLES = {("direct", "_synthetic"): "s3", ("e2e", "_synthetic"): "s6"}
"""Weights trained on real views replace those that they started from where both are there."""
MEANS = {"_real": "GS-LRM trained on real views", "_synthetic": "GS-LRM trained on generated views"}


def run(config: CompareConfig, dry_run: bool = False) -> Path:
    """Compare as configured, going on where an earlier run of the same settings was killed.

    Args:
        config: The resolved configuration.
        dry_run: Check data, weights and leaks, load every network once, and return.

    Returns:
        The output folder: `compare.html`, `compare.csv`, `compare.json`, `evaluation/`, `run.json`.

    Raises:
        ConfigError: frames were trained on, or the folder holds something else.
        DataError: a sample or its truth cannot be used, or the arms have no place in common.
        CheckpointError: weights cannot be used.
        DependencyError: the device or LPIPS is not there.
    """
    device, evaluation = choose_device(config.device), config.evaluation
    check_output(config.output)
    check_maker(config.output, COMMAND)
    record = Run(COMMAND, config)
    subjects, methods = find_all(evaluation)
    lpips = find_lpips(evaluation, device)
    pictured = [subjects[index] for index in spread_evenly(len(subjects), config.pictures)]
    kept = KeptComparison(
        evaluation,
        {method.name: method.weights.hashes for method in methods},
        [subject.name for subject in pictured],
        load_slots(*locate(config.mvdiffusion)),
    )
    record.add_hashes({name: value for method in methods for name, value in method.weights.hashes.items()})
    if dry_run:
        rehearse(methods, subjects, device)
        return config.output
    record.write(config.output)
    Run("evaluate", evaluation).write(evaluation.output)
    scores = [
        score
        for method in methods
        for score in measure_method(method, subjects, kept, device, lpips, watch=kept.watch)
    ]
    record.lap("measuring")
    finish(evaluation, methods, scores)
    comparison = compare(config, evaluation, scores, subjects, pictured, kept)
    write_scores(config.output / TABLE, [score for rows in comparison.scores.values() for score in rows])
    write_json(config.output / NUMBERS, as_json(comparison))
    write_comparison_html(config.output / PAGE, comparison)
    record.lap("report")
    record.write(config.output)
    log.info("%s", comparison.decision.headline)
    return config.output


def compare(
    config: CompareConfig,
    evaluation: EvaluateConfig,
    scores: Sequence[Score],
    subjects: Sequence[Subject],
    pictured: Sequence[Subject],
    kept: KeptComparison,
) -> Comparison:
    """Put everything together that the page shows.

    Args:
        config: Of the comparison.
        evaluation: Of its arms.
        scores: Of all arms, with their leak marks.
        subjects: All samples.
        pictured: Those that the page shows.
        kept: What lies beside the scores.

    Raises:
        DataError: the arms have no place in common.
    """
    names = list(evaluation.resolved_methods)
    extras = {name: [kept.extras(name, subject.name) for subject in subjects] for name in names}
    generated = {f"generated{config.base}": _generated(f"e2e{config.base}", subjects, extras, scores)}
    arms = common(arms_of(scores, generated, config.base))
    if not any(arms.values()):
        raise DataError(
            f"{config.data}: direct and e2e have no camera of a frame in common. Samples need at least three "
            "views, of which e2e is shown one."
        )
    novel = novel_arms(scores)
    contrasts = contrasts_of(arms, config.base, config.bootstrap)
    return Comparison(
        arms=[arm_of(name) for name in _ordered(arms)],
        scores={name: arms[name] for name in _ordered(arms)},
        novel=novel,
        means={name: means_of(rows, config.bootstrap) for name, rows in arms.items()},
        novel_means={name: means_of(rows, config.bootstrap) for name, rows in novel.items()},
        novel_total=_novel_total(novel, config),
        contrasts=contrasts,
        decision=decide(contrasts, config.relevant_db),
        relevant_db=config.relevant_db,
        base=config.base,
        gap=_gap(extras[f"direct{config.base}"], extras[f"e2e{config.base}"]),
        shown=[_shown(subject, config.base, kept) for subject in pictured],
        viewer=_viewer(pictured, config, kept),
        facts=_facts(config, subjects, arms),
        leaks=Counter(score.leak for rows in arms.values() for score in rows),
        cautions=_cautions(config, arms),
    )


def arm_of(name: str) -> Arm:
    """What the page says of an arm."""
    kind, tag = name.partition("_")[0], name[len(name.partition("_")[0]) :]
    title, meaning = ARMS[kind]
    if not tag or kind == "generated":
        return Arm(name, title, STYLES[kind], meaning)
    style = TAGGED_STYLES.get((kind, tag), STYLES[kind])
    return Arm(name, f"{title}, {OF_TAG[tag]}", style, f"the same with {MEANS[tag]}")


def as_json(comparison: Comparison) -> dict[str, Any]:
    """What goes into `compare.json`."""
    decision = comparison.decision
    return {
        "definitions": DEFINITIONS,
        "deciding_figure": DECIDING,
        "relevant_db": comparison.relevant_db,
        "decision": {
            **{
                name: getattr(decision, name)
                for name in ("strategy", "headline", "reasons", "margin_is", "frames_needed")
            },
            **{name: _numbers(getattr(decision, name)) for name in ("margin", "ceiling")},
        },
        "contrasts_db": {name: _numbers(value) for name, value in mapping_of(comparison.contrasts).items()},
        "arms": _tables(comparison.means),
        "novel": _tables(comparison.novel_means),
        "novel_total_db": _numbers(comparison.novel_total),
        "domain_gap": None if comparison.gap is None else _medians(comparison.gap),
        "leaks": dict(comparison.leaks),
        "cautions": list(comparison.cautions),
        "places": {name: len(rows) for name, rows in comparison.scores.items()},
    }


def _generated(
    e2e: str,
    subjects: Sequence[Subject],
    extras: Mapping[str, Sequence[Mapping[str, Any]]],
    scores: Sequence[Score],
) -> list[Score]:
    """Scores of MVDiffusion's views; they have e2e's leak marks."""
    leaks = {score.place: score.leak for score in scores if score.method == e2e}
    return [
        Score(
            e2e.replace("e2e", "generated"),
            "single-view",
            subject.name,
            subject.sample.frame_index,
            int(view_id),
            "held_out",
            leaks.get((subject.name, int(view_id)), "unknown"),
            values,
        )
        for subject, extra in zip(subjects, extras[e2e], strict=True)
        for view_id, values in extra["scores"].items()
    ]


def _gap(direct: Sequence[Mapping[str, Any]], e2e: Sequence[Mapping[str, Any]]) -> Gap | None:
    return gather(
        [
            {"views": made["views"], "own": {"real": real["own"], "generated": made["own"]}}
            for real, made in zip(direct, e2e, strict=True)
            if made["own"] is not None
        ]
    )


def _shown(subject: Subject, base: str, kept: KeptComparison) -> Shown:
    """Rows of pictures of one frame: the truth, the arms, and where they err."""
    e2e, direct = kept.place(f"e2e{base}", subject.name), kept.place(f"direct{base}", subject.name)
    shown = kept.extras(f"e2e{base}", subject.name)["shown"]
    others = [view_id for view_id in subject.view_ids if view_id not in shown]
    views = subject.read(subject.size)
    order = [views.position(view_id) for view_id in (*shown, *others)]
    rgba = views.rgba[order]
    true, alpha = composite(rgba, 1.0), rgba[:, 3:]
    strips = [Strip("real", true)]
    drawn = {"e2e": (e2e, "render"), "direct": (direct, "render")}
    if kept.at_cameras:
        drawn = {"generated views": (e2e, "generated"), **drawn}
    maps = []
    for title, (folder, kind) in drawn.items():
        rgb, silhouette = read_pictures(folder, kind, others)
        strips.append(Strip(title, rgb, len(shown)))
        errors = error_map(rgb, silhouette, true[len(shown) :], alpha[len(shown) :])
        maps.append(Strip(f"error of {title}", errors, len(shown)))
    frame = "" if subject.sample.frame_index is None else f", frame {subject.sample.frame_index}"
    heads = [*(f"camera {view_id} (shown to e2e)" for view_id in shown), *(f"camera {v}" for v in others)]
    return Shown(f"{subject.name}{frame}", heads, window_of(alpha), [*strips, *maps])


def _viewer(pictured: Sequence[Subject], config: CompareConfig, kept: KeptComparison) -> str:
    """The first of the pictured frames in 3D, direct beside e2e."""
    if not pictured or not config.splats:
        return ""
    scenes = []
    for name in ("direct", "e2e"):
        path = kept.place(f"{name}{config.base}", pictured[0].name) / "gaussians.ply"
        scenes.append(Scene(name, [pack(Gaussians.load_ply(path), config.splats)]))
    return splat_viewer(scenes, side_by_side=True)


def _facts(
    config: CompareConfig, subjects: Sequence[Subject], arms: Mapping[str, Sequence[Score]]
) -> list[tuple[str, str]]:
    places = {score.place for rows in arms.values() for score in rows}
    weights = [f"{path} ({OF_TAG[tag]})" for tag, path in config.tags.items()]
    return [
        ("samples", f"{len(subjects)} of {config.data}"),
        *_frames(subjects),
        ("places compared", f"{len(places)} (cameras of frames), the same for every arm"),
        ("GS-LRM", "; ".join(weights)),
        ("MVDiffusion", f"{config.mvdiffusion} ({config.diffusion.solver}, {config.diffusion.steps} steps)"),
        (
            "intervals",
            f"{config.bootstrap.confidence:.0%} bootstrap over frames in blocks of {config.bootstrap.block}",
        ),
    ]


def _frames(subjects: Sequence[Subject]) -> list[tuple[str, str]]:
    """Which frames, where they are known."""
    known = sorted(index for subject in subjects if (index := subject.sample.frame_index) is not None)
    if len(known) < 2:
        return [("frame", str(index)) for index in known]
    gap = min(later - earlier for earlier, later in pairwise(known))
    return [("frames", f"{known[0]} to {known[-1]}, the nearest {gap} apart")]


def _novel_total(novel: Mapping[str, Sequence[Score]], config: CompareConfig) -> Contrast | None:
    direct, e2e = (novel.get(f"{name}{config.base}", ()) for name in ("direct", "e2e"))
    return difference_of(direct, e2e, config.bootstrap)


def _cautions(config: CompareConfig, arms: Mapping[str, Sequence[Score]]) -> list[str]:
    """What makes the intervals doubtful."""
    direct, e2e = arms[f"direct{config.base}"], arms[f"e2e{config.base}"]
    alike = alike_neighbours(deciding_differences(direct, e2e))
    if config.bootstrap.block > 1 or alike is None:
        return []
    return [
        f"Neighbouring frames are alike (their differences correlate by {alike:.2f}), so the intervals are "
        "too narrow: set bootstrap.block to as many frames as look alike, or measure frames farther apart."
    ]


def _ordered(arms: Mapping[str, Sequence[Score]]) -> list[str]:
    order = list(ARMS)
    return sorted(arms, key=lambda name: order.index(name.partition("_")[0]))


def _numbers(value: Any) -> dict[str, float | int | None] | None:
    if value is None:
        return None
    return {name: number if np.isfinite(number) else None for name, number in asdict(value).items()}


def _tables(means: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {arm: {name: _numbers(value) for name, value in values.items()} for arm, values in means.items()}


def _medians(gap: Gap) -> dict[str, Any]:
    """Medians over views, and the spectra."""

    def median(values: Sequence[float]) -> float | None:
        known = [value for value in values if np.isfinite(value)]
        return float(np.median(known)) if known else None

    return {
        "median": {
            name: {side: median(values) for side, values in sides.items()}
            for name, sides in gap.figures.items()
        },
        "median_between": {name: median(values) for name, values in gap.common.items()},
        "cycles_per_pixel": gap.frequencies,
        "power_db": gap.spectra,
    }
