"""When skipped updates are too many: the run ends and names the samples."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from .config import TrainingConfig
from .update import Outcome, Pass

FEWEST_SKIPS = 3
"""Fewer skips than this never end a run, however short its window."""

MOST_NAMES = 20
"""Samples named in one message."""


def suspects(passes: Sequence[Pass], outcome: Outcome) -> list[str]:
    """The samples of this process that may be why an update was skipped.

    Where the loss was at fault, those of the passes whose loss is not finite; else all.
    """
    chosen = [p for p in passes if not (outcome.by_loss and bool(p.terms["loss"].isfinite()))]
    return [name for p in chosen for name in p.samples]


class SkipWindow:
    """The last `training.skip_window` steps: which were skipped, and on which samples.

    Args:
        training: For `skip_window` and `max_skipped_share`.
    """

    def __init__(self, training: TrainingConfig) -> None:
        self._training = training
        self._steps: deque[tuple[str, Sequence[str]] | None] = deque(maxlen=training.skip_window)

    @property
    def content(self) -> list[list[Any] | None]:
        """For `restore`: None for an update, else why it was skipped, and the samples."""
        return [None if step is None else [step[0], list(step[1])] for step in self._steps]

    def restore(self, content: Sequence[Sequence[Any] | None]) -> None:
        """Go on with what another window's `content` was; with an empty one, forget all."""
        self._steps.clear()
        self._steps.extend(None if step is None else (step[0], step[1]) for step in content)

    def add(self, skipped: str = "", samples: Sequence[str] = ()) -> None:
        """Count a step.

        Args:
            skipped: Why it was skipped; empty for an update.
            samples: What it was skipped on.
        """
        self._steps.append((skipped, samples) if skipped else None)

    def check(self, ending: bool = False) -> str:
        """Why the run must not go on, with the samples; empty where it may.

        Args:
            ending: There are no more steps. A run in whose window nothing was learned has not succeeded.
        """
        skips = [step for step in self._steps if step is not None]
        limit = self._training.max_skipped_share * self._training.skip_window
        too_many = len(skips) >= FEWEST_SKIPS and len(skips) > limit
        nothing_learned = ending and len(skips) == len(self._steps) > 0
        if not (too_many or nothing_learned):
            return ""
        reasons = list(dict.fromkeys(reason for reason, _ in skips))
        return (
            f"{len(skips)} of the last {len(self._steps)} steps were skipped: {'; '.join(reasons)}. "
            f"Their samples: {_names(skips)}. Look at these samples, or lower optimizer.lr; "
            "training.max_skipped_share and training.skip_window say what is too many"
        )


def _names(skips: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The samples, those that occur most often first."""
    counts: dict[str, int] = {}
    for _, samples in skips:
        for name in samples:
            counts[name] = counts.get(name, 0) + 1
    ordered = sorted(counts, key=lambda name: -counts[name])
    shown = [f"{name} ({counts[name]} times)" if counts[name] > 1 else name for name in ordered[:MOST_NAMES]]
    rest = len(ordered) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "") if ordered else "not known"
