"""Figures of pictures whose errors are known."""

from pathlib import Path

import pytest
import torch
from one_ball import RIG, SIZE, write_ball

from mouse_facelift.evaluation.measure import Measure
from mouse_facelift.evaluation.scores import DEFINITIONS
from mouse_facelift.evaluation.subjects import Subject
from mouse_facelift.inference.inputs import Views
from mouse_facelift.samples.datasets import composite
from mouse_facelift.samples.format import read_sample


@pytest.fixture
def views(tmp_path: Path) -> Views:
    return Subject(read_sample(write_ball(tmp_path / "sample_000010", RIG, 10))).read_all()


def test_the_truth_itself_is_perfect(views: Views) -> None:
    real, alpha = composite(views.rgba, 1.0), views.rgba[:, 3:]
    for row in Measure(views, 1.0).pictures(real, alpha, [0], list(views.view_ids)):
        assert row["psnr_animal_db"] == row["psnr_full_db"] == 100
        assert row["ssim_animal"] == pytest.approx(1)
        assert (row["iou"], row["boundary_px"]) == (1, 0)
        assert row["error_missing"] == row["error_extra"] == row["error_colour"] == 0


def test_trivial_predictions_do_not_depend_on_the_picture(views: Views) -> None:
    real, alpha = composite(views.rgba, 1.0), views.rgba[:, 3:]
    names = ("psnr_white_db", "psnr_outline_db", "psnr_shift_db")
    good = Measure(views, 1.0).pictures(real[1:2], alpha[1:2], [0], [1])[0]
    bad = Measure(views, 1.0).pictures(1 - real[1:2], alpha[1:2], [0], [1])[0]
    assert [good[name] for name in names] == [bad[name] for name in names]
    white = good["psnr_white_db"]
    # The animal is half (200, 60, 50), half (40, 60, 190).
    error = sum((1 - level / 255) ** 2 for level in (200, 60, 50, 40, 60, 190)) / 6
    assert white == pytest.approx(-10 * torch.log10(torch.tensor(error)).item(), abs=0.1)


def test_lpips_sees_the_square_around_the_animal(views: Views) -> None:
    shapes = []

    def distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        shapes.append((one.shape, other.shape))
        return (one - other).abs().mean(dim=(1, 2, 3))

    real, alpha = composite(views.rgba, 1.0), views.rgba[:, 3:]
    rows = Measure(views, 1.0, lpips=distance).pictures(real[:2], alpha[:2], [0], [0, 1])
    assert [row["lpips"] for row in rows] == [0, 0]
    # Pictures of 32 pixels are smaller than the least square.
    assert shapes == [((1, 3, SIZE, SIZE),) * 2] * 2


def test_every_figure_has_a_definition(views: Views) -> None:
    real, alpha = composite(views.rgba, 1.0), views.rgba[:, 3:]
    assert set(Measure(views, 1.0).pictures(real[1:2], alpha[1:2], [0], [1])[0]) <= set(DEFINITIONS)
