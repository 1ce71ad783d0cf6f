"""Training samples, their pictures cached as the configuration says; all processes of a run together."""

import logging
from pathlib import Path

from accelerate.utils import broadcast_object_list

from ..provenance import sha256
from ..samples.cache import FOLDER, SampleCache
from ..samples.datasets import MemorySource, SampleDataset
from ..samples.format import read_list
from ..samples.keys import MEMO_FILE, PictureKeys
from ..samples.training_data import TrainingData
from ..words import several
from .config import TrainingConfig
from .process import local_processes, this_process

log = logging.getLogger(__name__)


def open_samples(
    path: Path, image_size: int, limit: int, training: TrainingConfig, dry_run: bool = False
) -> SampleDataset:
    """The samples of a list, the first `limit` of them if that is not 0.

    Args:
        path: The list file.
        image_size: Side of the pictures handed out.
        limit: Most samples; 0 takes all.
        training: `sample_cache` and its folder.
        dry_run: Only look whether a cache on disk could be made; write nothing.

    Raises:
        DataError: the list or a sample cannot be used.
        ConfigError: the cache does not fit on the disk.
    """
    folders = read_list(path)
    if more := len(folders) - len({folder.resolve() for folder in folders}):
        log.warning("%s: names %s more than once, each counts as often", path, several(more, "sample"))
    if limit > len(folders):
        log.warning("%s: overfit=%d, but it names %s only", path, limit, several(len(folders), "sample"))
    samples = SampleDataset(folders[:limit] if limit else folders, image_size)
    if samples.samples[0].views[0].camera.width < image_size:
        log.warning("%s: samples are smaller than data.image_size=%d, and are enlarged", path, image_size)
    if training.sample_cache == "memory":
        samples.source = MemorySource(samples)
    elif training.sample_cache == "disk":
        folder = training.sample_cache_folder or path.parent / FOLDER
        cache_pictures(samples, folder, dry_run)
    return samples


def cache_pictures(samples: SampleDataset, folder: Path, dry_run: bool = False) -> None:
    """Make the cache of a data set in a folder, as far as it is not there, and read from it from now on.

    All processes of a run must call this together.

    Args:
        samples: The data set.
        folder: Where caches lie.
        dry_run: Only check the space; go on decoding files.

    Raises:
        DataError: a sample cannot be read.
        ConfigError: the cache does not fit on the disk.
    """
    process = this_process()
    keys: list[list[str]] = [[]]
    if process.is_main_process:
        pictures = PictureKeys(samples.samples, folder / MEMO_FILE)
        keys = [pictures.keys]
        if not dry_run:
            pictures.save()
    broadcast_object_list(keys)
    cache = SampleCache(samples, keys[0], folder)
    if dry_run:
        cache.check_space(cache.pending())
        return
    cache.build(process.process_index, process.num_processes)
    process.wait_for_everyone()
    if process.num_processes > 1:
        # Machines without a common disk lack what others have made.
        cache.build(process.local_process_index, local_processes())
        process.wait_for_everyone()
    samples.source = cache


def with_start(here: TrainingData, start: Path, beside: Path | None = None) -> TrainingData:
    """What is trained on here, together with what the start weights were trained on.

    Args:
        here: The samples of this training.
        start: File of the weights that it starts from.
        beside: Folder that tells what those were trained on; None is the file's own.

    Raises:
        DataError: it tells so in a file that cannot be read.
    """
    return here.joined(TrainingData.load(beside or start.parent) or TrainingData((), (sha256(start),)))
