"""Training losses."""

import torch

from mouse_facelift.gslrm.config import LossConfig
from mouse_facelift.gslrm.losses import rendering_loss


def pictures() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "rgb": torch.rand(1, 2, 3, 16, 20),
        "alpha": torch.rand(1, 2, 1, 16, 20),
        "target_rgb": torch.rand(1, 2, 3, 16, 20),
        "target_alpha": torch.rand(1, 2, 1, 16, 20),
    }


def test_loss_is_the_weighted_sum_of_its_terms() -> None:
    terms = rendering_loss(**pictures(), weights=LossConfig(l2=1, ssim=0.3, alpha=2))
    torch.testing.assert_close(terms["loss"], terms["l2"] + 0.3 * terms["ssim"] + 2 * terms["alpha"])


def test_terms_of_weight_zero_are_not_computed() -> None:
    assert rendering_loss(**pictures(), weights=LossConfig(l2=1, ssim=0, alpha=0)).keys() == {"loss", "l2"}


def test_perfect_rendering_costs_nothing() -> None:
    given = pictures()
    given |= {"rgb": given["target_rgb"], "alpha": given["target_alpha"]}
    assert rendering_loss(**given, weights=LossConfig())["loss"].abs() < 1e-6


def test_renderings_above_white_are_not_clamped() -> None:
    given = pictures()
    given["rgb"] = torch.full_like(given["rgb"], 1.5).requires_grad_()
    rendering_loss(**given, weights=LossConfig(l2=1, ssim=0, alpha=0))["loss"].backward()
    assert (given["rgb"].grad > 0).all()
