"""Training losses."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from mouse_facelift.gaussians import Gaussians, Rendering, render
from mouse_facelift.gaussians.turntable import turntable_cameras
from mouse_facelift.geometry.hull_depth import first_hull_depth
from mouse_facelift.geometry.rays import CameraBatch, pixel_rays
from mouse_facelift.gslrm.config import LossConfig
from mouse_facelift.gslrm.losses import (
    PixelPoints,
    RenderingLoss,
    animal_windows,
    cut,
    hull_depth_loss,
    hull_depths,
    outside_loss,
    points_loss,
    weighted_mean,
    weights_at,
)
from mouse_facelift.metrics import psnr, ssim_map

ONLY_L2 = LossConfig(l2=1, ssim=0, alpha=0)


def pictures(height: int = 24, width: int = 40) -> tuple[Rendering, Tensor, Tensor]:
    """A rendering, real views and soft masks whose animals are rectangles in different places."""
    generator = torch.Generator().manual_seed(0)

    def noise(channels: int) -> Tensor:
        return torch.rand(1, 2, channels, height, width, generator=generator)

    alpha = torch.zeros(1, 2, 1, height, width)
    alpha[:, 0, :, 4:9, 20:33] = 0.2 + 0.8 * noise(1)[:, 0, :, 4:9, 20:33]
    alpha[:, 1, :, 12:16, 3:8] = 1
    return Rendering(noise(3), noise(1), 2 + noise(1)), noise(3), alpha


def loss_of(config: LossConfig, *given: Any, **inputs: Any) -> dict[str, Tensor]:
    return RenderingLoss(config)(*given, **inputs)


class MeanDifference(nn.Module):
    """Stands for a network."""

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        return (images - targets).abs().mean((1, 2, 3))


def with_network(**settings: Any) -> RenderingLoss:
    """LPIPS without its library: weights come from a file that is never read."""
    loss = RenderingLoss(ONLY_L2)
    loss.config = LossConfig(l2=1, ssim=0, alpha=0, lpips=1, lpips_weights=Path("none"), **settings)
    loss.networks["lpips"] = MeanDifference()
    return loss


def test_loss_is_the_weighted_sum_of_its_terms() -> None:
    config = LossConfig(l2=1, ssim=0.3, alpha=2, background=0.5)
    terms = loss_of(config, *pictures())
    expected = terms["l2"] + 0.3 * terms["ssim"] + 2 * terms["alpha"] + 0.5 * terms["background"]
    torch.testing.assert_close(terms["loss"], expected)


def test_terms_of_weight_zero_are_not_computed() -> None:
    assert loss_of(ONLY_L2, *pictures()).keys() == {"loss", "l2"}


@pytest.mark.parametrize("region", ["full", "masked", "cropped"])
def test_perfect_rendering_costs_nothing(region: str) -> None:
    rendered, real, alpha = pictures()
    perfect = replace(rendered, rgb=real, alpha=alpha)
    assert loss_of(LossConfig(region=region, background=1), perfect, real, alpha)["loss"].abs() < 1e-6


def test_renderings_above_white_and_below_black_are_not_clamped() -> None:
    rendered, real, alpha = pictures()
    for value, sign in ((1.5, 1), (-0.5, -1)):
        rgb = torch.full_like(real, value).requires_grad_()
        loss_of(ONLY_L2, replace(rendered, rgb=rgb), real, alpha)["loss"].backward()
        assert (rgb.grad * sign > 0).all()


def test_start_brighter_than_white_recovers() -> None:
    """Behind a clamp such a start has no gradient, and stays white for ever."""
    size = 24
    camera = turntable_cameras(1, size)[0]
    K, w2c = (torch.tensor(matrix).float()[None] for matrix in (camera.K, camera.w2c))
    grid = torch.linspace(-0.4, 0.4, 6)
    means = torch.cartesian_prod(grid, torch.zeros(1), grid)
    ones = torch.ones(len(means))
    scene = Gaussians(
        means,
        torch.tensor([[1.0, 0, 0, 0]]).expand(len(means), 4),
        0.08 * ones[:, None].expand(-1, 3),
        0.9 * ones,
        -1.2 * ones[:, None, None].expand(-1, 1, 3),
    )
    real = render(scene, K, w2c, size, size)
    sh0 = torch.full_like(scene.sh0, 3.0).requires_grad_()
    optimizer = torch.optim.Adam([sh0], lr=0.1)
    criterion = RenderingLoss(LossConfig())
    for _ in range(100):
        picture = render(replace(scene, sh0=sh0), K, w2c, size, size)
        batched = Rendering(picture.rgb[None], picture.alpha[None], picture.depth[None])
        loss = criterion(batched, real.rgb[None], real.alpha[None])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert psnr(picture.rgb, real.rgb, mask=real.alpha).min() > 30


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    contrast=st.sampled_from([0.0, 1e-3, 0.3, 3.0]),
    level=st.floats(-1, 2),
    relation=st.sampled_from(["same", "opposite", "other", "flat"]),
)
def test_ssim_lies_between_minus_one_and_one(seed: int, contrast: float, level: float, relation: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise = contrast * torch.randn(2, 3, 16, 18, generator=generator)
    a = level + noise[0]
    b = {"same": a, "opposite": level - noise[0], "other": level + noise[1], "flat": torch.ones_like(a)}[
        relation
    ]
    found = ssim_map(a, b)
    assert found.abs().max() <= 1 + 1e-3
    if relation == "same":
        torch.testing.assert_close(found, torch.ones_like(found))


def test_ssim_of_opposite_pictures_is_nearly_minus_one() -> None:
    checker = torch.arange(16)[:, None] + torch.arange(18)
    image = (checker % 2).float()
    assert ssim_map(image, 1 - image).mean() < -0.98


def test_everything_is_float32_under_autocast() -> None:
    rendered, real, alpha = pictures()
    config = LossConfig(background=1)
    expected = loss_of(config, rendered, real, alpha)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_of(config, rendered, real, alpha)
    assert all(value.dtype == torch.float32 for value in found.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_masked_colour_is_the_mean_error_of_the_animal() -> None:
    rendered, real, alpha = pictures()
    found = loss_of(ONLY_L2.model_copy(update={"region": "masked"}), rendered, real, alpha)["l2"]
    squared = (rendered.rgb - real).square().mean(2, keepdim=True)
    torch.testing.assert_close(found, (squared * alpha).sum() / alpha.sum())


@pytest.mark.parametrize("term", ["l2", "ssim"])
def test_masked_and_background_do_not_see_each_others_pixels(term: str) -> None:
    rendered, real, alpha = pictures()
    alpha = (alpha > 0).float()
    config = LossConfig(**{"l2": 0, "ssim": 0, "alpha": 0, term: 1, "background": 1, "region": "masked"})
    rgb = rendered.rgb.clone().requires_grad_()
    terms = loss_of(config, replace(rendered, rgb=rgb), real, alpha)
    (of_animal,) = torch.autograd.grad(terms[term], rgb, retain_graph=True)
    (of_background,) = torch.autograd.grad(terms["background"], rgb)
    assert not (of_background * alpha).any()
    assert of_background[(1 - alpha).expand_as(rgb) > 0].all()
    if term == "l2":
        assert not (of_animal * (1 - alpha)).any()
    assert of_animal[alpha.expand_as(rgb) > 0].any()


def test_mask_without_animal_costs_nothing() -> None:
    rendered, real, alpha = pictures()
    nothing = loss_of(LossConfig(alpha=0, region="masked"), rendered, real, 0 * alpha)
    assert nothing["loss"] == 0


def test_network_sees_the_animal_in_the_real_surroundings_and_its_distance_is_that_of_the_animal() -> None:
    rendered, real, alpha = pictures()
    full = with_network()(rendered, real, alpha, 500)["lpips"]
    torch.testing.assert_close(full, (rendered.rgb - real).abs().mean())
    masked = with_network(region="masked")(rendered, real, alpha, 500)["lpips"]
    torch.testing.assert_close(masked, weighted_mean((rendered.rgb - real).abs(), alpha))


def test_windows_hold_the_animals_and_have_one_size() -> None:
    _, _, alpha = pictures(64, 80)
    rows, columns = animal_windows(alpha.flatten(0, 1), margin=2)
    assert rows.shape == (2, 16) and columns.shape == (2, 32)
    for view in range(2):
        y, x = alpha[0, view, 0].nonzero().T
        assert rows[view, 0] <= max(0, y.min() - 2) and y.max() + 2 <= rows[view, -1]
        assert columns[view, 0] <= max(0, x.min() - 2) and x.max() + 2 <= columns[view, -1]
    windows = cut(alpha.flatten(0, 1), rows, columns)
    assert windows.sum() == alpha.sum()
    assert windows[1, 0].equal(alpha[0, 1, 0][rows[1]][:, columns[1]])


@pytest.mark.parametrize("alpha", [torch.zeros(2, 1, 24, 40), torch.ones(2, 1, 24, 40)])
def test_windows_of_no_animal_and_of_a_whole_picture_stay_inside(alpha: Tensor) -> None:
    rows, columns = animal_windows(alpha, margin=30)
    assert rows.shape == (2, 24) and columns.shape == (2, 40)
    rows, columns = animal_windows(torch.zeros(2, 1, 24, 40), margin=0)
    assert rows.shape == (2, 16) and rows.min() >= 0 and columns.max() < 40


def test_cropped_terms_are_those_of_the_window() -> None:
    rendered, real, alpha = pictures(64, 80)
    config = LossConfig(alpha=0, region="cropped", crop_margin=3)
    found = loss_of(config, rendered, real, alpha)
    window = animal_windows(alpha.flatten(0, 1), 3)
    rgb, target = (cut(images.flatten(0, 1), *window)[None] for images in (rendered.rgb, real))
    expected = loss_of(LossConfig(alpha=0), replace(rendered, rgb=rgb), target, alpha)
    torch.testing.assert_close(found, expected)


def test_silhouette_counts_everywhere_whatever_the_region() -> None:
    rendered, real, alpha = pictures()
    found = [
        loss_of(LossConfig(region=region), rendered, real, alpha)["alpha"]
        for region in ("full", "masked", "cropped")
    ]
    assert found[0] == found[1] == found[2]


def test_networks_wait_for_the_end_of_the_warm_up() -> None:
    loss = with_network(warmup_l2_steps=3)
    rendered, real, alpha = pictures()
    assert [("lpips" in loss(rendered, real, alpha, step)) for step in range(5)] == [False] * 3 + [True] * 2


def test_while_points_warm_up_nothing_else_counts() -> None:
    config = LossConfig(warmup_points_steps=2)
    loss = RenderingLoss(config)
    rendered, real, alpha = pictures()
    points = PixelPoints(torch.rand(1, 3, 50, 3), torch.full((1, 3, 3), 1.5))
    assert [loss.needs_points(step) for step in range(3)] == [True, True, False]
    assert loss(rendered, real, alpha, 1, points=points).keys() == {"loss", "points"}
    assert loss(rendered, real, alpha, 2).keys() == {"loss", "l2", "ssim", "alpha"}
    assert weights_at(config, config.warmup_l2_steps) is config


def test_term_without_its_input_is_told() -> None:
    with pytest.raises(ValueError, match="lacks its input"):
        loss_of(LossConfig(hull_depth=1), *pictures())


def test_points_end_up_spread_about_the_origin() -> None:
    centers = torch.tensor([[[0, -2.7, 0], [3.0, 0, 0]]])
    directions = -centers / centers.norm(dim=-1, keepdim=True)
    distance = (0.1 * torch.randn(1, 2, 400, generator=torch.Generator().manual_seed(0)) + 1).requires_grad_()
    optimizer = torch.optim.Adam([distance], lr=0.05)
    for _ in range(200):
        means = centers[:, :, None] + distance[..., None] * directions[:, :, None]
        optimizer.zero_grad()
        points_loss(PixelPoints(means, centers)).backward()
        optimizer.step()
    far = distance.detach().abs()
    torch.testing.assert_close(far.mean(-1), torch.tensor([[2.7, 3.0]]), atol=0.02, rtol=0)
    torch.testing.assert_close(far.std(-1), torch.full((1, 2), 0.5), atol=0.02, rtol=0)


def ball_views(size: int = 32, count: int = 6) -> tuple[Rendering, Tensor, CameraBatch]:
    """A ball about the origin, rendered and as sharp silhouettes."""
    circle = turntable_cameras(count, size, elevation_deg=15)
    K, w2c = (torch.stack([torch.tensor(getattr(c, name)).float() for c in circle]) for name in ("K", "w2c"))
    directions = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0))
    means = 0.5 * directions / directions.norm(dim=-1, keepdim=True)
    scene = Gaussians(
        means,
        torch.tensor([[1.0, 0, 0, 0]]).expand(3000, 4),
        torch.full((3000, 3), 0.02),
        torch.full((3000,), 0.95),
        torch.zeros(3000, 1, 3),
    )
    picture = render(scene, K, w2c, size, size)
    batched = Rendering(picture.rgb[None], picture.alpha[None], picture.depth[None])
    return batched, (batched.alpha > 0.5).float(), CameraBatch(K[None], w2c[None])


def test_hull_depth_is_free_for_a_surface_on_the_hull_and_pulls_back_what_is_off() -> None:
    rendered, silhouettes, cameras = ball_views()
    hull = hull_depths(silhouettes, cameras, radius=1.8, samples=96)
    known = ~hull.isnan()
    assert known.float().mean() > 0.9 * silhouettes.mean()
    assert (rendered.depth - hull)[known].min() > -0.1
    near = hull_depth_loss(rendered, hull, slack=0.25)
    assert near < 1e-3
    for shift, sign in ((-0.5, -1), (0.8, 1)):
        depth = (rendered.depth + shift).requires_grad_()
        loss = hull_depth_loss(replace(rendered, depth=depth), hull, slack=0.25)
        loss.backward()
        assert loss > 50 * near
        assert (sign * depth.grad[known & (rendered.alpha > 0.5)]).median() > 0
        assert not depth.grad[~known].any() and depth.grad.isfinite().all()


def test_hull_depths_are_measured_along_the_optical_axis() -> None:
    _, silhouettes, cameras = ball_views()
    origins, directions = pixel_rays(cameras.K, cameras.w2c, *silhouettes.shape[-2:])
    distance = first_hull_depth(silhouettes[:, :, 0], cameras, origins, directions, 1.8, 96)
    points = origins + distance.unsqueeze(2) * directions
    in_camera = torch.einsum("bvij,bvjhw->bvihw", cameras.w2c[..., :3, :3], points)
    expected = in_camera[:, :, 2:] + cameras.w2c[..., 2, 3, None, None, None]
    torch.testing.assert_close(hull_depths(silhouettes, cameras, 1.8, 96), expected, equal_nan=True)


def test_hull_depth_is_silent_where_there_is_no_hull_or_nothing_is_rendered() -> None:
    rendered, silhouettes, _ = ball_views()
    nowhere = torch.full_like(rendered.depth, math.nan)
    assert hull_depth_loss(rendered, nowhere, slack=0.25) == 0
    hull = torch.ones_like(rendered.depth)
    assert hull_depth_loss(replace(rendered, alpha=0 * silhouettes), hull, slack=0.25) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"perceptual": 0.5}, "perceptual_weights is not set"),
        ({"lpips": 0.5}, "lpips_weights is not set"),
        ({"l2": 0, "ssim": 0, "alpha": 0, "points": 1}, "at least one must be positive"),
    ],
)
def test_configurations_that_cannot_work_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LossConfig.model_validate(values)


def test_outside_pulls_visible_gaussians_back_into_the_box() -> None:
    means = torch.tensor([[[0.9, -0.9, 0.99], [1.41, 0.0, 0.0], [0.0, 0.0, -3.0]]], requires_grad=True)
    opacities = torch.tensor([[0.9, 0.5, 0.0]])
    scene = Gaussians(means, torch.zeros(1, 3, 4), torch.ones(1, 3, 3), opacities, torch.zeros(1, 3, 1, 3))
    loss = outside_loss(scene)
    torch.testing.assert_close(loss, torch.tensor(0.5 * 0.5**2 / 1.4))
    loss.backward()
    assert means.grad is not None
    assert means.grad[0, 1, 0] > 0
    assert not means.grad[0, 0].any()
    assert not means.grad[0, 2].any()


def test_outside_counts_only_with_a_weight_and_needs_the_gaussians() -> None:
    scene = Gaussians(*(torch.ones(1, 3, *tail) for tail in ((3,), (4,), (3,), (), (1, 3))))
    config = ONLY_L2.model_copy(update={"outside": 0.5})
    terms = loss_of(config, *pictures(), gaussians=scene)
    torch.testing.assert_close(terms["loss"], terms["l2"] + 0.5 * outside_loss(scene))
    with pytest.raises(ValueError, match="gaussians"):
        loss_of(config, *pictures())
