"""Colour jitter: one animal, one change; the background never moves."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mouse_facelift.mvdiffusion.augment import LUMA, jitter
from mouse_facelift.mvdiffusion.config import AugmentConfig
from mouse_facelift.samples.datasets import composite

SEEDS = st.integers(0, 2**31)
STRENGTHS = st.builds(
    AugmentConfig,
    brightness=st.floats(0, 0.9),
    contrast=st.floats(0, 0.9),
    saturation=st.floats(0, 0.9),
)


def animals(objects: int = 2, views: int = 3, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Random colours inside a disc with a soft edge; white where alpha is 0. [B, V, 4, 8, 8]"""
    generator = torch.Generator().manual_seed(3)
    rgb = low + (high - low) * torch.rand((objects, views, 3, 8, 8), generator=generator)
    rows, columns = torch.meshgrid(torch.arange(8) - 3.5, torch.arange(8) - 3.5, indexing="ij")
    alpha = (3.5 - torch.hypot(rows, columns)).clamp(0, 1).expand(objects, views, 1, 8, 8)
    return torch.cat([torch.where(alpha > 0, rgb, torch.ones(())), alpha], dim=2)


def jittered(rgba: Tensor, seed: int = 0, **strengths: float) -> Tensor:
    return jitter(rgba, AugmentConfig(**strengths), torch.Generator().manual_seed(seed))


@given(STRENGTHS, SEEDS, st.sampled_from([0.0, 0.5, 1.0]))
def test_background_keeps_its_grey_to_the_bit(strengths: AugmentConfig, seed: int, grey: float) -> None:
    rgba = animals()
    changed = jitter(rgba, strengths, torch.Generator().manual_seed(seed))
    outside = (rgba[:, :, 3:] == 0).expand(-1, -1, 3, -1, -1)
    assert (composite(changed, grey)[outside] == grey).all()
    assert torch.equal(changed[:, :, 3], rgba[:, :, 3])
    assert torch.equal(changed[:, :, :3][outside], rgba[:, :, :3][outside])


@given(STRENGTHS, SEEDS)
def test_colours_stay_colours(strengths: AugmentConfig, seed: int) -> None:
    changed = jitter(animals(), strengths, torch.Generator().manual_seed(seed))
    assert changed.min() >= 0
    assert changed.max() <= 1


@given(STRENGTHS, SEEDS)
def test_a_colour_becomes_the_same_colour_in_every_view(strengths: AugmentConfig, seed: int) -> None:
    rgba = animals()
    rgba[:, :, :3, 4, 4] = torch.tensor([0.7, 0.4, 0.3])
    changed = jitter(rgba, strengths, torch.Generator().manual_seed(seed))[:, :, :3, 4, 4]
    assert torch.equal(changed, changed[:, :1].expand_as(changed))


@given(STRENGTHS, SEEDS)
def test_what_is_hidden_under_the_background_does_not_count(strengths: AugmentConfig, seed: int) -> None:
    rgba, other = animals(), animals()
    other[:, :, :3] = torch.where(other[:, :, 3:] == 0, 0.25, other[:, :, :3])
    first, second = (jitter(x, strengths, torch.Generator().manual_seed(seed)) for x in (rgba, other))
    assert torch.equal(composite(first, 1.0), composite(second, 1.0))


def test_nothing_asked_nothing_drawn() -> None:
    rgba, generator = animals(), torch.Generator().manual_seed(1)
    before = generator.get_state()
    assert jitter(rgba, AugmentConfig(), generator) is rgba
    assert torch.equal(generator.get_state(), before)


def test_factors_are_drawn_per_object_from_the_generator() -> None:
    rgba = animals(1).expand(2, -1, -1, -1, -1)
    changed = jittered(rgba, brightness=0.3)
    assert not torch.equal(changed[0], changed[1])
    assert torch.equal(changed, jittered(rgba, brightness=0.3))
    assert not torch.equal(changed, jittered(rgba, seed=1, brightness=0.3))


def test_a_strength_moves_only_what_it_is_named_after() -> None:
    rgba = animals(low=0.4, high=0.6)
    rgb, alpha = rgba[:, :, :3], rgba[:, :, 3:]

    def mean(colours: Tensor) -> Tensor:
        return (colours * alpha).sum((1, 3, 4)) / alpha.sum((1, 3, 4))

    def spread(colours: Tensor) -> Tensor:
        return ((colours - mean(colours)[:, None, :, None, None]).square() * alpha).sum((1, 2, 3, 4)).sqrt()

    brighter = jittered(rgba, brightness=0.5)[:, :, :3]
    inside = (alpha > 0).expand_as(rgb)
    ratios = (brighter / rgb)[0][inside[0]]
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))
    assert 0.5 <= ratios[0] <= 1.5

    contrasted = jittered(rgba, contrast=0.5)[:, :, :3]
    torch.testing.assert_close(mean(contrasted), mean(rgb))
    assert ((spread(contrasted) / spread(rgb) - 1).abs() > 0.01).all()

    saturated = jittered(rgba, saturation=0.5)[:, :, :3]
    luma = torch.tensor(LUMA)[:, None, None]
    torch.testing.assert_close((saturated * luma).sum(2), (rgb * luma).sum(2))
    assert not torch.allclose(saturated, rgb)


def test_mean_colour_is_that_of_all_views_not_of_each() -> None:
    """A view that shows more of a dark belly stays the darker one."""
    rgba = torch.ones(1, 2, 4, 4, 4)
    rgba[0, 0, :3], rgba[0, 1, :3] = 0.2, 0.6
    changed = jittered(rgba, contrast=0.5)
    dark, light = changed[0, 0, 0, 0, 0], changed[0, 1, 0, 0, 0]
    assert (dark + light) / 2 == pytest.approx(0.4)
    assert not torch.isclose(light - dark, torch.tensor(0.4))
