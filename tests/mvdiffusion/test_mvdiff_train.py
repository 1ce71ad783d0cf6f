"""Training from random weights on toy samples: runs, resumes, exports, refuses what does not fit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from interrupted_runs import compare_interrupted
from pydantic import ValidationError as WrongConfig
from safetensors.torch import load_file

from mouse_facelift.errors import CheckpointError, ConfigError, DataError
from mouse_facelift.mvdiffusion.config import SamplingConfig, TrainMVDiffConfig
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.mvdiffusion.task import MVDiffusionTask, SlotDataset
from mouse_facelift.mvdiffusion.train import run
from mouse_facelift.samples.datasets import SampleDataset
from mouse_facelift.training.checkpoints import write_checkpoint
from mouse_facelift.training.lock import locked

MakeConfig = Callable[..., TrainMVDiffConfig]

SLOT = {"diffusion": {"conditioning": "slot"}}


def test_run_writes_checkpoints_that_inference_loads(train_config: MakeConfig) -> None:
    config = train_config()
    output = run(config)
    pipeline = MVDiffusionPipeline.load(output)
    assert pipeline.slots.view_ids == (0, 2, 1, 3)
    assert not (output / "pipeline" / "unet").exists()
    assert pipeline.slots.mode == "pose"
    generators, sampling = [torch.Generator().manual_seed(0)], SamplingConfig(steps=2)
    made = pipeline(torch.ones(1, 3, 32, 32), generators=generators, sampling=sampling)
    assert made.shape == (1, 4, 3, 32, 32)
    assert (output / "validation" / "step_00000004" / "views_00.png").is_file()
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert any("validation/psnr_animal_camera_3" in record for record in records)
    older = MVDiffusionPipeline.load(output / "checkpoints" / "step_00000002")
    assert any(
        not torch.equal(a, b)
        for a, b in zip(older.unet.parameters(), pipeline.unet.parameters(), strict=True)
    )


@pytest.mark.parametrize("cached", [False, True], ids=["pictures", "cached latents"])
def test_interrupted_run_ends_with_the_very_weights_of_an_undisturbed_one(
    train_config: MakeConfig, tmp_path: Path, cached: bool
) -> None:
    settings: dict = {
        "data": {"reference_view": "random", "views_per_object": 3, "background": "three_choices"},
        "diffusion": {"learned_prompts": True},
        "augment": {"brightness": 0.1},
        "training": {"batch_size": 1, "gradient_accumulation": 2, "ema_decay": 0.9, "checkpoint_every": 100},
        "cache": {"latents": cached},
    }

    def train(output: Path) -> Path:
        return run(train_config(**settings, output=output))

    whole, found = compare_interrupted(MVDiffusionTask, train, tmp_path, interrupt_at=3)
    raw, average = (
        {name.partition(":")[2]: value for name, value in found.items() if name.startswith(f"state/{file}:")}
        for file in ("model", "ema")
    )
    assert raw.keys() == average.keys() and "prompt_embeds" in raw
    assert any(not torch.equal(raw[name], average[name]) for name in raw)
    trained = sum(name.endswith(".exp_avg") for name in found)
    assert trained == len(list(MVDiffusionPipeline.load(whole).denoiser.parameters()))


def test_folder_in_which_another_process_trains_is_refused_before_anything_is_written_there(
    train_config: MakeConfig,
) -> None:
    config = train_config()
    with locked(config.output):
        with pytest.raises(ConfigError, match=f"{config.output} is in use"):
            run(config)
        assert not (config.output / "pipeline").exists()


def test_averaged_weights_are_exported(train_config: MakeConfig) -> None:
    output = run(train_config(training={"ema_decay": 0.9}))
    step = output / "checkpoints" / "step_00000004"
    weights = load_file(step / "weights" / "unet" / "diffusion_pytorch_model.safetensors")
    average = load_file(step / "state" / "ema.safetensors")
    assert all(torch.equal(weights[key], average[f"unet.{key}"]) for key in weights)


def test_dry_run_does_one_step_and_writes_nothing(
    train_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = train_config()
    with caplog.at_level("INFO"):
        assert run(config, dry_run=True) == config.output
    assert not config.output.exists()
    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert {"one step", "memory", "time", "disk"} <= set(told)
    absent = train_config(start={"kind": "run", "path": tmp_path / "absent"})
    with pytest.raises(CheckpointError, match="absent"):
        run(absent, dry_run=True)


def test_run_starts_from_an_earlier_run(train_config: MakeConfig, tmp_path: Path) -> None:
    first = run(train_config())
    second = run(
        train_config(
            start={"kind": "run", "path": first},
            optimizer={"lr": 1e-12},
            output=tmp_path / "second",
        )
    )
    before, after = MVDiffusionPipeline.load(first), MVDiffusionPipeline.load(second)
    for a, b in zip(before.unet.parameters(), after.unet.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    vaes = before.frozen.vae.state_dict(), after.frozen.vae.state_dict()
    assert all(torch.equal(vaes[0][key], vaes[1][key]) for key in vaes[0])
    assert before.frozen.vae.config.scaling_factor == after.frozen.vae.config.scaling_factor


def test_resume_refuses_other_slots(train_config: MakeConfig) -> None:
    run(train_config(training={"steps": 2}))
    with pytest.raises(CheckpointError, match=r"trained on views \[0, 2, 1, 3\]"):
        run(train_config(data={"reference_view": 1}))
    with pytest.raises(CheckpointError, match=r"mode pose; data and settings now give .* mode rig"):
        run(train_config(diffusion={"conditioning": "slot"}))


def test_resume_never_leaves_the_old_run_untouched(train_config: MakeConfig) -> None:
    output = run(train_config(training={"steps": 2}))
    before = {path: path.stat().st_mtime_ns for path in (output / "pipeline").rglob("*")}
    with pytest.raises(ConfigError, match=r"training\.resume"):
        run(train_config(training={"resume": "never"}))
    assert before == {path: path.stat().st_mtime_ns for path in (output / "pipeline").rglob("*")}


def test_checkpoint_out_of_its_run_is_refused(train_config: MakeConfig, tmp_path: Path) -> None:
    output = run(train_config(training={"steps": 2}))
    moved = tmp_path / "elsewhere" / "checkpoints" / "step_00000002"
    moved.parent.mkdir(parents=True)
    (output / "checkpoints" / "step_00000002").rename(moved)
    with pytest.raises(CheckpointError, match="inside their run"):
        MVDiffusionPipeline.load(moved)


def test_incomplete_checkpoint_is_passed_over(train_config: MakeConfig) -> None:
    output = run(train_config())
    (output / "checkpoints" / "step_00000004" / "manifest.json").unlink()
    older = MVDiffusionPipeline.load(output / "checkpoints" / "step_00000002")
    newest = MVDiffusionPipeline.load(output)
    assert torch.equal(older.unet.conv_in.weight, newest.unet.conv_in.weight)


def test_run_of_another_model_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 3, lambda folder: (folder / "weights").mkdir(), {"command": "train-gslrm"})
    with pytest.raises(CheckpointError, match=r"holds no UNet, it was written by train-gslrm"):
        MVDiffusionPipeline.load(tmp_path)


def test_validation_with_other_cameras_is_refused(
    train_config: MakeConfig, write_samples: Callable[..., Path], tmp_path: Path
) -> None:
    other = write_samples(tmp_path / "other", 1, {0: 10.0, 5: 120.0})
    with pytest.raises(ConfigError, match=r"\[0, 5\]"):
        run(train_config(data={"val_list": other}))


def test_size_that_the_networks_cannot_halve_is_refused(train_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="multiple of 8"):
        run(train_config(data={"image_size": 36}), dry_run=True)


def test_facelift_slots_need_facelift_directions(train_config: MakeConfig) -> None:
    with pytest.raises(DataError, match="slots need"):
        run(train_config(data={"slots": "facelift"}, **SLOT))
    with pytest.raises(WrongConfig, match="slots facelift shows camera 0; remove reference_view 2"):
        train_config(data={"slots": "facelift", "reference_view": 2}, **SLOT)


@pytest.mark.parametrize(
    ("start", "message"),
    [({"kind": "facelift"}, "needs path"), ({"kind": "random", "path": "x"}, "takes no path")],
)
def test_start_and_path_must_agree(train_config: MakeConfig, start: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_config(start=start)


def test_loss_is_a_function_of_batch_and_generator(
    train_config: MakeConfig, write_samples: Callable[..., Path], tmp_path: Path
) -> None:
    task = make_task(train_config(), write_samples(tmp_path / "task", 2))
    batch = torch.utils.data.default_collate([task.dataset[0], task.dataset[1]])

    def loss(seed: int) -> torch.Tensor:
        return task.loss(task.module, batch, torch.Generator().manual_seed(seed))["loss"]

    assert torch.equal(loss(1), loss(1))
    assert not torch.equal(loss(1), loss(2))
    loss(1).backward()
    assert all(parameter.grad is not None for parameter in task.pipeline.unet.parameters())
    assert task.pipeline.prompt_embeds.grad is None
    assert all(parameter.grad is None for parameter in task.pipeline.frozen.vae.parameters())


def test_views_of_a_batch_are_in_slot_order(
    train_config: MakeConfig, write_samples: Callable[..., Path], tmp_path: Path
) -> None:
    task = make_task(train_config(), write_samples(tmp_path / "task", 1))
    item, raw = task.dataset[0], task.dataset.data[0]
    assert item["view_ids"].tolist() == [0, 2, 1, 3]
    assert torch.equal(item["rgba"][1], raw["rgba"][2])
    assert torch.equal(item["w2c"][2], raw["w2c"][1])


def test_every_parameter_is_trained(
    train_config: MakeConfig, write_samples: Callable[..., Path], tmp_path: Path
) -> None:
    task = make_task(train_config(), write_samples(tmp_path / "task", 1))
    frozen = [name for name, parameter in task.module.named_parameters() if not parameter.requires_grad]
    assert frozen == ["prompt_embeds"]


def make_task(config: TrainMVDiffConfig, samples: Path) -> MVDiffusionTask:
    data = SampleDataset.from_list(samples, 32)
    reference = config.data.reference_view
    make = Slots.pose if config.diffusion.conditioning == "pose" else Slots.rig
    slots = make(data.samples, 32, "first" if reference == "random" else reference)
    views = SlotDataset(data, slots)
    return MVDiffusionTask(random_pipeline(config.start.sizes, slots, seed=0), views, views, config)


def test_validation_that_could_not_sample_is_refused_before_training(train_config: MakeConfig) -> None:
    config = train_config(validation={"samples": 1, "sampling": {"solver": "ddim", "steps": 1000}})
    with pytest.raises(ConfigError, match="1000 steps of ddim ask for timesteps 1 to 1000"):
        run(config)
    assert not config.output.exists()


def test_overfit_names_a_validation_list_that_is_not_there(train_config: MakeConfig, tmp_path: Path) -> None:
    config = train_config(data={"val_list": tmp_path / "absent.txt"}, overfit=1)
    with pytest.raises(DataError, match=r"absent\.txt: no such list file"):
        run(config)
    assert not config.output.exists()
