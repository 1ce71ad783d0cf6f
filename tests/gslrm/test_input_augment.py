"""Faults of generated views: on inputs alone, as strong as asked, cameras true, and nothing where off."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.rays import CameraBatch, pixel_rays
from mouse_facelift.gslrm.config import InputAugmentConfig
from mouse_facelift.gslrm.input_augment import augment_inputs, blur, multiply_colours, shift
from mouse_facelift.gslrm.jpeg import _tables, compress

SIZE = 40
STRENGTHS = {"noise": 0.1, "blur": 2.0, "jpeg": 80, "colour": 0.3, "shift_px": 5}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rig(samples: int = 2, views: int = 3) -> CameraBatch:
    angles = np.linspace(0, 5, samples * views)
    cameras = [
        Camera.look_at((2.7 * np.cos(a), 2.7 * np.sin(a), 0.3), (0, 0, 0), 1.1 * SIZE, SIZE) for a in angles
    ]
    K = torch.tensor(np.stack([c.K for c in cameras])).float().unflatten(0, (samples, views))
    w2c = torch.tensor(np.stack([c.w2c for c in cameras])).float().unflatten(0, (samples, views))
    return CameraBatch(K, w2c)


def pictures(background: float = 1.0, samples: int = 2, views: int = 3) -> Tensor:
    """Smooth colours inside a disc, on the background, and its alpha."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, SIZE),) * 2, indexing="ij")
    phase = torch.rand(samples, views, 3, 1, 1, generator=seeded(9)) * 6
    rgb = 0.5 + 0.4 * torch.sin(5 * x + 3 * y + phase)
    alpha = ((0.6 - (x**2 + y**2).sqrt()) * SIZE / 2 + 0.5).clamp(0, 1).expand(samples, views, 1, -1, -1)
    return torch.cat([rgb * alpha + background * (1 - alpha), alpha], dim=2)


def apply(seed: int = 0, background: float = 1.0, **settings: float) -> tuple[Tensor, CameraBatch]:
    config = InputAugmentConfig.model_validate({"probability": 1.0, **settings})
    return augment_inputs(pictures(background), rig(), config, background, seeded(seed))


@pytest.mark.parametrize("settings", [{}, {**STRENGTHS, "probability": 0.0}])
def test_what_is_off_changes_no_bit_and_draws_nothing(settings: dict) -> None:
    generator, shown, cameras = seeded(), pictures(), rig()
    result = augment_inputs(shown, cameras, InputAugmentConfig(**settings), 1.0, generator)
    assert result[0] is shown and result[1] is cameras
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=seeded()))


@pytest.mark.parametrize("name", STRENGTHS)
def test_each_one_acts_alone_and_what_is_off_does_not_shift_its_draws(name: str) -> None:
    """The first draws are the choice of views, then come its own, whatever else there is."""
    changed, cameras = apply(**{name: STRENGTHS[name]})
    assert not torch.equal(changed[:, :, :3], pictures()[:, :, :3])
    assert torch.equal(changed[:, :, 3:], pictures()[:, :, 3:]) is (name != "shift_px")
    assert torch.equal(cameras.K, rig().K) is (name != "shift_px")
    assert torch.equal(cameras.w2c, rig().w2c)
    assert (changed >= 0).all() and (changed <= 1).all()
    assert torch.equal(changed, apply(**{name: STRENGTHS[name]})[0])
    assert not torch.equal(changed, apply(seed=1, **{name: STRENGTHS[name]})[0])


@pytest.mark.parametrize("name", ["noise", "blur", "jpeg", "colour"])
def test_stronger_settings_change_more(name: str) -> None:
    steps = [STRENGTHS[name] * share for share in (0.1, 0.3, 1.0)]
    steps = [int(step) for step in steps] if name == "jpeg" else steps
    changes = [(apply(**{name: step})[0] - pictures()).square().mean().item() for step in steps]
    assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("background", [0.0, 1.0])
def test_only_the_animal_changes_its_colours(background: float) -> None:
    changed, _ = apply(background=background, colour=0.3)
    before = pictures(background)
    outside = (before[:, :, 3:] == 0).expand_as(before)
    assert torch.equal(changed[outside], before[outside])
    animal = multiply_colours(before[:, :, :3], before[:, :, 3:], background, torch.full((2, 3, 3), 0.5))
    inside = (before[:, :, 3:] == 1).expand(-1, -1, 3, -1, -1)
    torch.testing.assert_close(animal[inside], 0.5 * before[:, :, :3][inside])


def test_share_of_changed_views_follows_the_probability() -> None:
    config = InputAugmentConfig(probability=0.25, noise=0.1, shift_px=9)
    shown, cameras = pictures(samples=100), rig(samples=100)
    changed, moved = augment_inputs(shown, cameras, config, 1.0, seeded())
    touched = (changed != shown).flatten(2).any(-1)
    assert 0.17 < touched.float().mean() < 0.33
    assert torch.equal(moved.K[~touched], cameras.K[~touched])
    assert torch.equal(changed[~touched], shown[~touched])


