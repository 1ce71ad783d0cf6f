"""Every number of the published GS-LRM that the fixtures hold, at ten times the fixtures' own deviation."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from mouse_facelift import metrics
from mouse_facelift.gaussians.rasterizer import rasterize
from mouse_facelift.gaussians.tiles import PUBLISHED
from mouse_facelift.geometry.rays import CameraBatch, pixel_rays, select_views
from mouse_facelift.gslrm.config import GSLRMConfig, LossConfig
from mouse_facelift.gslrm.losses import rendering_loss
from mouse_facelift.gslrm.model import GSLRM
from mouse_facelift.gslrm.tokens import patchify, posed_images
from mouse_facelift.gslrm.weights import LOSS_PREFIX, load_gslrm

pytestmark = pytest.mark.parity

CASES = ["gslrm_a", "gslrm_b", "gslrm_c"]
TOLERANCE = 1.2e-5


@pytest.fixture(scope="session")
def fixtures(shared: Path) -> Path:
    return shared / "fixtures" / "facelift"


class Case:
    """One recorded forward pass: the model with its weights, the inputs, and every intermediate tensor."""

    def __init__(self, folder: Path, name: str) -> None:
        facts = json.loads((folder / f"{name}.json").read_text())
        self.parameter_names = facts["param_names"]
        self.config = config_of(facts["model_config"])
        self.model = GSLRM(self.config)
        self.model.load_state_dict(load_file(folder / f"{name}_weights.safetensors"))
        self.recorded = load_file(folder / f"{name}_io.safetensors")
        self.images = self.recorded["in_image"]
        self.cameras = cameras_of(self.recorded["in_c2w"], self.recorded["in_fxfycxcy"])


def config_of(published: dict[str, Any]) -> GSLRMConfig:
    return GSLRMConfig(
        patch_size=published["image_tokenizer"]["patch_size"],
        width=published["transformer"]["d"],
        head_width=published["transformer"]["d_head"],
        layers=published["transformer"]["n_layer"],
        free_gaussians=published["gaussians"]["n_gaussians"],
        sh_degree=published["gaussians"]["sh_degree"],
        gradient_checkpointing=False,
    )


def cameras_of(c2w: Tensor, fxfycxcy: Tensor) -> CameraBatch:
    K = torch.zeros(*c2w.shape[:2], 3, 3)
    K[..., 0, 0], K[..., 1, 1], K[..., 0, 2], K[..., 1, 2] = fxfycxcy.unbind(-1)
    K[..., 2, 2] = 1
    return CameraBatch(K, torch.linalg.inv(c2w.double()).float())


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, fixtures: Path) -> Case:
    return Case(fixtures, request.param)


@pytest.fixture(scope="module")
def case_a(fixtures: Path) -> Case:
    return Case(fixtures, "gslrm_a")


def assert_close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Largest deviation relative to the expected tensor's largest magnitude, as the fixtures state it."""
    assert found.shape == expected.shape
    deviation = (found.detach() - expected).abs().max() / expected.abs().max()
    assert deviation <= tolerance, f"deviates by {deviation:.2g}, allowed {tolerance:.2g}"


def test_rays_and_posed_images(case: Case) -> None:
    origins, directions = pixel_rays(case.cameras.K, case.cameras.w2c, *case.images.shape[-2:])
    posed = posed_images(case.images[:, :, :3], origins, directions)
    assert_close(posed, case.recorded["posed_images"])
    if "ray_d" in case.recorded:
        assert_close(origins, case.recorded["ray_o"])
        assert_close(directions, case.recorded["ray_d"])


