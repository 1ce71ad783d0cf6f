import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mouse_facelift.gaussians.gaussians import SH_C0, Gaussians
from mouse_facelift.gaussians.harmonics import sh_colors
from mouse_facelift.gaussians.projection import project
from mouse_facelift.gaussians.rasterizer import rasterize
from mouse_facelift.gaussians.tiles import GSPLAT, PUBLISHED, Rules
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.cameras import Similarity

FIELDS = ("means", "quats", "scales", "opacities", "sh0")
ALL_FIELDS = (*FIELDS, "sh_rest")


def scene(count: int, seed: int = 0, batch: int = 1, spread: float = 0.5, size: float = 0.04) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, count, *shape, generator=generator, dtype=torch.float64)

    return Gaussians(
        spread * normal(3), normal(4), size * normal(3).mul(0.5).exp(), normal().sigmoid(), normal(1, 3)
    )


def with_harmonics(gaussians: Gaussians, degree: int) -> Gaussians:
    """The same scene with colours that depend on the view."""
    generator = torch.Generator().manual_seed(9)
    shape = (*gaussians.opacities.shape, (degree + 1) ** 2 - 1, 3)
    rest = 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return replace(gaussians, sh_rest=rest.to(gaussians.means))


def leaves(gaussians: Gaussians) -> Gaussians:
    return Gaussians(*(getattr(gaussians, name).clone().requires_grad_() for name in FIELDS))


def rig(count: int, width: int, height: int, principal: tuple[float, float] = (0.0, 0.0)) -> list[Camera]:
    cameras = []
    for i in range(count):
        azimuth = 2 * math.pi * i / count + 0.3
        center = (2.7 * math.cos(azimuth), 2.7 * math.sin(azimuth), 0.4)
        camera = Camera.look_at(center, (0, 0, 0), 1.1 * width, (width, height))
        cameras.append(camera.affine(np.eye(2), principal, width, height)[0])
    return cameras


def matrices(cameras: list[Camera]) -> tuple[Tensor, Tensor]:
    K = torch.from_numpy(np.stack([camera.K for camera in cameras]))[None]
    return K, torch.from_numpy(np.stack([camera.w2c for camera in cameras]))[None]


def draw(gaussians: Gaussians, cameras: list[Camera], rules: Rules = GSPLAT) -> Tensor:
    K, w2c = matrices(cameras)
    return rasterize(gaussians, K, w2c, cameras[0].width, cameras[0].height, rules)


def brute_force(gaussians: Gaussians, cameras: list[Camera]) -> Tensor:
    """Every Gaussian in every pixel, differentiated by autograd."""
    K, w2c = matrices(cameras)
    width, height = cameras[0].width, cameras[0].height
    splats = project(gaussians, K, w2c, width, height)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    images = []
    for view in range(len(cameras)):
        order = torch.argsort(splats.depth[0, view])
        order = order[splats.depth[0, view, order] > 0.2]
        dx = x - splats.center[0, view, order, 0, None, None]
        dy = y - splats.center[0, view, order, 1, None, None]
        xx, xy, yy = splats.conic[0, view, order, :, None, None].unbind(1)
        alpha = gaussians.opacities[0, order, None, None] * torch.exp(
            -(xx * dx**2 + yy * dy**2) / 2 - xy * dx * dy
        )
        alpha = alpha.where(alpha >= 1 / 255, 0).clamp_max(GSPLAT.max_alpha)
        after = (1 - alpha).cumprod(0)
        before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
        weights = (alpha * before).where(after > 1e-4, 0)
        features = [gaussians.rgb[0, order], splats.depth[0, view, order, None], torch.ones(len(order), 1)]
        images.append(torch.einsum("nhw,nc->chw", weights, torch.cat(features, 1)))
    return torch.stack(images)[None]


def straight_ahead(width: int = 24, height: int = 16, focal: float = 30.0) -> Camera:
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return Camera(K, np.eye(4), width, height)


