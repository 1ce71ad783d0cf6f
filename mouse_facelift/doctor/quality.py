"""`quality.csv` beside the samples, against the limits that the data set was made with."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from ..preprocess.config import Limit, QualityConfig
from ..preprocess.limits import check
from .dataset import DataSet
from .findings import Finding, ok, some, warning

QUALITY = "quality.csv"
FIGURES = ("hull_iou", "clipped_share", "removed_share", "area_jump")
"""Columns that are named as their limit and mean the same."""


def check_quality(data: DataSet) -> Iterator[Finding]:
    """Figures of listed samples that lie beyond their limits."""
    places = {folder.resolve().parent for folders in data.parts.values() for folder in folders}
    names = {folder.name for folders in data.parts.values() for folder in folders}
    for place in sorted(place for place in places if (place / QUALITY).is_file()):
        yield _check_file(place, names)


def _check_file(place: Path, samples: set[str]) -> Finding:
    limits = _limits(place)
    beyond: list[str] = []
    rows = 0
    try:
        with (place / QUALITY).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["sample"] not in samples:
                    continue
                rows += 1
                beyond += [f"{row['sample']}, {text}" for text in _beyond(row, limits)]
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        fix = "Run `mfl preprocess` again: it writes the file from the samples."
        return warning("quality", f"{place / QUALITY} is garbled ({error!r})", fix)
    if not beyond:
        return ok("quality", f"{rows} views in {place / QUALITY}, all within the limits")
    found = f"{len(beyond)} figures of {rows} views beyond a limit: {some(beyond)}"
    return warning("quality", found, f"Look at them in {place / 'quality.html'}, and take bad samples out.")


def _beyond(row: dict[str, str], limits: QualityConfig) -> Iterator[str]:
    for name in FIGURES:
        limit: Limit = getattr(limits, name)
        found = check(limit, name, int(row["camera"]), float(row[name]))
        if found is not None:
            yield str(found)


def _limits(place: Path) -> QualityConfig:
    """Those of the run that made the folder; the defaults where it does not say."""
    try:
        made = json.loads((place / "run.json").read_text(encoding="utf-8"))
        return QualityConfig.model_validate(made["config"]["quality"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return QualityConfig()
