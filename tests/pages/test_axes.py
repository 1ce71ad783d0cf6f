import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.pages.axes import Axis, round_step


@given(
    st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 10), st.floats(0, 100), st.floats(101, 1000)
)
def test_ticks_are_round_few_and_inside(low, span, most, start, end):
    axis = Axis(low, low + span, start, end)
    ticks = axis.ticks(most)
    assert len(ticks) <= most + 1
    room = 1e-6 * span + 4 * np.spacing(abs(low) + span)
    for tick in ticks:
        assert low - room <= tick <= low + span + room
        assert start <= axis(tick) <= end


@given(st.floats(1e-9, 1e9))
def test_steps_are_one_two_or_five(least):
    step = round_step(least)
    assert least * (1 - 1e-6) <= step <= 2.5 * least * (1 + 1e-6)
    assert round(step / 10 ** np.floor(np.log10(step * (1 + 1e-9)))) in (1, 2, 5)
