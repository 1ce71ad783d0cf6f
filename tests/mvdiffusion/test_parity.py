"""Multi-view diffusion against numbers of the published code, at ten times the deviation its README reached.

Sizes, numbers of views and objects, steps and cases all come from the fixtures, so that another set of the
same structure runs through. Not compared: `attention_shapes_qk` (whether view 0 sees its tokens once or twice
makes no difference), and `drop_independent`, which is broken in the published code. Learning rates and the
averaging of weights are compared in `test_schedule`.
"""

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mouse_facelift.errors import CheckpointError
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.rays import CameraBatch
from mouse_facelift.mvdiffusion.attention import AttentionMode
from mouse_facelift.mvdiffusion.config import SamplingConfig
from mouse_facelift.mvdiffusion.denoiser import Denoiser
from mouse_facelift.mvdiffusion.encoding import encode_batch
from mouse_facelift.mvdiffusion.frozen import FrozenParts
from mouse_facelift.mvdiffusion.objective import Draws, diffusion_loss, min_snr_weight
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.prompts import TOKENS, load_prompt_embeds, save_prompt_embeds
from mouse_facelift.mvdiffusion.slots import FACELIFT_NAMES, Slots
from mouse_facelift.mvdiffusion.solvers import Solver
from mouse_facelift.mvdiffusion.task import training_condition
from mouse_facelift.mvdiffusion.unet import LATENT_CHANNELS, MultiViewUNet, parse_config

pytestmark = pytest.mark.parity

UNET, PIPELINE, LOSS = 3e-5, 5e-5, 2e-6
"""Tolerances relative to the largest magnitude."""

PUBLISHED_SIZES: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlockMV2D"] * 3 + ["DownBlock2D"],
    "mid_block_type": "UNetMidBlockMV2DCrossAttn",
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlockMV2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 2048,
    "selfattn_block": "custom",
}
"""Of the published UNet (facelift_spec.md 6.1); view count and attention are not saved there."""


@dataclasses.dataclass(frozen=True)
class Fixture:
    """One recording: what its JSON says, and its tensors."""

    name: str
    facts: dict[str, Any]
    io: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path, name: str, tensors: str = "") -> "Fixture":
        facts = json.loads((folder / f"{name}.json").read_text())
        return cls(name, facts, load_file(folder / f"{name}{tensors}.safetensors"))

    def starting(self, prefix: str) -> dict[str, Tensor]:
        """Tensors by what follows the prefix in their names."""
        return {key.removeprefix(prefix): x for key, x in self.io.items() if key.startswith(prefix)}


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "fixtures" / "facelift"


@pytest.fixture(scope="module")
def unets(folder: Path) -> list[Fixture]:
    names = sorted(path.name.removesuffix("_weights.safetensors") for path in folder.glob("unet_*_weights.*"))
    assert names
    return [Fixture.read(folder, name, "_io") for name in names]


@pytest.fixture(scope="module")
def sampled(folder: Path) -> Fixture:
    return Fixture.read(folder, "pipeline")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Fixture:
    return Fixture.read(folder, "train_diffusion")


def test_unet_outputs_in_every_attention_mode(unets: list[Fixture], folder: Path) -> None:
    for fixture in unets:
        outputs = fixture.starting("out_")
        assert {"sparse", "no_multiview"} <= outputs.keys()
        for name, expected in outputs.items():
            unet = unet_of(fixture, folder)
            unet.set_views(unet.num_views, mode_of(name))
            timestep = fixture.io["in_timestep"]
            with torch.no_grad():
                found = run(unet, fixture.io, timestep[0] if name.endswith("scalar_t") else timestep)
            assert_close(found, expected, UNET, f"{fixture.name} {name}")


def test_unet_blocks_and_gradients(unets: list[Fixture], folder: Path) -> None:
    """Everything that was recorded on the way, by the recorded names."""
    for fixture in unets:
        unet, io = unet_of(fixture, folder), fixture.io
        blocks = io.keys() - {name for name in io if name.startswith(("in_", "out_", "grad_"))}
        assert blocks
        found = record_outputs({name: unet.get_submodule(module_of(name)) for name in blocks})
        sample = io["in_sample"].clone().requires_grad_()
        out = run(unet, io | {"in_sample": sample}, io["in_timestep"])
        (out * io["grad_cot"]).mean().backward()
        for name in blocks:
            assert_close(found[name][0], io[name], UNET, f"{fixture.name} {name}")
        assert_close(sample.grad, io["grad_in_sample"], UNET, fixture.name)
        assert_close(gradient_norms(unet, fixture.facts["param_names"]), io["grad_norms"], UNET, fixture.name)


