"""What the page is made of: paired scores, the domain gap, the decision, and what is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..decision import Contrast, Contrasts, Decision
from ..gaps import Gap
from ..scores import Score
from .pictures import Shown


@dataclass(frozen=True)
class Arm:
    """One thing that is compared.

    Attributes:
        name: Of its rows in compare.csv.
        title: On the page.
        style: Its colour, `s1` to `s6`.
        meaning: What it is, in a sentence.
    """

    name: str
    title: str
    style: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that `write_comparison_html` shows.

    Attributes:
        arms: In the order of the tables.
        scores: Of the places (frame and camera) that all arms have, by arm.
        novel: The same at the cameras of the truth samples; empty without.
        means: Mean and interval by arm and figure, over `scores`.
        novel_means: Over `novel`.
        novel_total: What e2e lacks against direct at these cameras.
        contrasts: The differences that decide.
        decision: What follows from them.
        base: Tag of the weights that the decision starts from.
        relevant_db: Differences smaller than this do not matter.
        gap: Generated views against real ones; None where none stands at a real camera.
        shown: Frames with pictures.
        viewer: The 3D view as HTML; empty for none.
        facts: What was compared.
        leaks: How many scores by leak mark.
        cautions: What else makes the answer doubtful.
    """

    arms: Sequence[Arm]
    scores: Mapping[str, Sequence[Score]]
    novel: Mapping[str, Sequence[Score]]
    means: Mapping[str, Mapping[str, Contrast]]
    novel_means: Mapping[str, Mapping[str, Contrast]]
    novel_total: Contrast | None = None
    contrasts: Contrasts
    decision: Decision
    relevant_db: float
    base: str
    gap: Gap | None
    shown: Sequence[Shown] = ()
    viewer: str = ""
    facts: Sequence[tuple[str, str]] = ()
    leaks: Mapping[str, int] = field(default_factory=dict)
    cautions: Sequence[str] = ()
