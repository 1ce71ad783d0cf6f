"""`mfl infer`: load the models once, reconstruct every sample, keep what is finished."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import torch

from ..config import dump_config
from ..errors import ConfigError, DataError, DependencyError
from ..files import atomic_folder, write_json
from ..gaussians.filters import filter_gaussians
from ..gslrm import load_gslrm
from ..progress import track
from ..provenance import Run
from ..samples.datasets import composite
from .config import InferConfig
from .direct import reconstruct
from .inputs import Source, Views, find_sources
from .results import Reconstruction, write_results

log = logging.getLogger(__name__)

Reconstruct = Callable[[Views], Reconstruction]

MATTERS_NOT = ("input", "limit", "output", "overwrite", "device")
"""Configuration that finished samples of an earlier run may have otherwise."""


def run(config: InferConfig, dry_run: bool = False) -> Path:
    """Reconstruct as configured.

    Args:
        config: The resolved configuration.
        dry_run: Resolve inputs, read their cameras and load the weights, then return.

    Returns:
        The output folder: one folder a sample, `metrics.json` with the means, `run.json`.

    Raises:
        ConfigError: the output holds results of another configuration.
        DataError: an input cannot be used.
        CheckpointError: weights cannot be used.
        DependencyError: the device is not there.
    """
    sources = find_sources(config.input, config.limit)
    _check_inputs(config, sources)
    _check_output(config)
    record = Run("infer", config)
    reconstruct_views, size = _load_models(config, choose_device(config.device))
    record.lap("loading")
    if dry_run:
        log.info("%d samples to reconstruct; weights and cameras are in order", len(sources))
        return config.output
    _write_marker(config, record)
    results = {}
    for source in track(sources, f"infer {config.mode}"):
        results[source.name] = _process(config, source, size, reconstruct_views)
    record.lap("samples")
    means = _mean_over_samples([value for value in results.values() if value])
    if means:
        write_json(config.output / "metrics.json", {"samples": len(results), "mean": means})
        log.info("%s", ", ".join(f"{name} {value:.3f}" for name, value in means.items()))
    record.write(config.output, {"samples": list(results)})
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


def _load_models(config: InferConfig, device: torch.device) -> tuple[Reconstruct, int | None]:
    """The reconstruction as a function, and the size at which it wants its views."""
    model = load_gslrm(config.gslrm, device)
    if config.mvdiffusion is not None:
        from .e2e import EndToEnd

        end_to_end = EndToEnd(config, model, device)
        return end_to_end, config.image_size or end_to_end.image_size

    def direct(views: Views) -> Reconstruction:
        assert views.K is not None and views.w2c is not None
        shown = tuple(config.input_views or views.view_ids)
        indices = [views.position(view_id) for view_id in shown]
        rgb = composite(views.rgba[indices], config.background)
        gaussians = reconstruct(model, rgb, views.K[indices], views.w2c[indices])
        filtered, report = filter_gaussians(gaussians, config.filter)
        return Reconstruction(filtered, report, shown)

    return direct, config.image_size


def _process(
    config: InferConfig, source: Source, size: int | None, reconstruct_views: Reconstruct
) -> dict[str, float]:
    folder = config.output / source.name
    if folder.is_dir() and not config.overwrite:
        log.info("%s: finished already, kept", folder)
        return _finished_means(folder)
    try:
        views = source.read(size, config.image_fill)
        result = reconstruct_views(views)
    except DataError as error:
        raise type(error)(f"{source.path}: {error}") from None
    if result.report.opacity_cut > 0.01:
        log.warning(
            "%s: the filters cut %.1f %% of the opacity; is the animal inside the box?",
            source.name,
            100 * result.report.opacity_cut,
        )
    with atomic_folder(folder) as temporary:
        return write_results(temporary, views, result, config)


def _finished_means(folder: Path) -> dict[str, float]:
    path = folder / "metrics.json"
    if not path.is_file():
        return {}
    means: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["mean"]
    return means


def _mean_over_samples(means: list[dict[str, float]]) -> dict[str, float]:
    names = sorted({name for item in means for name in item})
    return {
        name: sum(values) / len(values)
        for name in names
        if (values := [item[name] for item in means if name in item])
    }


def _check_inputs(config: InferConfig, sources: list[Source]) -> None:
    for source in sources:
        if source.is_picture and config.mode == "direct":
            raise DataError(
                f"{source.path}: one picture has no cameras; direct mode needs a sample. Use mode=e2e."
            )
        if source.is_picture and config.reference_view is not None:
            raise ConfigError("reference_view names a camera, but a lone picture has none. Remove it.")


def _check_output(config: InferConfig) -> None:
    """Refuse to mix results of different configurations in one folder."""
    path = config.output / "run.json"
    if config.overwrite or not path.is_file():
        return
    then = json.loads(path.read_text(encoding="utf-8"))["config"]
    now = dump_config(config)
    differing = [key for key in now if key not in MATTERS_NOT and then.get(key) != now[key]]
    if differing:
        changes = "; ".join(f"{key}: then {then.get(key)}, now {now[key]}" for key in differing)
        raise ConfigError(
            f"{config.output} holds results of another configuration ({changes}). "
            "Choose another output, or overwrite=true."
        )


def _write_marker(config: InferConfig, record: Run) -> None:
    """Say at once what this folder's results are made with, so that a later run can tell."""
    config.output.mkdir(parents=True, exist_ok=True)
    record.write(config.output, {"samples": []})
