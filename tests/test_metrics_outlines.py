"""Distances between outlines, and the outline in one colour, with values found by hand."""

import math

import pytest
import torch

from mouse_facelift.metrics import boundary_distance, outline_in_one_color


def square(top: int, left: int, side: int, size: int = 32) -> torch.Tensor:
    alpha = torch.zeros(1, 1, size, size)
    alpha[..., top : top + side, left : left + side] = 1
    return alpha


def test_equal_outlines_are_at_distance_zero() -> None:
    assert boundary_distance(square(4, 4, 8), square(4, 4, 8)).tolist() == [0]


def test_single_pixels_are_as_far_apart_as_their_centres() -> None:
    assert boundary_distance(square(3, 3, 1), square(6, 7, 1)).item() == pytest.approx(5)


def test_outlines_of_concentric_squares() -> None:
    # Sides 4 and 8 about one centre: inner pixels are 2 away. Of the outer 28, each side has 4 opposite
    # the inner square, 2 away, then one on either side of them, at sqrt(5), then the corners, at sqrt(8).
    inner, outer = square(14, 14, 4), square(12, 12, 8)
    there = 2.0
    back = (16 * 2 + 8 * math.sqrt(5) + 4 * math.sqrt(8)) / 28
    assert boundary_distance(inner, outer).item() == pytest.approx((there + back) / 2, rel=1e-5)


def test_empty_silhouettes_have_defined_distances() -> None:
    empty, animal = torch.zeros(1, 1, 30, 40), torch.ones(1, 1, 30, 40)
    assert boundary_distance(empty, empty).item() == 0
    assert boundary_distance(animal, empty).item() == 50
    assert boundary_distance(empty, animal).item() == 50


def test_an_outline_follows_the_border_of_the_picture() -> None:
    whole = torch.ones(1, 1, 9, 9)
    assert boundary_distance(whole, square(4, 4, 1, size=9)).item() == pytest.approx(
        (4 + (torch.stack([*map(_border, range(9))]).sum().item()) / 32) / 2, rel=1e-5
    )


def _border(row: int) -> torch.Tensor:
    """Sum of the distances to the middle of the border's pixels in one row of 9."""
    columns = range(9) if row in (0, 8) else (0, 8)
    return torch.tensor(sum(math.hypot(row - 4, column - 4) for column in columns))


def test_the_outline_in_one_colour_has_the_animals_mean() -> None:
    rgba = torch.ones(1, 4, 2, 2)
    rgba[0, 3] = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    rgba[0, 0] = torch.tensor([[0.2, 0.4], [0.9, 0.9]])
    flat = outline_in_one_color(rgba, background=0.5)
    assert flat[0, 0].flatten().tolist() == pytest.approx([0.3, 0.3, 0.5, 0.5])
