"""Multi-view diffusion against numbers of the published code; tolerances are 10x those its README reached."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mouse_facelift.mvdiffusion.objective import Draws, diffusion_loss, min_snr_weight
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.prompts import load_prompt_embeds, save_prompt_embeds
from mouse_facelift.mvdiffusion.train import training_condition
from mouse_facelift.mvdiffusion.unet import MultiViewUNet, parse_config

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def fixtures(shared: Path) -> Path:
    return shared / "fixtures" / "facelift"


@pytest.fixture(scope="module")
def pipeline(fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> MVDiffusionPipeline:
    """The published layout with the fixture's five-token prompts."""
    stand_in = tmp_path_factory.mktemp("prompts") / "prompts.safetensors"
    save_prompt_embeds(stand_in, torch.ones(6, 77, 24))
    loaded = MVDiffusionPipeline.load(fixtures / "tiny_pipeline", prompt_embeds=stand_in)
    prompts = load_file(fixtures / "pipeline.safetensors")["in_prompt_embeds"]
    return dataclasses.replace(loaded, prompt_embeds=prompts)


def assert_close(found: Tensor, expected: Tensor, relative: float) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= relative * expected.abs().max()


@pytest.mark.parametrize("name", ["unet_a", "unet_b"])
@pytest.mark.parametrize(
    ("mode", "expected"),
    [("sparse", "out_sparse"), ("dense", "out_xformers_dense"), ("none", "out_no_multiview")],
)
def test_unet_output_equals_the_published_one(fixtures: Path, name: str, mode: str, expected: str) -> None:
    unet, io = fixture_unet(fixtures, name), load_file(fixtures / f"{name}_io.safetensors")
    unet.set_views(unet.num_views, mode)
    with torch.no_grad():
        assert_close(run(unet, io), io[expected], 3e-5)


def test_dense_equals_what_the_published_code_does_without_xformers(fixtures: Path) -> None:
    unet, io = fixture_unet(fixtures, "unet_a"), load_file(fixtures / "unet_a_io.safetensors")
    unet.set_views(6, "dense")
    with torch.no_grad():
        assert_close(run(unet, io), io["out_no_xformers_dense"], 3e-5)


def test_unet_gradients_equal_the_published_ones(fixtures: Path) -> None:
    unet, io = fixture_unet(fixtures, "unet_a"), load_file(fixtures / "unet_a_io.safetensors")
    sample = io["in_sample"].requires_grad_()
    out = run(unet, io)
    (out * io["grad_cot"]).mean().backward()
    assert_close(sample.grad, io["grad_in_sample"], 3e-5)
    assert_close(gradient_norms(unet), io["grad_norms"], 3e-5)


def test_production_keys_and_shapes_are_the_published_ones(shared: Path, fixtures: Path) -> None:
    lines = (shared / "mvdiffusion_unet_state_dict.tsv").read_text().splitlines()[1:]
    published = {key: shape for key, shape, *_ in (line.split("\t") for line in lines)}
    config = json.loads((fixtures / "tiny_pipeline" / "unet" / "config.json").read_text()) | {
        "sample_size": 64,
        "block_out_channels": [320, 640, 1280, 1280],
        "norm_num_groups": 32,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "projection_class_embeddings_input_dim": 2048,
    }
    views, attention, stock = parse_config(config, "published")
    with torch.device("meta"):
        unet = MultiViewUNet(views, attention, **stock)
    state = unet.state_dict()
    assert {key: "x".join(map(str, value.shape)) for key, value in state.items()} == published
    assert sum(value.numel() for value in state.values()) == 870_184_644
    assert (views, attention) == (6, "sparse")


def test_pipeline_reproduces_the_published_run(pipeline: MVDiffusionPipeline, fixtures: Path) -> None:
    facts, io = read_fixture(fixtures, "pipeline")
    image = io["in_image_uint8"].permute(2, 0, 1)[None] / 255
    made = pipeline(
        image,
        generators=[torch.Generator().manual_seed(facts["gen_seed"])],
        steps=facts["steps"],
        guidance=facts["gs"],
        eta=facts["eta"],
    )[0]
    assert_close(made, (io["vae_decode_output"] / 2 + 0.5).clamp(0, 1), 5e-5)
    pixels = made.mul(255).round().byte().permute(0, 2, 3, 1).int()
    assert (pixels - io["out_images_uint8"].int()).abs().max() <= 1


def test_pipeline_reproduces_the_published_run_without_guidance(
    pipeline: MVDiffusionPipeline, fixtures: Path
) -> None:
    facts, io = read_fixture(fixtures, "pipeline")
    second = facts["run2"]
    image = io["in_image_uint8"].permute(2, 0, 1)[None] / 255
    made = pipeline(
        image,
        generators=[torch.Generator().manual_seed(second["generator_seed"])],
        steps=second["steps"],
        guidance=second["guidance_scale"],
        eta=second["eta"],
    )[0]
    assert_close(made, io["run2_gs1_eta0_steps2_pt"], 5e-5)


