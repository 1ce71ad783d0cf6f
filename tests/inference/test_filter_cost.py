import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mouse_facelift.gaussians import Gaussians, render
from mouse_facelift.gaussians.config import FilterConfig
from mouse_facelift.gaussians.filters import filter_gaussians
from mouse_facelift.geometry import Camera
from mouse_facelift.inference import drawing
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.inference.filter_cost import filter_cost_db
from mouse_facelift.inference.inputs import Views
from mouse_facelift.inference.refine import Refinement
from mouse_facelift.inference.results import Reconstruction
from mouse_facelift.inference.run import run
from mouse_facelift.metrics import psnr

Make = Callable[..., InferConfig]
SIZE = 32


@pytest.fixture
def scene() -> Gaussians:
    """A dark row along x that leaves the published box."""
    x = torch.linspace(0.0, 1.4, 15)
    means = torch.stack([x, 0 * x, 0 * x], dim=-1)
    quats = torch.tensor([1.0, 0, 0, 0]).expand(15, 4)
    return Gaussians(
        means, quats, torch.full((15, 3), 0.08), torch.full((15,), 0.95), torch.full((15, 1, 3), -1.5)
    )


@pytest.fixture
def views(scene: Gaussians) -> Views:
    """What two cameras see of the whole row."""
    cameras = [Camera.look_at(center, (0, 0, 0), 30.0, SIZE) for center in ((0, -2.7, 0.2), (0.3, 2.7, 0))]
    K = torch.stack([torch.from_numpy(camera.K).float() for camera in cameras])
    w2c = torch.stack([torch.from_numpy(camera.w2c).float() for camera in cameras])
    picture = render(scene, K, w2c, SIZE, SIZE, 1.0)
    return Views(torch.cat([picture.rgb, (picture.alpha > 0.3).float()], dim=1).clamp(0, 1), (4, 6), K, w2c)


def result(scene: Gaussians, filters: FilterConfig, shown: tuple[int, ...] = (4, 6)) -> Reconstruction:
    kept, report = filter_gaussians(scene, filters)
    return Reconstruction(kept, report, shown, unfiltered=scene)


def test_cost_is_the_psnr_that_the_shown_views_lose(scene: Gaussians, views: Views) -> None:
    found = result(scene, FilterConfig(), shown=(6,))
    assert 0 < len(found.gaussians) < len(scene)
    K, w2c, rgba = views.K[1:], views.w2c[1:], views.rgba[1:]
    real = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
    before, after = (
        float(psnr(render(gaussians, K, w2c, SIZE, SIZE, 1.0).rgb, real, rgba[:, 3:]))
        for gaussians in (scene, found.gaussians)
    )
    assert filter_cost_db(views, found, 1.0) == pytest.approx(before - after, abs=1e-4)
    assert before - after > 5


def test_filters_that_cut_nothing_cost_nothing(scene: Gaussians, views: Views) -> None:
    harmless = FilterConfig(box=None, min_opacity=0, max_scale=None, floater_distance=None)
    assert filter_cost_db(views, result(scene, harmless), 1.0) == 0


def test_refined_gaussians_do_not_hide_the_cost(scene: Gaussians, views: Views) -> None:
    found = result(scene, FilterConfig())
    assert filter_cost_db(views, replace(found, gaussians=scene), 1.0) == filter_cost_db(views, found, 1.0)


def test_without_cameras_nothing_is_measured(scene: Gaussians, views: Views) -> None:
    assert filter_cost_db(Views(views.rgba, views.view_ids), result(scene, FilterConfig()), 1.0) is None
    blank = replace(views, rgba=views.rgba * torch.tensor([1.0, 1, 1, 0]).view(1, 4, 1, 1))
    assert filter_cost_db(blank, result(scene, FilterConfig()), 1.0).isnan()


def test_what_is_known_of_the_filtered_views_is_not_drawn_again(scene: Gaussians, views: Views) -> None:
    found = result(scene, FilterConfig(), shown=(6,))
    real = views.rgba[:, :3] * views.rgba[:, 3:] + 1 - views.rgba[:, 3:]
    drawn = render(found.gaussians, views.K, views.w2c, SIZE, SIZE, 1.0).rgb
    known = psnr(drawn, real, views.rgba[:, 3:])
    expected = float(filter_cost_db(views, found, 1.0))
    assert float(filter_cost_db(views, found, 1.0, known)) == pytest.approx(expected, abs=1e-4)
    refined = replace(found, refinement=Refinement(1, 1.0, 0.5))
    misleading = torch.full_like(known, 99.0)
    assert float(filter_cost_db(views, refined, 1.0, misleading)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("cost", "warned"), [(0.51, True), (0.49, False), (None, False)])
def test_costly_filters_are_told_and_measured(
    config: Make,
    balls: Path,
    cost: float | None,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(drawing, "filter_cost_db", lambda *_: None if cost is None else torch.tensor(cost))
    with caplog.at_level(logging.WARNING):
        out = run(config(f"input={balls}", "limit=1"))
    assert ("sample_000000: the filters cost the shown views 0.51 dB" in caplog.text) == warned
    metrics = json.loads((out / "sample_000000" / "metrics.json").read_text())
    assert metrics["filter"]["psnr_cost_db"] == pytest.approx(cost)
