"""What is refused before any weights are read: inputs that the settings or the models do not fit."""

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import ConfigError, DataError, MflError
from ..provenance import check_maker, check_output
from ..samples.datasets import check_ids
from ..samples.training_data import TrainingData
from .config import InferConfig, ReconstructionConfig
from .inputs import Source
from .moments import check_sequence

log = logging.getLogger(__name__)

OTHER_SIZE = 1.1
"""Animals so many times as large or small as in training are told of."""


def check_place(config: InferConfig) -> None:
    """Refuse an output that cannot be written, or is somebody else's.

    Raises:
        ConfigError: it is not a folder, belongs to another command, or is the input itself.
    """
    check_output(config.output)
    if config.output.resolve() == config.input.resolve():
        raise ConfigError(f"output={config.output} is the input itself. Choose another output.")
    check_maker(config.output, "infer")


def check_inputs(config: InferConfig, sources: Sequence[Source]) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError: the settings do not fit an input.
        DataError: an input cannot be used.
    """
    if config.sequence.enabled:
        check_sequence(sources)
    for source in sources:
        _check_views(config, source)
        source.check()
        if config.output_frame == "rig" and not source.has_rig_frame:
            raise ConfigError(
                f"output_frame=rig, but {source.path} has no world_from_model, which leads to the rig's "
                "millimetres. Use output_frame=model, or samples written by `mfl preprocess`."
            )


def check_references(config: ReconstructionConfig, sources: Sequence[Source]) -> None:
    """Refuse samples whose cameras are not those that MVDiffusion's views need, before it is loaded.

    Raises:
        ConfigError: another reference is asked for than the model was made for.
        DataError: a sample lacks cameras.
        CheckpointError: the model does not say what its views mean.
    """
    if config.mvdiffusion is None:
        return
    from ..mvdiffusion.folders import load_slots, locate
    from .generation import choose_reference

    slots, others = load_slots(*locate(config.mvdiffusion)), []
    for source in sources:
        if source.is_picture:
            continue
        try:
            shown = choose_reference(slots, config.reference_view, source.view_ids)
        except MflError as error:
            raise named(error, source.path) from None
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


def warn_of_scale(trained: TrainingData | None, scales: Iterable[tuple[str, float | None]]) -> None:
    """Tell where animals are shown larger or smaller than GS-LRM saw them in training.

    Args:
        trained: What it was trained on, where that is recorded.
        scales: Every sample's name and millimetres per model unit; None, where unknown, is passed over.
    """
    recorded = [data.mm_per_unit for data in trained.sets] if trained else []
    ranges = [scales for scales in recorded if scales is not None]
    if not ranges or len(ranges) < len(recorded):
        return
    found = [(name, scale, _size(scale, ranges)) for name, scale in scales if scale is not None]
    others = [known for known in found if abs(math.log(known[2])) > math.log(OTHER_SIZE)]
    if others:
        name, scale, size = max(others, key=lambda known: abs(math.log(known[2])))
        log.warning(
            "%d of %d samples show the animal at a size that GS-LRM was not trained on: in %s it is %.2g "
            "times as large. Prepare them with geometry.scale=%.4g (a recording: preprocess.geometry.scale).",
            len(others),
            len(found),
            name,
            size,
            1 / (scale * size),
        )


def _size(mm_per_unit: float, ranges: Sequence[tuple[float, float]]) -> float:
    """How many times as large an animal appears as at the nearest scale of training."""
    sizes = (min(max(mm_per_unit, low), high) / mm_per_unit for low, high in ranges)
    return min(sizes, key=lambda size: abs(math.log(size)))


def named(error: MflError, place: Path) -> MflError:
    """The same error, saying of which sample: where it lies."""
    message = str(error)
    return error if message.startswith(str(place)) else type(error)(f"{place}: {message}")


def _check_views(config: InferConfig, source: Source) -> None:
    if source.is_picture:
        if config.mode == "direct":
            raise DataError(
                f"{source.path}: one picture has no cameras; direct mode needs a sample. Use mode=e2e."
            )
        if config.reference_view is not None:
            raise ConfigError("reference_view names a camera, but a lone picture has none. Remove it.")
        return
    present = list(source.view_ids)
    check_ids(source.path, present)
    if config.mode == "direct" and len(present) < 2:
        raise DataError(f"{source.path}: has one view; direct mode needs at least two. Use mode=e2e.")
    missing = [view_id for view_id in config.input_views or () if view_id not in present]
    if missing:
        raise ConfigError(f"input_views {missing} are not among the views {present} of {source.path}.")
