"""Training GS-LRM on balls whose colour is their surface normal."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from mouse_facelift.config import load_config
from mouse_facelift.errors import CheckpointError, ConfigError
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.rays import pixel_rays
from mouse_facelift.gslrm import GSLRM, TrainGSLRMConfig, load_gslrm, save_gslrm
from mouse_facelift.gslrm import train as gslrm_train
from mouse_facelift.gslrm.train import GSLRMTask, draw_views
from mouse_facelift.samples.datasets import SampleDataset
from mouse_facelift.samples.format import write_list, write_sample
from mouse_facelift.training.checkpoints import checkpoint_folder
from mouse_facelift.training.logging import read_log

SIZE, VIEWS = 32, 5


def ball(camera: Camera, radius: float) -> np.ndarray:
    """RGBA of a ball at the origin, coloured by its normal. [H, W, 4]"""
    K, w2c = (torch.tensor(matrix)[None, None] for matrix in (camera.K, camera.w2c))
    origins, directions = (rays[0, 0] for rays in pixel_rays(K, w2c, camera.height, camera.width))
    along = (origins * directions).sum(0)
    discriminant = along**2 - (origins**2).sum(0) + radius**2
    hit = discriminant > 0
    normals = (origins + (-along - discriminant.clamp_min(0).sqrt()) * directions) / radius
    rgba = torch.cat([torch.where(hit, 0.5 + 0.5 * normals, 1.0), hit[None].to(normals)])
    return (rgba.permute(1, 2, 0) * 255).round().byte().numpy()


@pytest.fixture(scope="module")
def sample_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    names = []
    for number, radius in enumerate((0.45, 0.6, 0.75)):
        cameras = [
            Camera.look_at((2.7 * np.cos(a), 2.7 * np.sin(a), 0.5), (0, 0, 0), 1.07 * SIZE, SIZE)
            for a in np.linspace(0, 2 * np.pi, VIEWS, endpoint=False)
        ]
        pictures = [ball(camera, radius) for camera in cameras]
        name = folder / f"ball_{number}"
        write_sample(name, pictures, cameras, range(VIEWS))
        names.append(name)
    write_list(folder / "list.txt", names)
    return folder / "list.txt"


@pytest.fixture
def settings(sample_list: Path, tmp_path: Path) -> list[str]:
    return [
        f"data.train_list={sample_list}",
        f"data.image_size={SIZE}",
        "model={width: 64, head_width: 32, layers: 2, scale_bias: -3.5, gradient_checkpointing: false}",
        "views={input_views: 3, target_views: 2}",
        "validation={samples: 2, input_views: 3}",
        "optimizer={lr: 2.0e-3, warmup_steps: 0, schedule: constant}",
        "training={steps: 2, batch_size: 2, workers: 0, log_every: 1}",
        f"output={tmp_path / 'run'}",
    ]


@pytest.fixture
def config(settings: list[str]) -> TrainGSLRMConfig:
    return load_config(TrainGSLRMConfig, None, settings)


@pytest.fixture
def task(config: TrainGSLRMConfig, sample_list: Path) -> GSLRMTask:
    torch.manual_seed(0)
    samples = SampleDataset.from_list(sample_list, SIZE)
    return GSLRMTask(config, GSLRM(config.model), samples, samples)


def collated(task: GSLRMTask, *indices: int) -> dict[str, Any]:
    return torch.utils.data.default_collate([task.dataset[index] for index in indices])


def loss(task: GSLRMTask, batch: dict[str, Any], seed: int) -> dict[str, Tensor]:
    return task.loss(task.module, batch, torch.Generator().manual_seed(seed))


def test_loss_draws_only_from_its_generator(task: GSLRMTask) -> None:
    batch = collated(task, 0, 1)
    first = loss(task, batch, seed=1)
    torch.manual_seed(99)
    assert first.keys() == {"loss", "l2", "ssim", "alpha"}
    assert torch.equal(first["loss"], loss(task, batch, seed=1)["loss"])
    assert not torch.equal(first["loss"], loss(task, batch, seed=2)["loss"])


def test_every_parameter_learns_from_the_rendering(task: GSLRMTask) -> None:
    loss(task, collated(task, 0), seed=0)["loss"].backward()
    for name, parameter in task.module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_few_steps_on_one_ball_lower_the_loss(task: GSLRMTask) -> None:
    optimizer = torch.optim.AdamW(task.module.parameters(), lr=2e-3)
    batch = collated(task, 1)
    losses = []
    for step in range(25):
        value = loss(task, batch, seed=step)["loss"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_views_are_drawn_without_repetition_and_per_sample() -> None:
    views = draw_views(200, 6, 4, torch.Generator().manual_seed(0))
    assert views.shape == (200, 4)
    assert (views.diff(dim=1) > 0).all()
    assert len(views.unique(dim=0)) == 15
    assert torch.bincount(views.flatten(), minlength=6).min() > 100


def test_validation_reports_inputs_and_held_out_views_apart(task: GSLRMTask, tmp_path: Path) -> None:
    with torch.no_grad():
        metrics = task.validate(task.module.eval(), tmp_path)
        assert metrics == task.validate(task.module, tmp_path)
    assert metrics.keys() == {"psnr_input", "iou_input", "psnr_held_out", "iou_held_out"}
    assert all(np.isfinite(value) for value in metrics.values())
    grids = sorted(tmp_path.glob("*.png"))
    assert [path.stem for path in grids] == ["views_00", "views_01"]
    assert Image.open(grids[0]).size == (VIEWS * SIZE, 3 * SIZE)


def test_run_trains_validates_and_leaves_weights_that_load(config: TrainGSLRMConfig) -> None:
    folder = gslrm_train.run(config)
    lines = read_log(folder)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    assert any("validation/psnr_held_out" in line for line in lines)
    assert len(list((folder / "validation" / "step_00000002").glob("*.png"))) == 2
    assert load_gslrm(folder).config == config.model


def test_dry_run_writes_nothing(config: TrainGSLRMConfig) -> None:
    assert gslrm_train.run(config, dry_run=True) == config.output
    assert not config.output.exists()


def test_overfit_keeps_the_first_samples_only(
    settings: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []
    monkeypatch.setattr(gslrm_train, "fit", lambda task, **kwargs: seen.append(len(task.dataset)) or tmp_path)
    for overfit in (0, 1):
        gslrm_train.run(load_config(TrainGSLRMConfig, None, [*settings, f"overfit={overfit}"]))
    assert seen == [3, 1]


def test_training_starts_from_given_weights(
    config: TrainGSLRMConfig, settings: list[str], tmp_path: Path
) -> None:
    start = GSLRM(config.model)
    (tmp_path / "start").mkdir()
    save_gslrm(start, tmp_path / "start")
    settings = [*settings, f"start.weights={tmp_path / 'start'}"]
    model = gslrm_train.start_model(load_config(TrainGSLRMConfig, None, settings))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True))
    other = load_config(TrainGSLRMConfig, None, [*settings, "model.scale_bias=-2"])
    with pytest.raises(CheckpointError, match="scale_bias"):
        gslrm_train.run(other, dry_run=True)


@pytest.mark.parametrize("key", ["views.input_views", "views.target_views", "validation.input_views"])
def test_more_views_than_the_samples_have_are_refused(key: str, settings: list[str]) -> None:
    config = load_config(TrainGSLRMConfig, None, [*settings, f"{key}=6"])
    with pytest.raises(ConfigError, match=f"{key} is 6, but the samples have 5 views"):
        gslrm_train.run(config, dry_run=True)


def test_interrupted_run_ends_with_the_very_weights_of_an_undisturbed_one(
    settings: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    more = "training={steps: 4, batch_size: 1, gradient_accumulation: 2, ema_decay: 0.9, workers: 0}"

    def run(name: str) -> Path:
        config = load_config(TrainGSLRMConfig, None, [*settings, more, f"output={tmp_path / name}"])
        return gslrm_train.run(config)

    whole, calls, loss = run("whole"), [], GSLRMTask.loss

    def interrupted(*args: Any) -> dict[str, Tensor]:
        calls.append(len(calls))
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(GSLRMTask, "loss", interrupted)
        run("parts")
    assert len(calls) == 4 and checkpoint_folder(tmp_path / "parts", 2).is_dir()
    parts = run("parts")

    averaged = load_gslrm(parts).state_dict()
    for name in ("weights/gslrm", "state/model", "state/ema"):
        one, other = (load_file(checkpoint_folder(f, 4) / f"{name}.safetensors") for f in (whole, parts))
        assert one.keys() == other.keys() == averaged.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
        assert all(torch.equal(one[key], averaged[key]) for key in one) == (name != "state/model"), name
