"""`mfl infer`: load the models once, reconstruct every sample, keep what is finished."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ..errors import ConfigError, DataError, DependencyError, MflError
from ..files import atomic_folder, write_json
from ..gslrm import find_weights, load_gslrm
from ..progress import track
from ..provenance import Run, sha256
from ..samples.format import read_sample
from .config import InferConfig
from .direct import INFERENCE_DTYPE, Direct
from .inputs import Source, Views, find_sources, read_cutout
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
    weights, pinned = find_weights(config.gslrm), _pin_checkpoint(config)
    _check_references(pinned, sources)
    hashes = {str(file.resolve()): sha256(file) for file in (weights, *_trained_files(pinned))}
    output = OutputFolder(config, hashes, sources)
    models = _load_models(pinned, weights, device)
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


def choose_device(choice: str) -> torch.device:
    """Resolve `auto`, `cuda` or `cpu`.

    Raises:
        DependencyError: CUDA is asked for and not there.
    """
    available = torch.cuda.is_available()
    if choice == "cuda" and not available:
        raise DependencyError("device=cuda, but PyTorch finds no CUDA device. Use device=auto or device=cpu.")
    return torch.device("cuda" if available and choice != "cpu" else "cpu")


@dataclass(frozen=True)
class Models:
    """What reconstructs.

    Attributes:
        reconstruct: From the views of some samples to the Gaussians of each.
        shown_size: Side at which it wants the views; None takes them as they are.
        size: Side at which its result is rendered and measured, likewise.
    """

    reconstruct: Callable[[Sequence[Views]], Iterator[Reconstruction]]
    shown_size: int | None
    size: int | None


def _load_models(config: InferConfig, weights: Path, device: torch.device) -> Models:
    model = load_gslrm(weights, device)
    if device.type == "cuda":
        model.hold_weights(INFERENCE_DTYPE)
    if config.mvdiffusion is None:
        return Models(partial(map, Direct(config, model)), config.image_size, config.image_size)
    from .e2e import EndToEnd

    end_to_end = EndToEnd(config, model, device)
    return Models(end_to_end.together, end_to_end.image_size, config.image_size or end_to_end.image_size)


def _pin_checkpoint(config: InferConfig) -> InferConfig:
    """Name MVDiffusion's checkpoint instead of its run: a training might write a newer one meanwhile."""
    if config.mvdiffusion is None:
        return config
    from ..mvdiffusion.folders import locate

    trained, frozen = locate(config.mvdiffusion)
    place = trained if trained == frozen else trained.parent
    return config.model_copy(update={"mvdiffusion": place})


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


def _trained_files(config: InferConfig) -> Iterable[Path]:
    """The files of MVDiffusion's trained parts."""
    if config.mvdiffusion is not None:
        from ..mvdiffusion.folders import find_prompts, locate
        from ..mvdiffusion.slots import SLOTS_FILE

        trained, _ = locate(config.mvdiffusion)
        yield from sorted((trained / "unet").glob("*"))
        yield find_prompts(trained)
        if (trained / SLOTS_FILE).is_file():
            yield trained / SLOTS_FILE


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
