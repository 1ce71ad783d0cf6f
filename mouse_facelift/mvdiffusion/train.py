"""`mfl train-mvdiff`: fine-tune the multi-view diffusion on samples."""

import logging
from functools import partial
from pathlib import Path
from typing import Literal

from ..errors import CheckpointError, ConfigError
from ..files import atomic_folder, remove_leftovers
from ..samples.datasets import EightBitSamples, SampleDataset
from ..samples.format import read_list
from ..samples.training_data import TrainingData
from ..training.checkpoints import Checkpoint, checkpoint_to_resume
from ..training.data import open_samples, with_start
from ..training.loop import fit, seed_everything
from ..training.preflight import run_folder
from ..training.process import this_process
from ..training.trial import trial
from .config import DataConfig, TrainMVDiffConfig
from .folders import frozen_folder, locate, write_frozen
from .frozen import FrozenParts
from .latents import CachedLatents, LatentCache, Recipe
from .memory import set_checkpointing
from .pipeline import MVDiffusionPipeline
from .slots import SLOTS_FILE, Slots
from .solvers import Solver
from .start import BACKGROUNDS, fit_random_vae, read_start, start_folder, start_pipeline
from .task import MVDiffusionTask, SlotDataset
from .weights import find_weights

log = logging.getLogger(__name__)

COMMAND = "train-mvdiff"


def run(config: TrainMVDiffConfig, dry_run: bool = False) -> Path:
    """Train, or continue the run in `config.output`.

    Args:
        config: The resolved configuration.
        dry_run: Check everything, do one step, tell what the run will need, and leave nothing behind.

    Returns:
        The run's folder.

    Raises:
        DataError: samples are missing or have other views than the slots need.
        CheckpointError: weights are missing or do not fit.
        ConfigError: settings that contradict each other or what is there, or another process trains there.
        DependencyError: a library is not installed, or the Hub cannot be reached.
    """
    with run_folder(COMMAND, config.optimizer, config.training, config.output, dry_run):
        return _run(config, dry_run)


def _run(config: TrainMVDiffConfig, dry_run: bool) -> Path:
    seed_everything(config.training.seed)
    train_data, val_data = _read_data(config, dry_run)
    slots = _slots(config, train_data)
    resumed = checkpoint_to_resume(config.output, config.training.resume)
    attention, learned = config.diffusion.attention, config.diffusion.learned_prompts
    if resumed is not None:
        _check_same_slots(resumed, slots)
        pipeline = read_start(resumed.folder, slots, attention, learned_prompts=learned)
    else:
        pipeline = start_pipeline(config.start, slots, attention, config.training.seed, learned)
    # What validation would refuse after hundreds of steps is refused now.
    Solver(pipeline.frozen.scheduler, config.validation.sampling)
    here = resumed is not None and resumed.folder.resolve().is_relative_to(config.output.resolve())
    if not (here or dry_run):
        _share_frozen(config, pipeline, train_data if resumed is None else None)
    process, views = this_process(), config.data.views_per_object or len(slots)
    set_checkpointing(pipeline, config, views, process.device, process.num_processes)
    shown = config.validation.model_copy(update={"samples": 1}) if dry_run else config.validation
    task = MVDiffusionTask(
        pipeline,
        SlotDataset(_encoded(config, pipeline.frozen, train_data, dry_run), slots),
        SlotDataset(val_data, slots),
        config.model_copy(update={"validation": shown}),
        partial(_training_data, config, train_data, slots),
    )
    inputs = sorted({config.data.train_list, config.data.val_list})
    run_of = (task, config.optimizer, config.training, config.output, COMMAND, config, inputs)
    if dry_run:
        trial(*run_of, validation_samples=min(config.validation.samples, len(val_data)))
        return config.output
    return fit(*run_of)