def balls(*items: tuple[tuple[float, float, float], float, float, tuple[float, float, float]]) -> Gaussians:
    """Isotropic Gaussians: centre, standard deviation, opacity, colour."""
    centers, sizes, opacities, colors = (
        torch.tensor(column, dtype=torch.float64) for column in zip(*items, strict=True)
    )
    quats = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64).expand(len(items), 4)
    scales = sizes[:, None].expand(-1, 3)
    return Gaussians(centers, quats, scales, opacities, ((colors - 0.5) / SH_C0)[:, None])[None]


RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def test_one_ball_is_its_formula_in_every_pixel():
    camera = straight_ahead()
    depth, size, opacity = 3.0, 0.2, 0.8
    image = draw(balls(((0, 0, depth), size, opacity, RED)), [camera])[0, 0]
    y, x = torch.meshgrid(torch.arange(16) + 0.5, torch.arange(24) + 0.5, indexing="ij")
    squared = (x - 12) ** 2 + (y - 8) ** 2
    expected = opacity * torch.exp(-squared / (2 * ((30 * size / depth) ** 2 + 0.3))).double()
    expected = expected.where(expected >= 1 / 255, 0)
    torch.testing.assert_close(image[0], expected, atol=2e-7, rtol=0)
    torch.testing.assert_close(image[4], expected, atol=2e-7, rtol=0)
    torch.testing.assert_close(image[3], depth * expected, atol=1e-6, rtol=0)
    assert not image[1:3].any()


def test_pixel_centres_lie_at_one_half():
    x, y = (10.5 - 12) / 30 * 2, (7.5 - 8) / 30 * 2
    image = draw(balls(((x, y, 2.0), 0.02, 0.9, RED)), [straight_ahead()])[0, 0, 0]
    assert divmod(int(image.argmax()), 24) == (7, 10)
    torch.testing.assert_close(image[7, 9], image[7, 11])
    torch.testing.assert_close(image[6, 10], image[8, 10])


def test_nearer_ball_covers_the_farther_one_whatever_their_order():
    near, far = ((0, 0, 2.0), 0.3, 0.6, RED), ((0, 0, 3.0), 0.4, 0.7, BLUE)
    camera = straight_ahead()
    alone = [draw(balls(item), [camera])[0, 0, 4] for item in (near, far)]
    for pair in ((near, far), (far, near)):
        image = draw(balls(*pair), [camera])[0, 0]
        torch.testing.assert_close(image[0], alone[0])
        torch.testing.assert_close(image[2], (1 - alone[0]) * alone[1])
        torch.testing.assert_close(image[3], 2 * alone[0] + 3 * (1 - alone[0]) * alone[1])


@pytest.mark.parametrize("depth", [-2.0, 0.0, 0.2])
def test_ball_behind_or_at_the_near_plane_is_invisible_and_has_no_gradient(depth: float):
    gaussians = leaves(balls(((0, 0, depth), 0.3, 0.9, RED), ((0, 0, 2), 0.3, 0.9, RED)))
    image = draw(gaussians, [straight_ahead()])
    image.sum().backward()
    torch.testing.assert_close(image, draw(balls(((0, 0, 2), 0.3, 0.9, RED)), [straight_ahead()]))
    for name in FIELDS:
        gradient = getattr(gaussians, name).grad
        assert gradient.isfinite().all()
        assert not gradient[0, 0].any()