def test_unet_parameters_have_the_published_names_and_shapes(unets: list[Fixture], folder: Path) -> None:
    for fixture in unets:
        state = unet_of(fixture, folder).state_dict()
        assert {k: list(x.shape) for k, x in state.items()} == {
            name: shape for name, (shape, _) in fixture.facts["weights"].items()
        }
        assert sum(value.numel() for value in state.values()) == fixture.facts["n_params"]


def test_production_keys_and_shapes_are_the_published_ones(shared: Path) -> None:
    lines = (shared / "mvdiffusion_unet_state_dict.tsv").read_text().splitlines()[1:]
    published = {key: shape for key, shape, *_ in (line.split("\t") for line in lines)}
    views, attention, stock = parse_config(PUBLISHED_SIZES, "published")
    assert (views, attention) == (len(FACELIFT_NAMES), "sparse")
    with torch.device("meta"):
        unet = MultiViewUNet(views, attention, **stock)
    state = unet.state_dict()
    assert {key: "x".join(map(str, value.shape)) for key, value in state.items()} == published
    assert sum(value.numel() for value in state.values()) == 870_184_644


def test_published_folder_is_loaded_part_by_part(folder: Path, sampled: Fixture, tmp_path: Path) -> None:
    """Its `model_index.json` names a foreign class. Six views are FaceLift's, of others nobody knows."""
    path, prompts = folder / "tiny_pipeline", tmp_path / "prompts.safetensors"
    assert json.loads((path / "model_index.json").read_text()) == sampled.facts["model_index"]
    unet = MultiViewUNet.from_pretrained(path / "unet")
    save_prompt_embeds(prompts, torch.ones(unet.num_views, TOKENS, unet.config.cross_attention_dim))
    if unet.num_views != len(FACELIFT_NAMES):
        with pytest.raises(CheckpointError, match="nobody knows"):
            MVDiffusionPipeline.load(path, prompt_embeds=prompts)
        return
    pipeline = MVDiffusionPipeline.load(path, prompt_embeds=prompts)
    assert pipeline.slots.names == FACELIFT_NAMES
    assert pipeline.slots.image_size == len(sampled.io["in_image_uint8"])
    for name, value in unet.state_dict().items():
        assert torch.equal(value, pipeline.unet.state_dict()[name])


def test_schedules(folder: Path, sampled: Fixture, trained: Fixture) -> None:
    frozen, facts = FrozenParts.load(folder / "tiny_pipeline"), sampled.facts
    scheduler, noising = frozen.scheduler, frozen.image_noising_scheduler
    for fixture in (sampled, trained):
        assert_close(scheduler.alphas_cumprod, fixture.io["alphas_cumprod"], 1e-6)
    assert float(scheduler.final_alpha_cumprod) == pytest.approx(facts["final_alpha_cumprod"], rel=1e-6)
    head = sampled.io["noising_alphas_cumprod_head"]
    assert_close(noising.alphas_cumprod[: len(head)], head, 1e-6)
    for ours, published in ((scheduler, facts["ddim_config"]), (noising, facts["noising_config"])):
        shared = {key for key in published.keys() & ours.config.keys() if not key.startswith("_")}
        assert {"beta_schedule", "prediction_type", "num_train_timesteps"} <= shared
        assert {key: ours.config[key] for key in shared} == {key: published[key] for key in shared}
    by_steps = {int(steps): x for steps, x in sampled.starting("timesteps_").items()}
    for steps, expected in {facts["steps"]: sampled.io["timesteps"], **by_steps}.items():
        assert Solver(scheduler, SamplingConfig(steps=steps)).timesteps.equal(expected), steps


def test_conditioning(folder: Path, sampled: Fixture) -> None:
    pipeline, io, image = pipeline_of(folder, sampled), sampled.io, picture(sampled)
    preprocessor = pipeline.frozen.feature_extractor
    pixels = preprocessor(image, eight_bit=True).expand_as(io["clip_pixel_values"])
    # One 8-bit level: the resize works on integers, whose rounding may differ between processors.
    assert (pixels - io["clip_pixel_values"]).abs().max() <= 1 / 255 / min(preprocessor.std)
    embeds = pipeline.frozen.image_embeds(image, eight_bit=True).expand_as(io["clip_image_embeds"])
    assert_close(embeds, io["clip_image_embeds"], PIPELINE)
    condition = pipeline.condition(image, io["noise_image_embeds"][None])
    if sampled.facts["gs"] != 1:
        condition = condition.with_unconditional()
    assert_close(condition.class_labels.flatten(0, 1), io["class_labels"], PIPELINE)
    assert_close(condition.latents.flatten(0, 1), io["image_latents_cfg"], PIPELINE)
    told = pipeline.prompt_embeds[condition.prompt_index].flatten(0, 1)
    assert_close(told, io["encoder_hidden_states"], PIPELINE)