def test_rays_of_the_camera_fixture(fixtures: Path) -> None:
    recorded = load_file(fixtures / "cameras.safetensors")
    for number, facts in enumerate(json.loads((fixtures / "cameras.json").read_text())["cases"]):
        cameras = cameras_of(recorded[f"c{number}_c2w"][None], recorded[f"c{number}_fxfycxcy"][None])
        origins, directions = pixel_rays(cameras.K, cameras.w2c, facts["h"], facts["w"])
        assert_close(origins[0].flatten(2).transpose(1, 2), recorded[f"c{number}_ray_o"])
        assert_close(directions[0].flatten(2).transpose(1, 2), recorded[f"c{number}_ray_d"])


def test_tokens_blocks_and_heads(case: Case) -> None:
    found: dict[str, Tensor] = {}

    def record(name: str) -> Any:
        return lambda module, inputs, output: found.update({name: output.detach()})

    model = case.model
    hooks = {
        "patch_tokens": model.patch_embedder[1],
        "tokens_after_input_ln": model.input_layer_norm,
        "extra_gaussian_raw": model.gaussian_upsampler,
        "pixel_gaussian_raw": model.pixel_gaussian_decoder,
    }
    for index, block in enumerate(model.transformer_layers):
        hooks[f"block{index}_out"] = block
        for part in ("norm1", "attn", "norm2", "mlp"):
            hooks[f"block{index}_{part}_out"] = getattr(block, part)
    handles = [module.register_forward_hook(record(name)) for name, module in hooks.items()]
    model.raw_gaussians(case.images, case.cameras)
    for handle in handles:
        handle.remove()

    compared = found.keys() & case.recorded.keys()
    assert {"patch_tokens", "block0_out", f"block{case.config.layers - 1}_out"} <= compared
    for name in compared:
        assert_close(found[name].reshape(case.recorded[name].shape), case.recorded[name])


def test_raw_and_activated_gaussians(case: Case) -> None:
    recorded = case.recorded
    raw = case.model.raw_gaussians(case.images, case.cameras)
    assert_close(raw.means, recorded["xyz"])
    assert_close(raw.sh, recorded["features"])
    assert_close(raw.log_scales, recorded["scaling"])
    assert_close(raw.quats, recorded["rotation"])
    assert_close(raw.logit_opacities[..., None], recorded["opacity"])

    gaussians = case.model(case.images, case.cameras)
    if "act_scaling" in recorded:
        assert_close(gaussians.scales, recorded["act_scaling"])
        assert_close(gaussians.quats, recorded["act_rotation"])
        assert_close(gaussians.opacities[..., None], recorded["act_opacity"])
        assert_close(gaussians.sh0, recorded["act_features"][..., :1, :])


def test_positions_as_images(case_a: Case) -> None:
    p, free = case_a.config.patch_size, case_a.config.free_gaussians
    means = case_a.model(case_a.images, case_a.cameras).means[:, free:]
    recorded = patchify(case_a.recorded["pixelalign_xyz"], p)
    assert_close(means.reshape(recorded.shape), recorded)


def test_gradients(case_a: Case) -> None:
    model, recorded = case_a.model, case_a.recorded
    raw = model.raw_gaussians(case_a.images, case_a.cameras)
    outputs = {
        "xyz": raw.means,
        "features": raw.sh,
        "scaling": raw.log_scales,
        "rotation": raw.quats,
        "opacity": raw.logit_opacities[..., None],
    }
    loss = torch.stack(
        [(recorded[f"cot_{name}"] * value).sum() / value.numel() ** 0.5 for name, value in outputs.items()]
    ).sum()
    model.zero_grad()
    loss.backward()
    parameters = dict(model.named_parameters())
    for key, expected in recorded.items():
        if key.startswith("grad."):
            assert_close(parameters[key.removeprefix("grad.")].grad, expected)
    norms = torch.stack([parameters[name].grad.double().norm() for name in case_a.parameter_names])
    assert_close(norms, recorded["gradnorms"])