def _read_data(config: TrainMVDiffConfig, dry_run: bool) -> tuple[SampleDataset, SampleDataset]:
    data = config.data
    train = open_samples(data.train_list, data.image_size, config.overfit, config.training, dry_run)
    wanted, there = data.views_per_object, len(train.view_ids)
    if wanted is not None and wanted > there:
        raise ConfigError(
            f"data.views_per_object is {wanted}, but the samples of {data.train_list} have {there} views. "
            f"Set it to at most {there}, or to null."
        )
    if config.overfit:
        # The list is not used, but belongs to the run's record.
        read_list(data.val_list)
        return train, train
    val = SampleDataset.from_list(data.val_list, data.image_size)
    if sorted(val.view_ids) != sorted(train.view_ids):
        raise ConfigError(
            f"{data.val_list} has views {val.view_ids}, {data.train_list} has {train.view_ids}; training and "
            "validation need the same cameras."
        )
    return train, val


def _training_data(config: TrainMVDiffConfig, train: SampleDataset, slots: Slots) -> TrainingData:
    here = TrainingData.of(train.samples, slots.view_ids)
    if config.start.kind == "random":
        return here
    trained, _ = locate(start_folder(config.start))
    weights, _ = find_weights(trained / "unet")
    return with_start(here, weights, trained)


def _slots(config: TrainMVDiffConfig, train: SampleDataset) -> Slots:
    data = config.data
    if config.diffusion.conditioning == "pose":
        return Slots.pose(train.samples, data.image_size, _reference(data))
    if data.slots == "rig":
        clockwise = data.slot_order == "clockwise"
        return Slots.rig(train.samples, data.image_size, _reference(data), clockwise)
    slots = Slots.facelift(data.image_size)
    slots.check_samples(train.samples)
    return slots


def _reference(data: DataConfig) -> int | Literal["first"]:
    """View 0 of the samples as they are read; where the reference is random, it is drawn later."""
    return "first" if data.reference_view == "random" else data.reference_view


def _check_same_slots(resumed: Checkpoint, slots: Slots) -> None:
    then = Slots.load(resumed.weights / SLOTS_FILE)
    if (then.mode, then.view_ids, then.image_size) != (slots.mode, slots.view_ids, slots.image_size):
        raise CheckpointError(
            f"{resumed.folder} was trained on views {list(then.view_ids)} at {then.image_size} px with slots "
            f"of mode {then.mode}; data and settings now give {list(slots.view_ids)} at {slots.image_size} "
            f"px, mode {slots.mode}. Restore them, or choose another output and set start.kind=run."
        )


def _share_frozen(
    config: TrainMVDiffConfig, pipeline: MVDiffusionPipeline, vae_data: SampleDataset | None
) -> None:
    """Write the run's `pipeline/`; with `vae_data` and a random start, fit the VAE first.

    The first process does it, the others then read what it wrote, so that all share one VAE to the bit.
    """
    folder, state = frozen_folder(config.output), this_process()
    if state.is_main_process:
        if vae_data is not None and config.start.kind == "random":
            fit_random_vae(pipeline, vae_data, config.data.background, config.start, config.training.seed)
        remove_leftovers(folder.parent, folder.name)
        with atomic_folder(folder) as temporary:
            write_frozen(temporary, pipeline.frozen)
    state.wait_for_everyone()
    if not state.is_main_process:
        pipeline.frozen = FrozenParts.load(folder)


def _encoded(
    config: TrainMVDiffConfig, frozen: FrozenParts, data: SampleDataset, dry_run: bool
) -> EightBitSamples | CachedLatents:
    """What training reads: pictures, or their encodings where these are cached."""
    if not config.cache.latents:
        return EightBitSamples(data)
    cache = _latent_cache(config, frozen, data)
    return cache.stand_ins(this_process()) if dry_run else cache.build(this_process())


def _latent_cache(config: TrainMVDiffConfig, frozen: FrozenParts, data: SampleDataset) -> LatentCache:
    """Where the encodings of the training samples lie, or shall lie."""
    recipe = Recipe.of(config, BACKGROUNDS[config.data.background], this_process().device)
    return LatentCache(data, frozen, recipe, config.cache.folder or config.output / "latents")