def test_conditioning_equals_the_published_one(pipeline: MVDiffusionPipeline, fixtures: Path) -> None:
    _, io = read_fixture(fixtures, "pipeline")
    image = io["in_image_uint8"].permute(2, 0, 1)[None] / 255
    pixels = pipeline.frozen.feature_extractor(image, eight_bit=True)
    # One 8-bit level: the resize works on integers, whose rounding may differ between processors.
    assert (pixels[0] - io["clip_pixel_values"][0]).abs().max() <= 1 / 255 / 0.26
    embeds = pipeline.frozen.image_embeds(image, eight_bit=True)
    assert_close(embeds[0], io["clip_image_embeds"][0], 5e-5)
    condition = pipeline.condition(image, io["noise_image_embeds"][None]).with_unconditional()
    assert_close(condition.class_labels.flatten(0, 1), io["class_labels"], 5e-5)
    assert_close(condition.latents.flatten(0, 1), io["image_latents_cfg"], 5e-5)
    assert_close(condition.prompts.flatten(0, 1), io["encoder_hidden_states"], 5e-5)


def test_schedules_equal_the_published_ones(pipeline: MVDiffusionPipeline, fixtures: Path) -> None:
    _, io = read_fixture(fixtures, "pipeline")
    scheduler = pipeline.frozen.scheduler
    assert_close(scheduler.alphas_cumprod, io["alphas_cumprod"], 1e-6)
    noising = pipeline.frozen.image_noising_scheduler.alphas_cumprod
    assert_close(noising[:10], io["noising_alphas_cumprod_head"], 1e-6)
    for steps in (3, 20, 50):
        scheduler.set_timesteps(steps)
        assert torch.equal(scheduler.timesteps, io["timesteps" if steps == 3 else f"timesteps_{steps}"])


@pytest.mark.parametrize("case", ["shipped", "no_snr", "high_drop", "unscaled_cond"])
def test_training_loss_equals_the_published_one(
    pipeline: MVDiffusionPipeline, fixtures: Path, case: str
) -> None:
    facts, io = read_fixture(fixtures, "train_diffusion")
    setting, frozen, draws = facts["cases"][case], pipeline.frozen, recorded_draws(io)
    latents = frozen.encode(io["imgs_out"].flatten(0, 1), draws.posterior.flatten(0, 1)).unflatten(0, (3, 6))
    condition = training_condition(frozen, io["imgs_in"][:, 0], io["prompt_embeds"][0], draws)
    if not setting["scale_input_latents"]:
        unscaled = condition.latents / frozen.vae.config.scaling_factor
        condition = dataclasses.replace(condition, latents=unscaled)
    condition = condition.dropped(draws.drop, setting["condition_drop_rate"])
    unet = pipeline.unet
    unet.zero_grad()
    loss = diffusion_loss(
        unet, latents, condition, draws, frozen.scheduler.alphas_cumprod, setting["snr_gamma"]
    )
    assert_close(loss.detach()[None], io[f"{case}.loss"], 2e-6)
    if case == "shipped":
        assert_close(condition.class_labels.flatten(0, 1), io["unet_class_labels"], 1e-5)
        loss.backward()
        assert_close(gradient_norms(unet), io["grad_norms"], 3e-5)
    if case == "high_drop":
        assert_close(condition.class_labels.flatten(0, 1), io["high_drop.unet_class_labels"], 1e-5)
        assert_close(condition.latents.flatten(0, 1), io["high_drop.unet_sample_cond"], 1e-5)


def test_min_snr_weights_equal_the_published_ones(pipeline: MVDiffusionPipeline, fixtures: Path) -> None:
    _, io = read_fixture(fixtures, "train_diffusion")
    weights = min_snr_weight(pipeline.frozen.scheduler.alphas_cumprod, 5.0)
    assert_close(weights, io["min_snr_weight_gamma5"], 1e-5)


def test_published_prompt_embeddings_are_read(shared: Path, fixtures: Path) -> None:
    facts = json.loads((fixtures / "prompt_embeds.json").read_text())
    embeds = load_prompt_embeds(shared / "data" / "facelift_sample" / "clr_embeds.pt", 6, 1024)
    assert list(embeds.shape) == facts["shape"]
    assert embeds.dtype == torch.float16
    for view, tokens in enumerate(facts["probe"].values()):
        for name, values in tokens.items():
            assert embeds[view, int(name.removeprefix("tok")), : len(values)].tolist() == values


def fixture_unet(fixtures: Path, name: str) -> MultiViewUNet:
    config = json.loads((fixtures / f"{name}.json").read_text())["config_json"]
    views, attention, stock = parse_config(config, name)
    unet = MultiViewUNet(views, attention, **stock).eval()
    unet.load_state_dict(load_file(fixtures / f"{name}_weights.safetensors"), strict=True)
    return unet


def run(unet: MultiViewUNet, io: dict[str, Tensor]) -> Tensor:
    return unet(
        io["in_sample"],
        io["in_timestep"],
        encoder_hidden_states=io["in_encoder_hidden_states"],
        class_labels=io["in_class_labels"],
    ).sample


def read_fixture(fixtures: Path, name: str) -> tuple[dict, dict[str, Tensor]]:
    return json.loads((fixtures / f"{name}.json").read_text()), load_file(fixtures / f"{name}.safetensors")


def recorded_draws(io: dict[str, Tensor]) -> Draws:
    per_view = {
        "posterior": io["vae_sample_noise"],
        "noise": io["latent_noise"],
        "embed": io["embed_noise"],
    }
    return Draws(
        timesteps=io["timesteps_per_object"],
        drop=io["drop_random_p"],
        **{name: value.unflatten(0, (3, 6)) for name, value in per_view.items()},
    )


def gradient_norms(unet: MultiViewUNet) -> Tensor:
    return torch.stack([parameter.grad.double().norm() for parameter in unet.parameters()])
