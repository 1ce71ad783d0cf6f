"""The pipeline as a whole: folders, refusals, and results that depend on picture and seed alone."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from mouse_facelift.errors import CheckpointError, DataError
from mouse_facelift.mvdiffusion.conditioning import Condition
from mouse_facelift.mvdiffusion.config import SamplingConfig
from mouse_facelift.mvdiffusion.denoiser import Denoiser
from mouse_facelift.mvdiffusion.frozen import FrozenParts
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.slots import Slots


@pytest.fixture
def saved(tiny_pipeline: MVDiffusionPipeline, tmp_path: Path) -> Path:
    tiny_pipeline.save(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.fixture
def published(saved: Path, tiny_pipeline: MVDiffusionPipeline) -> Path:
    """The folder as FaceLift's authors write it: foreign class names, no slots, their prompts file."""
    (saved / "slots.json").unlink()
    (saved / "prompt_embeds.safetensors").unlink()
    torch.save(tiny_pipeline.prompt_embeds.half(), saved / "clr_embeds.pt")
    index = json.loads((saved / "model_index.json").read_text())
    index["unet"] = ["mvdiffusion.models.unet_mv2d_condition", "UNetMV2DConditionModel"]
    (saved / "model_index.json").write_text(json.dumps(index))
    return saved


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=Generator().manual_seed(7))


def sample(pipeline: MVDiffusionPipeline, images: Tensor, seeds: list[int], **settings: float) -> Tensor:
    generators = [Generator().manual_seed(seed) for seed in seeds]
    return pipeline(images, generators=generators, sampling=SamplingConfig(**{"steps": 2, **settings}))


def test_saved_pipeline_makes_the_same_views(tiny_pipeline: MVDiffusionPipeline, saved: Path) -> None:
    loaded = MVDiffusionPipeline.load(saved)
    assert torch.equal(sample(loaded, pictures(1), [3]), sample(tiny_pipeline, pictures(1), [3]))
    assert loaded.slots.names == tiny_pipeline.slots.names


def test_result_depends_on_picture_and_seed_not_on_the_batch(tiny_pipeline: MVDiffusionPipeline) -> None:
    images, seeds = pictures(3), [3, 4, 5]
    together = sample(tiny_pipeline, images, seeds)
    assert together.shape == (3, 6, 3, 32, 32)
    assert together.min() >= 0
    assert together.max() <= 1
    backwards = sample(tiny_pipeline, images.flip(0), seeds[::-1]).flip(0)
    torch.testing.assert_close(backwards, together, atol=1e-5, rtol=0)
    for index, seed in enumerate(seeds):
        alone = sample(tiny_pipeline, images[index : index + 1], [seed])
        torch.testing.assert_close(together[index], alone[0], atol=1e-5, rtol=0)


def test_without_noise_in_the_steps_guidance_and_seed_still_matter(
    tiny_pipeline: MVDiffusionPipeline,
) -> None:
    image = pictures(1)
    plain = sample(tiny_pipeline, image, [3], eta=0.0, guidance=1.0)
    assert torch.equal(plain, sample(tiny_pipeline, image, [3], eta=0.0, guidance=1.0))
    assert not torch.equal(plain, sample(tiny_pipeline, image, [3], eta=0.0, guidance=3.0))
    assert not torch.equal(plain, sample(tiny_pipeline, image, [5], eta=0.0, guidance=1.0))


def test_half_precision_networks_stay_near_fp32(tiny_pipeline: MVDiffusionPipeline, saved: Path) -> None:
    exact = sample(tiny_pipeline, pictures(1), [3])
    half = sample(MVDiffusionPipeline.load(saved, dtype=torch.bfloat16), pictures(1), [3])
    assert half.dtype == torch.float32
    assert (half - exact).abs().mean() < 0.02


@pytest.mark.parametrize("part", ["vae", "image_encoder", "image_normalizer", "scheduler", "unet"])
def test_missing_part_is_named(saved: Path, part: str) -> None:
    shutil.rmtree(saved / part)
    with pytest.raises(CheckpointError, match=rf"no {part}\b"):
        MVDiffusionPipeline.load(saved)


