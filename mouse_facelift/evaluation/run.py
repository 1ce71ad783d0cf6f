"""`mfl evaluate`: every method, every protocol, sample by sample; then figures with intervals."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..errors import ConfigError, DataError, MflError
from ..files import write_json
from ..gslrm.perceptual import LPIPS, check_vgg
from ..inference.checks import named, warn_of_scale
from ..inference.config import ReconstructionConfig
from ..inference.models import Models, Weights, choose_device, load_models
from ..inference.results import Reconstruction
from ..progress import track
from ..provenance import Run
from ..samples.datasets import composite
from ..samples.training_data import TrainingData
from ..spacing import spread_evenly
from .config import EvaluateConfig, Protocol
from .kept import KeptScores
from .leaks import LeakGuard, trusted_hashes
from .measure import Distance, Measure
from .protocols import ROLES, Attempt, attempts, fitting, only
from .scores import Score, write_scores
from .sheets import write_sheets
from .subjects import Subject, find_subjects
from .summary import summarize
from .table import show

log = logging.getLogger(__name__)

COMMAND = "evaluate"
SUMMARY_FILE, SCORES_FILE = "summary.json", "scores.csv"

Watcher = Callable[[str, Subject, Attempt, Reconstruction, Measure], None]
"""Is shown a method's name and every reconstruction of it, with what measures it."""


@dataclass(frozen=True)
class Method:
    """One method, its networks found but not loaded.

    Attributes:
        name: Its name.
        config: Its settings.
        weights: Its networks.
        protocols: Those that fit its mode.
        skipped: Those that do not, with the reason.
        guard: Knows what its networks were trained on.
    """

    name: str
    config: ReconstructionConfig
    weights: Weights
    protocols: Sequence[Protocol]
    skipped: Sequence[str]
    guard: LeakGuard


def run(config: EvaluateConfig, dry_run: bool = False) -> Path:
    """Evaluate as configured, going on where an earlier run of the same settings was killed.

    Args:
        config: The resolved configuration.
        dry_run: Check data, weights and leaks, load every network once, and return.

    Returns:
        The output folder: `scores.csv`, `summary.json`, `pictures/`, `run.json`.

    Raises:
        ConfigError: no protocol fits, frames were trained on, or the folder holds something else.
        DataError: a sample or its truth cannot be used.
        CheckpointError: weights cannot be used.
        DependencyError: the device or LPIPS is not there.
    """
    device = choose_device(config.device)
    record = Run(COMMAND, config)
    subjects, methods = find_all(config)
    lpips = find_lpips(config, device)
    kept = KeptScores(config, {method.name: method.weights.hashes for method in methods})
    record.add_hashes({name: value for method in methods for name, value in method.weights.hashes.items()})
    if dry_run:
        rehearse(methods, subjects, device)
        return config.output
    pictured = [subjects[index] for index in spread_evenly(len(subjects), config.pictures)]
    record.write(config.output)
    scores = [
        score
        for method in methods
        for score in measure_method(method, subjects, kept, device, lpips, pictured)
    ]
    record.lap("measuring")
    finish(config, methods, scores)
    write_sheets(config.output, kept, pictured, [method.name for method in methods], config.protocols)
    record.lap("summary")
    record.write(config.output)
    return config.output


def find_all(config: EvaluateConfig) -> tuple[list[Subject], list[Method]]:
    """Samples and methods, found to suit each other.

    Raises:
        ConfigError: no protocol fits, or frames were trained on and are to be refused.
        DataError: a sample or its truth cannot be used, or its cameras do not suit.
        CheckpointError: weights are missing.
    """
    subjects = find_subjects(config.data, config.truth, config.limit, config.image_size)
    methods = find_methods(config)
    for method in methods:
        check_views(method, subjects)
        trained = TrainingData.load(method.weights.gslrm.parent)
        warn_of_scale(trained, ((subject.name, subject.sample.mm_per_unit) for subject in subjects))
        if config.leaks.action == "refuse":
            refuse_seen(method, subjects)
    return subjects, methods


