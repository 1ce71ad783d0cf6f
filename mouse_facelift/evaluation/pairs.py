"""Arms of a comparison at the places that all of them have, and the differences between them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..errors import DataError
from .bootstrap import Estimate, estimate, paired
from .config import BootstrapConfig
from .decision import Contrast, Contrasts, paired_excess_db
from .scores import DEFINITIONS, Score

DECIDING = "psnr_object_db"
"""The figure that decides: silhouette and colour both count."""

Arms = Mapping[str, Sequence[Score]]
"""Scores by arm: `direct`, `shown`, `e2e`, `generated`, and the same with a tag of other weights."""


def arms_of(
    scores: Iterable[Score], generated: Mapping[str, Sequence[Score]], base: str
) -> dict[str, list[Score]]:
    """Sort an evaluation's scores into arms.

    `direct` is direct at cameras that it was not shown, `shown` at those that it was.

    Args:
        scores: Of methods `direct` and `e2e`, with or without a tag.
        generated: Of MVDiffusion's views themselves, by arm; empty where they stand at no real camera.
        base: Tag of the weights to start from; the others have no `shown`.
    """
    arms: dict[str, list[Score]] = {}
    for score in scores:
        if score.role == "novel" or (score.role == "input" and score.method != f"direct{base}"):
            continue
        name = score.method.replace("direct", "shown") if score.role == "input" else score.method
        arms.setdefault(name, []).append(replace(score, method=name))
    return arms | {name: list(rows) for name, rows in generated.items() if rows}


def novel_arms(scores: Iterable[Score]) -> dict[str, list[Score]]:
    """Scores at the cameras of the truth, by arm."""
    arms: dict[str, list[Score]] = {}
    for score in scores:
        if score.role == "novel":
            arms.setdefault(score.method, []).append(score)
    return common(arms)


def common(arms: Arms) -> dict[str, list[Score]]:
    """Only the places (cameras of frames) that every arm has, in the order of the first arm."""
    if not arms:
        return {}
    shared = set.intersection(*({score.place for score in rows} for rows in arms.values()))
    first = next(iter(arms.values()))
    order = {score.place: index for index, score in enumerate(first) if score.place in shared}
    return {
        name: sorted((score for score in rows if score.place in order), key=lambda score: order[score.place])
        for name, rows in arms.items()
    }


def means_of(rows: Sequence[Score], bootstrap: BootstrapConfig) -> dict[str, Contrast]:
    """Every measured figure's mean and interval."""
    found = {}
    for name in DEFINITIONS:
        values = [(score.sample, value) for score in rows if (value := score.values.get(name)) is not None]
        if (result := estimate(values, bootstrap)) is not None:
            found[name] = _contrast(result, bootstrap)
    return found


def contrasts_of(arms: Arms, base: str, bootstrap: BootstrapConfig) -> Contrasts:
    """The differences that decide.

    Args:
        arms: As of `common`.
        base: Tag of the weights to start from.
        bootstrap: For the intervals.

    Raises:
        DataError: no camera of direct and e2e shows an animal.
    """
    direct, shown, e2e, generated = (
        arms.get(f"{name}{base}", ()) for name in ("direct", "shown", "e2e", "generated")
    )

    total = difference_of(direct, e2e, bootstrap)
    if total is None:
        raise DataError("no camera that direct and e2e have in common shows an animal (alpha above 0.5).")
    excess = estimate(_excesses(generated, e2e, shown), bootstrap)
    return Contrasts(
        total=total,
        loss=difference_of(generated, e2e, bootstrap),
        excess=None if excess is None else _contrast(excess, bootstrap),
        generation=difference_of(direct, generated, bootstrap),
        tuned=difference_of(arms["e2e_synthetic"], e2e, bootstrap) if "e2e_synthetic" in arms else None,
    )


def difference_of(
    ones: Sequence[Score], others: Sequence[Score], bootstrap: BootstrapConfig
) -> Contrast | None:
    """One minus other by the deciding figure; None where no camera of both shows an animal."""
    result = estimate(deciding_differences(ones, others), bootstrap)
    return None if result is None else _contrast(result, bootstrap)


def deciding_differences(ones: Sequence[Score], others: Sequence[Score]) -> list[tuple[str, float]]:
    """One minus other by the deciding figure, for `estimate`."""
    return paired(ones, others, _deciding)


def _excesses(
    generated: Sequence[Score], e2e: Sequence[Score], shown: Sequence[Score]
) -> list[tuple[str, float]]:
    """See `paired_excess_db`, for `estimate`."""
    rendered, copied = ({score.place: _deciding(score) for score in rows} for rows in (e2e, shown))
    found = []
    for score in generated:
        own, after, real = _deciding(score), rendered.get(score.place), copied.get(score.place)
        if own is not None and after is not None and real is not None:
            found.append((score.sample, paired_excess_db(own, after, real)))
    return found


def _contrast(result: Estimate, bootstrap: BootstrapConfig) -> Contrast:
    """Frames that are drawn together count as one."""
    low, high = (float("nan") if end is None else end for end in (result.low, result.high))
    return Contrast(result.mean, low, high, max(1, result.frames // bootstrap.block))


def _deciding(score: Score) -> float | None:
    return score.values.get(DECIDING)
