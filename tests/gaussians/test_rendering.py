import importlib
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import mouse_facelift.gaussians
from mouse_facelift.errors import DataError, DependencyError
from mouse_facelift.gaussians import Gaussians, render
from mouse_facelift.gaussians.turntable import turntable_cameras

FIELDS = ("means", "quats", "scales", "opacities", "sh0")


def scene(*lead: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*lead, *shape, generator=generator).to(dtype)

    return Gaussians(
        0.3 * normal(3), normal(4), 0.04 * normal(3).mul(0.5).exp(), normal().sigmoid(), normal(1, 3)
    )


def cameras(count: int, size: int) -> tuple[Tensor, Tensor]:
    circle = turntable_cameras(count, size, elevation_deg=10)
    K, w2c = (torch.stack([torch.tensor(getattr(c, name)) for c in circle]) for name in ("K", "w2c"))
    return K.float(), w2c.float()


def test_shapes_without_and_with_batch():
    K, w2c = cameras(6, 24)
    alone = render(scene(50), K, w2c, 24, 20)
    assert (alone.rgb.shape, alone.alpha.shape, alone.depth.shape) == (
        (6, 3, 20, 24),
        (6, 1, 20, 24),
        (6, 1, 20, 24),
    )
    batched = render(scene(2, 50), K.view(2, 3, 3, 3), w2c.view(2, 3, 4, 4), 24, 20)
    assert batched.rgb.shape == (2, 3, 3, 20, 24)
    first = render(scene(2, 50)[0], K[:3], w2c[:3], 24, 20)
    torch.testing.assert_close(batched.rgb[0], first.rgb)
    torch.testing.assert_close(batched.depth[0], first.depth)


def test_background_is_white_unless_given_and_shows_through_what_is_not_covered():
    K, w2c = cameras(2, 24)
    black = render(scene(30), K, w2c, 24, 24, background=0.0)
    color = torch.tensor([0.2, 0.5, 0.9])
    for background, value in ((None, torch.ones(3)), (0.5, torch.full((3,), 0.5)), (color, color)):
        on_background = render(scene(30), K, w2c, 24, 24, background).rgb
        torch.testing.assert_close(on_background, black.rgb + (1 - black.alpha) * value.view(3, 1, 1))
    assert 0 < black.alpha.mean() < 1


def test_depth_is_the_mean_of_what_covers_the_pixel_and_zero_where_nothing_does():
    wall = Gaussians(
        torch.tensor([[0.0, 0, 2.0]]),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.full((1, 3), 0.1),
        torch.tensor([0.3]),
        torch.zeros(1, 1, 3),
    )
    K = torch.tensor([[[20.0, 0, 16], [0, 20, 16], [0, 0, 1]]])
    result = render(wall, K, torch.eye(4)[None], 32, 32)
    seen = result.alpha > 0
    torch.testing.assert_close(result.depth[seen], torch.full_like(result.depth[seen], 2.0))
    assert not result.depth[~seen].any()
    assert (~seen).any()


def test_all_white_scene_still_has_a_gradient():
    gaussians = scene(50)
    white = Gaussians(*(getattr(gaussians, name) for name in FIELDS[:4]), torch.full((50, 1, 3), 1.8))
    sh0 = white.sh0.clone().requires_grad_()
    K, w2c = cameras(2, 24)
    rgb = render(Gaussians(white.means, white.quats, white.scales, white.opacities, sh0), K, w2c, 24, 24).rgb
    assert rgb.max() > 1, "the picture is not clamped"
    (rgb - 0.5).square().mean().backward()
    assert sh0.grad.abs().max() > 0


def test_negative_colours_are_black():
    gaussians = scene(50)
    dark = Gaussians(*(getattr(gaussians, name) for name in FIELDS[:4]), torch.full((50, 1, 3), -5.0))
    K, w2c = cameras(2, 24)
    assert render(dark, K, w2c, 24, 24, background=0.0).rgb.abs().max() == 0


def test_half_precision_and_autocast_do_not_lower_the_precision_of_the_picture():
    K, w2c = cameras(2, 24)
    rounded = scene(80, dtype=torch.bfloat16)
    expected = render(rounded.to(torch.float32), K, w2c, 24, 24).rgb
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = render(rounded, K.double(), w2c.double(), 24, 24)
    assert result.rgb.dtype == torch.float32
    torch.testing.assert_close(result.rgb, expected, atol=1e-5, rtol=0)


