"""What `mfl preprocess` has found beyond its limits, as `quality.csv` beside the samples tells."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from .dataset import DataSet
from .findings import Finding, ok, some, warning

QUALITY = "quality.csv"


def check_quality(data: DataSet) -> Iterator[Finding]:
    """Figures of listed samples that lie beyond the limits that the data set was made with."""
    listed: defaultdict[Path, set[str]] = defaultdict(set)
    for folder in (folder.resolve() for folders in data.parts.values() for folder in folders):
        listed[folder.parent].add(folder.name)
    for place in sorted(place for place in listed if (place / QUALITY).is_file()):
        yield _check_file(place, listed[place])


def _check_file(place: Path, samples: set[str]) -> Finding:
    path = place / QUALITY
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["sample"] in samples]
        # What concerns a whole sample stands in the rows of all its cameras.
        beyond = {
            f"{row['sample']}: {text}": None for row in rows for text in row["warnings"].split("; ") if text
        }
    except (KeyError, ValueError, AttributeError, csv.Error) as error:
        fix = "Run `mfl preprocess` again: it writes the file from the samples."
        return warning("quality", f"{path} lacks or garbles {some([str(error)])}", fix)
    if not rows:
        return warning("quality", f"{path} has none of the listed samples", "Run `mfl preprocess` again.")
    if not beyond:
        return ok("quality", f"{len(rows)} views in {path}, all within the limits")
    found = f"{len(beyond)} figures of {len(rows)} views beyond a limit: {some(list(beyond))}"
    return warning("quality", found, f"Look at them in {place / 'quality.html'}, and take bad samples out.")
