"""Scores put together: means with intervals by method and protocol, by camera, by frame, and differences."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from .bootstrap import FEWEST_FRAMES, alike_neighbours, estimate, paired
from .config import BootstrapConfig
from .leaks import VERDICTS
from .protocols import ROLES
from .scores import DEFINITIONS, LOWER_IS_BETTER, Score

FLATTERS = "the measured views were shown to the method: this tells how well it copies, not how well it sees"
LOUD = ("seen frame", "unknown")
"""Verdicts that every figure which rests on them carries."""


def summarize(
    scores: Sequence[Score], bootstrap: BootstrapConfig, skipped: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """What goes into `summary.json`.

    Args:
        scores: All rows.
        bootstrap: For the intervals.
        skipped: Per method, protocols that do not fit it, with the reason.
    """
    groups = _grouped(scores, lambda score: (score.method, score.protocol))
    return {
        "definitions": DEFINITIONS,
        "lower_is_better": list(LOWER_IS_BETTER),
        "verdicts": VERDICTS,
        "intervals": f"{bootstrap.confidence:.0%} percentile bootstrap over frames in blocks of "
        f"{bootstrap.block}, {bootstrap.resamples} resamples, seed {bootstrap.seed}, widened by Student's "
        f"quantile; null of fewer than {FEWEST_FRAMES} blocks",
        "mean": "over frames, each the mean of its cameras",
        "skipped": {method: list(reasons) for method, reasons in skipped.items() if reasons},
        "groups": [_group(rows, bootstrap) for rows in groups.values()],
        "differences": [
            difference
            for one, other in combinations(groups.values(), 2)
            if one[0].method != other[0].method and one[0].role == other[0].role
            if (difference := _difference(one, other, bootstrap)) is not None
        ],
    }


def _group(rows: Sequence[Score], bootstrap: BootstrapConfig) -> dict[str, Any]:
    first = rows[0]
    return {
        "method": first.method,
        "protocol": first.protocol,
        "role": first.role,
        **({"note": FLATTERS} if first.role == ROLES["reconstruction"] else {}),
        "leaks": dict(Counter(row.leak for row in rows)),
        "alike_neighbours": alike_neighbours(_values(rows, "psnr_animal_db"))
        if bootstrap.block == 1
        else None,
        "metrics": figures(rows, bootstrap),
        "cameras": {
            str(view_id): figures(some, bootstrap)
            for view_id, some in sorted(_grouped(rows, lambda row: row.view_id).items())
        },
        "frames": {
            sample: {name: _mean(some, name) for name in DEFINITIONS if _mean(some, name) is not None}
            for sample, some in _grouped(rows, lambda row: row.sample).items()
        },
    }


def figures(rows: Sequence[Score], bootstrap: BootstrapConfig) -> dict[str, dict[str, Any]]:
    """Estimates by metric, of those that were measured."""
    found = {}
    for name in DEFINITIONS:
        if (result := estimate(_values(rows, name), bootstrap)) is not None:
            found[name] = asdict(result)
    return found


def _values(rows: Sequence[Score], name: str) -> list[tuple[str, float]]:
    """A metric with its frames, where it exists."""
    return [(row.sample, value) for row in rows if (value := row.values.get(name)) is not None]


def _difference(
    ones: Sequence[Score], others: Sequence[Score], bootstrap: BootstrapConfig
) -> dict[str, Any] | None:
    """One minus other at the same cameras of the same frames; None where they share none."""
    found = {}
    for name in DEFINITIONS:
        values = paired(ones, others, _figure(name))
        if (result := estimate(values, bootstrap)) is not None:
            found[name] = asdict(result)
    if not found:
        return None
    return {
        "one": {"method": ones[0].method, "protocol": ones[0].protocol},
        "other": {"method": others[0].method, "protocol": others[0].protocol},
        "role": ones[0].role,
        "metrics": found,
    }


def _figure(name: str) -> Callable[[Score], float | None]:
    return lambda score: score.values.get(name)


def _mean(rows: Sequence[Score], name: str) -> float | None:
    values = [value for row in rows if (value := row.values.get(name)) is not None]
    return sum(values) / len(values) if values else None


def _grouped(rows: Iterable[Score], key: Callable[[Score], Any]) -> dict[Any, list[Score]]:
    groups: dict[Any, list[Score]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
