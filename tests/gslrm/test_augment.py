"""Augmentation moves the cameras of a sample together; pictures, rays and renderings stay true."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mouse_facelift.gaussians import Gaussians, render
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.cameras import Similarity
from mouse_facelift.geometry.rays import CameraBatch, pixel_rays
from mouse_facelift.gslrm.augment import augment, yaw_rotation
from mouse_facelift.gslrm.config import AugmentConfig

SIZE = 32


def cameras(samples: int = 2, views: int = 4) -> CameraBatch:
    """Cameras at different distances and heights, zooming differently. float64"""
    rig = [
        Camera.look_at(
            ((2 + 0.3 * v) * np.cos(v + s), (2 + 0.3 * v) * np.sin(v + s), 0.2 + 0.3 * v),
            (0.05 * v, 0, 0.1),
            (1 + 0.1 * v) * SIZE,
            SIZE,
        )
        for s in range(samples)
        for v in range(views)
    ]
    K = torch.tensor(np.stack([camera.K for camera in rig])).unflatten(0, (samples, views))
    w2c = torch.tensor(np.stack([camera.w2c for camera in rig])).unflatten(0, (samples, views))
    return CameraBatch(K, w2c)


def project(cameras: CameraBatch, points: Tensor) -> Tensor:
    """Pixels [B, V, N, 2] of points [B, N, 3]."""
    in_camera = points[:, None] @ cameras.w2c[..., :3, :3].mT + cameras.w2c[..., None, :3, 3]
    pixels = in_camera @ cameras.K.mT
    return pixels[..., :2] / pixels[..., 2:]


def similarity_drawn(config: AugmentConfig, seed: int, samples: int = 2) -> tuple[Tensor, Tensor]:
    """Scale [B] and rotation [B, 3, 3] that `augment` draws, read off a camera at a known place."""
    w2c = torch.eye(4, dtype=torch.float64).expand(samples, 1, 4, 4).clone()
    w2c[..., 2, 3] = 1
    moved = augment(CameraBatch(torch.eye(3).expand(samples, 1, 3, 3), w2c), config, seeded(seed))
    return moved.w2c[:, 0, 2, 3], moved.w2c[:, 0, :3, :3].mT


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


BOTH = AugmentConfig(yaw=True, scale=(0.5, 1.5))


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_moved_points_fall_on_the_same_pixels(seed: int) -> None:
    points = torch.rand(2, 50, 3, generator=seeded(seed), dtype=torch.float64) - 0.5
    scale, rotation = similarity_drawn(BOTH, seed)
    moved = scale[:, None, None] * points @ rotation.mT
    before, after = cameras(), augment(cameras(), BOTH, seeded(seed))
    torch.testing.assert_close(project(after, moved), project(before, points), rtol=0, atol=1e-9)
    assert torch.equal(after.K, before.K)


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_rays_turn_and_scale_with_the_world(seed: int) -> None:
    scale, rotation = similarity_drawn(BOTH, seed)
    origins, directions = pixel_rays(cameras().K, cameras().w2c, 6, 6)
    after = augment(cameras(), BOTH, seeded(seed))
    moved_origins, moved_directions = pixel_rays(after.K, after.w2c, 6, 6)

    def turned(vectors: Tensor) -> Tensor:
        return torch.einsum("bij,bvjhw->bvihw", rotation, vectors)

    torch.testing.assert_close(moved_directions, turned(directions), rtol=0, atol=1e-12)
    expected = scale[:, None, None, None, None] * turned(origins)
    torch.testing.assert_close(moved_origins, expected, rtol=0, atol=1e-12)


def test_it_is_the_legal_operation_of_a_single_camera() -> None:
    scale, rotation = similarity_drawn(BOTH, 3)
    before, after = cameras(), augment(cameras(), BOTH, seeded(3))
    for sample in range(2):
        change = Similarity(float(scale[sample]), rotation[sample].numpy(), np.zeros(3))
        for view in range(4):
            camera = Camera(before.K[sample, view].numpy(), before.w2c[sample, view].numpy(), SIZE, SIZE)
            np.testing.assert_allclose(
                after.w2c[sample, view].numpy(), camera.similarity(change).w2c, atol=1e-12
            )


def test_nothing_switched_on_changes_no_bit() -> None:
    before = cameras()
    single = CameraBatch(before.K.float(), before.w2c.float())
    for batch in (before, single):
        after = augment(batch, AugmentConfig(), seeded(0))
        assert torch.equal(after.w2c, batch.w2c) and after.w2c.dtype == batch.w2c.dtype


def test_height_and_distances_survive_yaw() -> None:
    before, after = cameras(), augment(cameras(), AugmentConfig(yaw=True), seeded(1))

    def centers(batch: CameraBatch) -> Tensor:
        return -(batch.w2c[..., :3, :3].mT @ batch.w2c[..., :3, 3:])[..., 0]

    assert not torch.allclose(centers(before), centers(after))
    torch.testing.assert_close(centers(before)[..., 2], centers(after)[..., 2])
    torch.testing.assert_close(centers(before).norm(dim=-1), centers(after).norm(dim=-1))


def test_turns_are_uniform_and_scales_fill_their_range_each_sample_its_own() -> None:
    scale, rotation = similarity_drawn(AugmentConfig(yaw=True, scale=(0.7, 1.1)), 0, samples=4000)
    angle = torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0])
    counts = torch.histc(angle, bins=8, min=-math.pi, max=math.pi)
    assert counts.min() > 400
    assert 0.7 <= scale.min() < 0.71 and 1.09 < scale.max() <= 1.1


def test_yaw_is_counter_clockwise_seen_from_above() -> None:
    quarter = yaw_rotation(torch.tensor([math.pi / 2]))[0]
    torch.testing.assert_close(quarter @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))


@pytest.mark.parametrize("device_type", ["cpu"])
def test_autocast_does_not_round_cameras(device_type: str) -> None:
    exact = augment(cameras(), BOTH, seeded(5)).w2c
    single = CameraBatch(cameras().K.float(), cameras().w2c.float())
    with torch.autocast(device_type, torch.bfloat16):
        rounded = augment(single, BOTH, seeded(5)).w2c
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.double(), exact, rtol=0, atol=1e-6)


def test_moved_gaussians_in_moved_cameras_are_the_same_picture() -> None:
    torch.manual_seed(0)
    gaussians = Gaussians(
        means=0.4 * torch.randn(2, 40, 3, dtype=torch.float64),
        quats=torch.nn.functional.normalize(torch.randn(2, 40, 4, dtype=torch.float64), dim=-1),
        scales=0.05 + 0.1 * torch.rand(2, 40, 3, dtype=torch.float64),
        opacities=torch.rand(2, 40, dtype=torch.float64),
        sh0=torch.randn(2, 40, 1, 3, dtype=torch.float64),
    )
    scale, rotation = similarity_drawn(BOTH, 9)
    half = torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0]) / 2
    zero = torch.zeros_like(half)
    moved = replace(
        gaussians,
        means=scale[:, None, None] * gaussians.means @ rotation.mT,
        scales=scale[:, None, None] * gaussians.scales,
        quats=quaternion_product(torch.stack([half.cos(), zero, zero, half.sin()], -1), gaussians.quats),
    )
    before, after = cameras(), augment(cameras(), BOTH, seeded(9))
    one = render(gaussians, before.K, before.w2c, SIZE, SIZE)
    other = render(moved, after.K, after.w2c, SIZE, SIZE)
    assert one.alpha.mean() > 0.1
    torch.testing.assert_close(other.rgb, one.rgb, rtol=0, atol=1e-9)
    torch.testing.assert_close(other.alpha, one.alpha, rtol=0, atol=1e-9)


def quaternion_product(turn: Tensor, quats: Tensor) -> Tensor:
    """Hamilton product, wxyz. [B, 4] and [B, N, 4] -> [B, N, 4]"""
    a, b, c, d = turn[:, None].unbind(-1)
    w, x, y, z = quats.unbind(-1)
    return torch.stack(
        [
            a * w - b * x - c * y - d * z,
            a * x + b * w + c * z - d * y,
            a * y - b * z + c * w + d * x,
            a * z + b * y - c * x + d * w,
        ],
        dim=-1,
    )
