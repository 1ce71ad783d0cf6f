"""The denoiser: what a loaded checkpoint does with its first rays, any number of views, and its prompts."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from mouse_facelift.errors import CheckpointError, ConfigError, DataError
from mouse_facelift.geometry.rays import CameraBatch
from mouse_facelift.mvdiffusion.conditioning import Condition
from mouse_facelift.mvdiffusion.config import SamplingConfig
from mouse_facelift.mvdiffusion.denoiser import Denoiser
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.unet import MultiViewUNet
from mouse_facelift.training.config import OptimizerConfig
from mouse_facelift.training.optimizer import make_adamw


def condition(
    pipeline: MVDiffusionPipeline, rays: Tensor | None, objects: int = 2, views: int = 6
) -> Condition:
    generator = Generator().manual_seed(1)
    width = pipeline.unet.config.projection_class_embeddings_input_dim
    return Condition(
        torch.randn(objects, views, 4, 8, 8, generator=generator),
        torch.randn(objects, views, width, generator=generator),
        torch.arange(views).expand(objects, views) % len(pipeline.prompt_embeds),
        rays,
    )


@torch.no_grad()
def velocity(denoiser: Denoiser, told: Condition, seed: int = 0) -> Tensor:
    noisy = torch.randn(told.latents.shape, generator=Generator().manual_seed(seed))
    return denoiser(noisy, torch.tensor([500, 20]), told)


def test_loaded_checkpoint_starts_unchanged_whatever_the_rays(
    tiny_pipeline: MVDiffusionPipeline, tmp_path: Path
) -> None:
    tiny_pipeline.unet.save_pretrained(tmp_path / "unet")
    unet = MultiViewUNet.from_pretrained(tmp_path / "unet", pose=True)
    with_rays = Denoiser(unet, tiny_pipeline.prompt_embeds)
    expected = velocity(tiny_pipeline.denoiser, condition(tiny_pipeline, None))
    for scale in (0.0, 1.0, 30.0):
        rays = scale * torch.randn(2, 6, 6, 8, 8, generator=Generator().manual_seed(9))
        assert torch.equal(velocity(with_rays, condition(tiny_pipeline, rays)), expected)


@pytest.mark.parametrize("views", [2, 3, 6, 16])
def test_any_number_of_views_goes_through_one_model(
    pose_pipeline: MVDiffusionPipeline, ring: Callable[..., CameraBatch], views: int
) -> None:
    image, generators = torch.rand(1, 3, 32, 32, generator=Generator().manual_seed(7)), [Generator()]
    made = pose_pipeline(image, generators=generators, sampling=SamplingConfig(steps=1), cameras=ring(views))
    assert made.shape == (1, views, 3, 32, 32)


@pytest.mark.parametrize("views", [1, 17])
def test_too_few_and_too_many_cameras_are_refused(
    pose_pipeline: MVDiffusionPipeline, ring: Callable[..., CameraBatch], views: int
) -> None:
    with pytest.raises(DataError, match=f"number of views is {views}; MVDiffusion with poses takes 2 to 16"):
        pose_pipeline(
            torch.ones(1, 3, 32, 32), generators=[Generator()], sampling=SamplingConfig(), cameras=ring(views)
        )


def test_views_depend_on_their_own_cameras(
    pose_pipeline: MVDiffusionPipeline, ring: Callable[..., CameraBatch]
) -> None:
    """With sparse attention, moving one camera changes its view and no other."""
    cameras = ring(4)
    moved = CameraBatch(cameras.K, cameras.w2c.clone())
    moved.w2c[:, 2] = ring(5).w2c[:, 2]

    def views(told: CameraBatch) -> Tensor:
        image = torch.rand(1, 3, 32, 32, generator=Generator().manual_seed(7))
        generators, sampling = [Generator().manual_seed(1)], SamplingConfig(steps=2)
        return pose_pipeline(image, generators=generators, sampling=sampling, cameras=told)[0]

    before, after = views(cameras), views(moved)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False, True]


def test_result_does_not_depend_on_the_batch_when_cameras_differ(
    pose_pipeline: MVDiffusionPipeline, ring: Callable[..., CameraBatch]
) -> None:
    images = torch.rand(3, 3, 32, 32, generator=Generator().manual_seed(7))
    rings, sampling = [ring(4, turn) for turn in (0.0, 20.0, 50.0)], SamplingConfig(steps=2)

    def make(chosen: list[int]) -> Tensor:
        K, w2c = (torch.cat([getattr(rings[i], name) for i in chosen]) for name in ("K", "w2c"))
        generators = [Generator().manual_seed(i) for i in chosen]
        return pose_pipeline(
            images[chosen], generators=generators, sampling=sampling, cameras=CameraBatch(K, w2c)
        )

    together = make([0, 1, 2])
    torch.testing.assert_close(make([2, 0, 1]), together[[2, 0, 1]], atol=1e-5, rtol=0)
    for index in range(3):
        torch.testing.assert_close(make([index])[0], together[index], atol=1e-5, rtol=0)


def test_lone_picture_is_seen_by_the_stored_cameras(pose_pipeline: MVDiffusionPipeline) -> None:
    image, sampling = torch.rand(1, 3, 32, 32, generator=Generator().manual_seed(7)), SamplingConfig(steps=1)
    alone, told = (
        pose_pipeline(image, generators=[Generator().manual_seed(1)], sampling=sampling, cameras=cameras)
        for cameras in (None, pose_pipeline.slots.camera_batch)
    )
    assert torch.equal(alone, told)


def test_slot_model_is_not_told_cameras(
    tiny_pipeline: MVDiffusionPipeline, ring: Callable[..., CameraBatch]
) -> None:
    with pytest.raises(ConfigError, match=r"slots of mode facelift .* diffusion\.conditioning=pose"):
        tiny_pipeline(
            torch.ones(1, 3, 32, 32), generators=[Generator()], sampling=SamplingConfig(), cameras=ring(6)
        )


def test_slots_and_input_channels_must_agree(
    tiny_pipeline: MVDiffusionPipeline, pose_pipeline: MVDiffusionPipeline
) -> None:
    with pytest.raises(CheckpointError, match="mode pose, but the UNet takes 8 input channels, without rays"):
        dataclasses.replace(tiny_pipeline, slots=pose_pipeline.slots)
    with pytest.raises(
        CheckpointError, match="mode facelift, but the UNet takes 14 input channels, with rays"
    ):
        dataclasses.replace(pose_pipeline, slots=tiny_pipeline.slots)


def test_saved_pose_pipeline_is_read_back(
    pose_pipeline: MVDiffusionPipeline, ring: Callable[..., CameraBatch], tmp_path: Path
) -> None:
    pose_pipeline.save(tmp_path / "pipe")
    loaded = MVDiffusionPipeline.load(tmp_path / "pipe")
    assert loaded.slots.mode == "pose"
    assert loaded.slots.prompt_azimuths_deg == pose_pipeline.slots.prompt_azimuths_deg
    image, sampling = torch.ones(1, 3, 32, 32), SamplingConfig(steps=1)
    a, b = (
        p(image, generators=[Generator().manual_seed(1)], sampling=sampling, cameras=ring(3))
        for p in (pose_pipeline, loaded)
    )
    assert torch.equal(a, b)


def test_prompts_are_trained_only_if_asked_for(tiny_pipeline: MVDiffusionPipeline) -> None:
    told = condition(tiny_pipeline, None)
    for learned in (False, True):
        denoiser = Denoiser(tiny_pipeline.unet, tiny_pipeline.prompt_embeds, learned)
        denoiser(torch.zeros_like(told.latents), torch.tensor([5, 9]), told).sum().backward()
        gradient = denoiser.prompt_embeds.grad
        assert (gradient is not None) == learned
        assert not learned or gradient.flatten(1).any(dim=1).all()


def test_learned_prompts_do_not_decay(pose_pipeline: MVDiffusionPipeline) -> None:
    denoiser = Denoiser(pose_pipeline.unet, pose_pipeline.prompt_embeds, learned_prompts=True)
    decaying, others = make_adamw(denoiser, OptimizerConfig(weight_decay=0.1), fused=False).param_groups
    assert others["weight_decay"] == 0 and any(p is denoiser.prompt_embeds for p in others["params"])
    assert not any(p is denoiser.prompt_embeds for p in decaying["params"])
    assert any(p is denoiser.unet.conv_in.weight for p in decaying["params"])