@given(x=st.integers(-SIZE - 3, SIZE + 3), y=st.integers(-SIZE - 3, SIZE + 3))
def test_shifted_pixels_keep_their_colour_and_their_ray(x: int, y: int) -> None:
    shown, cameras = pictures(), rig()
    moved, told = shift(shown, cameras, torch.tensor([x, y]).expand(2, 3, 2), 1.0)
    old_rays, rays = (pixel_rays(c.K, c.w2c, SIZE, SIZE)[1] for c in (cameras, told))
    outside = torch.ones(SIZE, SIZE, dtype=torch.bool)
    for row in range(SIZE):
        for column in range(0, SIZE, 7):
            if 0 <= row + y < SIZE and 0 <= column + x < SIZE:
                new = (..., row + y, column + x)
                assert torch.equal(moved[new], shown[..., row, column])
                torch.testing.assert_close(rays[new], old_rays[..., row, column], rtol=0, atol=1e-6)
    outside[max(0, y) : max(0, SIZE + min(0, y)), max(0, x) : max(0, SIZE + min(0, x))] = False
    assert (moved[:, :, :3, outside] == 1).all() and (moved[:, :, 3, outside] == 0).all()


def test_projected_points_move_with_the_pixels() -> None:
    changed, told = apply(shift_px=5)
    point = torch.tensor([0.1, -0.2, 0.3])
    moved = []
    for cameras in (rig(), told):
        seen = (cameras.w2c[..., :3, :3] @ point + cameras.w2c[..., :3, 3])[..., None]
        pixel = (cameras.K @ seen)[..., 0]
        moved.append(pixel[..., :2] / pixel[..., 2:])
    offsets = (moved[1] - moved[0]).round()
    torch.testing.assert_close(moved[1] - moved[0], offsets, rtol=0, atol=1e-4)
    assert offsets.abs().max() <= 5 and len(offsets.flatten(0, 1).unique(dim=0)) > 3
    for sample in range(2):
        for view in range(3):
            shift_xy = offsets[sample, view].int().tolist()
            expected = torch.roll(pictures()[sample, view], shift_xy[::-1], dims=(-2, -1))
            # The disc does not reach the border, so nothing is lost.
            assert torch.equal(changed[sample, view], expected)


def test_blur_is_a_gaussian_of_the_sigma_of_each_view() -> None:
    dots = torch.zeros(1, 3, 1, 41, 41)
    dots[..., 20, 20] = 1
    blurred = blur(dots, torch.tensor([[0.0, 1.0, 2.5]]), 3.0)
    torch.testing.assert_close(blurred[0, 0], dots[0, 0])
    place = torch.arange(41) - 20.0
    for view, sigma in ((1, 1.0), (2, 2.5)):
        profile = blurred[0, view, 0].sum(0)
        assert profile.sum() == pytest.approx(1, abs=1e-5)
        assert (profile * place**2).sum().sqrt() == pytest.approx(sigma, rel=0.01)


@pytest.mark.parametrize("quality", [5, 25, 50, 75, 95])
def test_compression_is_that_of_a_jpeg_file(quality: int) -> None:
    picture = pictures(samples=1, views=1)[:, :, :3, :37, :39]
    picture = picture + 0.05 * torch.randn(picture.shape, generator=seeded())
    mine = (compress(picture, torch.full((1, 1), float(quality)))[0, 0] * 255).permute(1, 2, 0).numpy()
    eight_bit = (picture.clamp(0, 1) * 255).round().byte()[0, 0].permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(eight_bit).save(file, "JPEG", quality=quality, subsampling=0)
    theirs = Image.open(file)
    luma, chroma, _ = _tables(torch.tensor([float(quality)]))[0].flatten(1).int().tolist()
    assert theirs.quantization == {0: luma, 1: chroma}
    # The library computes in integers: some coefficients that lie between two steps go to the other one.
    difference = np.abs(mine - np.asarray(theirs).astype(float))
    assert difference.mean() < min(1.2, 0.4 * np.abs(mine - eight_bit).mean())


def test_views_are_compressed_each_by_its_own_quality() -> None:
    both = pictures(samples=1, views=2)[:, :, :3]
    together = compress(both, torch.tensor([[10.0, 90.0]]))
    for view, quality in enumerate((10.0, 90.0)):
        alone = compress(both[:, view : view + 1], torch.tensor([[quality]]))
        torch.testing.assert_close(together[:, view : view + 1], alone, rtol=0, atol=1 / 255 + 1e-6)


@pytest.mark.parametrize("wrong", [{"noise": -0.1}, {"jpeg": 100}, {"colour": 1.0}, {"probability": 2}])
def test_impossible_strengths_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        InputAugmentConfig(**wrong)
