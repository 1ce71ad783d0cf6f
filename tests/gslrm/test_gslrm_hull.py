"""GS-LRM with depths measured from the visual hull instead of from the ray's point nearest the origin."""

import pytest
import torch
from torch import Tensor

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.hull_depth import first_hull_depth
from mouse_facelift.geometry.rays import CameraBatch, pixel_rays
from mouse_facelift.gslrm import GSLRM, GSLRMConfig
from mouse_facelift.gslrm.tokens import patchify

SIZE, VIEWS = 32, 4
TINY = GSLRMConfig(width=32, head_width=16, layers=1, depth_anchor="hull", hull_offset=0.2)


@pytest.fixture
def cameras() -> CameraBatch:
    centers = torch.tensor([[2.7, 0, 0], [0, 2.7, 0.3], [-2.7, 0, 0], [0, -2.7, -0.3]])
    made = [Camera.look_at(center.numpy(), (0, 0, 0), 1.07 * SIZE, SIZE) for center in centers]
    K = torch.stack([torch.from_numpy(camera.K) for camera in made]).float()
    w2c = torch.stack([torch.from_numpy(camera.w2c) for camera in made]).float()
    return CameraBatch(K[None], w2c[None])


@pytest.fixture
def images() -> Tensor:
    """Noise on a disc, the disc in the fourth channel."""
    grid = torch.arange(SIZE) + 0.5 - SIZE / 2
    alpha = (torch.hypot(grid[:, None], grid) < 7).float().expand(1, VIEWS, 1, SIZE, SIZE)
    rgb = torch.rand(1, VIEWS, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return torch.cat([rgb * alpha + 1 - alpha, alpha], dim=2)


def wild_model(config: GSLRMConfig) -> GSLRM:
    """Random weights large enough that offsets reach far."""
    torch.manual_seed(0)
    model = GSLRM(config).eval()
    model.pixel_gaussian_decoder[1].weight.data.mul_(20)
    return model


def distance_along_rays(model: GSLRM, images: Tensor, cameras: CameraBatch) -> Tensor:
    """Depth of each pixel's Gaussian on its ray, in pixel order. [V * H * W]"""
    means = model(images, cameras).means[0, model.config.free_gaussians :]
    origins, directions = (per_pixel(v) for v in pixel_rays(cameras.K, cameras.w2c, SIZE, SIZE))
    depth = ((means - origins) * directions).sum(-1)
    torch.testing.assert_close(means, origins + depth[:, None] * directions, atol=1e-5, rtol=0)
    return depth


def per_pixel(values: Tensor) -> Tensor:
    """[1, V, C, H, W] -> [V * H * W, C], in the order of the pixel Gaussians."""
    return patchify(values, TINY.patch_size).reshape(-1, values.shape[2])


def hull_of(images: Tensor, cameras: CameraBatch) -> Tensor:
    origins, directions = pixel_rays(cameras.K, cameras.w2c, SIZE, SIZE)
    hull = first_hull_depth(
        images[:, :, 3], cameras, origins, directions, TINY.depth_range, TINY.hull_samples
    )
    return per_pixel(hull.unsqueeze(2))[:, 0]


def test_autocast_does_not_round_the_hull(images: Tensor, cameras: CameraBatch) -> None:
    plain = hull_of(images, cameras)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = hull_of(images, cameras)
    assert torch.equal(plain.nan_to_num(-1), rounded.nan_to_num(-1))


def test_pixel_gaussians_stay_near_the_hull(images: Tensor, cameras: CameraBatch) -> None:
    depth, hull = distance_along_rays(wild_model(TINY), images, cameras), hull_of(images, cameras)
    offset = (depth - hull)[hull.isfinite()]
    assert hull.isfinite().sum() > 300
    assert offset.abs().max() <= TINY.hull_offset + 1e-5
    assert offset.abs().max() > 0.5 * TINY.hull_offset


def test_free_gaussians_stay_in_the_models_box(images: Tensor, cameras: CameraBatch) -> None:
    farthest = {}
    for anchor in ("hull", "origin"):
        model = wild_model(TINY.model_copy(update={"depth_anchor": anchor}))
        torch.nn.init.normal_(model.gaussian_upsampler.linear.weight, std=3)
        free = model(images, cameras).means[:, : TINY.free_gaussians]
        farthest[anchor] = float(free.detach().abs().max())
    assert farthest["hull"] <= 1 < farthest["origin"]


def test_pixels_without_a_hull_are_measured_from_the_origin(images: Tensor, cameras: CameraBatch) -> None:
    plain = wild_model(TINY.model_copy(update={"depth_anchor": "origin"}))
    expected = distance_along_rays(plain, images, cameras)
    found = distance_along_rays(wild_model(TINY), images, cameras)
    free = hull_of(images, cameras).isnan()
    assert free.any()
    torch.testing.assert_close(found[free], expected[free])


def test_anchor_moves_depths_and_nothing_else(images: Tensor, cameras: CameraBatch) -> None:
    hull = wild_model(TINY)(images, cameras)
    origin = wild_model(TINY.model_copy(update={"depth_anchor": "origin"}))(images, cameras)
    assert not torch.equal(hull.means, origin.means)
    for name in ("quats", "scales", "opacities", "sh0"):
        assert torch.equal(getattr(hull, name), getattr(origin, name)), name


def test_colour_does_not_move_the_anchor_but_alpha_does(images: Tensor, cameras: CameraBatch) -> None:
    model = wild_model(TINY.model_copy(update={"hull_offset": 1e-6}))
    repainted = images.clone()
    repainted[:, :, :3] = 0.2
    shrunk = images.clone()
    shrunk[:, 1, 3, :, SIZE // 2 :] = 0
    inside = hull_of(shrunk, cameras).isfinite()
    before = distance_along_rays(model, images, cameras)[inside]
    torch.testing.assert_close(
        distance_along_rays(model, repainted, cameras)[inside], before, atol=1e-5, rtol=0
    )
    assert (distance_along_rays(model, shrunk, cameras)[inside] - before).abs().max() > 0.01


def test_offsets_are_learned_with_the_hull_fixed(images: Tensor, cameras: CameraBatch) -> None:
    model = wild_model(TINY).train()
    images.requires_grad_()
    model(images, cameras).means.square().sum().backward()
    gradient = model.pixel_gaussian_decoder[1].weight.grad
    assert gradient is not None and gradient.isfinite().all() and gradient.any()
    assert images.grad is not None and not images.grad[:, :, 3].any()


def test_pictures_without_silhouettes_are_refused(images: Tensor, cameras: CameraBatch) -> None:
    with pytest.raises(
        DataError, match=r"3 channels, but depth_anchor is hull and tokens is dense: a fourth"
    ):
        GSLRM(TINY)(images[:, :, :3], cameras)


def test_silhouettes_are_ignored_where_depth_is_measured_from_the_origin(
    images: Tensor, cameras: CameraBatch
) -> None:
    model = wild_model(TINY.model_copy(update={"depth_anchor": "origin"}))
    assert torch.equal(model(images, cameras).means, model(images[:, :, :3], cameras).means)


@pytest.fixture
def sparse_model() -> GSLRM:
    return wild_model(
        TINY.model_copy(update={"tokens": "foreground", "token_margin": 0, "token_multiple": 1})
    )


def test_order_of_the_views_only_reorders_the_gaussians_of_the_animal(
    sparse_model: GSLRM, images: Tensor, cameras: CameraBatch
) -> None:
    order = torch.tensor([[2, 0, 3, 1]])
    found = sparse_model(images[:, order[0]], cameras.select(order))
    expected = sparse_model(images, cameras)
    free = TINY.free_gaussians
    per_view = expected.means[0, free:].unflatten(0, (VIEWS, -1))
    torch.testing.assert_close(found.means[0, :free], expected.means[0, :free], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.means[0, free:], per_view[order[0]].flatten(0, 1), atol=1e-4, rtol=0)


def test_samples_of_a_batch_do_not_see_each_other(
    sparse_model: GSLRM, images: Tensor, cameras: CameraBatch
) -> None:
    other = torch.cat([1 - images[:, :, :3], images[:, :, 3:]], dim=2)
    pair = CameraBatch(cameras.K.repeat(2, 1, 1, 1), cameras.w2c.repeat(2, 1, 1, 1))
    both = sparse_model(torch.cat([images, other]), pair)
    for index, single in enumerate((images, other)):
        torch.testing.assert_close(
            both.means[index], sparse_model(single, cameras).means[0], atol=1e-5, rtol=0
        )


def test_views_without_an_animal_add_nothing(
    sparse_model: GSLRM, images: Tensor, cameras: CameraBatch
) -> None:
    images[:, 1, 3] = 0
    patches_per_view = 4
    expected = TINY.free_gaussians + (VIEWS - 1) * patches_per_view * TINY.patch_size**2
    assert len(sparse_model(images, cameras)) == expected
    images[:, :, 3] = 0
    assert len(sparse_model(images, cameras)) == TINY.free_gaussians
