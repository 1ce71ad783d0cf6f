import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.errors import DataError
from mouse_facelift.gaussians import Gaussians
from mouse_facelift.gaussians.harmonics import SH_C0
from mouse_facelift.viewer.scene import BYTES, STEPS, pack, unpack


def random_gaussians(seed: int, count: int = 200, size: float = 0.9) -> Gaussians:
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=random)

    return Gaussians(
        means=size * (2 * uniform(count, 3) - 1),
        quats=torch.randn(count, 4, generator=random),
        scales=size * torch.exp(-8 * uniform(count, 3)),
        opacities=0.01 + 0.99 * uniform(count),
        sh0=(1.3 * uniform(count, 1, 3) - 0.5) / SH_C0,
    )


def turns_rad(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Angles between rotations."""
    one, other = (torch.nn.functional.normalize(quats.double(), dim=-1) for quats in (one, other))
    chord = torch.minimum((one - other).norm(dim=-1), (one + other).norm(dim=-1))
    return 4 * torch.asin((chord / 2).clamp_max(1))


@given(seed=st.integers(0, 1000), size=st.sampled_from([1e-2, 0.9, 500.0]))
def test_packing_keeps_gaussians_to_a_fraction_of_a_pixel(seed: int, size: float) -> None:
    scene = random_gaussians(seed, size=size)
    packed = pack(scene)
    back = unpack(packed)
    box = scene.means.amax(0) - scene.means.amin(0)
    assert len(packed) == len(back) == 200
    assert packed.left_out == 0
    assert ((back.means - scene.means).abs() <= 0.51 * box / STEPS + 1e-6 * size).all()
    assert (back.scales / scene.scales - 1).abs().max() < 2e-4
    assert turns_rad(back.quats, scene.quats).max() < 4e-3
    assert (back.opacities - scene.opacities).abs().max() < 0.51 / 255
    assert (back.rgb - scene.rgb).abs().max() < 0.51 * packed.color_max / 255


def test_a_gaussian_takes_twenty_bytes() -> None:
    assert len(pack(random_gaussians(0, 77)).data) == 77 * BYTES == 77 * 20


def test_colours_above_one_are_kept_up_to_two() -> None:
    scene = random_gaussians(0, 3)
    scene.sh0[:] = torch.tensor([1.5, 0.5, 9.0])[:, None, None].sub(0.5) / SH_C0
    assert torch.allclose(unpack(pack(scene)).rgb[:, 0], torch.tensor([1.5, 0.5, 2.0]), atol=0.005)


def test_too_many_leave_out_what_covers_least_and_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    scene = random_gaussians(1, 10)
    scene.opacities[:] = 0.5
    scene.scales[:] = torch.arange(1.0, 11)[:, None] / 100
    # A needle is long, but covers little.
    scene.scales[9] = torch.tensor([1.0, 1e-5, 1e-5])
    with caplog.at_level(logging.WARNING):
        packed = pack(scene, max_gaussians=4)
    assert packed.left_out == 6
    assert "4 of 10" in caplog.text
    assert torch.allclose(unpack(packed).means, scene.means[5:9], atol=1e-4)


def test_a_gaussian_far_away_does_not_cost_the_others_their_precision(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = random_gaussians(3, 50)
    scene.means[7] = torch.tensor([1e5, 0, 0])
    scene.opacities[:] = 0.5
    with caplog.at_level(logging.WARNING):
        packed = pack(scene)
    assert packed.left_out == 1 and "far away" in caplog.text
    others = [number for number in range(50) if number != 7]
    assert (unpack(packed).means - scene.means[others]).abs().max() < 2e-5


def test_nothing_is_far_where_nearly_all_lie_at_one_point() -> None:
    scene = random_gaussians(3, 50)
    scene.means[:] = 0
    scene.means[7] = 0.5
    scene.opacities[:] = 0.5
    assert len(pack(scene)) == 50


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e10, 1e30])
def test_absurd_scales_are_brought_to_what_can_be_drawn(scale: float) -> None:
    scene = random_gaussians(3, 5)
    scene.opacities[:] = 0.5
    scene.scales[2] = scale
    back = unpack(pack(scene))
    assert back.scales.min() > 1e-8 and back.scales.max() < 2e3
    others = [0, 1, 3, 4]
    assert (back.scales[others] / scene.scales[others] - 1).abs().max() < 1e-3


def test_what_cannot_be_seen_takes_no_room() -> None:
    scene = random_gaussians(2, 10)
    scene.opacities[:5] = 0.003
    packed = pack(scene, max_gaussians=5)
    assert len(packed) == 5
    assert packed.left_out == 0


def test_an_empty_scene_and_a_single_gaussian_can_be_packed() -> None:
    assert len(unpack(pack(random_gaussians(0, 0)))) == 0
    single = random_gaussians(0, 1)
    single.quats[:] = 0
    back = unpack(pack(single))
    assert torch.allclose(back.means, single.means)
    assert np.allclose(back.quats, [[1, 0, 0, 0]], atol=1e-3)


def test_a_batch_is_refused() -> None:
    with pytest.raises(DataError, match="one scene at a time"):
        pack(random_gaussians(0)[None])


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "sh0"])
def test_a_scene_with_nan_is_refused(name: str) -> None:
    scene = random_gaussians(0)
    getattr(scene, name)[3] = math.nan
    with pytest.raises(DataError, match="NaN"):
        pack(scene)
