from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from mouse_facelift.errors import DataError
from mouse_facelift.gaussians import Gaussians
from mouse_facelift.gaussians.config import FilterConfig
from mouse_facelift.gaussians.filters import filter_gaussians

OFF = FilterConfig(min_opacity=0.0, max_scale=None, floater_distance=None, box=None)


def scene(means: list[tuple[float, float, float]], opacities: list[float], scales: list[float]) -> Gaussians:
    count = len(means)
    return Gaussians(
        torch.tensor(means),
        torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4),
        torch.tensor(scales)[:, None] * torch.tensor([0.1, 1.0, 0.5]),
        torch.tensor(opacities),
        torch.zeros(count, 1, 3),
    )


def test_every_rule_drops_what_it_says_and_counts_it_once():
    gaussians = scene(
        [(0, 0, 0), (0, 0, 0), (0, 0, -0.1), (0, 0, 0.1), (0.7, -0.7, -0.7), (0, 0, 1.0), (0, 0, 1.01)],
        [0.5, 0.04, 0.5, 0.5, 0.5, 0.5, 0.5],
        [0.01, 0.5, 0.1, 0.1, 0.01, 0.01, 0.01],
    )
    kept, report = filter_gaussians(gaussians, FilterConfig())
    assert report.kept.tolist() == [True, False, False, True, False, True, False]
    assert report.dropped == {"min_opacity": 1, "max_scale": 1, "floater_distance": 1, "box": 1}
    torch.testing.assert_close(kept.means, gaussians.means[report.kept])
    assert report.opacity_cut == pytest.approx(1.5 / 3.04)


def test_rules_can_be_switched_off():
    gaussians = scene([(9, 9, -9), (0, 0, 0)], [0.01, 0.9], [3.0, 0.1])
    kept, report = filter_gaussians(gaussians, OFF)
    assert len(kept) == 2
    assert report.dropped == {"min_opacity": 0}
    assert report.opacity_cut == 0


def test_nothing_left_and_nothing_there_are_no_errors():
    kept, report = filter_gaussians(scene([(9, 0, 0)], [0.9], [0.1]), FilterConfig())
    assert len(kept) == 0
    assert report.opacity_cut == 1
    assert filter_gaussians(kept, FilterConfig())[1].opacity_cut == 0


def test_batch_is_refused():
    with pytest.raises(DataError, match="one by one"):
        filter_gaussians(scene([(0, 0, 0)], [0.9], [0.1])[None], FilterConfig())


@pytest.mark.parametrize("values", [{"min_opacity": 1.0}, {"max_scale": 0.0}, {"box": (1.0, 1.0, -1.0)}])
def test_impossible_settings_are_refused(values: dict[str, object]):
    with pytest.raises(ValidationError):
        FilterConfig.model_validate(values)


CASES = {
    "unfiltered": OFF,
    "inference": FilterConfig(),
    "gradio": FilterConfig(max_scale=0.2, floater_distance=0.75),
    "training_visual": FilterConfig(
        min_opacity=0.02, max_scale=None, floater_distance=None, box=(0.91, 0.91, 0.91)
    ),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", CASES)
def test_published_settings_keep_the_published_gaussians(shared: Path, name: str):
    published = load_file(shared / "fixtures/facelift/ply.safetensors")
    gaussians = Gaussians(
        published["xyz"],
        published["rotation"],
        published["act_scaling"],
        published["act_opacity"][:, 0],
        published["features"],
    )
    _, report = filter_gaussians(gaussians, CASES[name])
    assert report.kept.nonzero()[:, 0].tolist() == published[f"{name}.kept_index"].tolist()