def rehearse(methods: Sequence[Method], subjects: Sequence[Subject], device: torch.device) -> None:
    """Load every network once.

    Raises:
        CheckpointError: one cannot be used.
    """
    for method in methods:
        load(method, device)
    log.info("%d samples for %s; all is in order", len(subjects), ", ".join(m.name for m in methods))


def find_methods(config: EvaluateConfig) -> list[Method]:
    """Look up every method's networks, and what they were trained on.

    Raises:
        ConfigError: no protocol fits any method.
        CheckpointError: weights are missing.
        DataError: a record of training data cannot be read.
    """
    trusted = trusted_hashes(config.leaks.trusted)
    methods = []
    for name, settings in config.resolved_methods.items():
        protocols, skipped = fitting(settings.mode, config.protocols)
        for reason in skipped:
            log.info("%s: skipped %s", name, reason)
        weights = Weights.find(settings)
        guard = LeakGuard.of(weights, config.leaks.guard_frames, trusted)
        methods.append(Method(name, settings, weights, protocols, skipped, guard))
    if not any(method.protocols for method in methods):
        reasons = "; ".join(f"{method.name}: {reason}" for method in methods for reason in method.skipped)
        raise ConfigError(f"protocols: none of {list(config.protocols)} fits ({reasons}). Choose others.")
    return methods


def refuse_seen(method: Method, subjects: Sequence[Subject]) -> None:
    """Refuse frames that a method was trained on.

    Raises:
        ConfigError: with their names.
    """
    seen = [
        subject.name for subject in subjects if "seen frame" in method.guard.verdicts(subject.sample).values()
    ]
    if seen:
        some = ", ".join(seen[:5]) + (", ..." if len(seen) > 5 else "")
        guard = method.guard.guard_frames
        near = f", or on frames within leaks.guard_frames={guard} of them" if guard else ""
        raise ConfigError(
            f"{method.name} was trained on {len(seen)} of the {len(subjects)} samples{near}: {some}. Measure "
            "on others, such as data_val.txt, or set leaks.action=mark to measure and mark them."
        )


def load(method: Method, device: torch.device) -> Models:
    """Read a method's networks. Which views are shown is the protocols' choice, not the models'.

    Raises:
        CheckpointError: they cannot be used.
    """
    config = method.weights.config.model_copy(update={"input_views": None})
    return load_models(replace(method.weights, config=config), device)


def measure_method(
    method: Method,
    subjects: Sequence[Subject],
    kept: KeptScores,
    device: torch.device,
    lpips: Distance | None = None,
    pictured: Sequence[Subject] = (),
    watch: Watcher | None = None,
) -> list[Score]:
    """The scores of a method on all samples; what is not kept is measured, one sample after the other."""
    done = {}
    for subject in subjects:
        found = kept.read(method.name, subject)
        if found is not None and not (subject in pictured and kept.lacks_strips(found, subject, method.name)):
            done[subject.name] = found
    left = [subject for subject in subjects if subject.name not in done]
    if left and method.protocols:
        models = load(method, device)
        _warn_of_gaps(method, models, left)
        kept.begin(method.name)
        for subject in track(left, f"evaluate {method.name}"):
            try:
                scores = measure_subject(
                    method, models, subject, lpips, kept if subject in pictured else None, watch
                )
            except DataError as error:
                raise named(error, subject.sample.folder) from None
            kept.write(method.name, subject, scores)
            done[subject.name] = scores
    return [score for subject in subjects for score in _judged(done.get(subject.name, ()), method, subject)]


def _warn_of_gaps(method: Method, models: Models, subjects: Sequence[Subject]) -> None:
    """Gaussians that were made for coarse pixels do not close the surface in fine ones."""
    size, shown = max(subject.size for subject in subjects), models.shown_size
    if method.config.mode == "direct" and shown is not None and shown < size:
        log.warning(
            "%s is shown %d px and measured at %d px: its Gaussians may leave gaps between them. "
            "image_size=%d measures at that size.",
            method.name,
            shown,
            size,
            shown,
        )


