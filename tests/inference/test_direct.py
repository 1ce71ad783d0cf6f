from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mouse_facelift.errors import DataError
from mouse_facelift.geometry.hull_depth import first_hull_depth
from mouse_facelift.geometry.rays import CameraBatch, pixel_rays
from mouse_facelift.gslrm import load_gslrm
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.inference.direct import Direct, reconstruct
from mouse_facelift.inference.inputs import Views, find_sources

Make = Callable[..., InferConfig]


@pytest.fixture
def views(balls: Path) -> Views:
    return find_sources(balls, limit=1)[0].read(None, 0.6)


def test_gslrm_sees_pictures_on_the_background_and_the_real_alpha(
    config: Make, views: Views, gslrm: Path
) -> None:
    seen = {}

    def spy(module: torch.nn.Module, inputs: tuple) -> None:
        seen["images"] = inputs[0]

    model = load_gslrm(gslrm)
    model.register_forward_pre_hook(spy)
    Direct(config("input=x", "input_views=[3,0]", "background=0.25"), model)(views)
    expected = views.rgba[[3, 0]]
    assert torch.equal(seen["images"][0, :, 3:], expected[:, 3:])
    outside = (expected[:, 3:] == 0).expand(-1, 3, -1, -1)
    assert (seen["images"][0, :, :3][outside] == 0.25).all()
    assert torch.equal(seen["images"][0, :, :3][~outside], expected[:, :3][~outside])


def test_only_the_input_views_decide(config: Make, views: Views, gslrm: Path) -> None:
    direct = Direct(config("input=x", "input_views=[0,1,7]"), load_gslrm(gslrm))
    rgba = views.rgba.clone()
    rgba[[2, 3]] = torch.rand(2, 4, 32, 32)
    expected = direct(views)
    found = direct(Views(rgba, views.view_ids, views.K, views.w2c))
    assert torch.equal(found.gaussians.means, expected.gaussians.means)
    assert found.shown_ids == (0, 1, 7)


def test_hull_anchor_uses_the_real_alpha(config: Make, views: Views, hull_gslrm: Path) -> None:
    assert views.K is not None and views.w2c is not None
    model = load_gslrm(hull_gslrm)
    settings = config("input=x", "filter.min_opacity=0", "filter.max_scale=null", "filter.box=null")
    means = Direct(settings, model)(views).gaussians.means
    cameras = CameraBatch(views.K[None], views.w2c[None])
    origins, directions = pixel_rays(cameras.K, cameras.w2c, 32, 32)
    hull = first_hull_depth(views.rgba[None, :, 3], cameras, origins, directions, 1.8, 96)
    anchors = (origins + hull.unsqueeze(2) * directions)[0].movedim(1, -1)[hull[0].isfinite()]
    nearest = torch.cdist(anchors, means).min(dim=1).values
    assert len(anchors) > 300
    assert nearest.max() <= model.config.hull_offset + 1e-5


def test_views_without_cameras_are_refused(config: Make, views: Views, gslrm: Path) -> None:
    with pytest.raises(DataError, match=r"no cameras.*mode=e2e"):
        Direct(config("input=x"), load_gslrm(gslrm))(Views(views.rgba, views.view_ids))


def test_one_view_is_too_few(views: Views, gslrm: Path) -> None:
    assert views.K is not None and views.w2c is not None
    with pytest.raises(DataError, match=r"1 view; .* at least two"):
        reconstruct(load_gslrm(gslrm), views.rgba[:1], views.K[:1], views.w2c[:1])
