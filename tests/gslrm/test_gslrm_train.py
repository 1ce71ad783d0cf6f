"""Training GS-LRM on balls whose colour is their surface normal."""

import json
import logging
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coloured_balls import SIZE, ball, write_balls
from interrupted_runs import compare_interrupted
from PIL import Image
from torch import Tensor

from mouse_facelift.config import load_config
from mouse_facelift.errors import CheckpointError, ConfigError, DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.gslrm import GSLRM, GSLRMConfig, TrainGSLRMConfig, load_gslrm, save_gslrm
from mouse_facelift.gslrm import train as gslrm_train
from mouse_facelift.gslrm.config import AugmentConfig
from mouse_facelift.gslrm.train import GSLRMTask
from mouse_facelift.samples.datasets import SampleDataset, as_floats
from mouse_facelift.samples.format import read_list, write_list, write_sample
from mouse_facelift.samples.mixture import Mixture
from mouse_facelift.samples.training_data import TrainingData
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.data import open_samples
from mouse_facelift.training.lock import locked
from mouse_facelift.training.logging import read_log

VIEWS = 5
SIZES = {"width": 64, "head_width": 32, "layers": 2, "scale_bias": -3.5}


@pytest.fixture(scope="module")
def sample_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_balls(tmp_path_factory.mktemp("samples"), VIEWS)


