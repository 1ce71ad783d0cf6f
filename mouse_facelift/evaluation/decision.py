"""What to train next, from measured differences: GS-LRM on generated views (5a), or keep real ones (5b).

At the same held-out cameras of the same frames, in dB, better is higher:

- V: the generated views themselves, before GS-LRM;
- E: e2e's renderings, after GS-LRM;
- D: direct's renderings of cameras that it was not shown;
- R: direct's renderings of cameras that it was shown: what GS-LRM itself costs on real views.

V above E is what GS-LRM loses on generated views. Training on them cannot be expected to win back all of it:
on real views GS-LRM is not lossless either. If it were as faithful to generated views as to real ones, its
own error R would add to theirs, V. What E lacks against that sum is the domain gap, and the margin of 5a.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from .bootstrap import FEWEST_FRAMES

Strategy = Literal["5a", "5b", "undecided"]
Kind = Literal["more", "less", "same", "unclear"]

MANY_FRAMES = 100
"""Where so many times the frames would be needed, more frames are no advice."""


TOTAL: Mapping[Kind, str] = {
    "more": "Direct is better than e2e: direct \u2212 e2e is {}.",
    "less": "e2e is better than direct: direct \u2212 e2e is {}.",
    "same": "Direct and e2e are equally good: direct \u2212 e2e is {}.",
    "unclear": "Whether direct or e2e is better is not clear: direct \u2212 e2e is {}.",
}
LOSS: Mapping[Kind, str] = {
    "more": "GS-LRM loses quality on the generated views: generated views \u2212 e2e is {}.",
    "less": "GS-LRM makes the generated views better: generated views \u2212 e2e is {}.",
    "same": "GS-LRM neither loses nor wins on the generated views: generated views \u2212 e2e is {}.",
    "unclear": "Whether GS-LRM loses quality on the generated views is not clear: generated views \u2212 e2e "
    "is {}.",
}
GAP: Mapping[Kind, str] = {
    "more": "It loses more on them than on real views: the domain gap is {}.",
    "less": "It loses less on them than on real views: the domain gap is {}.",
    "same": "It loses as much on real views: the domain gap is {}.",
    "unclear": "Whether it loses more on them than on real views is not clear: the domain gap is {}.",
}
GENERATION: Mapping[Kind, str] = {
    "more": "The generated views are worse than direct's renderings, which is MVDiffusion's part: "
    "direct \u2212 generated views is {}.",
    "less": "The generated views are better than direct's renderings: direct \u2212 generated views is {}.",
    "same": "The generated views are as good as direct's renderings: direct \u2212 generated views is {}.",
    "unclear": "Whether the generated views are worse than direct's renderings is not clear: "
    "direct \u2212 generated views is {}.",
}


@dataclass(frozen=True)
class Contrast:
    """A mean of paired differences in dB and its interval, over so many frames."""

    mean: float
    low: float
    high: float
    frames: int

    def kind(self, relevant_db: float) -> Kind:
        """Whether it is clearly above or below 0, clearly too small to matter, or neither.

        Args:
            relevant_db: Differences smaller than this do not matter.
        """
        if self.frames < FEWEST_FRAMES or not math.isfinite(self.low + self.high):
            return "unclear"
        if -relevant_db < self.low and self.high < relevant_db:
            return "same"
        if self.low > 0:
            return "more"
        return "less" if self.high < 0 else "unclear"

    def frames_needed(self, relevant_db: float) -> int | None:
        """About how many independent frames it would take to tell; None where that is out of reach.

        An interval narrows with the square root of the number of frames. It must get shorter than the mean's
        distance from 0 or, for a mean that does not matter, than that from the nearest difference that does.
        """
        half = (self.high - self.low) / 2
        distance = max(abs(self.mean), relevant_db - abs(self.mean))
        if not (math.isfinite(half) and distance > 0):
            return None
        factor = (half / distance) ** 2
        if factor > MANY_FRAMES:
            return None
        return max(math.ceil(self.frames * max(factor, 1.0)), FEWEST_FRAMES)

    def __str__(self) -> str:
        mean = f"{self.mean:+.2f} dB"
        if not math.isfinite(self.low + self.high):
            return f"{mean} (too few frames for an interval)".replace("-", "\u2212")
        return f"{mean} ({self.low:+.2f} to {self.high:+.2f})".replace("-", "\u2212")


@dataclass(frozen=True)
class Contrasts:
    """The differences that decide; None where a part of it was not measured.

    Attributes:
        total: D - E. What e2e lacks against direct.
        loss: V - E. What GS-LRM loses on generated views.
        excess: What of it GS-LRM would not lose on real views; see the module.
        generation: D - V. What the generated views lack against direct's renderings.
        tuned: E after training GS-LRM on generated views - E before.
    """

    total: Contrast
    loss: Contrast | None = None
    excess: Contrast | None = None
    generation: Contrast | None = None
    tuned: Contrast | None = None


@dataclass(frozen=True)
class Decision:
    """The answer.

    Attributes:
        strategy: Which.
        headline: In a line.
        reasons: Why, a sentence each.
        margin: What the strategy is expected, or was measured, to win; None where nothing says.
        margin_is: What it is, in words.
        ceiling: What GS-LRM loses on generated views in all (5a, before it was tried).
        frames_needed: About how many frames would decide; None where it is decided or out of reach.
    """

    strategy: Strategy
    headline: str
    reasons: tuple[str, ...]
    margin: Contrast | None = None
    margin_is: str = ""
    ceiling: Contrast | None = None
    frames_needed: int | None = None


def decide(contrasts: Contrasts, relevant_db: float) -> Decision:
    """Say which strategy the differences favour.

    A measured effect of training on generated views decides alone. Before that was tried, 5a needs a clear
    domain gap; 5b needs that there clearly is none, or nothing to win at all.

    Args:
        contrasts: The differences.
        relevant_db: Differences smaller than this do not matter.
    """
    context = tuple(_sentences(contrasts, relevant_db))
    if contrasts.tuned is not None:
        return _measured(contrasts.tuned, relevant_db, context)
    loss, excess, generation = contrasts.loss, contrasts.excess, contrasts.generation
    if loss is None or excess is None or generation is None:
        reason = (
            "The generated views cannot be compared with real ones, so it cannot be told where e2e loses. "
            "Use an MVDiffusion whose slots are the rig's cameras, or give gslrm_synthetic."
        )
        headline = "Undecided: no generated view stands at a real camera."
        return Decision("undecided", headline, (reason, *context))
    return _reasoned(contrasts.total, loss, excess, generation, relevant_db, context)


def _sentences(contrasts: Contrasts, relevant_db: float) -> Iterator[str]:
    """What was measured, in words."""
    parts = (TOTAL, contrasts.total), (LOSS, contrasts.loss), (GAP, contrasts.excess)
    for words, value in (*parts, (GENERATION, contrasts.generation)):
        if value is not None:
            yield words[value.kind(relevant_db)].format(value)


def _measured(tuned: Contrast, relevant_db: float, context: tuple[str, ...]) -> Decision:
    kind = tuned.kind(relevant_db)
    if kind == "unclear":
        reason = f"GS-LRM trained on generated views changes e2e by {tuned}, which is not clear."
        return _undecided(tuned, relevant_db, (reason, *context))
    meaning = "measured change of e2e by training GS-LRM on generated views"
    if kind == "more":
        text = "Train GS-LRM on generated views (5a): it was tried and helps."
        return Decision("5a", text, context, tuned, meaning)
    helps = "makes e2e worse" if kind == "less" else "changes nothing that matters"
    text = f"Keep real views (5b): training on generated ones {helps}."
    return Decision("5b", text, context, tuned, meaning)


def _reasoned(
    total: Contrast,
    loss: Contrast,
    excess: Contrast,
    generation: Contrast,
    relevant_db: float,
    context: tuple[str, ...],
) -> Decision:
    gap, lost = excess.kind(relevant_db), loss.kind(relevant_db)
    if gap == "more" and lost == "more":
        return Decision(
            "5a",
            "Train GS-LRM on generated views (5a): it loses more on them than on real ones.",
            context,
            excess,
            "what e2e would win if GS-LRM were as faithful to generated views as to real ones",
            loss,
        )
    if lost == "unclear" or (lost == "more" and gap == "unclear"):
        return _undecided(loss if lost == "unclear" else excess, relevant_db, context)
    if lost == "more":
        text = "Keep real views (5b): what GS-LRM loses on generated views it loses on real ones too."
    elif total.kind(relevant_db) in ("less", "same"):
        text = "Keep real views (5b): e2e is already as good as direct."
    elif generation.kind(relevant_db) == "more":
        text = "Keep real views (5b): GS-LRM is not the weak link; make MVDiffusion better."
    else:
        text = "Keep real views (5b): GS-LRM loses nothing on generated views."
    meaning = "what generated views as good as direct's renderings would win"
    return Decision("5b", text, context, generation, meaning)


def _undecided(contrast: Contrast, relevant_db: float, reasons: tuple[str, ...]) -> Decision:
    needed = contrast.frames_needed(relevant_db)
    if contrast.frames < FEWEST_FRAMES:
        needed = max(needed or 0, FEWEST_FRAMES)
        advice = f"it takes at least {needed} independent frames, there are {contrast.frames}"
    elif needed is None:
        advice = "the frames differ too much for more of them to tell"
    else:
        advice = f"about {needed} independent frames would tell, there are {contrast.frames}"
    return Decision("undecided", f"Undecided: {advice}.", reasons, frames_needed=needed)


def paired_excess_db(generated_db: float, e2e_db: float, real_db: float) -> float:
    """What e2e lacks against generated views whose own error and GS-LRM's error on real views add up, in dB.

    Args:
        generated_db: V at one camera.
        e2e_db: E there.
        real_db: R there.
    """
    expected = 10 ** (-generated_db / 10) + 10 ** (-real_db / 10)
    return -10 * math.log10(expected) - e2e_db


def mapping_of(contrasts: Contrasts) -> Mapping[str, Contrast]:
    """Those that were measured, by name."""
    return {name: value for name, value in vars(contrasts).items() if value is not None}
