"""Any number of views, in any order: drawing them for training, and showing them to the model."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mouse_facelift.config import load_config
from mouse_facelift.errors import ConfigError
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.rays import CameraBatch
from mouse_facelift.gslrm import GSLRM, GSLRMConfig, TrainGSLRMConfig
from mouse_facelift.gslrm.config import ViewsConfig
from mouse_facelift.gslrm.views import draw_views, split_views
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.inference.direct import Direct
from mouse_facelift.inference.inputs import Views
from mouse_facelift.samples.format import Sample

TINY = GSLRMConfig(patch_size=4, width=32, head_width=16, layers=2, gradient_checkpointing=False)
SIZE = 16


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rig(views: int) -> CameraBatch:
    cameras = [
        Camera.look_at((2.7 * np.cos(a), 2.7 * np.sin(a), 0.4), (0, 0, 0), 1.07 * SIZE, SIZE)
        for a in np.linspace(0, 2 * np.pi, views, endpoint=False)
    ]
    K = torch.tensor(np.stack([camera.K for camera in cameras]), dtype=torch.float32)[None]
    return CameraBatch(K, torch.tensor(np.stack([camera.w2c for camera in cameras])).float()[None])


def pictures(views: int) -> torch.Tensor:
    """RGB and silhouette: a block that touches another number of patches in each view. [1, V, 4, H, W]"""
    images = torch.rand(1, views, 4, SIZE, SIZE, generator=seeded(views))
    images[:, :, 3] = 0
    for view in range(views):
        images[:, view, 3, 4 : 8 + 2 * (view % 4), 5:11] = 1
    return images


def model(**changes: Any) -> GSLRM:
    torch.manual_seed(0)
    model = GSLRM(TINY.model_copy(update=changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("views", [2, 4, 6, 8, 16])
@pytest.mark.parametrize("tokens", ["dense", "foreground"])
@pytest.mark.parametrize("anchor", ["origin", "hull"])
def test_order_of_views_changes_only_the_order_of_gaussians(views: int, tokens: str, anchor: str) -> None:
    network = model(tokens=tokens, depth_anchor=anchor, token_multiple=1)
    images, cameras = pictures(views), rig(views)
    order = torch.randperm(views, generator=seeded(1))[None]
    with torch.no_grad():
        before, after = network(images, cameras), network(images[:, order[0]], cameras.select(order))
    free = TINY.free_gaussians
    assert len(before) == len(after)
    if tokens == "dense":
        assert len(before) == free + views * SIZE**2
        shuffled = before.means[0, free:].unflatten(0, (views, -1))[order[0]].flatten(0, 1)
        torch.testing.assert_close(after.means[0, free:], shuffled, rtol=0, atol=1e-5)
    torch.testing.assert_close(after.means[0, :free], before.means[0, :free], rtol=0, atol=1e-5)
    # As sets, each with position, colour, size and opacity, they are the same.
    sets = [
        torch.cat([g.means[0], g.rgb[0], g.scales[0], g.opacities[0, :, None]], -1) for g in (before, after)
    ]
    distances = torch.cdist(*sets, compute_mode="donot_use_mm_for_euclid_dist")
    assert max(distances.min(0).values.max(), distances.min(1).values.max()) < 1e-4


@pytest.mark.parametrize("views", [2, 4, 6, 8])
def test_inference_takes_any_number_of_views(views: int) -> None:
    config = load_config(InferConfig, None, ["gslrm=g", "input=i", "output=o", "filter.min_opacity=0"])
    cameras, rgba = rig(views), pictures(views)[0]
    ids = tuple(range(10, 10 + views))
    result = Direct(config, model())(Views(rgba, ids, cameras.K[0], cameras.w2c[0]))
    assert result.shown_ids == ids
    assert len(result.report.kept) == TINY.free_gaussians + views * SIZE**2


def draw(config: ViewsConfig, samples: int, views: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """From views that are all alike."""
    alike = torch.ones(samples, views, dtype=torch.bool)
    return draw_views(config, alike, alike, seeded(seed))


def test_number_of_inputs_is_drawn_anew_and_the_same_for_a_batch() -> None:
    config = ViewsConfig(input_views=(3, 6), target_views=2)
    shapes = [draw(config, 5, 8, seed)[0].shape for seed in range(40)]
    assert {shape[0] for shape in shapes} == {5}
    assert {shape[1] for shape in shapes} == {3, 4, 5, 6}


def test_inputs_are_drawn_without_repetition_and_per_sample() -> None:
    inputs, _ = draw(ViewsConfig(input_views=4), 200, 6)
    assert inputs.shape == (200, 4)
    assert (inputs.diff(dim=1) > 0).all()
    assert len(inputs.unique(dim=0)) == 15
    assert torch.bincount(inputs.flatten(), minlength=6).min() > 100


@pytest.mark.parametrize(("targets", "apart"), [("any", False), ("apart", True)])
def test_targets_lie_apart_from_inputs_where_asked(targets: str, apart: bool) -> None:
    config = ViewsConfig(input_views=4, target_views=2, targets=targets)
    inputs, compared = draw(config, 100, 6)
    shared = (inputs[:, :, None] == compared[:, None]).any(dim=(1, 2))
    assert shared.any().item() is not apart


def test_inputs_fill_up_targets_where_other_views_do_not_suffice() -> None:
    config = ViewsConfig(input_views=4, target_views=4, targets="apart")
    inputs, targets = draw(config, 100, 6)
    for shown, compared in zip(inputs.tolist(), targets.tolist(), strict=True):
        assert set(range(6)) - set(shown) <= set(compared)
        assert len(set(compared)) == 4


def test_never_more_views_are_drawn_than_there_are() -> None:
    config = ViewsConfig(input_views=(2, 6), target_views=6)
    for seed in range(20):
        inputs, targets = draw(config, 7, 3, seed)
        assert inputs.shape[1] in (2, 3)
        assert torch.equal(targets, torch.arange(3).expand(7, 3))


@pytest.mark.parametrize("views", [0, [0, 3], [4, 3]])
def test_impossible_numbers_of_views_are_refused(views: int | list[int]) -> None:
    with pytest.raises(ValidationError, match="1 <= least <= most"):
        ViewsConfig(input_views=views)


def training(*settings: str) -> TrainGSLRMConfig:
    return load_config(TrainGSLRMConfig, None, ["data.train_list=list.txt", "output=out", *settings])


def samples(*view_ids: int) -> Any:
    """A data set, or a mixture of this one, as far as views are concerned."""
    positions = tuple(range(len(view_ids)))
    data = SimpleNamespace(
        view_ids=list(view_ids),
        samples=[Sample(Path("sample_000000"), "sample_000000", ())],
        input_positions=positions,
        target_positions=positions,
        views=len(view_ids),
    )
    data.sets = [data]
    return data


def test_validation_holds_out_what_it_does_not_show() -> None:
    data = samples(7, 5, 3, 1, 9, 8)
    split = split_views(training("validation.input_views=4", "data.val_list=val.txt"), data, data)
    assert split.trained == (0, 1, 2, 3, 4, 5)
    assert split.shown == (0, 1, 3, 4) and split.held_out == (2, 5)
    assert split.names(data.view_ids) == {"input_views": "7 5 1 9", "held_out_views": "3 8"}


def test_validation_on_training_samples_is_said(caplog: pytest.LogCaptureFixture) -> None:
    data = samples(*range(6))
    split = split_views(training("validation.input_views=6"), data, data)
    assert split.names(data.view_ids)["held_out_views"] == "none"
    assert "training has seen its held-out views" in caplog.text


@pytest.mark.parametrize(("count", "asked", "held_out"), [(6, 4, 2), (6, 6, 1), (2, 4, 1), (16, 16, 1)])
def test_overfit_never_trains_on_held_out_views_and_says_which(
    count: int, asked: int, held_out: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = samples(*range(100, 100 + count))
    config = training("overfit=1", f"validation.input_views={asked}", "views.input_views=6")
    with caplog.at_level(logging.INFO):
        split = split_views(config, data, data)
    assert len(split.held_out) == held_out
    assert split.trained == split.shown
    assert sorted(split.shown + split.held_out) == list(range(count))
    names = split.names(data.view_ids)["held_out_views"]
    assert f"held out, and never trained on: {names}\n" in caplog.text


def test_overfit_to_a_single_view_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a view to show and one to hold out.* have 1 \(sample_000000\)"):
        split_views(training("overfit=1"), samples(4), samples(4))


def test_the_most_inputs_of_a_range_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"views.input_views is 6, but the samples have 5 views"):
        split_views(training("views.input_views=[3,6]"), samples(*range(5)), samples(*range(5)))
