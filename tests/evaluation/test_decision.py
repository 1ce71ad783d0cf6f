import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.evaluation.decision import Contrast, Contrasts, decide, mapping_of, paired_excess_db

RELEVANT_DB = 0.25


def about(mean: float, half: float = 0.2, frames: int = 12) -> Contrast:
    return Contrast(mean, mean - half, mean + half, frames)


def contrasts(total=3.0, loss=2.0, excess=1.0, generation=1.0, tuned=None) -> Contrasts:
    values = {"total": total, "loss": loss, "excess": excess, "generation": generation, "tuned": tuned}
    return Contrasts(**{name: about(v) if isinstance(v, float) else v for name, v in values.items()})


def test_a_clear_domain_gap_says_train_on_generated_views_with_margin_and_ceiling():
    decision = decide(contrasts(), RELEVANT_DB)
    assert decision.strategy == "5a"
    assert decision.margin == about(1.0)
    assert decision.ceiling == about(2.0)


def test_generated_views_as_the_limit_say_make_mvdiffusion_better():
    decision = decide(contrasts(loss=-0.5, excess=-0.8, generation=3.5), RELEVANT_DB)
    assert decision.strategy == "5b"
    assert "MVDiffusion" in decision.headline
    assert decision.margin == about(3.5)


def test_what_is_lost_on_real_views_too_is_no_reason_to_train_on_generated_ones():
    decision = decide(contrasts(loss=2.0, excess=0.0), RELEVANT_DB)
    assert decision.strategy == "5b"
    assert "real ones too" in decision.headline


def test_as_good_as_direct_leaves_nothing_to_win():
    decision = decide(contrasts(total=0.0, loss=0.0, excess=-1.0, generation=0.0), RELEVANT_DB)
    assert decision.strategy == "5b"
    assert "as good as direct" in decision.headline


def test_wide_intervals_are_undecided_and_say_how_many_frames_would_tell():
    decision = decide(contrasts(loss=Contrast(0.5, -0.5, 1.5, 10), excess=0.5), RELEVANT_DB)
    assert decision.strategy == "undecided"
    assert decision.frames_needed == 40
    assert "40" in decision.headline


@pytest.mark.parametrize(("effect", "strategy"), [(0.8, "5a"), (-0.8, "5b"), (0.0, "5b")])
def test_a_measured_effect_decides_whatever_was_reasoned(effect, strategy):
    for reasoned in (contrasts(tuned=about(effect)), contrasts(loss=-2.0, tuned=about(effect))):
        assert decide(reasoned, RELEVANT_DB).strategy == strategy
    assert decide(Contrasts(about(1.0), tuned=about(effect)), RELEVANT_DB).margin == about(effect)


def test_without_generated_views_at_real_cameras_nothing_is_claimed():
    decision = decide(Contrasts(about(3.0)), RELEVANT_DB)
    assert decision.strategy == "undecided"
    assert decision.frames_needed is None


def test_a_few_frames_never_decide():
    one = Contrast(2.0, 2.0, 2.0, 1)
    decision = decide(Contrasts(one, one, one, one), RELEVANT_DB)
    assert decision.strategy == "undecided"
    assert decision.frames_needed == 5
    assert Contrast(2.0, math.nan, math.nan, 9).kind(RELEVANT_DB) == "unclear"
    two = Contrast(2.0, math.nan, math.nan, 2)
    headline = decide(Contrasts(two, two, two, two), RELEVANT_DB).headline
    assert "at least 5 independent frames, there are 2" in headline


@given(st.floats(-5, 5), st.floats(0.01, 3), st.floats(0.05, 1))
def test_kinds_exclude_each_other_and_unclear_ones_need_more_frames(mean, half, relevant):
    contrast = Contrast(mean, mean - half, mean + half, 20)
    kind = contrast.kind(relevant)
    if kind == "unclear":
        needed = contrast.frames_needed(relevant)
        assert needed is None or needed >= 20
    mirrored = Contrast(-mean, -mean - half, -mean + half, 20).kind(relevant)
    assert mirrored == {"more": "less", "less": "more"}.get(kind, kind)


def test_excess_is_zero_where_errors_only_add_up():
    generated, real = 20.0, 20.0
    both = -10 * math.log10(2 * 10**-2)
    assert paired_excess_db(generated, both, real) == pytest.approx(0)
    assert paired_excess_db(generated, both - 1, real) == pytest.approx(1)
    assert paired_excess_db(generated, generated, 100.0) == pytest.approx(0, abs=1e-6)


def test_only_what_was_measured_is_told():
    assert list(mapping_of(Contrasts(about(1.0)))) == ["total"]
