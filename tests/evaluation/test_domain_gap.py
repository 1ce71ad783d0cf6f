import math

import pytest
import torch
import torch.nn.functional as F

from mouse_facelift.evaluation.domain_gap import (
    BINS,
    FINE,
    common_inside,
    eroded,
    look,
    noise_level,
    power_spectrum,
    ring_centres,
    sharpness_db,
    to_lab,
)

SIZE = 96


def disc(radius: float = 36.0, shift: float = 0.0) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    return (torch.hypot(rows - SIZE / 2, columns - SIZE / 2 - shift) < radius).float()[None, None]


def white_noise(sigma: float, seed: int = 0) -> torch.Tensor:
    return 0.5 + sigma * torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def blurred(picture: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(picture, 3, stride=1, padding=1, count_include_pad=False)


def test_grey_noise_has_a_flat_spectrum_at_its_variance_whatever_the_animals_size():
    noise = (0.1 * torch.randn(8, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))).expand(
        -1, 3, -1, -1
    )
    for radius in (24.0, 40.0):
        spectrum = power_spectrum(0.5 + noise, disc(radius).expand(8, -1, -1, -1) > 0).mean(0)
        assert spectrum[2:].mean() == pytest.approx(0.01, rel=0.1)
        assert spectrum[BINS // 2 :].mean() == pytest.approx(float(spectrum[2 : BINS // 2].mean()), rel=0.25)


def test_a_wave_lies_in_its_ring():
    frequency = 0.3
    wave = 0.5 + 0.2 * torch.cos(2 * math.pi * frequency * torch.arange(SIZE)).expand(1, 3, SIZE, SIZE)
    strongest = int(power_spectrum(wave, disc() > 0)[0].argmax())
    assert ring_centres()[strongest] == pytest.approx(frequency, abs=0.5 / BINS)


def test_a_blurred_picture_is_less_sharp_and_a_noisy_one_more():
    picture, inside = white_noise(0.1), disc() > 0
    real = power_spectrum(picture, inside)
    assert sharpness_db(real, real).item() == pytest.approx(0, abs=1e-4)
    assert sharpness_db(power_spectrum(blurred(picture), inside), real).item() < -6
    noisy = picture + white_noise(0.1, seed=1) - 0.5
    assert sharpness_db(power_spectrum(noisy, inside), real).item() == pytest.approx(3, abs=0.7)
    assert min(c for c in ring_centres() if c >= FINE) < FINE + 1 / (2 * BINS)


def test_what_is_outside_the_animal_counts_nowhere():
    picture, inside = white_noise(0.1).clamp(0, 1), disc() > 0
    other = torch.where(inside, picture, torch.rand(1, 3, SIZE, SIZE))
    a, b = look(picture, inside), look(other, inside)
    for name in ("spectrum", "noise", "lab_mean", "lab_spread"):
        assert torch.allclose(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("levels", [2.0, 8.0])
def test_noise_is_measured_in_grey_levels_and_slopes_are_not_noise(levels):
    slope = torch.linspace(0.2, 0.8, SIZE).expand(1, 3, SIZE, SIZE)
    inside = disc() > 0
    assert noise_level(slope, inside).item() < 0.01
    noisy = slope + white_noise(levels / 255) - 0.5
    assert noise_level(noisy, inside).item() == pytest.approx(levels, rel=0.08)


def test_one_edge_in_the_fur_is_hardly_noise():
    step = torch.zeros(1, 3, SIZE, SIZE)
    step[..., SIZE // 2 :] = 1
    assert noise_level(step, disc() > 0).item() < 0.01


def test_lab_of_known_colours():
    colours = {(1, 1, 1): (100, 0, 0), (0, 0, 0): (0, 0, 0), (1, 0, 0): (53.24, 80.09, 67.20)}
    for rgb, lab in colours.items():
        got = to_lab(torch.tensor(rgb, dtype=torch.float32)[None, :, None, None])[0, :, 0, 0]
        assert torch.allclose(got, torch.tensor(lab, dtype=torch.float32), atol=0.05), rgb


def test_colour_statistics_see_a_cast_and_a_loss_of_contrast():
    picture, inside = white_noise(0.1).clamp(0, 1), disc() > 0
    flat = 0.5 + 0.5 * (picture - 0.5)
    cast = (picture + torch.tensor([0.1, 0, 0])[:, None, None]).clamp(0, 1)
    real, dull, red = look(picture, inside), look(flat, inside), look(cast, inside)
    assert dull.lab_spread[0, 0] < 0.6 * real.lab_spread[0, 0]
    assert red.lab_mean[0, 1] > real.lab_mean[0, 1] + 3


def test_the_common_inside_keeps_away_from_both_outlines():
    inside = common_inside(disc(shift=5), disc(shift=-5))
    assert inside.any()
    grown = F.max_pool2d(inside.float(), 3, stride=1, padding=1) > 0
    assert not (grown & (disc(shift=5) == 0)).any()
    assert not (grown & (disc(shift=-5) == 0)).any()
    everything = torch.ones(1, 1, 8, 8)
    assert int(eroded(everything, 2).sum()) == 16, "the picture's border is an outline too"


def test_without_an_inside_nothing_is_measured():
    empty = look(white_noise(0.1), torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool))
    assert empty.spectrum.isnan().all()
    assert empty.noise.isnan().all()
    assert empty.lab_mean.isnan().all()