@pytest.mark.parametrize("part", ["vae", "image_encoder"])
def test_incomplete_part_is_refused(saved: Path, part: str) -> None:
    from safetensors.torch import load_file, save_file

    path = next((saved / part).glob("*.safetensors"))
    state = load_file(path)
    state.pop(sorted(state)[0])
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=part):
        MVDiffusionPipeline.load(saved)


def test_published_folder_gets_facelift_slots_and_says_so(
    published: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        pipeline = MVDiffusionPipeline.load(published)
    assert pipeline.slots.mode == "facelift"
    assert pipeline.slots.image_size == 32
    assert "front_right" in caplog.text


def test_folder_without_slots_is_refused(saved: Path) -> None:
    (saved / "slots.json").unlink()
    with pytest.raises(CheckpointError, match=r"no slots\.json"):
        MVDiffusionPipeline.load(saved)


def test_folder_without_prompts_is_refused(saved: Path) -> None:
    (saved / "prompt_embeds.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"clr_embeds\.pt"):
        MVDiffusionPipeline.load(saved)


def test_parts_of_different_view_counts_are_refused(tiny_pipeline: MVDiffusionPipeline) -> None:
    four = Denoiser(tiny_pipeline.unet, tiny_pipeline.prompt_embeds[:4])
    with pytest.raises(CheckpointError, match="4 rows for 6 directions; these parts do not belong together"):
        dataclasses.replace(tiny_pipeline, denoiser=four)


def test_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model_index\.json"):
        MVDiffusionPipeline.load(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        MVDiffusionPipeline.load(tmp_path / "absent")


def test_picture_of_another_size_is_refused(tiny_pipeline: MVDiffusionPipeline) -> None:
    with pytest.raises(DataError, match=r"expected \(B, 3, 32, 32\)"):
        sample(tiny_pipeline, torch.ones(1, 3, 64, 64), [3])


def test_scheduler_of_another_objective_is_refused(saved: Path) -> None:
    path = saved / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "epsilon"}))
    with pytest.raises(CheckpointError, match="v_prediction"):
        FrozenParts.load(saved)


def test_conditions_are_dropped_in_three_equal_shares() -> None:
    told = torch.arange(2).expand(5, 2), torch.ones(5, 2, 6, 1, 1)
    condition = Condition(torch.ones(5, 2, 4, 1, 1), torch.ones(5, 2, 6), *told)
    dropped = condition.dropped(torch.tensor([0.05, 0.15, 0.25, 0.35, 0.95]), 0.1)
    assert dropped.class_labels[:, 0, 0].tolist() == [0, 0, 1, 1, 1]
    assert dropped.latents[:, 0, 0, 0, 0].tolist() == [1, 0, 0, 1, 1]
    assert torch.equal(dropped.prompt_index, told[0])
    assert torch.equal(dropped.rays, told[1])


def test_latents_of_the_mode_are_those_without_posterior_noise(tiny_pipeline: MVDiffusionPipeline) -> None:
    frozen, images = tiny_pipeline.frozen, pictures(2)
    side = 32 // frozen.pixels_per_latent
    still = frozen.encode(images, torch.zeros(2, 4, side, side))
    torch.testing.assert_close(still, frozen.encode(images))
    assert frozen.decode(still).shape == images.shape


def test_slots_decide_the_number_of_views(tiny_pipeline: MVDiffusionPipeline, tmp_path: Path) -> None:
    two = Slots("rig", (4, 7), Slots.facelift(32).cameras[:2])
    tiny_pipeline.unet.set_views(2, "dense")
    denoiser = Denoiser(tiny_pipeline.unet, tiny_pipeline.prompt_embeds[:2])
    pipeline = dataclasses.replace(tiny_pipeline, slots=two, denoiser=denoiser)
    assert sample(pipeline, pictures(1), [0]).shape == (1, 2, 3, 32, 32)
    pipeline.save(tmp_path / "two")
    assert MVDiffusionPipeline.load(tmp_path / "two").slots.names == ("camera_4", "camera_7")