def test_training_step(fixtures: Path, case_a: Case) -> None:
    """Model, renderer and losses together; the fixtures' README says how far exact gradients may deviate."""
    facts = json.loads((fixtures / "gslrm_train_step.json").read_text())
    recorded = load_file(fixtures / "gslrm_train_step.safetensors")
    images, views = recorded["in_image"], case_a.images.shape[1]
    cameras = cameras_of(recorded["in_c2w"], recorded["in_fxfycxcy"])
    inputs = torch.arange(views).expand(len(images), -1)
    height, width = images.shape[-2:]

    gaussians = case_a.model(select_views(images, inputs), cameras.select(inputs))
    drawn = rasterize(gaussians, cameras.K, cameras.w2c, width, height, PUBLISHED)
    alpha = drawn[:, :, 4:]
    rgb = drawn[:, :, :3] + 1 - alpha
    assert (rgb - recorded["render"]).abs().max() < 1.1e-3

    weights = LossConfig(
        l2=facts["losses"]["l2_loss_weight"], ssim=facts["losses"]["ssim_loss_weight"], alpha=0
    )
    terms = rendering_loss(rgb, alpha, images[:, :, :3], images[:, :, 3:], weights)
    assert_close(terms["loss"], recorded["metric.loss"].reshape(()))
    case_a.model.zero_grad()
    terms["loss"].backward()
    parameters = dict(case_a.model.named_parameters())
    for key, expected in recorded.items():
        if key.startswith("grad."):
            assert_close(parameters[key.removeprefix("grad.")].grad, expected, 2e-2)


def test_variant_that_ships(fixtures: Path, case_a: Case) -> None:
    """Of the published switches only the shipped setting exists here: no clipping, custom Plücker rays."""
    variants = json.loads((fixtures / "gslrm_variants.json").read_text())["variants"]
    name = next(key for key, value in variants.items() if not value["model_over"])
    expected = load_file(fixtures / "gslrm_variants.safetensors")[f"{name}.xyz"]
    assert_close(case_a.model(case_a.images, case_a.cameras).means[:1], expected)


def test_parameter_table_of_the_production_size(shared: Path) -> None:
    with (shared / "gslrm_state_dict.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if not row["key"].startswith(LOSS_PREFIX)]
    with torch.device("meta"):
        model = GSLRM(GSLRMConfig())
    found = {name: "x".join(map(str, value.shape)) for name, value in model.state_dict().items()}
    assert found == {row["key"]: row["shape"] for row in rows}
    assert sum(value.numel() for value in model.parameters()) == 303_565_824
    assert [name for name, _ in model.named_parameters()] == [row["key"] for row in rows]


def test_published_checkpoint_folder(fixtures: Path) -> None:
    facts = json.loads((fixtures / "checkpoint.json").read_text())
    model = load_gslrm(fixtures / "ckpt_dir")
    newest = max((fixtures / "ckpt_dir").glob("ckpt_*.pt"))
    state = torch.load(newest, weights_only=True)["model"]
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == facts["model_keys"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


def test_losses(fixtures: Path) -> None:
    recorded = load_file(fixtures / "losses.safetensors")
    images, targets = recorded["rendering"], recorded["target"][:, :, :3]
    assert_close(F.mse_loss(images, targets), recorded["all.l2_loss"].reshape(()), 3e-5)
    assert_close(1 - metrics.ssim_map(images, targets).mean(), recorded["all.ssim_loss"].reshape(()), 3e-5)
    assert_close(1 - metrics.ssim_map(images, targets).mean(), recorded["ssim.loss"].reshape(()), 3e-5)


def test_metrics(fixtures: Path) -> None:
    recorded = load_file(fixtures / "losses.safetensors")
    images, targets = recorded["rendering"].flatten(0, 1), recorded["target"][:, :, :3].flatten(0, 1)
    assert_close(metrics.psnr(images, targets), recorded["metrics.psnr"].flatten(), 3e-5)
    assert_close(metrics.ssim(images, targets), recorded["metrics.ssim_skimage"].flatten().float(), 3e-5)
