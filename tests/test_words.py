"""Durations, sizes and counts in words."""

import pytest

from mouse_facelift.words import data_size, duration, gigabytes, several


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.321, "0.32 s"),
        (40, "40 s"),
        (90, "1 min"),
        (7500, "2 h 5 min"),
        (273600, "3 d 4 h"),
        (59.7, "1 min"),
        (3599.7, "1 h 0 min"),
        (86399.8, "1 d 0 h"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999.6, "1 kB"),
        (999_700, "1 MB"),
        (480e3, "480 kB"),
        (12.4e6, "12 MB"),
        (1.3e9, "1.3 GB"),
        (2e12, "2000.0 GB"),
    ],
)
def test_sizes(count: float, words: str) -> None:
    assert data_size(count) == words


def test_gigabytes_are_decimal_as_disks_are_sold() -> None:
    assert gigabytes(1.294e9) == "1.29 GB"


def test_one_is_no_plural() -> None:
    assert [several(count, "step") for count in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