@pytest.fixture
def settings(sample_list: Path, tmp_path: Path) -> list[str]:
    return [
        f"data.train_list={sample_list}",
        f"data.image_size={SIZE}",
        f"model={SIZES}",
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
    return GSLRMTask(config, GSLRM(config.model), Mixture([samples]), samples)


def collated(task: GSLRMTask, *indices: int) -> dict[str, Any]:
    return torch.utils.data.default_collate([task.dataset[index] for index in indices])


def loss(task: GSLRMTask, batch: dict[str, Any], seed: int) -> dict[str, Tensor]:
    return task.loss(task.module, batch, torch.Generator().manual_seed(seed))


def test_loss_draws_only_from_its_generator(task: GSLRMTask) -> None:
    batch = collated(task, 0, 1)
    first = loss(task, batch, seed=1)
    torch.manual_seed(99)
    assert first.keys() == {"loss", "l2", "ssim", "alpha", "psnr"}
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


def test_validation_reports_inputs_and_held_out_views_apart(task: GSLRMTask, tmp_path: Path) -> None:
    with torch.no_grad():
        metrics = task.validate(task.module.eval(), tmp_path)
        assert metrics == task.validate(task.module, tmp_path)
    assert metrics.pop("input_views") == "0 1 3"
    assert metrics.pop("held_out_views") == "2 4"
    figures = {"psnr_input", "iou_input", "psnr_held_out", "iou_held_out", "psnr_outline_held_out"}
    assert metrics.keys() == figures
    assert all(np.isfinite(value) for value in metrics.values())
    grids = sorted(tmp_path.glob("*.png"))
    assert [path.stem for path in grids] == ["views_00", "views_01"]
    assert Image.open(grids[0]).size == (VIEWS * SIZE, 3 * SIZE)


def test_run_trains_validates_and_leaves_weights_that_load(config: TrainGSLRMConfig) -> None:
    folder = gslrm_train.run(config)
    lines = read_log(folder)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    validation = next(line for line in lines if "validation/psnr_held_out" in line)
    assert (validation["validation/input_views"], validation["validation/held_out_views"]) == ("0 1 3", "2 4")
    assert len(list((folder / "validation" / "step_00000002").glob("*.png"))) == 2
    assert load_gslrm(folder).config == config.model


def test_dry_run_does_one_step_and_writes_nothing(
    config: TrainGSLRMConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert gslrm_train.run(config, dry_run=True) == config.output
    assert not config.output.exists()
    told = [record.getMessage() for record in caplog.records]
    assert re.search(r"one step: loss 0\.\d+, the update was made", "\n".join(told))
    for what in ("3 training and 3 validation samples", "memory: ", "time: ", "disk: "):
        assert any(line.startswith(what) for line in told), what


def test_dry_run_leaves_a_run_as_it_is(config: TrainGSLRMConfig, settings: list[str]) -> None:
    def content(folder: Path) -> dict[Path, tuple[int, bytes]]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    gslrm_train.run(config)
    before = content(config.output)
    gslrm_train.run(load_config(TrainGSLRMConfig, None, [*settings, "training.steps=9"]), dry_run=True)
    assert content(config.output) == before


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("data.train_list=missing.txt", DataError),
        ("data.val_list=missing.txt", DataError),
        ("start.weights=missing", CheckpointError),
        ("training.resume=missing", CheckpointError),
        ("output=/dev/null/run", ConfigError),
        ("loss={perceptual: 1, perceptual_weights: missing.mat}", CheckpointError),
        ("loss={lpips: 1, lpips_weights: missing.pth}", CheckpointError),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_path_is_told_at_once_and_before_any_model_is_built(
    wrong: str, error: type[Exception], settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: Any, **__: Any) -> None:
        raise AssertionError("a model is built")

    for builder in ("GSLRM", "load_gslrm"):
        monkeypatch.setattr(gslrm_train, builder, build)
    config = load_config(TrainGSLRMConfig, None, [*settings, wrong])
    begin = time.perf_counter()
    with pytest.raises(error, match=r"missing|/dev/null"):
        gslrm_train.run(config)
    assert time.perf_counter() - begin < 2


def test_overfit_keeps_the_first_samples_only(
    settings: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []
    monkeypatch.setattr(gslrm_train, "fit", lambda task, *rest: seen.append(len(task.dataset)))
    for overfit in (0, 1):
        gslrm_train.run(load_config(TrainGSLRMConfig, None, [*settings, f"overfit={overfit}"]))
    assert seen == [3, 1]


def test_overfit_names_a_validation_list_that_is_not_there(settings: list[str], tmp_path: Path) -> None:
    absent = [f"data.val_list={tmp_path / 'absent.txt'}", "overfit=1"]
    with pytest.raises(DataError, match=r"absent\.txt: no such list file"):
        gslrm_train.run(load_config(TrainGSLRMConfig, None, [*settings, *absent]), dry_run=True)


def test_overfit_ends_with_a_verdict_on_inputs_and_on_views_never_trained_on(
    settings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    more = ["overfit=1", "training={steps: 6, batch_size: 4, workers: 0}", "views.input_views=5"]
    with caplog.at_level(logging.INFO):
        gslrm_train.run(load_config(TrainGSLRMConfig, None, [*settings, *more]))
    verdict = next(r.getMessage() for r in caplog.records if r.getMessage().startswith("overfit, 6 steps:"))
    assert re.search(r"input views \(cameras 0 1 3\): PSNR \d+\.\d\d dB, IoU \d\.\d{3}", verdict)
    assert re.search(r"held-out views \(cameras 2 4, never trained on\): PSNR \d+\.\d\d dB", verdict)
    assert "true outline in one mean colour has: " in verdict
    assert "Expect more than 30 dB on the input views: not reached." in verdict


def test_list_that_repeats_samples_or_has_too_few_is_told(
    settings: list[str], sample_list: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count, config = len(read_list(sample_list)), load_config(TrainGSLRMConfig, None, settings)
    open_samples(sample_list, SIZE, count, config.training)
    assert not caplog.text
    twice = sample_list.with_name("twice.txt")
    twice.write_text(sample_list.read_text() + sample_list.read_text().splitlines()[0] + "\n")
    assert len(open_samples(twice, SIZE, 0, config.training)) == count + 1
    assert "twice.txt: names 1 sample more than once" in caplog.text
    open_samples(sample_list, SIZE, 100, config.training)
    assert f"overfit=100, but it names {count} samples only" in caplog.text


def test_overfit_never_looks_at_held_out_views(settings: list[str], sample_list: Path) -> None:
    more = ["overfit=1", "views.input_views=5", "loss.hull_depth=0.1", "augment.yaw=true"]
    config = load_config(TrainGSLRMConfig, None, [*settings, *more])
    samples = SampleDataset(read_list(sample_list)[:1], SIZE)
    task = GSLRMTask(config, GSLRM(config.model), Mixture([samples]), samples)
    batch = as_floats(collated(task, 0, 0))
    before = loss(task, batch, seed=3)
    assert task.split.held_out == (2, 4)
    for key in ("rgba", "K", "w2c"):
        batch[key][:, [2, 4]] = torch.nan
    after = loss(task, batch, seed=3)
    assert "hull_depth" in before and all(torch.equal(after[name], before[name]) for name in before)


def test_augmentation_moves_cameras_and_leaves_the_batch_alone(task: GSLRMTask) -> None:
    still = loss(task, collated(task, 0, 1), seed=1)["loss"]
    moved = task.config.model_copy(update={"augment": AugmentConfig(yaw=True, scale=(0.8, 1.0))})
    task.config = moved
    batch = collated(task, 0, 1)
    before = {key: value.clone() for key, value in batch.items() if isinstance(value, Tensor)}
    assert not torch.equal(loss(task, batch, seed=1)["loss"], still)
    assert all(torch.equal(batch[key], value) for key, value in before.items())


def test_samples_with_different_numbers_of_views_are_refused(
    sample_list: Path, settings: list[str], tmp_path: Path
) -> None:
    cameras = [Camera.look_at((2.7, 0, z), (0, 0, 0), 1.07 * SIZE, SIZE) for z in (0, 1)]
    write_sample(tmp_path / "two_views", [ball(camera, 0.5) for camera in cameras], cameras, range(2))
    write_list(tmp_path / "mixed.txt", [sample_list.parent / "ball_0", tmp_path / "two_views"])
    config = load_config(TrainGSLRMConfig, None, [*settings, f"data.train_list={tmp_path / 'mixed.txt'}"])
    with pytest.raises(DataError, match=r"two_views has views \[0, 1\].*\[0, 1, 2, 3, 4\]"):
        gslrm_train.run(config, dry_run=True)


def test_training_starts_from_given_weights(
    config: TrainGSLRMConfig, settings: list[str], tmp_path: Path
) -> None:
    start = GSLRM(config.model)
    (tmp_path / "start").mkdir()
    save_gslrm(start, tmp_path / "start")
    settings = [*settings, f"start.weights={tmp_path / 'start'}"]
    file = tmp_path / "start" / "gslrm.safetensors"
    model = gslrm_train.start_model(load_config(TrainGSLRMConfig, None, settings), file)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True))
    other = load_config(TrainGSLRMConfig, None, [*settings, "model.scale_bias=-2"])
    with pytest.raises(CheckpointError, match="scale_bias"):
        gslrm_train.run(other, dry_run=True)


def test_a_run_says_which_samples_and_cameras_it_has_seen(settings: list[str]) -> None:
    run = gslrm_train.run(
        load_config(TrainGSLRMConfig, None, [*settings, "overfit=1", "views.input_views=3"])
    )
    seen = TrainingData.load(list_checkpoints(run)[-1].weights)
    assert seen == TrainingData.load(run)
    (trained,) = seen.sets
    assert [sample.name for sample in trained.samples] == ["ball_0"]
    assert (trained.view_ids, trained.held_out_views) == ((0, 1, 3), (2, 4))


def test_run_to_start_from_is_looked_at_once(
    settings: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice, it could have gone on in between, and the hash would be of other weights."""
    first = gslrm_train.run(load_config(TrainGSLRMConfig, None, settings))
    caplog.clear()
    more = [f"start.weights={first}", f"output={tmp_path / 'second'}"]
    with caplog.at_level("INFO"):
        second = gslrm_train.run(load_config(TrainGSLRMConfig, None, [*settings, *more]))
    assert caplog.text.count("taking its newest checkpoint, step 2") == 1
    inputs = json.loads((second / "run.json").read_text())["inputs"]
    assert [name for name in inputs if name.startswith(str(first / "checkpoints" / "step_00000002"))]


def test_folder_in_which_another_process_trains_is_refused_but_a_dry_run_may_look(
    config: TrainGSLRMConfig,
) -> None:
    with locked(config.output):
        with pytest.raises(ConfigError, match=f"{config.output} is in use"):
            gslrm_train.run(config)
        gslrm_train.run(config, dry_run=True)
    assert not config.output.exists()


@pytest.mark.parametrize("key", ["views.input_views", "views.target_views", "validation.input_views"])
def test_more_views_than_the_samples_have_are_refused(key: str, settings: list[str]) -> None:
    config = load_config(TrainGSLRMConfig, None, [*settings, f"{key}=6"])
    with pytest.raises(ConfigError, match=f"{key} is 6, but the samples have 5 views"):
        gslrm_train.run(config, dry_run=True)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights to fine-tune, as the settings' model."""
    folder = tmp_path_factory.mktemp("start")
    torch.manual_seed(7)
    save_gslrm(GSLRM(GSLRMConfig(**SIZES)), folder)
    return folder


VARIANTS = {
    "all": "{}",
    "last_blocks": "{train: last_blocks, last_blocks: 1}",
    "lora": "{train: lora, lora_rank: 2}",
}


@pytest.mark.parametrize("parts", VARIANTS)
def test_interrupted_run_ends_with_the_very_weights_of_an_undisturbed_one(
    parts: str, settings: list[str], start: Path, tmp_path: Path
) -> None:
    more = [
        "training={steps: 4, batch_size: 1, gradient_accumulation: 2, ema_decay: 0.9, workers: 0}",
        "views={input_views: [2, 4], target_views: 2, targets: apart}",
        "augment={yaw: true, scale: [0.7, 1.0]}",
        f"parts={VARIANTS[parts]}",
        f"start.weights={start}",
    ]

    def train(output: Path) -> Path:
        return gslrm_train.run(load_config(TrainGSLRMConfig, None, [*settings, *more, f"output={output}"]))

    whole, found = compare_interrupted(GSLRMTask, train, tmp_path, interrupt_at=3)
    exported, beginning = load_gslrm(whole).state_dict(), load_gslrm(start).state_dict()
    assert exported.keys() == names(found, "weights/gslrm") == beginning.keys()
    changed = {key for key in exported if not torch.equal(exported[key], beginning[key])}
    heads = {key for key in exported if key.startswith(("gaussian_upsampler", "pixel_gaussian_decoder"))}
    stored = names(found, "state/model")
    if parts == "all":
        assert changed == set(exported) == stored
    elif parts == "last_blocks":
        assert changed == stored == heads | {key for key in exported if "transformer_layers.1." in key}
    else:
        assert stored - heads == {key for key in stored if ".lora_" in key}
        assert changed - heads == {
            key for key in exported if re.search(r"transformer_layers.*(to_qkv|fc|mlp)", key)
        }


def names(found: Mapping[str, Tensor], file: str) -> set[str]:
    """Of the tensors in one file of a checkpoint."""
    return {name.removeprefix(f"{file}:") for name in found if name.startswith(f"{file}:")}


def test_resume_refuses_other_frozen_weights(settings: list[str], start: Path, tmp_path: Path) -> None:
    copy = tmp_path / "start"
    copy.mkdir()
    save_gslrm(load_gslrm(start), copy)
    settings = [*settings, f"start.weights={copy}", f"parts={VARIANTS['lora']}"]
    gslrm_train.run(load_config(TrainGSLRMConfig, None, settings))
    save_gslrm(GSLRM(GSLRMConfig(**SIZES)), copy)
    longer = load_config(TrainGSLRMConfig, None, [*settings, "training.steps=3"])
    with pytest.raises(CheckpointError, match="trained beside other frozen weights"):
        gslrm_train.run(longer)


def test_resume_refuses_another_model_and_data_with_other_views(
    settings: list[str], sample_list: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(sample_list.parent, data)
    settings = [*settings, f"data.train_list={data / 'list.txt'}"]
    gslrm_train.run(load_config(TrainGSLRMConfig, None, settings))
    for number in range(3):
        cameras = [Camera.look_at((2.7, 0, z / 4), (0, 0, 0), 1.07 * SIZE, SIZE) for z in range(6)]
        write_sample(data / f"ball_{number}", [ball(camera, 0.5) for camera in cameras], cameras, range(6))
    other = [*settings, "training.steps=3", "model.layers=1"]
    with pytest.raises(CheckpointError) as refusal:
        gslrm_train.run(load_config(TrainGSLRMConfig, None, other))
    assert "model.layers: then 2, now 1" in str(refusal.value)
    assert "(3 samples of 5 views" in str(refusal.value) and "(3 samples of 6 views" in str(refusal.value)


def test_best_checkpoint_is_judged_by_views_that_were_held_out(config: TrainGSLRMConfig) -> None:
    (checkpoint,) = list_checkpoints(gslrm_train.run(config))
    assert checkpoint.manifest["best_metric"] == "psnr_held_out"
    assert checkpoint.manifest["metrics"]["psnr_held_out"] > 0


def test_depth_of_the_hull_guides_the_rendering(settings: list[str], sample_list: Path) -> None:
    config = load_config(TrainGSLRMConfig, None, [*settings, "loss.hull_depth=0.5", "model.sh_degree=1"])
    samples = SampleDataset.from_list(sample_list, SIZE)
    task = GSLRMTask(config, GSLRM(config.model), Mixture([samples]), samples)
    terms = loss(task, collated(task, 0), seed=0)
    assert terms["hull_depth"] > 0
    terms["hull_depth"].backward()
    assert task.module.pixel_gaussian_decoder[1].weight.grad.any()


def test_loss_knows_the_step_of_its_warm_ups(settings: list[str]) -> None:
    config = load_config(TrainGSLRMConfig, None, [*settings, "loss.warmup_points_steps=1"])
    gslrm_train.run(config)
    first, second = (line for line in read_log(config.output) if "loss" in line)
    assert "points" in first and "l2" not in first
    assert "l2" in second and "points" not in second


def test_missing_network_of_the_loss_is_told_before_training(settings: list[str], tmp_path: Path) -> None:
    missing = [f"loss.perceptual_weights={tmp_path / 'vgg.mat'}", "loss.perceptual=0.5"]
    config = load_config(TrainGSLRMConfig, None, [*settings, *missing])
    with pytest.raises(CheckpointError, match=r"vgg\.mat: no such file; expected the weights of VGG-19"):
        gslrm_train.run(config, dry_run=True)


def test_cached_pictures_teach_the_same_weights_bit_for_bit(settings: list[str], tmp_path: Path) -> None:
    weights = []
    for kind in ("none", "memory", "disk"):
        place = [f"output={tmp_path / kind}", f"training.sample_cache_folder={tmp_path / 'cache'}"]
        config = load_config(TrainGSLRMConfig, None, [*settings, *place, f"training.sample_cache={kind}"])
        run = gslrm_train.run(config)
        weights.append(load_gslrm(run).state_dict())
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1
    for other in weights[1:]:
        assert all(torch.equal(other[name], value) for name, value in weights[0].items())


def test_dry_run_makes_no_cache(settings: list[str], tmp_path: Path) -> None:
    more = ["training.sample_cache=disk", f"training.sample_cache_folder={tmp_path / 'cache'}"]
    gslrm_train.run(load_config(TrainGSLRMConfig, None, [*settings, *more]), dry_run=True)
    assert not (tmp_path / "cache").exists()
