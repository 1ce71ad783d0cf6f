"""`mfl infer`: load the models once, reconstruct every sample, keep what is finished."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import ConfigError, DataError, MflError
from ..files import atomic_folder, write_json
from ..progress import track
from ..provenance import Run
from ..samples.format import read_sample
from .config import InferConfig
from .inputs import Source, Views, find_sources, read_cutout
from .models import Models, Weights, choose_device, load_models
from .output import OutputFolder
from .results import Reconstruction, write_results

log = logging.getLogger(__name__)

MUCH_CUT = 0.01
"""Share of the opacity that the filters may cut without a word."""


def run(config: InferConfig, dry_run: bool = False) -> Path:
    """Reconstruct as configured.

    Args:
        config: The resolved configuration.
        dry_run: Resolve inputs, read their cameras and load the weights, then return.

    Returns:
        The output folder: one folder a sample, `metrics.json` with the means, `run.json`.

    Raises:
        ConfigError: the settings do not fit the inputs, or the output holds results of other ones.
        DataError: an input cannot be used.
        CheckpointError: weights cannot be used.
        DependencyError: the device is not there.
    """
    device = choose_device(config.device)
    sources = find_sources(config.input, config.limit)
    for source in sources:
        _check_input(config, source)
    record = Run("infer", config)
    weights = Weights.find(config)
    _check_references(weights.config, sources)
    output = OutputFolder(config, weights.hashes, sources)
    models = load_models(weights, device)
    record.lap("loading")
    if dry_run:
        log.info("%d samples to reconstruct; weights and cameras are in order", len(sources))
        return config.output
    finished = [source for source in sources if output.is_finished(source)]
    for source in finished:
        log.info("%s: finished already, kept", output.folder(source))
    means = [output.finished_means(source) for source in finished]
    left = [source for source in sources if source not in finished]
    results = _reconstructions(config, left, models)
    for source in track(left, f"infer {config.mode}"):
        views, result = next(results)
        output.begin(record)
        with atomic_folder(output.folder(source)) as temporary:
            means.append(write_results(temporary, views, result, config))
    record.lap("samples")
    overall = _mean_over_samples(means)
    if overall:
        write_json(config.output / "metrics.json", {"samples": len(sources), "mean": overall})
        log.info("%s", ", ".join(f"{name} {value:.3f}" for name, value in overall.items()))
    output.write(record)
    return config.output


def _check_references(config: InferConfig, sources: Sequence[Source]) -> None:
    """Refuse samples whose cameras are not those that MVDiffusion's views need, before it is loaded."""
    if config.mvdiffusion is None:
        return
    from ..mvdiffusion.folders import load_slots, locate
    from .e2e import choose_reference

    slots, others = load_slots(*locate(config.mvdiffusion)), []
    for source in sources:
        if source.is_picture:
            continue
        view_ids = [view.view_id for view in read_sample(source.path).views]
        try:
            shown = choose_reference(slots, config.reference_view, view_ids)
        except MflError as error:
            raise _named(error, source) from None
        if config.reference_view is None and shown != slots.view_ids[0]:
            others.append(f"camera {shown} of {source.name}")
    if others:
        log.warning(
            "%d of %d samples have no camera %d, the reference of training: their first view is shown, such "
            "as %s. Name another with reference_view.",
            len(others),
            len(sources),
            slots.view_ids[0],
            others[0],
        )


def _reconstructions(
    config: InferConfig, sources: Sequence[Source], models: Models
) -> Iterator[tuple[Views, Reconstruction]]:
    """Of each sample: its views at the size at which the result is to be measured, and the result."""
    for start in range(0, len(sources), config.batch_size):
        batch = sources[start : start + config.batch_size]
        shown = [_read(source, models.shown_size, config) for source in batch]
        results = models.reconstruct(shown)
        for source, views in zip(batch, shown, strict=True):
            try:
                result = next(results)
            except DataError as error:
                raise _named(error, source) from None
            _warn(source, result)
            same = models.size == models.shown_size
            yield views if same else _read(source, models.size, config), result


def _read(source: Source, size: int | None, config: InferConfig) -> Views:
    try:
        return source.read(size, config.image_fill)
    except DataError as error:
        raise _named(error, source) from None


def _warn(source: Source, result: Reconstruction) -> None:
    if len(result.gaussians) == 0:
        log.warning("%s: no Gaussians are left after filtering; look at filter.min_opacity.", source.name)
    elif result.report.opacity_cut > MUCH_CUT:
        log.warning(
            "%s: the filters cut %.1f %% of the opacity; is the animal inside the box?",
            source.name,
            100 * result.report.opacity_cut,
        )


def _named(error: MflError, source: Source) -> MflError:
    """The same error, saying of which sample."""
    message = str(error)
    return error if message.startswith(str(source.path)) else type(error)(f"{source.path}: {message}")


def _mean_over_samples(means: list[dict[str, float]]) -> dict[str, float]:
    names = sorted({name for item in means for name in item})
    return {
        name: sum(values) / len(values)
        for name in names
        if (values := [item[name] for item in means if name in item])
    }


def _check_input(config: InferConfig, source: Source) -> None:
    """Refuse what cannot work before anything is loaded."""
    if source.is_picture:
        if config.mode == "direct":
            raise DataError(
                f"{source.path}: one picture has no cameras; direct mode needs a sample. Use mode=e2e."
            )
        if config.reference_view is not None:
            raise ConfigError("reference_view names a camera, but a lone picture has none. Remove it.")
        read_cutout(source.path)
        return
    present = [view.view_id for view in read_sample(source.path).views]
    if len(set(present)) < len(present):
        raise DataError(f"{source.path}: views {present} hold a camera id twice; results are named by it.")
    if config.mode == "direct" and len(present) < 2:
        raise DataError(f"{source.path}: has one view; direct mode needs at least two. Use mode=e2e.")
    missing = [view_id for view_id in config.input_views or () if view_id not in present]
    if missing:
        raise ConfigError(f"input_views {missing} are not among the views {present} of {source.path}.")
