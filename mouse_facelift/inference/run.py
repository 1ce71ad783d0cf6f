"""`mfl infer`: load the models once, reconstruct every sample, keep what is finished."""

import logging
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from ..errors import DataError, MflError
from ..files import atomic_folder, write_json
from ..parallel import overlapped, worker_count
from ..progress import track
from ..provenance import Run
from ..samples.training_data import TrainingData
from .checks import check_inputs, check_place, check_references, named, warn_of_scale
from .config import InferConfig
from .drawing import draw_results
from .inputs import Source, Views
from .models import Models, Weights, choose_device, load_models
from .opening import Inputs, open_inputs
from .output import OutputFolder
from .results import Reconstruction, Results
from .sequence import write_sequence
from .writing import write_results

log = logging.getLogger(__name__)

Item = TypeVar("Item")

MUCH_CUT = 0.01
"""Share of the opacity that the filters may cut without a word."""

MUCH_LOST_DB = 0.5
"""PSNR of the shown views that the filters may cost without a word."""


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
    check_place(config)
    weights, record = Weights.find(config), Run("infer", config)
    trained = TrainingData.load(weights.gslrm.parent)
    inputs = open_inputs(config, record)
    check_inputs(config, inputs.examples)
    check_references(weights.config, inputs.examples)
    OutputFolder(config, weights.hashes, inputs.known)
    warn_of_scale(trained, ((source.name, source.mm_per_unit) for source in inputs.known))
    models = load_models(weights, device)
    record.lap("loading")
    if dry_run:
        log.info("%s: inputs, weights and cameras are in order", config.input)
        return config.output
    with inputs.find() as sources:
        if not inputs.known:
            warn_of_scale(trained, ((source.name, source.mm_per_unit) for source in sources))
        output = OutputFolder(config, weights.hashes, sources)
        record.lap("inputs")
        means = reconstruct_all(config, inputs, sources, models, output, record)
        record.lap("samples")
        overall = _mean_over_samples(means)
        if overall:
            write_json(config.output / "metrics.json", {"samples": len(means), "mean": overall})
            log.info("%s", ", ".join(f"{name} {value:.3f}" for name, value in overall.items()))
        if config.sequence.enabled:
            put_together(config, inputs, sources, output, models, device)
            record.lap("sequence")
        output.write(record, inputs.facts)
    return config.output


def reconstruct_all(
    config: InferConfig,
    inputs: Inputs,
    sources: Sequence[Source],
    models: Models,
    output: OutputFolder,
    record: Run,
) -> list[dict[str, float]]:
    """Write the results of every sample that has none; the mean metrics of each.

    The next samples are read and the last ones written in threads; this one alone uses the device.
    """
    output.clear()
    finished = [source for source in sources if output.is_finished(source)]
    if finished:
        log.info("%s: %d of %d samples are finished, kept", output.path, len(finished), len(sources))
    means = [output.finished_means(source) for source in finished]
    left = [source for source in sources if not output.is_finished(source)]

    def write(made: tuple[Source, Results]) -> dict[str, float]:
        source, results = made
        try:
            with atomic_folder(output.folder(source)) as temporary:
                write_results(temporary, results, config, source.name)
        except DataError as error:
            raise named(error, source.path) from None
        return results.means

    def draw(samples: Iterator[_Read]) -> Iterator[tuple[Source, Results]]:
        for source, views, result in _reconstructions(config, samples, models):
            try:
                results = draw_results(views, result, config)
            except DataError as error:
                raise named(error, source.path) from None
            _warn(source, result, results.filter_cost_db)
            output.begin(record, inputs.facts)
            yield source, results

    threads = worker_count(config.workers)
    with (
        closing(_read_ahead(config, inputs.stream(left), models)) as read,
        closing(overlapped(write, draw(read), threads, lambda made: made[1].nbytes, at_once=True)) as written,
    ):
        return means + list(track(written, f"infer {config.mode}", len(left)))


def put_together(
    config: InferConfig,
    inputs: Inputs,
    sources: Sequence[Source],
    output: OutputFolder,
    models: Models,
    device: torch.device,
) -> None:
    """Write what the samples are together in time."""
    done = {source.name: source for source in sources if output.folder(source).is_dir()}

    def read(names: Sequence[str]) -> Generator[Views, None, None]:
        return overlapped(
            lambda source: _read(source, models.size, config),
            inputs.stream([done[name] for name in names]),
            config.readers,
        )

    write_sequence(config, [output.folder(source) for source in done.values()], read, device)


@dataclass(frozen=True)
class _Read:
    """A sample's views at the size at which they are shown, and at that at which its result is measured."""

    source: Source
    shown: Views
    measured: Views


def _read_ahead(
    config: InferConfig, sources: Iterator[Source], models: Models
) -> Generator[_Read, None, None]:
    def read(source: Source) -> _Read:
        measured = _read(source, models.size, config)
        same = models.shown_size in (None, measured.rgba.shape[-1])
        return _Read(source, measured if same else _read(source, models.shown_size, config), measured)

    return overlapped(read, sources, config.readers)


def _reconstructions(
    config: InferConfig, samples: Iterator[_Read], models: Models
) -> Iterator[tuple[Source, Views, Reconstruction]]:
    """Of each sample: its views at the size at which the result is to be measured, and the result."""
    for batch in batches(samples, config.batch_size):
        results = models.reconstruct([sample.shown for sample in batch])
        for sample in batch:
            try:
                result = next(results)
            except DataError as error:
                raise named(error, sample.source.path) from None
            yield sample.source, sample.measured, result


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Several items at a time; those before an expected error come before it."""
    batch: list[Item] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except (MflError, OSError):
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _read(source: Source, size: int | None, config: InferConfig) -> Views:
    try:
        return source.read(size, config.image_fill)
    except DataError as error:
        raise named(error, source.path) from None


def _warn(source: Source, result: Reconstruction, cost: float | None) -> None:
    cut = result.report.opacity_cut
    if len(result.gaussians) == 0:
        log.warning("%s: no Gaussians are left after filtering; look at filter.min_opacity.", source.name)
        return
    if cut > MUCH_CUT:
        log.warning(
            "%s: the filters cut %.1f %% of the opacity; is the animal inside the box?",
            source.name,
            100 * cut,
        )
    if cost is not None and cost > MUCH_LOST_DB:
        log.warning(
            "%s: the filters cost the shown views %.2f dB on the animal; filter.dropped in its metrics.json "
            "tells which rule cuts most.",
            source.name,
            cost,
        )


def _mean_over_samples(means: list[dict[str, float]]) -> dict[str, float]:
    """Exact sums: the means do not depend on which samples an earlier run has finished."""
    names = sorted({name for item in means for name in item})
    return {
        name: math.fsum(values) / len(values)
        for name in names
        if (values := [item[name] for item in means if name in item])
    }
