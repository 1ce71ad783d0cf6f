import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.evaluation.error_split import PARTS, split_error
from mouse_facelift.metrics import psnr


def square(left: int, right: int) -> torch.Tensor:
    alpha = torch.zeros(1, 1, 16, 16)
    alpha[..., 4:12, left:right] = 1
    return alpha


def on_white(alpha: torch.Tensor, grey: float) -> torch.Tensor:
    return (alpha * grey + (1 - alpha)).expand(-1, 3, -1, -1)


@given(st.integers(0, 1000))
def test_parts_add_up_to_the_error_of_the_union(seed):
    generator = torch.Generator().manual_seed(seed)
    rgb, true_rgb = torch.rand(2, 2, 3, 8, 8, generator=generator)
    alpha, true_alpha = torch.rand(2, 2, 1, 8, 8, generator=generator)
    split = split_error(rgb, alpha, true_rgb, true_alpha)
    union = (alpha > 0.5) | (true_alpha > 0.5)
    error = ((rgb - true_rgb).square() * union).sum(dim=(1, 2, 3)) / 3 / (true_alpha > 0.5).sum(dim=(1, 2, 3))
    assert torch.allclose(split.total, error, rtol=1e-5)
    assert torch.allclose(split.missing + split.extra + split.colour, split.total)


def test_a_shifted_animal_of_the_right_colour_errs_in_its_outline_only():
    true, predicted = square(4, 12), square(6, 14)
    split = split_error(on_white(predicted, 0.25), predicted, on_white(true, 0.25), true)
    assert split.colour.item() == 0
    assert split.missing.item() == split.extra.item() == pytest.approx(0.75**2 * 2 / 8)


def test_an_animal_of_another_colour_errs_in_colour_only():
    true = square(4, 12)
    split = split_error(on_white(true, 0.5), true, on_white(true, 0.25), true)
    assert split.missing.item() == split.extra.item() == 0
    assert split.psnr_db.item() == pytest.approx(psnr(on_white(true, 0.5), on_white(true, 0.25), true).item())


def test_a_larger_animal_is_charged_for_what_the_masked_psnr_does_not_see():
    true, large = square(4, 12), square(2, 14)
    rgb, real = on_white(large, 0.25), on_white(true, 0.25)
    assert psnr(rgb, real, true).item() == 100
    assert split_error(rgb, large, real, true).psnr_db.item() < 10


def test_noise_in_the_background_is_no_error_of_the_animal():
    true = square(4, 12)
    real = on_white(true, 0.25)
    noisy = torch.where(true > 0, real, 0.95)
    assert split_error(noisy, true, real, true).total.item() == 0


def test_without_an_animal_there_is_no_figure():
    empty = torch.zeros(1, 1, 16, 16)
    split = split_error(on_white(empty, 0), empty, on_white(empty, 0), empty)
    assert all(getattr(split, name).isnan().all() for name in PARTS)
