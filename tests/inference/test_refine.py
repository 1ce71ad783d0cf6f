"""Refinement on the shown views, against scenes whose truth is known from everywhere."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from mouse_facelift.errors import DataError
from mouse_facelift.gaussians import Gaussians, render
from mouse_facelift.gaussians.turntable import turntable_cameras
from mouse_facelift.inference.config import InferConfig, RefineConfig
from mouse_facelift.inference.refine import _Target, refine
from mouse_facelift.inference.run import run as infer
from mouse_facelift.metrics import psnr

SIZE = 64


@dataclass
class Seen:
    pictures: torch.Tensor
    K: torch.Tensor
    w2c: torch.Tensor


def look(scene: Gaussians, count: int, elevation: float) -> Seen:
    cameras = turntable_cameras(count, SIZE, elevation)
    K, w2c = (
        torch.stack([torch.from_numpy(getattr(camera, name)) for camera in cameras]).float()
        for name in ("K", "w2c")
    )
    drawn = render(scene, K, w2c, SIZE, SIZE, 1.0)
    return Seen(torch.cat([drawn.rgb, drawn.alpha], 1), K, w2c)


@pytest.fixture
def truth() -> Gaussians:
    """A ball of coloured blobs."""
    generator = torch.Generator().manual_seed(0)
    way = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator), dim=-1)
    return Gaussians(
        0.5 * way,
        torch.tensor([1.0, 0, 0, 0]).expand(300, 4),
        torch.full((300, 3), 0.05),
        torch.full((300,), 0.9),
        2 * way[:, None],
    )


@pytest.fixture
def guess(truth: Gaussians) -> Gaussians:
    """What a network might say of it: pale and displaced."""
    generator = torch.Generator().manual_seed(1)
    noise = 0.03 * torch.randn(truth.means.shape, generator=generator)
    return replace(truth, means=truth.means + noise, sh0=0.6 * truth.sh0, opacities=0.6 * truth.opacities)


def quality(scene: Gaussians, seen: Seen) -> float:
    drawn = render(scene, seen.K, seen.w2c, SIZE, SIZE, 1.0)
    return float(psnr(drawn.rgb, seen.pictures[:, :3], seen.pictures[:, 3:]).mean())


def run(scene: Gaussians, seen: Seen, **settings: float) -> tuple:
    return refine(scene, seen.pictures, seen.K, seen.w2c, 1.0, RefineConfig(**settings))


def test_views_that_were_not_shown_get_better_too(truth: Gaussians, guess: Gaussians) -> None:
    shown, unseen = look(truth, 6, 10.0), look(truth, 4, 45.0)
    refined, report = run(guess, shown, steps=60)
    assert report.steps == 60
    assert report.loss_after < 0.4 * report.loss_before
    assert quality(refined, shown) > quality(guess, shown) + 4
    assert quality(refined, unseen) > quality(guess, unseen) + 3
    assert not refined.means.requires_grad


def test_what_no_view_needs_fades(truth: Gaussians) -> None:
    white = replace(truth, means=1.1 * truth.means, sh0=torch.full_like(truth.sh0, 1.8))
    names = ("means", "quats", "scales", "opacities", "sh0")
    both = Gaussians(*(torch.cat([getattr(truth, name), getattr(white, name)]) for name in names))
    seen = look(truth, 6, 10.0)
    faded, kept = (run(both, seen, steps=60, opacity=weight)[0] for weight in (0.05, 0.0))
    assert float(faded.opacities.mean()) < float(kept.opacities.mean()) - 0.02
    assert quality(faded, seen) > quality(kept, seen) - 1


def test_without_steps_nothing_happens(truth: Gaussians, guess: Gaussians) -> None:
    refined, report = run(guess, look(truth, 2, 0.0))
    assert refined is guess and report is None


def test_it_works_where_gradients_are_off_and_leaves_the_input_alone(
    truth: Gaussians, guess: Gaussians
) -> None:
    before = guess.means.clone()
    with torch.no_grad():
        _, report = run(guess, look(truth, 3, 10.0), steps=10)
    assert report.loss_after < report.loss_before
    assert torch.equal(guess.means, before)


def test_a_plateau_ends_it_early(truth: Gaussians, guess: Gaussians) -> None:
    _, report = run(guess, look(truth, 3, 10.0), steps=200, tolerance=0.5, patience=2)
    assert 20 < report.steps < 100
    assert report.steps % 10 == 0


def test_what_makes_it_worse_is_not_kept(truth: Gaussians) -> None:
    refined, report = run(truth, look(truth, 3, 10.0), steps=10, rate_means=5.0)
    assert refined is truth
    assert report.loss_after == report.loss_before


def test_it_never_gives_back_what_cannot_be_written(truth: Gaussians, guess: Gaussians) -> None:
    means = guess.means.clone()
    means[0] = math.nan  # No renderer draws it, so no loss tells.
    broken = replace(guess, means=means)
    refined, _ = run(broken, look(truth, 3, 10.0), steps=10)
    assert refined is broken


def test_the_loss_before_is_that_of_all_that_came_in(truth: Gaussians, guess: Gaussians) -> None:
    shown = look(truth, 3, 10.0)
    pale = replace(guess, opacities=torch.where(torch.arange(300) < 150, guess.opacities, 1e-3))
    _, report = run(pale, shown, steps=1)
    target = _Target.cut_out(shown.pictures, shown.K, shown.w2c, 1.0, len(pale))
    assert report.loss_before == pytest.approx(float(target.loss(pale, RefineConfig())))


def test_floaters_beside_the_animal_and_invisible_gaussians_are_dropped(truth: Gaussians) -> None:
    truth = replace(truth, means=0.4 * truth.means)
    means, opacities = truth.means.clone(), truth.opacities.clone()
    means[0] = torch.tensor([0.0, 0.0, 1.1])
    opacities[1] = 1e-3
    start = replace(truth, means=means, opacities=opacities, sh0=0.5 * truth.sh0)
    refined, _ = run(start, look(truth, 6, 0.0), steps=10)
    assert len(refined) == len(truth) - 2
    assert refined.means[:, 2].max() < 0.7


def test_dropping_the_invisible_is_no_loss(truth: Gaussians, guess: Gaussians) -> None:
    """Their absence must not look like more opacity, or what has got better would be thrown away."""
    pale = replace(guess, opacities=torch.where(torch.arange(300) < 150, guess.opacities, 1e-3))
    refined, report = run(pale, look(truth, 3, 10.0), steps=20, opacity=1.0)
    assert len(refined) == 150
    assert report.loss_after < report.loss_before


def test_a_view_without_an_animal_does_not_count(truth: Gaussians, guess: Gaussians) -> None:
    shown = look(truth, 4, 10.0)
    alone, _ = run(guess, Seen(shown.pictures[1:], shown.K[1:], shown.w2c[1:]), steps=10)
    shown.pictures[0, :3], shown.pictures[0, 3:] = 1, 0
    both, _ = run(guess, shown, steps=10)
    assert torch.allclose(alone.means, both.means, atol=1e-5)


def test_without_any_animal_the_scene_comes_back_with_a_warning(
    truth: Gaussians, caplog: pytest.LogCaptureFixture
) -> None:
    shown = look(truth, 2, 0.0)
    shown.pictures[:, 3:] = 0
    refined, report = run(truth, shown, steps=10)
    assert refined is truth and report is None
    assert "no view shows an animal" in caplog.text


def test_pictures_smaller_than_the_window_of_ssim_are_refused(truth: Gaussians) -> None:
    shown = look(truth, 2, 0.0)
    shown.pictures = shown.pictures[..., :8, :8]
    shown.pictures[:, 3:] = 1
    with pytest.raises(DataError, match="8x8 pixels"):
        run(truth, shown, steps=10)


def test_windows_show_exactly_what_the_whole_pictures_show(truth: Gaussians) -> None:
    small = replace(truth, means=0.4 * truth.means + torch.tensor([0.3, 0.2, 0.1]))
    seen = look(small, 5, 20.0)
    target = _Target.cut_out(seen.pictures, seen.K, seen.w2c, 1.0, len(small))
    height, width = target.rgb.shape[-2:]
    assert height < SIZE and width < SIZE
    drawn = render(small, target.K, target.w2c, width, height, 1.0)
    assert torch.allclose(drawn.rgb, target.rgb, atol=1e-4)
    assert torch.allclose(drawn.alpha, target.alpha, atol=1e-4)
    assert float(target.loss(small, RefineConfig(opacity=0))) < 1e-3
    assert not target.excludes(small.means).any()
    assert math.isclose(float(target.alpha.sum()), float(seen.pictures[:, 3:].sum()), rel_tol=1e-3)


def test_refinement_is_told_in_the_metrics(config: Callable[..., InferConfig], balls: Path) -> None:
    output = infer(config(f"input={balls}", "refine.steps=10", "limit=1", "turntable.frames=0"))
    told = json.loads((output / "sample_000000" / "metrics.json").read_text())["refine"]
    assert told["steps"] == 10
    assert told["loss_after"] < told["loss_before"]


def test_generated_views_refine_too(
    config: Callable[..., InferConfig], balls: Path, rig_pipeline: Path
) -> None:
    settings = (f"input={balls}", "mode=e2e", f"mvdiffusion={rig_pipeline}", "limit=1", "turntable.frames=0")
    output = infer(config(*settings, "refine.steps=10"))
    told = json.loads((output / "sample_000000" / "metrics.json").read_text())["refine"]
    assert told["steps"] == 10
    assert told["loss_after"] < told["loss_before"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_refines_on_a_gpu_as_on_a_cpu(truth: Gaussians, guess: Gaussians) -> None:
    shown = look(truth, 6, 10.0)
    on_cpu, _ = run(guess, shown, steps=20)
    on_gpu, _ = run(guess.to("cuda"), shown, steps=20)
    assert abs(quality(on_gpu.to("cpu"), shown) - quality(on_cpu, shown)) < 0.5
