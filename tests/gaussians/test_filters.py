import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

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


def published(shared: Path) -> tuple[dict[str, Any], dict[str, Tensor], Gaussians]:
    folder = shared / "fixtures/facelift"
    tensors = load_file(folder / "ply.safetensors")
    gaussians = Gaussians(
        tensors["xyz"],
        tensors["rotation"],
        tensors["act_scaling"],
        tensors["act_opacity"][:, 0],
        tensors["features"],
    )
    return json.loads((folder / "ply.json").read_text())["cases"], tensors, gaussians


@pytest.mark.parity
def test_published_settings_keep_the_published_gaussians(shared: Path):
    """All but the rule of distances from cameras, which no published caller uses and we do not have."""
    cases, tensors, gaussians = published(shared)
    checked = 0
    for name, case in cases.items():
        if case.get("cam_origins") is not None:
            continue
        box = None
        if "crop_bbx" in case:
            low, box = case["crop_bbx"][::2], tuple(case["crop_bbx"][1::2])
            assert low == [-value for value in box], "our box is centred"
        config = FilterConfig(
            min_opacity=case.get("opacity_thres", 0.0),
            max_scale=case.get("scaling_thres"),
            floater_distance=case.get("floater_thres"),
            box=box,
        )
        kept, report = filter_gaussians(gaussians, config)
        assert report.kept.nonzero()[:, 0].tolist() == tensors[f"{name}.kept_index"].tolist(), name
        assert len(kept) == case["n_kept"]
        checked += 1
    assert checked


@pytest.mark.parity
def test_single_published_rules_are_ours_at_some_threshold(shared: Path):
    """The fixtures do not tell the thresholds of single rules, but which values each kept and dropped."""
    _, tensors, gaussians = published(shared)
    x, y, z = gaussians.means.unbind(-1)
    below = torch.minimum(torch.minimum(x.abs(), y.abs()), -z)

    def chosen(rule: str) -> Tensor:
        kept = torch.zeros(len(gaussians), dtype=torch.bool)
        kept[tensors[f"single.{rule}.kept_index"]] = True
        return kept

    kept = chosen("prune")
    opacity = OFF.model_copy(update={"min_opacity": float(gaussians.opacities[~kept].max())})
    assert filter_gaussians(gaussians, opacity)[1].kept.equal(kept)
    kept = chosen("prune_by_scaling")
    scale = OFF.model_copy(update={"max_scale": float(gaussians.scales.amax(-1)[~kept].min())})
    assert filter_gaussians(gaussians, scale)[1].kept.equal(kept)
    kept = chosen("crop_by_xyz")
    floater = OFF.model_copy(update={"floater_distance": float(below[kept].max())})
    assert filter_gaussians(gaussians, floater)[1].kept.equal(kept)


def test_colours_that_depend_on_the_view_are_kept_with_their_gaussians():
    gaussians = scene([(9, 0, 0), (0, 0, 0)], [0.9, 0.9], [0.1, 0.01])
    rest = torch.arange(18.0).view(2, 3, 3)
    kept, _ = filter_gaussians(replace(gaussians, sh_rest=rest), FilterConfig())
    assert kept.sh_rest.equal(rest[1:])
