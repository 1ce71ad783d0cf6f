"""Validation of the multi-view diffusion: the same figures for the same weights, and what they mean."""

import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor

from mouse_facelift.mvdiffusion.config import SamplingConfig, TrainMVDiffConfig, ValidationConfig
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.mvdiffusion.task import SlotDataset
from mouse_facelift.mvdiffusion.train import run
from mouse_facelift.mvdiffusion.validation import mean_scores, signed_error, validate, view_scores, write_grid
from mouse_facelift.samples.datasets import SampleDataset

SETTINGS = ValidationConfig(samples=2, sampling=SamplingConfig(steps=2))
MakeConfig = Callable[..., TrainMVDiffConfig]


@pytest.fixture
def data(write_samples: Callable[..., Path], tmp_path: Path) -> SampleDataset:
    return SampleDataset.from_list(write_samples(tmp_path / "data", 5), 32)


@pytest.fixture(params=["rig", "pose"])
def pipeline(
    request: pytest.FixtureRequest, data: SampleDataset, train_config: MakeConfig
) -> MVDiffusionPipeline:
    sizes, make = train_config().start.sizes, {"rig": Slots.rig, "pose": Slots.pose}[request.param]
    return random_pipeline(sizes, make(data.samples, 32), seed=0)


def animal(generator: Generator) -> tuple[Tensor, Tensor]:
    """Two textured squares on white and their alpha. [2, 3, 32, 32], [2, 1, 32, 32]"""
    alpha = torch.zeros(2, 1, 32, 32)
    alpha[0, :, 8:24, 8:24] = 1
    alpha[1, :, 4:20, 6:28] = 1
    texture = 0.2 + 0.3 * torch.rand(2, 3, 32, 32, generator=generator)
    return texture * alpha + 1 - alpha, alpha