@torch.no_grad()
def measure_subject(
    method: Method,
    models: Models,
    subject: Subject,
    lpips: Distance | None = None,
    pictures: KeptScores | None = None,
    watch: Watcher | None = None,
) -> list[Score]:
    """All scores of a method on one sample; with `pictures`, what is rendered is kept there."""
    views = subject.read_all()
    given = subject.read(models.shown_size or subject.size)
    measure = Measure(views, method.config.background, subject.surface(), lpips)
    scores: list[Score] = []
    rendered: dict[Protocol, list[tuple[int, torch.Tensor]]] = {}
    for attempt in attempts(method.config, method.protocols, subject.view_ids):
        result = next(iter(models.reconstruct([only(given, attempt.given)])))
        if watch is not None:
            watch(method.name, subject, attempt, result, measure)
        wanted = {
            protocol: attempt.measured(protocol, result.shown_ids, subject.view_ids, subject.further_ids)
            for protocol in attempt.protocols
        }
        everywhere = sorted({view_id for at in wanted.values() for view_id in at})
        rows, rgb = measure(result.gaussians, result.shown_ids, everywhere)
        found = dict(zip(everywhere, zip(rows, rgb.cpu(), strict=True), strict=True))
        for protocol, at in wanted.items():
            scores += _scores(method, subject, protocol, {view_id: found[view_id][0] for view_id in at})
            rendered.setdefault(protocol, []).extend((view_id, found[view_id][1]) for view_id in at)
    if pictures is not None:
        real = composite(views.rgba, method.config.background)
        for protocol, drawn in rendered.items():
            if not drawn:
                continue
            truth = torch.stack([real[views.position(view_id)] for view_id, _ in drawn])
            shown = torch.stack([rgb for _, rgb in drawn])
            pictures.write_strips(protocol, subject, method.name, truth, shown)
    return scores


def in_order(config: EvaluateConfig, scores: Sequence[Score]) -> list[Score]:
    """Scores by method and protocol; frames stay in the order of the samples, which is that of time."""
    methods, protocols = list(config.resolved_methods), [str(protocol) for protocol in config.protocols]
    return sorted(scores, key=lambda score: (methods.index(score.method), protocols.index(score.protocol)))


def finish(config: EvaluateConfig, methods: Sequence[Method], scores: Sequence[Score]) -> None:
    """Write `scores.csv` and `summary.json`, and print the table."""
    scores = in_order(config, scores)
    write_scores(config.output / SCORES_FILE, scores)
    skipped = {method.name: method.skipped for method in methods}
    summary = summarize(scores, config.bootstrap, skipped)
    write_json(config.output / SUMMARY_FILE, summary)
    show(summary)


def _scores(
    method: Method, subject: Subject, protocol: Protocol, rows: Mapping[int, Mapping[str, float | None]]
) -> list[Score]:
    frame = subject.sample.frame_index
    return [
        Score(method.name, protocol, subject.name, frame, view_id, ROLES[protocol], "unknown", values)
        for view_id, values in rows.items()
    ]


def _judged(scores: Sequence[Score], method: Method, subject: Subject) -> list[Score]:
    verdicts = method.guard.verdicts(subject.sample, subject.truth)
    return [replace(score, leak=verdicts[score.view_id]) for score in scores]


def find_lpips(config: EvaluateConfig, device: torch.device) -> Distance | None:
    """The learned distance, if its weights are given."""
    if config.lpips_weights is None:
        return None
    check_vgg(config.lpips_weights, 16)
    return LPIPS(config.lpips_weights).to(device)


def check_views(method: Method, subjects: Sequence[Subject]) -> None:
    """Refuse samples whose cameras do not suit, before any network is loaded."""
    for subject in subjects:
        try:
            planned: list[Attempt] = list(attempts(method.config, method.protocols, subject.view_ids))
            if method.config.mvdiffusion is not None:
                _check_reference(method.weights.config, subject)
            elif any(len(attempt.given) < 2 for attempt in planned):
                raise DataError("has one view; mode direct needs at least two.")
        except MflError as error:
            raise named(error, subject.sample.folder) from None


def _check_reference(config: ReconstructionConfig, subject: Subject) -> None:
    assert config.mvdiffusion is not None
    from ..inference.generation import choose_reference
    from ..mvdiffusion.folders import load_slots, locate

    choose_reference(load_slots(*locate(config.mvdiffusion)), config.reference_view, subject.view_ids)
