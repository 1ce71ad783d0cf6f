"""All checks in their order, and their findings as text or JSON."""

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .config import DoctorConfig
from .findings import Finding, problem

if TYPE_CHECKING:
    from rich.text import Text

CHECKS = (
    "software:check_python",
    "software:check_libraries",
    "gpu:check_torch",
    "gpu:check_devices",
    "renderers:check_gsplat",
    "renderers:check_rendering",
    "software:check_video",
    "software:check_opencv",
    "machine:check_folder",
    "machine:check_temporary",
    "machine:check_shared_memory",
    "machine:check_cores",
    "weights:check_published",
    "weights:check_runs",
)
"""What is asked of the machine, as `module:function` of this room: a missing library is a finding too."""

DATA_CHECKS = (
    "data:check_lists",
    "data:check_samples",
    "data:check_pictures",
    "data:check_cameras",
    "data:check_scale",
    "data:check_overlap",
    "quality:check_quality",
)
"""What is asked of a data set."""

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def run(config: DoctorConfig, dry_run: bool = False) -> list[Finding]:
    """Look at everything.

    Args:
        config: What to look at.
        dry_run: Look at nothing but the configuration.

    Raises:
        ConfigError: `data` is nothing that could be a data set.
    """
    # What is no data set is told before anything else.
    of_data = list(_of_data(config))
    if dry_run:
        return []
    return [*(finding for place in CHECKS for finding in perform(place, config)), *of_data]


def perform(place: str, subject: Any) -> Iterator[Finding]:
    """One check; what it cannot import is what it found.

    Args:
        place: `module:function`.
        subject: What the function takes.
    """
    name = place.partition(":")[2]
    try:
        yield from _load(place)(subject)
    except (ImportError, OSError) as error:
        # A library that is damaged or lacks another one raises OSError as often as ImportError.
        yield _not_looked_at(name.removeprefix("check_").replace("_", " "), error)


def settings(arguments: Sequence[str]) -> list[str]:
    """Paths among the arguments become settings: runs, weights, or else data.

    Raises:
        ConfigError: two paths are data, or weights.
    """
    places: dict[str, list[str]] = {"weights": [], "runs": [], "data": []}
    others = []
    for text in arguments:
        if "=" in text and not Path(text).exists():
            others.append(text)
        else:
            places[_key(Path(text))].append(str(Path(text)))
    for key in ("weights", "data"):
        if len(places[key]) > 1:
            raise ConfigError(
                f"{' and '.join(places[key])} are both taken for {key}; look at one after the other."
            )
    values = {key: json.dumps(found) if key == "runs" else found[0] for key, found in places.items() if found}
    return [*(f"{key}={value}" for key, value in values.items()), *others]


def is_well(findings: Sequence[Finding]) -> bool:
    """Nothing is a problem."""
    return all(finding.level != "problem" for finding in findings)


def as_json(findings: Sequence[Finding]) -> str:
    """An object with `well` and `findings`, each with the attributes of `Finding`."""
    return json.dumps({"well": is_well(findings), "findings": [asdict(item) for item in findings]}, indent=1)


def as_text(findings: Sequence[Finding]) -> "Text":
    """A line of what was found, and one of what to do."""
    from rich.text import Text

    width = max((len(finding.subject) for finding in findings), default=0)
    text = Text()
    for finding in findings:
        text.append(f"{finding.level:<8}", STYLES[finding.level])
        text.append(f" {finding.subject:<{width}}  {finding.found}\n")
        if finding.fix:
            text.append(f"{'':<{width + 9}}  → {finding.fix}\n")
    counts = {level: sum(finding.level == level for finding in findings) for level in STYLES}
    text.append(", ".join(f"{count} {level}" for level, count in counts.items()))
    return text


def _of_data(config: DoctorConfig) -> Iterator[Finding]:
    if config.data is None:
        return
    try:
        data = _load("dataset:open_data")(config.data, config)
    except (ImportError, OSError) as error:
        yield _not_looked_at("data", error)
        return
    for place in DATA_CHECKS:
        yield from perform(place, data)


def _load(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(f".{module}", __package__), name)
    return function


def _not_looked_at(subject: str, error: Exception) -> Finding:
    fix = "Install what is missing (see libraries), or install it again."
    if isinstance(error, OSError) and error.filename is not None:
        fix = "Check the path, its permissions and the disk."
    return problem(subject, f"cannot be looked at: {' '.join(str(error).split())}", fix)


def _key(path: Path) -> str:
    """The setting that a path is meant for, by what lies in it."""
    from ..training.runs import find_runs
    from ..weights.verify import published_folders

    # Looking for runs would walk through every sample.
    if path.is_dir() and not any(path.glob("data_*.txt")):
        if next(published_folders(path), None) is not None:
            return "weights"
        if next(find_runs(path), None) is not None:
            return "runs"
    return "data"
