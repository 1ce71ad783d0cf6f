"""A random VAE learns to picture within a short fit."""

import pytest
import torch

from mouse_facelift.mvdiffusion.config import ComponentSizes
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.frozen import FrozenParts
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.mvdiffusion.vae import fit_vae

SIZES = ComponentSizes(vae_channels=(16, 16))


def discs(count: int) -> torch.Tensor:
    """Dark discs on white, at random places. [N, 3, 32, 32]"""
    generator = torch.Generator().manual_seed(0)
    grid = torch.arange(32) + 0.5
    rows, columns = torch.meshgrid(grid, grid, indexing="ij")
    places = torch.rand(count, 2, generator=generator) * 20 + 6
    colours = torch.rand(count, 3, generator=generator) * 0.4
    inside = (rows - places[:, :1, None]) ** 2 + (columns - places[:, 1:, None]) ** 2 < 25
    return torch.where(inside[:, None], colours[:, :, None, None], 1.0)


def fitted(steps: int) -> tuple[FrozenParts, float]:
    frozen = random_pipeline(SIZES, Slots.facelift(32), seed=0).frozen
    psnr = fit_vae(frozen.vae, discs(48), steps=steps, lr=4e-3, batch_size=4, seed=0)
    return frozen, psnr


def test_short_fit_reconstructs_and_gives_latents_unit_variance() -> None:
    frozen, psnr = fitted(60)
    assert psnr > 22
    latents = frozen.encode(discs(48))
    assert latents.std().item() == pytest.approx(1, abs=0.02)
    rebuilt = frozen.decode(latents)
    found = -10 * (rebuilt - discs(48)).square().mean().log10()
    assert found.item() == pytest.approx(psnr, abs=0.1)
    assert not any(parameter.requires_grad for parameter in frozen.vae.parameters())


def test_fit_is_a_function_of_the_seed() -> None:
    first, second = fitted(3)[0].vae.state_dict(), fitted(3)[0].vae.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
