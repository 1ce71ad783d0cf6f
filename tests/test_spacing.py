"""Some of many."""

from mouse_facelift.spacing import spread_evenly


def test_spread_indices_are_even_and_never_more_than_there_are() -> None:
    assert spread_evenly(6, 4) == [0, 1, 3, 4]
    assert spread_evenly(6, 3) == [0, 2, 4]
    assert spread_evenly(3, 5) == [0, 1, 2]
    assert spread_evenly(0, 5) == []