def test_equal_weights_give_equal_figures_and_pictures_whatever_else_is_drawn(
    pipeline: MVDiffusionPipeline, data: SampleDataset, tmp_path: Path
) -> None:
    samples = SlotDataset(data, pipeline.slots)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = validate(pipeline, samples, SETTINGS, tmp_path / "first")
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    again = validate(pipeline, samples, SETTINGS, tmp_path / "again")
    assert first == again
    for name in ("views_00.png", "views_01.png"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert not (tmp_path / "first" / "views_02.png").exists()


def test_samples_are_spread_over_the_recording(
    pipeline: MVDiffusionPipeline, data: SampleDataset, tmp_path: Path
) -> None:
    asked: list[int] = []

    class Watched(SlotDataset):
        def __getitem__(self, index: int) -> dict:
            asked.append(index)
            return super().__getitem__(index)

    settings = SETTINGS.model_copy(update={"samples": 3})
    validate(pipeline, Watched(data, pipeline.slots), settings, tmp_path)
    assert asked == [0, 1, 3]


def test_posed_model_is_told_the_samples_own_cameras(
    pipeline: MVDiffusionPipeline, data: SampleDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    plain = MVDiffusionPipeline.__call__

    def watched(self: MVDiffusionPipeline, images: Tensor, **settings: object) -> Tensor:
        told.append((images, settings["cameras"]))
        return plain(self, images, **settings)

    monkeypatch.setattr(MVDiffusionPipeline, "__call__", watched)
    samples = SlotDataset(data, pipeline.slots)
    validate(pipeline, samples, SETTINGS.model_copy(update={"samples": 1}), tmp_path)
    ((shown, cameras),) = told
    item = samples[0]
    assert shown.shape == (1, 3, 32, 32)
    if pipeline.slots.mode == "pose":
        assert torch.equal(cameras.w2c[0], item["w2c"])
        assert torch.equal(cameras.K[0], item["K"])
    else:
        assert cameras is None


def test_perfect_views_score_perfectly() -> None:
    real, alpha = animal(Generator().manual_seed(0))
    scores = view_scores(real, torch.cat([real, alpha], dim=1))
    assert (scores["psnr_animal"] == 100).all()
    assert (scores["psnr_full"] == 100).all()
    torch.testing.assert_close(scores["ssim_animal"], torch.ones(2))
    assert (scores["iou"] == 1).all()
    assert (scores["psnr_outline"] < 30).all()


def test_outline_score_is_that_of_the_true_outline_in_each_views_mean_colour() -> None:
    real, alpha = animal(Generator().manual_seed(0))
    color = (real * alpha).sum(dim=(2, 3), keepdim=True) / alpha.sum(dim=(2, 3), keepdim=True)
    flat = torch.where(alpha > 0.5, color, torch.ones(()))
    scores = view_scores(flat, torch.cat([real, alpha], dim=1))
    torch.testing.assert_close(scores["psnr_animal"], scores["psnr_outline"])
    assert (scores["iou"] == 1).all()


def test_animal_drawn_elsewhere_scores_worse_than_its_outline() -> None:
    real, alpha = animal(Generator().manual_seed(0))
    scores = view_scores(real.flip(0), torch.cat([real, alpha], dim=1))
    assert (scores["psnr_animal"] < scores["psnr_outline"]).all()
    assert (scores["iou"] < 0.6).all()


def test_means_leave_out_the_shown_view_and_views_without_an_animal() -> None:
    nan = float("nan")
    scores = [
        {"psnr_animal": torch.tensor([50.0, 10, nan]), "ssim_animal": torch.ones(3), "iou": torch.ones(3)},
        {"psnr_animal": torch.tensor([40.0, 20, 30]), "ssim_animal": torch.zeros(3), "iou": torch.ones(3)},
    ]
    means = mean_scores(scores, ["front", "right", "back"])
    assert means["psnr_animal"] == pytest.approx((15 + 30) / 2)
    assert means["psnr_animal_front"] == 45
    assert means["psnr_animal_back"] == 30
    assert means["ssim_animal"] == means["ssim_animal_right"] == 0.5
    assert means["iou"] == 1


def test_error_is_red_where_too_bright_blue_where_too_dark_white_where_right() -> None:
    real = torch.full((1, 3, 1, 3), 0.5)
    generated = real + torch.tensor([0.25, -0.5, 0.0])
    picture = signed_error(generated, real)[0, :, 0]
    torch.testing.assert_close(picture[:, 0], torch.tensor([1, 0.5, 0.5]))
    torch.testing.assert_close(picture[:, 1], torch.tensor([0.0, 0, 1]))
    torch.testing.assert_close(picture[:, 2], torch.ones(3))


def test_small_pictures_are_enlarged_in_grids(tmp_path: Path) -> None:
    real, _ = animal(Generator().manual_seed(0))
    write_grid(tmp_path / "grid.png", real[0], real, 1 - real, ["one", "two"])
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape == (40 + 3 * 160, 3 * 160, 3)
    shown, seen = grid[40:200, :160], grid[40:200, 160:320]
    assert np.array_equal(shown, seen)
    expected = real[0].mul(255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(shown[::5, ::5], expected)
    assert (grid[:40] < 128).any(), "captions are legible"


def test_averaged_weights_are_validated(train_config: MakeConfig, tmp_path: Path) -> None:
    """What a run validated last, it exported: validating the export gives the same figures to the bit."""
    config = train_config(training={"ema_decay": 0.9}, optimizer={"lr": 1e-2})
    output = run(config)
    pipeline = MVDiffusionPipeline.load(output)
    data = SampleDataset.from_list(config.data.val_list, config.data.image_size)
    found = validate(pipeline, SlotDataset(data, pipeline.slots), config.validation, tmp_path / "again")
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    logged = [record for record in records if "validation/psnr_animal" in record][-1]
    assert {name: logged[f"validation/{name}"] for name in found} == found
    last = output / "validation" / "step_00000004" / "views_00.png"
    assert last.read_bytes() == (tmp_path / "again" / "views_00.png").read_bytes()


def test_grids_and_figures_reach_weights_and_biases(
    train_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: dict[str, object] = {}
    wandb = ModuleType("wandb")
    wandb.__spec__ = ModuleSpec("wandb", None)
    wandb.Image = lambda path: Path(path).read_bytes()
    wandb.init = lambda **settings: SimpleNamespace(
        id="x", log=lambda values, step: logged.update(values), finish=lambda exit_code: None
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    output = run(train_config(training={"wandb": "offline"}, validation={"samples": 2}))
    grids = sorted((output / "validation" / "step_00000004").iterdir())
    assert [grid.name for grid in grids] == ["views_00.png", "views_01.png"]
    for grid in grids:
        assert logged[f"validation/{grid.stem}"] == grid.read_bytes()
    assert {
        f"validation/{name}" for name in ("psnr_animal", "psnr_outline", "ssim_animal", "iou")
    } < logged.keys()
