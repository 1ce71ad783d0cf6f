"""`mfl synthesize`: MVDiffusion's views of every sample become samples to train GS-LRM on."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from ..errors import DataError
from ..inference.generation import Request, ViewMaker
from ..inference.models import choose_device
from ..progress import track
from ..provenance import Run
from ..samples.training_data import TrainingData
from .checkpoint import Checkpoint
from .composing import GENERATED_ID, NoAnimalError, generated_views, real_view, shown_view
from .config import SynthesizeConfig
from .output import COMMAND, OutputFolder
from .plan import Planned, find_samples, make_plan

log = logging.getLogger(__name__)


def run(config: SynthesizeConfig, dry_run: bool = False) -> Path:
    """Make samples as configured.

    Args:
        config: The resolved configuration.
        dry_run: Read all cameras, look at what is in the output, load MVDiffusion, then return.

    Returns:
        The output folder: a folder a sample, data_train.txt, data_val.txt, `manifest.json`, `run.json`, and
        `training_data.json`, which says what MVDiffusion was trained on.

    Raises:
        ConfigError: the settings do not fit MVDiffusion or the samples, or the output holds others.
        DataError: a list or sample cannot be used.
        CheckpointError: MVDiffusion cannot be used.
        DependencyError: the device is not there, or nothing can be compiled here.
    """
    device = choose_device(config.device)
    record = Run(COMMAND, config)
    samples, checkpoint = find_samples(config), Checkpoint.find(config.mvdiffusion)
    record.add_hashes(checkpoint.hashes)
    plan = make_plan(config, samples, checkpoint)
    first_id = _first_id(config, checkpoint, plan)
    output = OutputFolder(config.output, plan, config.overwrite)
    left = [planned for planned in plan if not output.is_finished(planned)]
    if len(left) < len(plan):
        log.info(
            "%s: %d of %d samples are there already, kept", output.path, len(plan) - len(left), len(plan)
        )
    maker = ViewMaker(checkpoint.folder, config.diffusion, device, config.compile) if left else None
    record.lap("loading")
    if dry_run:
        log.info("%d samples to make; MVDiffusion and cameras are in order", len(left))
        return config.output
    if maker is not None:
        _make(config, maker, left, output, record, first_id)
    record.lap("samples")
    _training_data(checkpoint, plan).save(output.path)
    weights = {"mvdiffusion": str(checkpoint.folder.resolve()), "mvdiffusion_sha256": checkpoint.sha256}
    counts = output.finish(weights)
    record.write(output.path, {"samples": counts})
    told = (counts[name] for name in ("train", "val", "rejected"))
    log.info("%s: %d training and %d validation samples, %d rejected", output.path, *told)
    return output.path


def _make(
    config: SynthesizeConfig,
    maker: ViewMaker,
    plan: Sequence[Planned],
    output: OutputFolder,
    record: Run,
    first_id: int,
) -> None:
    made = _generated(maker, plan, config.batch_size)
    for planned, request, pictures in track(made, "synthesize", len(plan)):
        # Before the first sample, so that the folder says whose it is; what fails earlier leaves nothing.
        if planned is plan[0]:
            output.begin(record)
        try:
            shown = generated_views(planned, pictures, request.cameras, first_id)
        except NoAnimalError as error:
            log.warning("%s: %s; the sample is left out", planned.name, error)
            output.reject(planned, str(error))
            continue
        sources = planned.source.views if config.targets == "real" else ()
        compared = [real_view(view, maker.image_size) for view in sources]
        inputs = [view.view_id for view in shown] if compared else []
        output.write(planned, [*shown, *compared], inputs)


def _generated(
    maker: ViewMaker, plan: Sequence[Planned], batch_size: int
) -> Iterator[tuple[Planned, Request, Tensor]]:
    for start in range(0, len(plan), batch_size):
        batch = plan[start : start + batch_size]
        requests = [
            maker.request(shown_view(planned, maker.image_size), planned.reference, planned.seed)
            for planned in batch
        ]
        yield from zip(batch, requests, maker(requests), strict=True)


def _training_data(checkpoint: Checkpoint, plan: Sequence[Planned]) -> TrainingData:
    """What MVDiffusion was trained on, and what made the samples, should they be generated themselves."""
    return checkpoint.training_data().joined(TrainingData.of_makers([planned.source for planned in plan]))


def _first_id(config: SynthesizeConfig, checkpoint: Checkpoint, plan: Sequence[Planned]) -> int:
    """What is added to the numbers of generated views, see `GENERATED_ID`."""
    if checkpoint.slots.mode != "facelift" and config.targets == "generated":
        return 0
    for planned in plan:
        large = [view.view_id for view in planned.source.views if view.view_id >= GENERATED_ID]
        if large:
            raise DataError(
                f"{planned.source.folder}: has camera ids {large}, but generated views are numbered from "
                f"{GENERATED_ID} on. Number the cameras lower."
            )
    return GENERATED_ID
