"""A data set as the doctor sees it: its lists, and the samples that can be read, whatever else is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..errors import ConfigError, DataError
from ..samples.format import CAMERAS_FILE, Sample, read_list, read_sample
from ..spacing import spread_evenly
from .config import DoctorConfig

Item = TypeVar("Item")

LISTS = ("data_train.txt", "data_val.txt")


@dataclass(frozen=True)
class DataSet:
    """What was found at a path.

    Attributes:
        place: The path.
        parts: Sample folders by the list that names them; a folder without lists is one part.
        list_faults: Lists that cannot be used, with the reason.
        samples: Those looked at and readable, by folder.
        sample_faults: Those looked at and not readable.
        pictures: How many pictures shall be decoded; None for all.
    """

    place: Path
    parts: dict[str, tuple[Path, ...]]
    list_faults: tuple[str, ...]
    samples: dict[Path, Sample]
    sample_faults: tuple[str, ...]
    pictures: int | None

    @property
    def count(self) -> int:
        """Samples in all parts."""
        return sum(len(folders) for folders in self.parts.values())


def open_data(place: Path, config: DoctorConfig) -> DataSet:
    """Read lists and cameras.

    Raises:
        ConfigError: there is nothing, or nothing that is a list, a sample or a folder of them.
    """
    parts: dict[str, tuple[Path, ...]] = {}
    faults = []
    for name, path in _lists(place).items():
        try:
            parts[name] = tuple(read_list(path))
        except (DataError, OSError) as error:
            faults.append(str(error))
    if not parts and not faults:
        parts = {place.name: _folders(place)}
    samples: dict[Path, Sample] = {}
    sample_faults = []
    for folders in parts.values():
        for folder in spread(folders, None if config.thorough else config.samples):
            try:
                samples[folder] = read_sample(folder)
            except (DataError, OSError) as error:
                sample_faults.append(str(error))
    pictures = None if config.thorough else config.pictures
    return DataSet(place, parts, tuple(faults), samples, tuple(sample_faults), pictures)


def _lists(place: Path) -> dict[str, Path]:
    """The lists of a data set: those of its folder, or the given one with its counterpart."""
    if not place.exists():
        raise ConfigError(
            f"{place}: no such file or folder; expected a list, a sample or a folder of samples."
        )
    folder = place if place.is_dir() else place.parent
    pair = {name: folder / name for name in LISTS if (folder / name).is_file()}
    return pair if place.is_dir() or place.name in LISTS else {place.name: place}


def _folders(place: Path) -> tuple[Path, ...]:
    if (place / CAMERAS_FILE).is_file():
        return (place,)
    found = tuple(sorted(path.parent for path in place.glob(f"*/{CAMERAS_FILE}")))
    if not found:
        raise ConfigError(f"{place}: holds neither {' nor '.join(LISTS)} nor samples ({CAMERAS_FILE}).")
    return found


def spread(items: Sequence[Item], count: int | None) -> list[Item]:
    """At most so many of them, evenly spread; None takes all."""
    return [items[at] for at in spread_evenly(len(items), len(items) if count is None else count)]
