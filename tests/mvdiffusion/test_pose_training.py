"""Training with poses: references, chosen views, prompts and rays belong together; runs resume exactly."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError as WrongConfig
from safetensors.torch import load_file
from torch import Generator, Tensor
from typer.testing import CliRunner

from mouse_facelift.cli import app
from mouse_facelift.errors import CheckpointError, ConfigError, DataError
from mouse_facelift.geometry.rays import select_views
from mouse_facelift.mvdiffusion.augment import jitter
from mouse_facelift.mvdiffusion.config import TrainMVDiffConfig
from mouse_facelift.mvdiffusion.encoding import Encoded, encode_batch
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.frozen import FrozenParts
from mouse_facelift.mvdiffusion.memory import set_checkpointing
from mouse_facelift.mvdiffusion.objective import Draws
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.pose import draw_order, pose_rays
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.mvdiffusion.task import MVDiffusionTask, SlotDataset
from mouse_facelift.mvdiffusion.train import run
from mouse_facelift.samples.datasets import SampleDataset, as_floats
from mouse_facelift.training.logging import read_log

MakeConfig = Callable[..., TrainMVDiffConfig]
WriteSamples = Callable[..., Path]

AZIMUTHS = {0: 10.0, 1: 200.0, 2: 100.0, 3: 310.0}
UNET = Path("weights") / "unet" / "diffusion_pytorch_model.safetensors"


def make_task(config: TrainMVDiffConfig, samples: Path) -> MVDiffusionTask:
    data = SampleDataset.from_list(samples, 32)
    reference = config.data.reference_view
    slots = Slots.pose(data.samples, 32, "first" if reference == "random" else reference)
    views = SlotDataset(data, slots)
    return MVDiffusionTask(random_pipeline(config.start.sizes, slots, seed=0), views, views, config)


def batch_of(task: MVDiffusionTask) -> dict:
    return torch.utils.data.default_collate([task.dataset[index] for index in range(len(task.dataset))])


def told_and_loss(
    task: MVDiffusionTask, batch: dict, generator: Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """What the denoiser is given, and the loss."""
    given: dict[str, Tensor] = {}

    def remember(module: torch.nn.Module, inputs: tuple) -> None:
        noisy, timesteps, condition = inputs
        given.update(noisy=noisy, timesteps=timesteps, **vars(condition))

    with task.module.register_forward_pre_hook(remember):
        return given, task.loss(task.module, batch, generator)["loss"]


@pytest.mark.parametrize("reference", [1, 2, 3])
def test_reference_is_the_view_that_could_have_been_listed_first(
    train_config: MakeConfig, write_samples: WriteSamples, tmp_path: Path, reference: int
) -> None:
    listed = {view: AZIMUTHS[view] for view in [reference, *(v for v in AZIMUTHS if v != reference)]}
    by_id = make_task(
        train_config(data={"reference_view": reference}), write_samples(tmp_path / "a", 2, AZIMUTHS)
    )
    by_place = make_task(train_config(), write_samples(tmp_path / "b", 2, listed))
    (first, loss), (second, other_loss) = (
        told_and_loss(task, batch_of(task), Generator().manual_seed(5)) for task in (by_id, by_place)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(loss, other_loss)


def test_random_reference_turns_pictures_prompts_and_rays_as_one(
    train_config: MakeConfig, write_samples: WriteSamples, tmp_path: Path
) -> None:
    samples = write_samples(tmp_path / "data", 4, AZIMUTHS)
    random = make_task(train_config(data={"reference_view": "random"}), samples)
    batch, seed = batch_of(random), 3
    order = draw_order(Generator().manual_seed(seed), 4, 4, True, None)
    assert len(set(order[:, 0].tolist())) > 1
    given, loss = told_and_loss(random, batch, Generator().manual_seed(seed))

    fixed = make_task(train_config(), samples)
    fixed.pipeline.slots = random.pipeline.slots
    turned = {
        key: torch.stack([v[o] for v, o in zip(values, order, strict=True)])
        for key, values in batch.items()
        if isinstance(values, Tensor)
    }
    generator = Generator().manual_seed(seed)
    draw_order(generator, 4, 4, True, None)
    expected, expected_loss = told_and_loss(fixed, turned, generator)
    assert all(torch.equal(given[name], expected[name]) for name in given)
    assert torch.equal(loss, expected_loss)
    rays = pose_rays(turned["K"], turned["w2c"], 32, 8)
    assert torch.equal(given["rays"], rays)
    assert given["prompt_index"][:, 0].unique().tolist() == [0]


def test_chosen_views_keep_their_cameras_and_the_reference(
    train_config: MakeConfig, write_samples: WriteSamples, tmp_path: Path
) -> None:
    config = train_config(data={"views_per_object": 3})
    task = make_task(config, write_samples(tmp_path / "data", 8, AZIMUTHS))
    batch = batch_of(task)
    given, _ = told_and_loss(task, batch, Generator().manual_seed(1))
    assert given["noisy"].shape == (8, 3, 4, 8, 8)
    order = draw_order(Generator().manual_seed(1), 8, 4, False, 3)
    assert len({tuple(row) for row in order.tolist()}) > 1
    every = pose_rays(batch["K"], batch["w2c"], 32, 8)
    for index, row in enumerate(order):
        assert torch.equal(given["rays"][index], every[index, row])


def test_run_with_random_references_and_views_resumes_exactly(
    train_config: MakeConfig, tmp_path: Path
) -> None:
    changes = {
        "data": {"reference_view": "random", "views_per_object": 3},
        "diffusion": {"noise_offset": 0.1, "learned_prompts": True},
    }
    whole = run(train_config(output=tmp_path / "whole", **changes))
    run(train_config(output=tmp_path / "parts", training={"steps": 2}, **changes))
    parts = run(train_config(output=tmp_path / "parts", **changes))
    step = Path("checkpoints") / "step_00000004"
    for name in (step / UNET, step / "weights" / "prompt_embeds.safetensors"):
        first, second = load_file(whole / name), load_file(parts / name)
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_learned_prompts_are_trained_averaged_and_exported(train_config: MakeConfig) -> None:
    output = run(train_config(diffusion={"learned_prompts": True}, training={"ema_decay": 0.5}))
    steps = [output / "checkpoints" / f"step_0000000{step}" for step in (2, 4)]
    banks = [load_file(step / "weights" / "prompt_embeds.safetensors")["prompt_embeds"] for step in steps]
    assert not torch.equal(*banks)
    average = load_file(steps[1] / "state" / "ema.safetensors")
    assert torch.equal(average["prompt_embeds"], banks[1])
    assert torch.equal(MVDiffusionPipeline.load(output).prompt_embeds, banks[1])


@pytest.mark.parametrize("views", [2, 3, 6, 16])
def test_models_of_many_view_counts_are_trained(
    train_config: MakeConfig, write_samples: WriteSamples, tmp_path: Path, views: int
) -> None:
    ring = {view: 360 * view / views for view in range(views)}
    samples = write_samples(tmp_path / "ring", 1, ring)
    config = train_config(data={"train_list": samples, "val_list": samples}, training={"steps": 1})
    assert MVDiffusionPipeline.load(run(config)).slots.view_ids == tuple(range(views))


@pytest.mark.parametrize("views", [1, 17])
def test_samples_with_too_few_or_too_many_views_are_refused(
    train_config: MakeConfig, write_samples: WriteSamples, tmp_path: Path, views: int
) -> None:
    samples = write_samples(tmp_path / "ring", 1, {view: 20 * view for view in range(views)})
    with pytest.raises(DataError, match=rf"sample_000000: the number of views is {views}; .* 2 to 16"):
        run(train_config(data={"train_list": samples, "val_list": samples}), dry_run=True)


def test_more_views_than_there_are_cannot_be_chosen(train_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r"views_per_object is 5, but the samples .* have 4 views"):
        run(train_config(data={"views_per_object": 5}), dry_run=True)


@pytest.mark.parametrize(
    ("conditioning", "data", "message"),
    [
        ("slot", {"reference_view": "random"}, "makes the targets ambiguous"),
        ("slot", {"views_per_object": 3}, "every object has all slots"),
        ("pose", {"slots": "facelift"}, r"data\.slots=facelift is for slots"),
        ("pose", {"slot_order": "clockwise"}, r"data\.slot_order=clockwise is for slots"),
    ],
)
def test_data_that_do_not_fit_the_conditioning_are_refused(
    train_config: MakeConfig, conditioning: str, data: dict, message: str
) -> None:
    with pytest.raises(WrongConfig, match=message):
        train_config(data=data, diffusion={"conditioning": conditioning})


def test_slot_run_goes_on_with_poses_but_not_the_other_way(train_config: MakeConfig, tmp_path: Path) -> None:
    slot = {"diffusion": {"conditioning": "slot"}}
    slots = run(train_config(output=tmp_path / "slots", **slot))
    start = {"start": {"kind": "run", "path": slots}, "optimizer": {"lr": 1e-12}}
    poses = run(train_config(output=tmp_path / "poses", **start))
    before, after = MVDiffusionPipeline.load(slots), MVDiffusionPipeline.load(poses)
    assert (before.slots.mode, after.slots.mode) == ("rig", "pose")
    assert after.slots.prompt_azimuths_deg == before.slots.prompt_azimuths_deg
    widened = after.unet.conv_in.weight
    torch.testing.assert_close(widened[:, :8], before.unet.conv_in.weight, atol=1e-6, rtol=0)
    assert widened[:, 8:].abs().max() < 1e-6
    back = train_config(output=tmp_path / "back", start={"kind": "run", "path": poses}, **slot)
    with pytest.raises(CheckpointError, match=r"trained with diffusion\.conditioning=pose"):
        run(back, dry_run=True)


@pytest.mark.parametrize("conditioning", ["slot", "pose"])
def test_run_directory_of_another_view_count_ends_with_exit_code_2(
    train_config: MakeConfig, write_samples: WriteSamples, tmp_path: Path, conditioning: str
) -> None:
    output = run(train_config(training={"steps": 1}, diffusion={"conditioning": conditioning}))
    three = write_samples(tmp_path / "three", 1, {0: 0.0, 1: 90.0, 2: 200.0})
    data = [f"data.train_list={three}", f"data.val_list={three}", "data.image_size=32"]
    settings = [*data, "start.kind=random", f"diffusion.conditioning={conditioning}", f"output={output}"]
    result = CliRunner().invoke(app, ["train-mvdiff", *settings])
    assert result.exit_code == 2
    assert "was trained on views [0, 2, 1, 3] at 32 px" in " ".join(result.stderr.split())


def test_noise_offset_is_constant_over_a_channel_and_drawn_only_if_wanted() -> None:
    shape = (2, 3, 4, 8, 8)
    plain, apart, shared = (
        Draws.sample(Generator().manual_seed(0), shape, 5, 1000, offset, together)
        for offset, together in ((0.0, False), (0.5, False), (0.5, True))
    )
    for draws in (apart, shared):
        added = draws.noise - plain.noise
        assert added.std((0, 1, 2)).min() > 0.1
        torch.testing.assert_close(added, added.mean((3, 4), keepdim=True).expand(shape), atol=1e-5, rtol=0)
        assert torch.equal(draws.drop, plain.drop)
    between_views = [(draws.noise - plain.noise).std(1).max() for draws in (apart, shared)]
    assert between_views[0] > 0.1
    assert between_views[1] < 1e-5


def test_checkpointed_activations_give_the_same_gradients(
    train_config: MakeConfig, write_samples: WriteSamples, tmp_path: Path
) -> None:
    task = make_task(train_config(), write_samples(tmp_path / "data", 2, AZIMUTHS))
    unet = task.pipeline.unet.train()
    gradients = []
    for choice in (False, True):
        unet.zero_grad()
        config = train_config(diffusion={"gradient_checkpointing": choice})
        set_checkpointing(task.pipeline, config, 4, torch.device("cpu"))
        assert unet.is_gradient_checkpointing == choice
        task.loss(task.module, batch_of(task), Generator().manual_seed(2))["loss"].backward()
        gradients.append([parameter.grad.clone() for parameter in unet.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_run_on_cached_latents_takes_the_same_steps(train_config: MakeConfig, tmp_path: Path) -> None:
    changes = {"data": {"reference_view": "random", "views_per_object": 3}, "training": {"steps": 2}}
    plain = run(train_config(output=tmp_path / "plain", **changes))
    cached = run(train_config(output=tmp_path / "cached", cache={"latents": True}, **changes))
    losses = [[line["loss"] for line in read_log(folder) if "loss" in line] for folder in (plain, cached)]
    assert len(losses[0]) == 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_jitter_changes_what_is_learned(train_config: MakeConfig, tmp_path: Path) -> None:
    plain, jittered = (
        run(train_config(output=tmp_path / name, training={"steps": 1, "validate_every": 9}, **changes))
        for name, changes in (("plain", {}), ("jittered", {"augment": {"brightness": 0.5}}))
    )
    name = Path("checkpoints") / "step_00000001" / UNET
    first, second = load_file(plain / name), load_file(jittered / name)
    assert any(not torch.equal(first[key], second[key]) for key in first)


def test_contrast_is_about_all_views_whichever_are_chosen(
    train_config: MakeConfig, write_samples: WriteSamples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = train_config(data={"views_per_object": 2}, augment={"contrast": 0.9, "brightness": 0.3})
    task = make_task(config, write_samples(tmp_path / "data", 3, AZIMUTHS))
    encoded: list[Tensor] = []

    def remember(frozen: FrozenParts, rgba: Tensor, background: Tensor) -> Encoded:
        encoded.append(rgba)
        return encode_batch(frozen, rgba, background)

    monkeypatch.setattr("mouse_facelift.mvdiffusion.task.encode_batch", remember)
    batch = as_floats(batch_of(task))
    task.loss(task.module, batch, Generator().manual_seed(8))

    generator = Generator().manual_seed(8)
    order = draw_order(generator, 3, 4, False, 2)
    torch.randint(3, (3,), generator=generator)
    everything = jitter(batch["rgba"], config.augment, generator)
    assert torch.equal(encoded[0], select_views(everything, order))


def test_shared_noise_offset_of_nothing_is_refused(train_config: MakeConfig) -> None:
    with pytest.raises(WrongConfig, match="noise_offset_shared is true, but noise_offset is 0"):
        train_config(diffusion={"noise_offset_shared": True})
