import pytest

from mouse_facelift.errors import DataError
from mouse_facelift.evaluation.config import BootstrapConfig
from mouse_facelift.evaluation.pairs import (
    DECIDING,
    arms_of,
    common,
    contrasts_of,
    means_of,
    novel_arms,
)
from mouse_facelift.evaluation.scores import Score

BOOTSTRAP = BootstrapConfig(resamples=200)


def score(method: str, frame: int, view_id: int, db: float | None, role: str = "held_out") -> Score:
    return Score(method, "any", f"sample_{frame:06d}", frame, view_id, role, "clean", {DECIDING: db})


def frames(method: str, values: list[float | None], role: str = "held_out") -> list[Score]:
    return [score(method, index, 1, value, role) for index, value in enumerate(values)]


def test_only_places_that_every_arm_has_are_compared_in_one_order():
    arms = common(
        {
            "direct": [score("direct", 1, 2, 1), score("direct", 0, 1, 1), score("direct", 0, 0, 1)],
            "e2e": [score("e2e", 0, 1, 1), score("e2e", 1, 2, 1), score("e2e", 2, 1, 1)],
        }
    )
    assert [s.place for s in arms["direct"]] == [s.place for s in arms["e2e"]]
    assert [s.view_id for s in arms["direct"]] == [2, 1]
    assert common({"direct": [score("direct", 0, 0, 1)], "e2e": []}) == {"direct": [], "e2e": []}
    assert common({}) == {}


def test_copied_views_are_an_arm_of_their_own_and_novel_ones_apart():
    scores = [
        score("direct", 0, 1, 1),
        score("direct", 0, 1, 2, "input"),
        score("direct_synthetic", 0, 1, 2, "input"),
        score("e2e", 0, 1, 3),
        score("e2e", 0, 2, 3, "input"),
        score("e2e", 0, 7, 3, "novel"),
        score("direct", 0, 7, 3, "novel"),
    ]
    arms = arms_of(scores, {"generated": []}, "")
    assert {name: [s.values[DECIDING] for s in rows] for name, rows in arms.items()} == {
        "direct": [1],
        "shown": [2],
        "e2e": [3],
    }
    assert {name: [s.view_id for s in rows] for name, rows in novel_arms(scores).items()} == {
        "direct": [7],
        "e2e": [7],
    }


def test_differences_are_paired_so_that_hard_frames_do_not_widen_them():
    hard = [10.0, 20.0, 12.0, 25.0, 16.0, 30.0]
    arms = {
        "direct": frames("direct", [db + 2 for db in hard]),
        "e2e": frames("e2e", hard),
        "generated": frames("generated", [db + 1 for db in hard]),
        "shown": frames("shown", [100.0] * 6),
    }
    contrasts = contrasts_of(arms, "", BOOTSTRAP)
    assert (contrasts.total.mean, contrasts.total.low, contrasts.total.high) == pytest.approx((2, 2, 2))
    assert contrasts.loss.mean == pytest.approx(1)
    assert contrasts.generation.mean == pytest.approx(1)
    assert contrasts.excess.mean == pytest.approx(1, abs=1e-4), "GS-LRM loses nothing on real views here"
    assert contrasts.tuned is None
    spread = means_of(arms["e2e"], BOOTSTRAP)[DECIDING]
    assert spread.high - spread.low > 5


def test_without_generated_views_only_the_total_is_known():
    contrasts = contrasts_of({"direct": frames("direct", [2.0]), "e2e": frames("e2e", [1.0])}, "", BOOTSTRAP)
    assert contrasts.loss is contrasts.excess is contrasts.generation is None


def test_frames_that_are_drawn_together_count_as_one():
    arms = {"direct": frames("direct", [2.0] * 12), "e2e": frames("e2e", [1.0] * 12)}
    assert contrasts_of(arms, "", BOOTSTRAP).total.frames == 12
    assert contrasts_of(arms, "", BOOTSTRAP.model_copy(update={"block": 4})).total.frames == 3


def test_pictures_without_an_animal_leave_nothing_to_decide():
    with pytest.raises(DataError, match="shows an animal"):
        contrasts_of({"direct": frames("direct", [None] * 6), "e2e": frames("e2e", [1.0] * 6)}, "", BOOTSTRAP)