def test_one_generator_draws_all_noise_in_the_published_order(sampled: Fixture) -> None:
    generator = torch.Generator().manual_seed(sampled.facts["gen_seed"])
    assert sampled.facts["generator_draws_equal_plain_torch_randn"]
    for name in sampled.facts["rng_order"]:
        assert torch.randn(sampled.io[name].shape, generator=generator).equal(sampled.io[name]), name


def test_every_step_of_a_guided_run(folder: Path, sampled: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, facts, io = pipeline_of(folder, sampled), sampled.facts, sampled.io
    vae, scale = pipeline.frozen.vae, pipeline.frozen.vae.config.scaling_factor
    calls = record_calls(pipeline.unet)
    encoded, decoded = record_inputs(vae, "encode", monkeypatch), record_inputs(vae, "decode", monkeypatch)
    sampling = SamplingConfig(steps=facts["steps"], guidance=facts["gs"], eta=facts["eta"])
    generator = torch.Generator().manual_seed(facts["gen_seed"])
    made = pipeline(picture(sampled), generators=[generator], sampling=sampling)[0]

    (shown,) = sampled.starting("vae_encode_input").values()
    assert_close(encoded[0], shown, PIPELINE)
    assert len(calls) == facts["steps"]
    latents = [call.sample[-len(made) :, :LATENT_CHANNELS] for call in calls[1:]] + [decoded[0] * scale]
    for step, (call, after) in enumerate(zip(calls, latents, strict=True)):
        recorded = sampled.starting(f"step{step}_")
        assert call.timesteps.unique().equal(recorded["t"]), step
        assert_close(call.sample, recorded["unet_in"], PIPELINE, f"step {step}")
        assert_close(call.output, recorded["unet_out"], PIPELINE, f"step {step}")
        assert_close(after, recorded["latents"], PIPELINE, f"step {step}")
    assert_close(decoded[0], io["vae_decode_input"], PIPELINE)
    assert_close(made, (io["vae_decode_output"] / 2 + 0.5).clamp(0, 1), PIPELINE)
    pixels = made.mul(255).round().byte().permute(0, 2, 3, 1).int()
    assert (pixels - io["out_images_uint8"].int()).abs().max() <= 1


def test_second_run_with_other_settings(folder: Path, sampled: Fixture) -> None:
    second = sampled.facts["run2"]
    (expected,) = sampled.starting("run2_").values()
    made = pipeline_of(folder, sampled)(
        picture(sampled),
        generators=[torch.Generator().manual_seed(second["generator_seed"])],
        sampling=SamplingConfig(steps=second["steps"], guidance=second["guidance_scale"], eta=second["eta"]),
    )
    assert_close(made[0], expected, PIPELINE)


def test_training_loss_dropping_and_gradients(folder: Path, trained: Fixture) -> None:
    """What is recorded without a case's name belongs to the first case."""
    first = next(iter(trained.facts["cases"].values()))
    assert trained.io["timesteps_per_object"].equal(torch.tensor(first["timesteps"]))
    assert trained.io["drop_random_p"].equal(torch.tensor(first["drop_random_p"]))
    cases = {
        name: case for name, case in trained.facts["cases"].items() if case["drop_type"] == "drop_as_a_whole"
    }
    assert cases
    for name, case in cases.items():
        denoiser, loss, call = training_step(folder, trained, case)
        assert_close(loss.detach()[None], trained.io[f"{name}.loss"], LOSS, name)
        assert loss.item() == pytest.approx(case["loss"], rel=LOSS)
        found = {
            "unet_sample": call.sample,
            "unet_sample_cond": call.sample[:, LATENT_CHANNELS:],
            "unet_t": call.timesteps,
            "unet_class_labels": call.labels,
            "unet_out": call.output,
        }
        prefix = "" if name == next(iter(trained.facts["cases"])) else f"{name}."
        for key in found.keys() & trained.starting(prefix).keys():
            assert_close(found[key], trained.io[prefix + key], PIPELINE, f"{name} {key}")
        if f"{prefix}grad_norms" in trained.io:
            loss.backward()
            norms = gradient_norms(denoiser.unet, [n for n, _ in denoiser.unet.named_parameters()])
            assert_close(norms, trained.io[f"{prefix}grad_norms"], UNET, name)


def test_signal_to_noise_and_its_weights(trained: Fixture) -> None:
    kept = trained.io["alphas_cumprod"]
    (snr,) = trained.starting("snr_").values()
    assert_close(kept / (1 - kept), snr, 1e-5)
    weights = trained.starting("min_snr_weight_gamma")
    assert weights
    for gamma, expected in weights.items():
        assert_close(min_snr_weight(kept, float(gamma.replace("p", "."))), expected, 1e-5)


def test_published_prompt_embeddings(shared: Path, folder: Path) -> None:
    path, facts = shared / "data" / "facelift_sample" / "clr_embeds.pt", read_json(folder / "prompt_embeds")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == facts["sha256_file"]
    views, tokens, width = facts["shape"]
    assert tokens == TOKENS
    embeds = load_prompt_embeds(path, views, width)
    assert str(embeds.dtype) == f"torch.{facts['dtype']}"
    assert hashlib.sha256(embeds.numpy().tobytes()).hexdigest() == facts["sha256_tensor_bytes"]
    exact = embeds.double()
    assert float(exact.mean()) == pytest.approx(facts["mean"], abs=1e-5)
    assert float(exact.std()) == pytest.approx(facts["std"], abs=1e-5)
    assert exact.flatten(1).norm(dim=1).tolist() == pytest.approx(facts["per_view_l2"], rel=1e-5)
    names = list(facts["probe"])
    for view, probe in zip(embeds, facts["probe"].values(), strict=True):
        for token, values in probe.items():
            assert view[int(token.removeprefix("tok")), : len(values)].tolist() == values
    for name, first in facts["first_token_where_view_differs_from_front"].items():
        differs = (embeds[names.index(name)] != embeds[0]).any(dim=1)
        assert int(differs.nonzero()[0]) == first, name


def read_json(stem: Path) -> dict[str, Any]:
    return json.loads(stem.with_suffix(".json").read_text())


def assert_close(found: Tensor, expected: Tensor, relative: float, name: str = "") -> None:
    assert found.shape == expected.shape, name
    deviation = (found.detach().double() - expected.double()).abs().max() / expected.double().abs().max()
    assert deviation <= relative, f"{name} deviates by {deviation:.2g}, allowed {relative:.2g}"


def mode_of(output: str) -> AttentionMode:
    """The attention that an output is named after."""
    if "no_multiview" in output:
        return "none"
    return "dense" if "dense" in output else "sparse"


def module_of(recorded: str) -> str:
    """The module whose output is recorded under a name such as down0_tb0_attn1_mv, up1_out or mid_out."""
    match = re.fullmatch(r"(down|mid|up)(\d*)(?:_(resnet|attn|tb)(\d+))?(?:_(\w+?))?(?:_mv|_out)?", recorded)
    if match is None:
        return recorded
    side, level, part, index, inside = match.groups()
    name = f"{side}_blocks.{level}" if level else f"{side}_block"
    if part:
        name += f".{'resnets' if part == 'resnet' else 'attentions'}.{index}"
    if part == "tb":
        name += ".transformer_blocks.0"
    return f"{name}.{inside}" if inside and inside != "out" else name


def record_outputs(modules: dict[str, nn.Module]) -> dict[str, list[Tensor]]:
    """What modules will give, call by call; of several outputs the first."""
    found: dict[str, list[Tensor]] = {name: [] for name in modules}
    for name, module in modules.items():
        module.register_forward_hook(
            lambda module, inputs, output, name=name: found[name].append(
                output[0] if isinstance(output, tuple) else output
            )
        )
    return found


@dataclasses.dataclass(frozen=True)
class Call:
    """What a UNet was given, and what it gave."""

    sample: Tensor
    timesteps: Tensor
    labels: Tensor
    output: Tensor


def record_calls(unet: MultiViewUNet) -> list[Call]:
    calls: list[Call] = []

    def record(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        calls.append(Call(args[0], args[1], kwargs["class_labels"], output.sample))

    unet.register_forward_hook(record, with_kwargs=True)
    return calls


def record_inputs(module: nn.Module, method: str, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    inputs, plain = [], getattr(module, method)
    monkeypatch.setattr(module, method, lambda x, *args, **kw: inputs.append(x) or plain(x, *args, **kw))
    return inputs


def unet_of(fixture: Fixture, folder: Path) -> MultiViewUNet:
    views, attention, stock = parse_config(fixture.facts["config_json"], fixture.name)
    unet = MultiViewUNet(views, attention, **stock).eval()
    unet.load_state_dict(load_file(folder / f"{fixture.name}_weights.safetensors"), strict=True)
    return unet


def run(unet: MultiViewUNet, io: dict[str, Tensor], timestep: Tensor) -> Tensor:
    return unet(
        io["in_sample"],
        timestep,
        encoder_hidden_states=io["in_encoder_hidden_states"],
        class_labels=io["in_class_labels"],
    ).sample


def gradient_norms(unet: MultiViewUNet, names: list[str]) -> Tensor:
    parameters = dict(unet.named_parameters())
    return torch.stack([parameters[name].grad.double().norm() for name in names])


def pipeline_of(folder: Path, sampled: Fixture) -> MVDiffusionPipeline:
    """The tiny pipeline with the recorded prompts, for as many views as there are prompts."""
    prompts, size = sampled.io["in_prompt_embeds"], len(sampled.io["in_image_uint8"])
    frozen = FrozenParts.load(folder / "tiny_pipeline")
    return MVDiffusionPipeline(denoiser_of(folder, prompts), frozen, ring(len(prompts), size))


def denoiser_of(folder: Path, prompts: Tensor) -> Denoiser:
    unet = MultiViewUNet.from_pretrained(folder / "tiny_pipeline" / "unet")
    unet.set_views(len(prompts), unet.attention)
    return Denoiser(unet, prompts)


def ring(views: int, size: int) -> Slots:
    """Slots for a model that is not told where its views are: any cameras will do."""
    angles = torch.arange(views) * 2 * torch.pi / views
    centers = torch.stack([angles.cos(), angles.sin(), torch.zeros(views)], dim=1)
    cameras = [Camera.look_at(2.7 * center, (0, 0, 0), size, size) for center in centers.double().numpy()]
    return Slots("rig", tuple(range(views)), tuple(cameras))


def picture(sampled: Fixture) -> Tensor:
    """The shown picture. [1, 3, S, S]"""
    return sampled.io["in_image_uint8"].permute(2, 0, 1)[None] / 255


def training_step(folder: Path, trained: Fixture, case: dict[str, Any]) -> tuple[Denoiser, Tensor, Call]:
    """The loss of one case with the recorded draws, and what the UNet was given for it."""
    io, shown, views = trained.io, trained.io["imgs_in"], trained.io["imgs_out"]
    frozen, denoiser = FrozenParts.load(folder / "tiny_pipeline"), denoiser_of(folder, io["prompt_embeds"][0])
    assert case["n_views"] == views.shape[1]
    draws = draws_of(io, case, views.shape[:2])
    opaque = [torch.cat([x, torch.ones_like(x[:, :, :1])], dim=2) for x in (shown, views)]
    reference, targets = (encode_batch(frozen, rgba, torch.ones(len(views))) for rgba in opaque)
    slots = ring(views.shape[1], views.shape[-1])
    cameras = CameraBatch(*(x.expand(len(views), -1, -1, -1) for x in vars(slots.camera_batch).values()))
    condition = training_condition(frozen, slots, reference, cameras, draws)
    if not case["scale_input_latents"]:
        unscaled = condition.latents / frozen.vae.config.scaling_factor
        condition = dataclasses.replace(condition, latents=unscaled)
    if case["use_classifier_free_guidance"]:
        condition = condition.dropped(draws.drop, case["condition_drop_rate"])
    calls, latents = record_calls(denoiser.unet), targets.sample(draws.posterior)
    schedule = frozen.scheduler.alphas_cumprod
    loss = diffusion_loss(denoiser, latents, condition, draws, schedule, case["snr_gamma"])
    return denoiser, loss, calls[0]


def draws_of(io: dict[str, Tensor], case: dict[str, Any], objects_and_views: tuple[int, ...]) -> Draws:
    """Each case tells its own timesteps and drops; the other draws are those of all."""
    per_view = {
        "posterior": io["vae_sample_noise"],
        "noise": io["latent_noise"],
        "embed": io["embed_noise"],
    }
    return Draws(
        timesteps=torch.tensor(case["timesteps"]),
        drop=torch.tensor(case["drop_random_p"]),
        **{name: value.unflatten(0, objects_and_views) for name, value in per_view.items()},
    )
