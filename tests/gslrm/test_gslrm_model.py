"""Properties of the model that hold for any weights."""

import numpy as np
import pytest
import torch

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.rays import CameraBatch
from mouse_facelift.gslrm import GSLRM, GSLRMConfig

TINY = GSLRMConfig(patch_size=4, width=32, head_width=16, layers=2, gradient_checkpointing=False)


def ring(samples: int, views: int, height: int, width: int) -> CameraBatch:
    cameras = [
        Camera.look_at((2.7 * np.cos(a), 2.7 * np.sin(a), 0.3), (0, 0, 0), 1.07 * width, (width, height))
        for a in np.linspace(0, 2 * np.pi, views, endpoint=False)
    ]
    K = torch.tensor(np.stack([camera.K for camera in cameras]), dtype=torch.float32)
    w2c = torch.tensor(np.stack([camera.w2c for camera in cameras]), dtype=torch.float32)
    return CameraBatch(K.expand(samples, -1, -1, -1), w2c.expand(samples, -1, -1, -1))


@pytest.fixture
def model() -> GSLRM:
    torch.manual_seed(0)
    model = GSLRM(TINY)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_shapes_and_ranges_for_rectangular_images(model: GSLRM) -> None:
    gaussians = model(torch.rand(2, 3, 3, 8, 12), ring(2, 3, 8, 12))
    assert gaussians.means.shape == (2, 2 + 3 * 8 * 12, 3)
    assert gaussians.sh0.shape == (2, 2 + 3 * 8 * 12, 1, 3)
    assert gaussians.scales.max() <= np.exp(TINY.scale_max) + 1e-6
    torch.testing.assert_close(gaussians.quats.norm(dim=-1), torch.ones(2, 290))


def test_every_pixel_gaussian_projects_into_its_own_pixel(model: GSLRM) -> None:
    height, width = 8, 12
    cameras = ring(1, 3, height, width)
    means = model(torch.rand(1, 3, 3, height, width), cameras).means[0, 2:]
    patch_grid = means.reshape(3, height // 4, width // 4, 4, 4, 3)
    images = patch_grid.permute(0, 1, 3, 2, 4, 5).reshape(3, height, width, 3)
    for view in range(3):
        camera = Camera(cameras.K[0, view].numpy(), cameras.w2c[0, view].numpy(), width, height)
        pixels, _ = camera.project(images[view].detach().numpy())
        v, u = np.mgrid[:height, :width] + 0.5
        np.testing.assert_allclose(pixels, np.stack([u, v], -1), atol=1e-3)


def test_order_of_the_views_only_reorders_the_gaussians(model: GSLRM) -> None:
    images, cameras = torch.rand(1, 3, 3, 8, 8), ring(1, 3, 8, 8)
    order = torch.tensor([[2, 0, 1]])
    before = model(images, cameras)
    after = model(images[:, order[0]], cameras.select(order))
    assert torch.allclose(after.means[:, :2], before.means[:, :2], atol=1e-5)
    per_view = before.means[0, 2:].reshape(3, 64, 3)[order[0]].reshape(-1, 3)
    assert torch.allclose(after.means[0, 2:], per_view, atol=1e-5)


def test_alpha_channel_is_ignored(model: GSLRM) -> None:
    images, cameras = torch.rand(1, 2, 4, 8, 8), ring(1, 2, 8, 8)
    assert torch.equal(model(images, cameras).means, model(images[:, :, :3], cameras).means)


@pytest.mark.parametrize("recompute", [False, True])
def test_every_parameter_gets_a_gradient(recompute: bool) -> None:
    torch.manual_seed(0)
    model = GSLRM(TINY.model_copy(update={"gradient_checkpointing": recompute})).train()
    gaussians = model(torch.rand(1, 2, 3, 8, 8), ring(1, 2, 8, 8))
    weights = torch.Generator().manual_seed(1)
    parts = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh0)
    torch.stack(
        [(torch.randn(part.shape, generator=weights) * part).sum() for part in parts]
    ).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad).abs().sum() > 0, name


def test_gradient_checkpointing_changes_nothing_but_memory() -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = GSLRM(TINY.model_copy(update={"gradient_checkpointing": recompute})).train()
        model(torch.full((1, 2, 3, 8, 8), 0.3), ring(1, 2, 8, 8)).means.square().sum().backward()
        gradients.append(model.patch_embedder[1].weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_bf16_autocast_keeps_the_output_float32_and_close(model: GSLRM) -> None:
    images, cameras = torch.rand(1, 2, 3, 8, 8), ring(1, 2, 8, 8)
    exact = model(images, cameras)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(images, cameras)
    assert rounded.means.dtype == rounded.opacities.dtype == torch.float32
    assert (rounded.means - exact.means).abs().max() < 0.05
    assert len(rounded.means[0, :, 0].unique()) == len(exact.means[0, :, 0].unique())


def test_held_weights_change_nothing_but_memory(model: GSLRM) -> None:
    images, cameras = torch.rand(1, 2, 3, 8, 8), ring(1, 2, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        converted = model(images, cameras)
        model.hold_weights(torch.bfloat16)
        held = model(images, cameras)
    assert model.transformer_layers[0].mlp.mlp[0].weight.dtype == torch.bfloat16
    assert (
        model.patch_embedder[1].weight.dtype == model.pixel_gaussian_decoder[1].weight.dtype == torch.float32
    )
    for before, after in zip(vars(converted).values(), vars(held).values(), strict=True):
        assert before is after or torch.equal(before, after)


def test_new_weights_have_the_published_statistics() -> None:
    torch.manual_seed(0)
    model = GSLRM(GSLRMConfig(width=128, layers=1))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == 1).all(), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name


def test_wrong_inputs_are_refused_with_their_values(model: GSLRM) -> None:
    with pytest.raises(DataError, match=r"images are 10x8 pixels"):
        model(torch.rand(1, 2, 3, 8, 10), ring(1, 2, 8, 10))
    with pytest.raises(DataError, match=r"\(1, 2\).*\(1, 3\)"):
        model(torch.rand(1, 2, 3, 8, 8), ring(1, 3, 8, 8))
    with pytest.raises(DataError, match=r"\(2, 3, 8, 8\)"):
        model(torch.rand(2, 3, 8, 8), ring(1, 2, 8, 8))
    with pytest.raises(DataError, match="uint8"):
        model(torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8), ring(1, 2, 8, 8))


def test_foreground_tokens_with_every_patch_kept_equal_dense_bit_for_bit(model: GSLRM) -> None:
    images = torch.rand(2, 3, 4, 16, 24)
    cameras = ring(2, 3, 16, 24)
    foreground = GSLRM(model.config.model_copy(update={"tokens": "foreground", "token_multiple": 1000}))
    foreground.load_state_dict(model.state_dict())
    dense, kept = model(images, cameras), foreground.eval()(images, cameras)
    for name in ("means", "quats", "scales", "opacities", "sh0"):
        assert torch.equal(getattr(dense, name), getattr(kept, name)), name


def test_foreground_tokens_make_gaussians_for_the_animals_patches_only(model: GSLRM) -> None:
    images = torch.rand(1, 3, 4, 16, 24)
    images[:, :, 3] = 0
    images[:, 0, 3, 2, 2] = images[:, 2, 3, 12, 20] = 1
    cameras, patch = ring(1, 3, 16, 24), model.config.patch_size
    config = model.config.model_copy(update={"tokens": "foreground", "token_multiple": 1, "token_margin": 0})
    gaussians = GSLRM(config)(images, cameras)
    assert len(gaussians) == config.free_gaussians + 2 * patch**2
