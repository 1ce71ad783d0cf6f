"""A folder of decoded pictures, so that training decodes no PNG and reads no more than the animal.

Content-addressed: a shard's name is a hash of picture size, format and the keys of its samples' pictures.
Changed pictures have other names, and equal ones are shared by all lists and runs that use the folder.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..files import free_bytes
from ..parallel import overlapped, worker_count
from ..progress import track
from ..words import data_size
from .datasets import SampleDataset, load_pictures
from .packing import Packed, pack, unpack
from .shards import Shard

log = logging.getLogger(__name__)

FORMAT = "1"
"""Part of every name; goes up when files of an older version must not be used any more."""

SHARD_SAMPLES = 64
"""Samples in one file: what a killed build does again at most, in each process."""

MARGIN = 1.25
"""Animals differ in size: disk wanted per sample, relative to that of a few samples."""
TRIED = 4
"""So many samples tell how much disk one needs."""

FOLDER = "sample_cache"
"""Beside a list file, unless another place is given: runs on the same samples share it."""


class SampleCache:
    """The pictures of one data set; knows what is there, makes what is not, and reads it.

    Args:
        samples: The data set, which decodes.
        keys: Of each sample's pictures, see `keys.PictureKeys`.
        folder: Where shards lie, also those of other data sets.
    """

    def __init__(self, samples: SampleDataset, keys: Sequence[str], folder: Path) -> None:
        self.data, self.folder = samples, folder
        parts = [keys[first : first + SHARD_SAMPLES] for first in range(0, len(keys), SHARD_SAMPLES)]
        self.shards = [self._shard(part) for part in parts]

    def _shard(self, keys: Sequence[str]) -> Shard:
        text = "\n".join([FORMAT, str(self.data.image_size), *keys])
        digest = hashlib.sha256(text.encode()).hexdigest()
        path = self.folder / f"{digest[:32]}.safetensors"
        return Shard(path, {"key": digest}, len(keys), len(self.data.view_ids), self.data.image_size)

    def pending(self) -> dict[int, str]:
        """Shards to be made, by number; with it what is wrong with a file that is there, or nothing."""
        faults = {}
        for number, shard in enumerate(self.shards):
            try:
                shard.check()
            except DataError as error:
                faults[number] = str(error) if shard.path.exists() else ""
        return faults

    def check_space(self, pending: Iterable[int]) -> None:
        """Refuse to begin what the disk cannot hold, judged from a few samples.

        Args:
            pending: Shards to be made, by number.

        Raises:
            ConfigError: they need more than is free.
            DataError: a sample cannot be read.
        """
        indices = [index for number in pending for index in self._members(number)]
        tried = [self._pack(index) for index in indices[:: max(1, len(indices) // TRIED)][:TRIED]]
        if not tried:
            return
        needed = MARGIN * len(indices) * sum(sample.pixels.nbytes for sample in tried) / len(tried)
        free = free_bytes(self.folder)
        if needed > free:
            raise ConfigError(
                f"{self.folder}: the pictures of {len(indices)} samples need about {data_size(needed)}, "
                f"{data_size(free)} are free there. Free some, choose a folder on another disk, or do "
                "without the cache on disk."
            )

    def build(self, rank: int = 0, world: int = 1) -> None:
        """Make this process's share of what is not there yet.

        What an interrupted build has finished is kept, and the next one goes on from there.

        Args:
            rank: This process, among
            world: all that build.

        Raises:
            ConfigError: not enough disk.
            DataError: a sample cannot be read.
        """
        pending = self.pending()
        self.check_space(pending)
        if rank == 0:
            self._announce(pending)
        # By place among all, not among what is pending: the files of other processes appear meanwhile.
        share = [number for number in pending if number % world == rank]
        indices = [index for number in share for index in self._members(number)]
        packed = iter(overlapped(self._pack, indices, worker_count(0)))
        shown = track(packed, "caching pictures", len(indices)) if rank == 0 else packed
        for number in share:
            self.shards[number].write([next(shown) for _ in self._members(number)])
        # Past its end the iterator ends its progress line.
        next(shown, None)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Straight RGBA of one sample's views, as `load_pictures` gives them. [V, 4, S, S]

        Raises:
            DataError: the shard is absent or damaged.
        """
        number, place = divmod(index, SHARD_SAMPLES)
        return unpack(self.shards[number].read(place))

    def _members(self, number: int) -> range:
        first = number * SHARD_SAMPLES
        return range(first, first + self.shards[number].count)

    def _pack(self, index: int) -> Packed:
        return pack(load_pictures(self.data.samples[index], self.data.image_size))

    def _announce(self, pending: Mapping[int, str]) -> None:
        for fault in filter(None, pending.values()):
            log.warning("%s It is made anew.", fault)
        if pending:
            count = sum(self.shards[number].count for number in pending)
            log.info("%s: pictures of %d of %d samples to be cached", self.folder, count, len(self.data))
