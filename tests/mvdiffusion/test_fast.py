"""A denoiser made fast gives the same numbers."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mouse_facelift.mvdiffusion.attention import AttentionMode
from mouse_facelift.mvdiffusion.conditioning import Condition
from mouse_facelift.mvdiffusion.config import SamplingConfig
from mouse_facelift.mvdiffusion.denoiser import Denoiser
from mouse_facelift.mvdiffusion.fast import speed_up
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline

OBJECTS, SIDE = 2, 8


def inputs(denoiser: Denoiser, views: int, seed: int = 0) -> tuple[Tensor, Tensor, Condition]:
    """Noisy latents, timesteps and a guided condition of two objects."""
    generator = torch.Generator().manual_seed(seed)
    rows, width = len(denoiser.prompt_embeds), denoiser.unet.config.projection_class_embeddings_input_dim
    condition = Condition(
        torch.randn(OBJECTS, views, 4, SIDE, SIDE, generator=generator),
        torch.randn(OBJECTS, views, width, generator=generator),
        torch.randint(rows, (OBJECTS, views), generator=generator),
    ).with_unconditional()
    noisy = torch.randn(2 * OBJECTS, views, 4, SIDE, SIDE, generator=generator)
    return noisy, torch.tensor([900, 20, 900, 20]), condition


def on(device: str, dtype: torch.dtype, condition: Condition) -> Condition:
    return replace(
        condition,
        latents=condition.latents.to(device, dtype),
        class_labels=condition.class_labels.to(device, dtype),
        prompt_index=condition.prompt_index.to(device),
    )


@pytest.fixture
def denoiser(tiny_pipeline: MVDiffusionPipeline) -> Denoiser:
    return tiny_pipeline.denoiser


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("views", [2, 4, 6])
@pytest.mark.parametrize("mode", ["sparse", "dense", "none"])
def test_fast_denoiser_equals_the_plain_one(
    denoiser: Denoiser, mode: AttentionMode, views: int, channels_last: bool
) -> None:
    denoiser.unet.set_views(6, mode)
    noisy, timesteps, condition = inputs(denoiser, views)
    with torch.no_grad():
        expected = denoiser(noisy, timesteps, condition)
    found = speed_up(denoiser, channels_last=channels_last)(noisy, timesteps, condition)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_rays_reach_a_pose_conditioned_unet(pose_pipeline: MVDiffusionPipeline) -> None:
    posed = pose_pipeline.denoiser
    torch.nn.init.normal_(posed.unet.conv_in.weight[:, 8:])
    noisy, timesteps, condition = inputs(posed, 5)
    rays = torch.randn(2 * OBJECTS, 5, 6, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    condition = replace(condition, rays=rays)
    with torch.no_grad():
        expected = posed(noisy, timesteps, condition)
        turned = posed(noisy, timesteps, replace(condition, rays=-rays))
    found = speed_up(posed)(noisy, timesteps, condition)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (turned - expected).abs().max() > 1e-3


def test_each_condition_gets_its_own_class_embedding_and_number_of_views(denoiser: Denoiser) -> None:
    plain, fast = copy.deepcopy(denoiser), speed_up(denoiser)
    for views, seed in ((6, 0), (2, 1), (2, 2), (6, 0)):
        noisy, timesteps, condition = inputs(plain, views, seed)
        with torch.no_grad():
            expected = plain(noisy, timesteps, condition)
        for _ in range(2):
            found = fast(noisy, timesteps, condition)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_class_embedding_is_computed_once_per_condition(denoiser: Denoiser) -> None:
    fast, calls = speed_up(denoiser), []
    fast.unet.class_embedding.register_forward_hook(lambda *_: calls.append(1))
    noisy, timesteps, condition = inputs(denoiser, 4)
    for _ in range(3):
        fast(noisy, timesteps, condition)
    assert len(calls) == 1


def test_prompts_are_projected_before_sampling(denoiser: Denoiser) -> None:
    fast, calls = speed_up(denoiser), []
    for name, module in fast.unet.named_modules():
        if name.endswith((".attn2.to_k", ".attn2.to_v", ".attn1.to_q", ".attn1.to_k", ".attn1.to_v")):
            module.register_forward_hook(lambda *_: calls.append(1))
    fast(*inputs(denoiser, 4))
    assert not calls


def test_unet_compiles_without_graph_breaks(denoiser: Denoiser) -> None:
    torch._dynamo.reset()
    plain, fast = copy.deepcopy(denoiser), speed_up(denoiser)
    fast.unet.compile(fullgraph=True, dynamic=False, backend="eager")
    for views in (2, 6):
        noisy, timesteps, condition = inputs(plain, views)
        with torch.no_grad():
            expected = plain(noisy, timesteps, condition)
        found = fast(noisy, timesteps, condition)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("solver", ["ddim", "unipc", "dpmpp"])
def test_fast_pipeline_makes_the_same_views(tiny_pipeline: MVDiffusionPipeline, solver: str) -> None:
    sampling = SamplingConfig(solver=solver, steps=3)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))

    def views(pipeline: MVDiffusionPipeline) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        return pipeline(images, generators=generators, sampling=sampling)

    expected = views(tiny_pipeline)
    tiny_pipeline.denoiser = speed_up(tiny_pipeline.denoiser)
    torch.testing.assert_close(views(tiny_pipeline), expected, rtol=0, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["sparse", "dense"])
def test_fast_half_precision_stays_near_full_precision(
    denoiser: Denoiser, mode: AttentionMode, dtype: torch.dtype, compiled: bool
) -> None:
    torch._dynamo.reset()
    denoiser.unet.set_views(6, mode)
    noisy, timesteps, condition = inputs(denoiser, 6)
    with torch.no_grad():
        expected = denoiser(noisy, timesteps, condition)
        half = copy.deepcopy(denoiser).to("cuda", dtype)
        told = noisy.to("cuda", dtype), timesteps.cuda(), on("cuda", dtype, condition)
        plain = half(*told).float().cpu()
    fast = speed_up(half, compile=compiled, graphs=compiled)
    for _ in range(3):
        found = fast(*told).float().cpu()
    rounding = (plain - expected).abs().max()
    assert (found - expected).abs().max() < 2 * rounding + 1e-3 * expected.abs().max()