def test_gradients_of_a_picture_drawn_under_autocast_keep_their_precision():
    K, w2c = cameras(2, 24)
    gradients = []
    for enabled in (False, True):
        gaussians = scene(80)
        gaussians.means.requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            rgb = render(gaussians, K, w2c, 24, 24).rgb
        rgb.square().mean().backward()
        gradients.append(gaussians.means.grad)
    torch.testing.assert_close(*gradients)


def test_wrong_shapes_are_told_with_what_was_expected():
    K, w2c = cameras(2, 8)
    with pytest.raises(DataError, match=r"K has shape \(2, 3, 3\), expected \(4, 'V', 3, 3\)"):
        render(scene(4, 10), K, w2c, 8, 8)
    with pytest.raises(DataError, match=r"w2c has shape \(1, 4, 4\), expected \(2, 4, 4\)"):
        render(scene(10), K, w2c[:1], 8, 8)
    with pytest.raises(DataError, match=r"background has shape \(4,\)"):
        render(scene(10), K, w2c, 8, 8, background=torch.ones(4))


def test_gsplat_on_a_cpu_is_refused():
    with pytest.raises(DependencyError, match=r"needs Gaussians on a CUDA device, they are on 'cpu'"):
        render(scene(10), *cameras(1, 8), 8, 8, backend="gsplat")


def test_package_exports_the_function_also_after_its_module_was_imported():
    importlib.import_module("mouse_facelift.gaussians.rendering")
    assert callable(mouse_facelift.gaussians.render)


def test_rendering_on_a_cpu_does_not_import_gsplat():
    render(scene(10), *cameras(1, 8), 8, 8)
    assert "gsplat" not in sys.modules


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("degree", [0, 2])
def test_gsplat_and_torch_draw_the_same_picture_with_the_same_gradients(degree: int):
    size = 128
    K, w2c = (matrix.cuda().expand(2, -1, -1, -1) for matrix in cameras(3, size))
    cotangent = torch.randn(2, 3, 3, size, size, generator=torch.Generator().manual_seed(1)).cuda()
    results, gradients = [], []
    for backend in ("gsplat", "torch"):
        gaussians = scene(2, 4000)
        if degree:
            generator = torch.Generator().manual_seed(2)
            rest = 0.2 * torch.randn(2, 4000, (degree + 1) ** 2 - 1, 3, generator=generator)
            gaussians = replace(gaussians, sh_rest=rest)
        names = (*FIELDS, "sh_rest") if degree else FIELDS
        leaves = Gaussians(*(getattr(gaussians, name).cuda().requires_grad_() for name in names))
        result = render(leaves, K, w2c, size, size, backend=backend)
        (result.rgb * cotangent).sum().backward()
        results.append(result)
        gradients.append([getattr(leaves, name).grad.flatten() for name in names])
    fast, exact = results
    for name in ("rgb", "alpha"):
        error = F.mse_loss(getattr(fast, name), getattr(exact, name))
        assert -10 * error.log10() > 45, name
    covered = exact.alpha > 0.5
    torch.testing.assert_close(fast.depth[covered], exact.depth[covered], atol=1e-2, rtol=0)
    for name, ours, theirs in zip(names, *gradients, strict=True):
        assert F.cosine_similarity(ours, theirs, dim=0) > 0.999, name
        assert (ours - theirs).norm() < 0.03 * theirs.norm(), name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e25])
def test_gaussian_without_a_finite_size_is_left_out(value: float):
    gaussians, (K, w2c) = scene(20), cameras(1, 32)
    scales = gaussians.scales.clone()
    scales[-1, 0] = value
    found = render(replace(gaussians, scales=scales), K, w2c, 32, 24, backend="torch")
    assert torch.equal(found.rgb, render(gaussians[:-1], K, w2c, 32, 24, backend="torch").rgb)


def test_scene_without_gaussians_is_background():
    K, w2c = cameras(2, 32)
    picture = render(scene(0), K, w2c, 32, 24, background=0.3, backend="torch")
    assert torch.equal(picture.rgb, torch.full_like(picture.rgb, 0.3))
    assert not picture.alpha.any() and not picture.depth.any()