@pytest.mark.parametrize(("rules", "cap"), [(GSPLAT, 0.999), (PUBLISHED, 0.99)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_covers_a_pixel_entirely(rules: Rules, cap: float, dtype: torch.dtype):
    gaussians = leaves(balls(((0, 0, 2.0), 2.0, 1.0, RED)).to(dtype))
    K, w2c = (matrix.to(dtype) for matrix in matrices([straight_ahead()]))
    image = rasterize(gaussians, K, w2c, 24, 16, rules)[0, 0]
    assert image[4].max().item() == pytest.approx(cap)
    image[4, 7:9, 11:13].sum().backward()
    assert not gaussians.opacities.grad.any(), "a clamped value has no slope"


def test_pixel_is_finished_before_transmittance_falls_below_one_in_ten_thousand():
    layers = [((0, 0, 2.0 + 0.1 * i), 5.0, 0.95, RED if i < 3 else BLUE) for i in range(5)]
    image = draw(balls(*layers), [straight_ahead()])[0, 0, :, 8, 12]
    assert image[4].item() == pytest.approx(1 - 0.05**3, abs=1e-4)
    assert image[2] == 0


def test_faint_or_distant_splats_are_left_out_exactly_at_one_level():
    camera = straight_ahead()
    assert not draw(balls(((0, 0, 2.0), 0.2, 0.9 / 255, RED)), [camera]).any()
    assert draw(balls(((0, 0, 2.0), 2.0, 1.1 / 255, RED)), [camera])[0, 0, 4, 8, 12] > 0
    assert not draw(balls(((50, 0, 2.0), 0.2, 0.9, RED)), [camera]).any()


def test_empty_scene_is_transparent():
    assert not draw(scene(0), [straight_ahead()]).any()


@pytest.mark.parametrize(("width", "height"), [(32, 32), (37, 21), (5, 50)])
@pytest.mark.parametrize("tile", [4, 16])
def test_values_and_gradients_equal_brute_force(width: int, height: int, tile: int):
    cameras = rig(2, width, height, principal=(1.7, -2.3))
    first, second = leaves(scene(150, size=0.08)), leaves(scene(150, size=0.08))
    image, expected = draw(first, cameras, Rules(GSPLAT.max_alpha, tile)), brute_force(second, cameras)
    torch.testing.assert_close(image, expected)
    cotangent = torch.randn(image.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (image * cotangent).sum().backward()
    (expected * cotangent).sum().backward()
    for name in FIELDS:
        torch.testing.assert_close(getattr(first, name).grad, getattr(second, name).grad, msg=name)


def test_gradients_pass_gradcheck():
    gaussians, cameras = scene(6, seed=3, spread=0.3, size=0.1), rig(2, 8, 6)

    def function(*values: Tensor) -> Tensor:
        return draw(Gaussians(*values), cameras)

    assert torch.autograd.gradcheck(function, tuple(getattr(leaves(gaussians), name) for name in FIELDS))


def test_gradients_reach_the_cameras():
    K, w2c = (matrix.requires_grad_() for matrix in matrices(rig(1, 8, 6)))
    gaussians = scene(5, seed=4, spread=0.3, size=0.1)
    assert torch.autograd.gradcheck(lambda K, w2c: rasterize(gaussians, K, w2c, 8, 6), (K, w2c))


def test_single_precision_is_close_to_double():
    cameras = rig(2, 64, 64)
    image = draw(scene(2000), cameras)
    K, w2c = matrices(cameras)
    single = rasterize(scene(2000).to(torch.float32), K.float(), w2c.float(), 64, 64)
    # A splat at the edge of 1/255 may fall on either side.
    assert ((single - image)[:, :, [0, 1, 2, 4]].abs() > 1e-4).double().mean() < 1e-3
    assert (single - image)[:, :, [0, 1, 2, 4]].abs().max() < 2 / 255


def test_huge_and_flat_gaussians_stay_finite_in_single_precision():
    gaussians = scene(200).to(torch.float32)
    scales = gaussians.scales * torch.tensor([1e4, 1.0, 1e-6])
    stretched = leaves(
        Gaussians(gaussians.means, gaussians.quats, scales, gaussians.opacities, gaussians.sh0)
    )
    K, w2c = matrices(rig(1, 32, 32))
    image = rasterize(stretched, K.float(), w2c.float(), 32, 32)
    image.sum().backward()
    assert image.isfinite().all()
    assert all(getattr(stretched, name).grad.isfinite().all() for name in FIELDS)


def test_batch_equals_scene_by_scene():
    K, w2c = matrices(rig(6, 20, 20))
    K, w2c = K.view(2, 3, 3, 3), w2c.view(2, 3, 4, 4)
    gaussians = scene(60, batch=2)
    together = rasterize(gaussians, K, w2c, 20, 20)
    for i in range(2):
        alone = rasterize(gaussians[i : i + 1], K[i : i + 1], w2c[i : i + 1], 20, 20)
        torch.testing.assert_close(together[i : i + 1], alone)


def test_many_chunks_give_the_same_picture(monkeypatch: pytest.MonkeyPatch):
    cameras = rig(3, 32, 32)
    whole = leaves(scene(200))
    draw(whole, cameras).square().sum().backward()
    monkeypatch.setattr("mouse_facelift.gaussians.rasterizer.CHUNK", 500)
    parts = leaves(scene(200))
    draw(parts, cameras).square().sum().backward()
    for name in FIELDS:
        torch.testing.assert_close(getattr(parts, name).grad, getattr(whole, name).grad, msg=name)


def test_order_of_gaussians_does_not_matter():
    gaussians, cameras = scene(200), rig(2, 32, 32)
    shuffled = gaussians[0][torch.randperm(200, generator=torch.Generator().manual_seed(0))][None]
    torch.testing.assert_close(draw(shuffled, cameras), draw(gaussians, cameras))


@settings(max_examples=15, deadline=None)
@given(
    scale=st.floats(0.5, 20),
    quat=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(v * v for v in q) > 0.1),
    center=st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_similarity_of_the_world_changes_nothing_but_depth(
    scale: float, quat: tuple[float, ...], center: tuple[float, ...]
):
    gaussians, cameras = scene(60, spread=0.3), rig(2, 24, 24)
    q = F.normalize(torch.tensor(quat, dtype=torch.float64), dim=0)
    change = Similarity(scale, rotation_matrix(q).numpy(), np.array(center))
    moved = Gaussians(
        torch.from_numpy(change.apply(gaussians.means.numpy())),
        quaternion_product(q, gaussians.quats),
        scale * gaussians.scales,
        gaussians.opacities,
        gaussians.sh0,
    )
    image = draw(gaussians, cameras)
    other = draw(moved, [camera.similarity(change) for camera in cameras])
    colors = [0, 1, 2, 4]
    torch.testing.assert_close(other[:, :, colors], image[:, :, colors], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(other[:, :, 3], scale * image[:, :, 3], atol=1e-5, rtol=1e-6)


def quaternion_product(p: Tensor, q: Tensor) -> Tensor:
    a, b = p[0], p[1:]
    c, d = q[..., :1], q[..., 1:]
    vector = a * d + c * b + torch.linalg.cross(b.expand_as(d), d)
    return torch.cat([a * c - (d * b).sum(-1, keepdim=True), vector], -1)


def rotation_matrix(q: Tensor) -> Tensor:
    basis = torch.cat([torch.zeros(3, 1), torch.eye(3)], 1).double()
    conjugate = q * torch.tensor([1.0, -1, -1, -1])
    return torch.stack([quaternion_product(quaternion_product(q, e), conjugate)[1:] for e in basis], 1)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_colours_that_depend_on_the_view_are_drawn_as_each_camera_sees_them(degree: int):
    gaussians, cameras = with_harmonics(scene(40, seed=2), degree), rig(3, 20, 16)
    together = draw(gaussians, cameras)
    for view, camera in enumerate(cameras):
        directions = F.normalize(gaussians.means - torch.from_numpy(camera.center), dim=-1)
        seen = (sh_colors(gaussians.sh, directions) - 0.5) / SH_C0
        alone = draw(replace(gaussians, sh0=seen[..., None, :], sh_rest=None), [camera])
        torch.testing.assert_close(together[:, view], alone[:, 0])


def test_gradients_through_colours_that_depend_on_the_view_pass_gradcheck():
    gaussians, cameras = with_harmonics(scene(5, seed=3, spread=0.3, size=0.1), 2), rig(2, 6, 6)
    values = [getattr(gaussians, name).clone().requires_grad_() for name in ALL_FIELDS]
    assert torch.autograd.gradcheck(lambda *v: draw(Gaussians(*v), cameras), tuple(values))
