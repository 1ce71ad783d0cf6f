"""Every number of the published GS-LRM that the fixtures hold, at ten times the fixtures' own deviation.

Not built, since no published weights use it: `use_custom_plucker: false` with its depth rules,
`use_aug_plucker`, `hard_pixelalign: false`, `depth_preact_bias`, `add_refsrc_marker`, and a `clip_xyz` that
acts (the published one never does, facelift_spec 1.3). Of the optimizer's state only the grouping exists
here: runs of the published trainer are not resumed. The splitter's draws depend on the published code's
generator; ours are tested in `test_variable_views`. What the data set returns: see `test_datasets_parity`.
"""

import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mouse_facelift.gaussians import Gaussians, Rendering
from mouse_facelift.gaussians.projection import principal_axes
from mouse_facelift.gaussians.rasterizer import rasterize
from mouse_facelift.gaussians.tiles import PUBLISHED
from mouse_facelift.geometry.rays import CameraBatch, pixel_rays, select_views
from mouse_facelift.gslrm.config import GSLRMConfig, LossConfig
from mouse_facelift.gslrm.losses import RenderingLoss
from mouse_facelift.gslrm.model import GSLRM, RawGaussians
from mouse_facelift.gslrm.tokens import patchify, posed_images
from mouse_facelift.gslrm.weights import LOSS_PREFIX, load_gslrm
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.training.config import OptimizerConfig
from mouse_facelift.training.optimizer import make_adamw

pytestmark = pytest.mark.parity

TOLERANCE = 1.2e-5


@pytest.fixture(scope="session")
def fixtures(shared: Path) -> Path:
    return shared / "fixtures" / "facelift"


class Case:
    """One recorded forward pass: the model with its weights, the inputs, and every intermediate tensor."""

    def __init__(self, folder: Path, name: str) -> None:
        facts = json.loads((folder / f"{name}.json").read_text())
        self.name = name
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


@pytest.fixture(scope="session")
def cases(fixtures: Path) -> dict[str, Case]:
    """Every recorded forward pass in the folder."""
    names = [path.name.removesuffix("_weights.safetensors") for path in fixtures.glob("gslrm_*_weights.*")]
    assert names
    return {name: Case(fixtures, name) for name in sorted(names)}


def base_of(cases: dict[str, Case], facts: dict[str, Any]) -> Case:
    """The case whose weights and inputs another fixture builds on."""
    return next(case for name, case in cases.items() if re.search(rf"\b{name}(_weights)?\b", facts["base"]))


def assert_close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE, name: str = "") -> None:
    """Largest deviation relative to the expected tensor's largest magnitude, as the fixtures state it."""
    assert found.shape == expected.shape, name
    deviation = (found.detach() - expected).abs().max() / expected.abs().max()
    assert deviation <= tolerance, f"{name} deviates by {deviation:.2g}, allowed {tolerance:.2g}"


def test_rays_and_posed_images(cases: dict[str, Case]) -> None:
    for case in cases.values():
        recorded = case.recorded
        origins, directions = pixel_rays(case.cameras.K, case.cameras.w2c, *case.images.shape[-2:])
        posed = posed_images(case.images[:, :, :3], origins, directions)
        assert_close(posed, recorded["posed_images"])
        in_camera = torch.einsum("bvij,bvjhw->bvihw", case.cameras.w2c[..., :3, :3], directions)
        for name, value in (("ray_o", origins), ("ray_d", directions), ("ray_d_cam", in_camera)):
            if name in recorded:
                assert_close(value, recorded[name], name=f"{case.name} {name}")


def test_rays_of_the_camera_fixture(fixtures: Path) -> None:
    recorded = load_file(fixtures / "cameras.safetensors")
    for number, facts in enumerate(json.loads((fixtures / "cameras.json").read_text())["cases"]):
        cameras = cameras_of(recorded[f"c{number}_c2w"][None], recorded[f"c{number}_fxfycxcy"][None])
        origins, directions = pixel_rays(cameras.K, cameras.w2c, facts["h"], facts["w"])
        assert_close(origins[0].flatten(2).transpose(1, 2), recorded[f"c{number}_ray_o"])
        assert_close(directions[0].flatten(2).transpose(1, 2), recorded[f"c{number}_ray_d"])


def test_matrices_of_the_camera_fixture(fixtures: Path) -> None:
    """Their 4x4 projections and our K and w2c put the same points on the same pixels."""
    recorded = load_file(fixtures / "cameras.safetensors")
    for number, facts in enumerate(json.loads((fixtures / "cameras.json").read_text())["cases"]):
        size = torch.tensor([facts["w"], facts["h"]])
        cameras = cameras_of(recorded[f"c{number}_c2w"][None], recorded[f"c{number}_fxfycxcy"][None])
        for view, (K, w2c) in enumerate(zip(cameras.K[0], cameras.w2c[0], strict=True)):
            published = {
                name.removeprefix(f"c{number}_cam{view}_"): value
                for name, value in recorded.items()
                if name.startswith(f"c{number}_cam{view}_")
            }
            if not published:
                continue
            assert_close(w2c.T, published["world_view_transform"])
            assert_close(-w2c[:3, :3].T @ w2c[:3, 3], published["campos"])
            assert_close(size / (2 * torch.stack([K[0, 0], K[1, 1]])), published["tanfov"])
            depth = 1 + torch.rand(50, 1, generator=torch.Generator().manual_seed(0))
            pixels = size * torch.rand(50, 2, generator=torch.Generator().manual_seed(1))
            in_camera = torch.cat([pixels, torch.ones(50, 1)], 1) @ torch.linalg.inv(K).T * depth
            points = (in_camera - w2c[:3, 3]) @ w2c[:3, :3]
            clip = torch.cat([points, torch.ones(50, 1)], 1) @ published["full_proj_transform"]
            assert_close((clip[:, :2] / clip[:, 3:] + 1) * size / 2, pixels)


def test_cameras_of_the_published_inference(fixtures: Path) -> None:
    """What the six generated views mean to GS-LRM, in slot order."""
    recorded = load_file(fixtures / "cameras.safetensors")
    size = round(2 * float(recorded["inference_fxfycxcy"][0, 2]))
    slots = Slots.facelift(size)
    expected = cameras_of(recorded["inference_c2w"][None], recorded["inference_fxfycxcy"][None])
    assert_close(torch.from_numpy(slots.K).float(), expected.K[0])
    assert_close(torch.from_numpy(slots.w2c).float(), expected.w2c[0])


def test_tokens_blocks_and_heads(cases: dict[str, Case]) -> None:
    for case in cases.values():
        found = outputs_of_modules(case)
        compared = found.keys() & case.recorded.keys()
        last = f"block{case.config.layers - 1}_out"
        assert {"patch_tokens", "block0_out", last, "pixel_gaussian_raw", "extra_gaussian_raw"} <= compared
        for name in compared:
            assert_close(found[name].reshape(case.recorded[name].shape), case.recorded[name], name=name)
        if "img_tokens" in case.recorded:
            assert_close(found[last][:, case.config.free_gaussians :], case.recorded["img_tokens"])


def outputs_of_modules(case: Case) -> dict[str, Tensor]:
    """What the layers give in one forward pass, under the recorded names."""
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
    return found


def test_raw_and_activated_gaussians(cases: dict[str, Case]) -> None:
    for case in cases.values():
        recorded = case.recorded
        raw = case.model.raw_gaussians(case.images, case.cameras)
        assert_close(raw.means, recorded["xyz"])
        assert_close(raw.sh, recorded["features"])
        assert_close(raw.log_scales, recorded["scaling"])
        assert_close(raw.quats, recorded["rotation"])
        assert_close(raw.logit_opacities[..., None], recorded["opacity"])

        ours = RawGaussians(
            recorded["xyz"],
            recorded["features"],
            recorded["scaling"],
            recorded["rotation"],
            recorded["opacity"][..., 0],
        )
        assert ours.activate().sh_degree == case.config.sh_degree
        compare_activated(ours.activate(), case, TOLERANCE)
        assert_close((ours.activate().opacities > 0.05).double().mean(1), recorded["usage"])
        # From the images on, a short quaternion or a steep exponential amplifies rounding.
        compare_activated(case.model(case.images, case.cameras), case, 10 * TOLERANCE)


def compare_activated(gaussians: Gaussians, case: Case, tolerance: float) -> None:
    activated = {
        "act_features": gaussians.sh,
        "act_scaling": gaussians.scales,
        "act_rotation": gaussians.quats,
        "act_opacity": gaussians.opacities[..., None],
        "covariance": covariances(gaussians),
    }
    for name, value in activated.items():
        if name in case.recorded:
            assert_close(value, case.recorded[name], tolerance, f"{case.name} {name}")


def covariances(gaussians: Gaussians) -> Tensor:
    """xx, xy, xz, yy, yz, zz. [B, N, 6]"""
    axes = principal_axes(gaussians).permute(0, 3, 1, 2)
    row, column = torch.triu_indices(3, 3)
    return (axes @ axes.mT)[..., row, column]


def test_positions_as_images(cases: dict[str, Case]) -> None:
    for case in cases.values():
        if "pixelalign_xyz" in case.recorded:
            means = case.model(case.images, case.cameras).means[:, case.config.free_gaussians :]
            recorded = patchify(case.recorded["pixelalign_xyz"], case.config.patch_size)
            assert_close(means.reshape(recorded.shape), recorded)


def test_gradients(cases: dict[str, Case]) -> None:
    with_gradients = [case for case in cases.values() if "gradnorms" in case.recorded]
    assert with_gradients
    for case in with_gradients:
        model, recorded = case.model, case.recorded
        raw = model.raw_gaussians(case.images, case.cameras)
        outputs = {
            "xyz": raw.means,
            "features": raw.sh,
            "scaling": raw.log_scales,
            "rotation": raw.quats,
            "opacity": raw.logit_opacities[..., None],
        }
        terms = [(recorded[f"cot_{name}"] * v).sum() / v.numel() ** 0.5 for name, v in outputs.items()]
        model.zero_grad()
        torch.stack(terms).sum().backward()
        parameters = dict(model.named_parameters())
        for key, expected in recorded.items():
            if key.startswith("grad."):
                assert_close(parameters[key.removeprefix("grad.")].grad, expected, name=key)
        norms = torch.stack([parameters[name].grad.double().norm() for name in case.parameter_names])
        assert_close(norms, recorded["gradnorms"])


def test_what_the_rasterizer_gets(cases: dict[str, Case]) -> None:
    """The recorded run has targets, of which the first are inputs; call i is view i % V of scene i // V."""
    with_calls = [case for case in cases.values() if "raster0_viewmatrix" in case.recorded]
    assert with_calls
    for case in with_calls:
        recorded = case.recorded
        cameras = cameras_of(recorded["split_in_c2w"], recorded["split_in_fxfycxcy"])
        scenes, views = cameras.K.shape[:2]
        shown = recorded["split_input_index"].shape[1]
        assert recorded["split_input_index"].equal(recorded["split_in_index"][:, :shown])
        inputs = torch.arange(shown).expand(scenes, -1)
        gaussians = case.model(select_views(recorded["split_in_image"], inputs), cameras.select(inputs))
        size = torch.tensor(recorded["split_in_image"].shape[-1:-3:-1])
        for call in (key.removesuffix("_viewmatrix") for key in recorded if key.endswith("_viewmatrix")):
            scene, view = divmod(int(call.removeprefix("raster")), views)
            K, w2c = cameras.K[scene, view], cameras.w2c[scene, view]
            assert_close(w2c.T, recorded[f"{call}_viewmatrix"])
            assert_close(size / (2 * torch.stack([K[0, 0], K[1, 1]])), recorded[f"{call}_tanfov"])
            given = {
                "means3D": gaussians.means,
                "scales": gaussians.scales,
                "rotations": gaussians.quats,
                "opacities": gaussians.opacities[..., None],
                "shs": gaussians.sh,
            }
            for name, value in given.items():
                if (head := recorded.get(f"{call}_{name}_head")) is not None:
                    assert_close(value[scene, : len(head)], head, name=f"{call} {name}")


def test_training_step(fixtures: Path, cases: dict[str, Case]) -> None:
    """Model, renderer and losses together; the fixtures' README says how far exact gradients may deviate."""
    facts = json.loads((fixtures / "gslrm_train_step.json").read_text())
    recorded = load_file(fixtures / "gslrm_train_step.safetensors")
    case = base_of(cases, facts)
    images, views = recorded["in_image"], case.images.shape[1]
    cameras = cameras_of(recorded["in_c2w"], recorded["in_fxfycxcy"])
    inputs = torch.arange(views).expand(len(images), -1)
    height, width = images.shape[-2:]

    gaussians = case.model(select_views(images, inputs), cameras.select(inputs))
    drawn = rasterize(gaussians, cameras.K, cameras.w2c, width, height, PUBLISHED)
    alpha = drawn[:, :, 4:]
    picture = Rendering(drawn[:, :, :3] + 1 - alpha, alpha, drawn[:, :, 3:4])
    assert (picture.rgb - recorded["render"]).abs().max() < 1.1e-3

    weights = {key.removesuffix("_loss_weight"): w for key, w in facts["losses"].items() if "weight" in key}
    assert not any(weights[name] for name in weights.keys() - {"l2", "ssim"}), "not part of this fixture"
    criterion = RenderingLoss(LossConfig(l2=weights["l2"], ssim=weights["ssim"], alpha=0))
    terms = criterion(picture, images[:, :, :3], images[:, :, 3:])
    for name, value in terms.items():
        key = "metric.loss" if name == "loss" else f"metric.{name}_loss"
        assert_close(value.reshape(1), recorded[key], name=key)
    if "l2" in terms:
        assert_close(-10 * terms["l2"].log10().reshape(1), recorded["metric.psnr"])
    usage = (gaussians.opacities > 0.05).float().mean().reshape(1)
    assert_close(usage, recorded["metric.gaussians_usage"], 1e-3)
    case.model.zero_grad()
    terms["loss"].backward()
    parameters = dict(case.model.named_parameters())
    for key, expected in recorded.items():
        if key.startswith("grad."):
            assert_close(parameters[key.removeprefix("grad.")].grad, expected, 2e-2, key)
    norms = torch.stack([parameters[name].grad.double().norm() for name in facts["param_names"]])
    assert_close(norms, recorded["gradnorms"], 2e-2)


def test_variant_that_ships(fixtures: Path, cases: dict[str, Case]) -> None:
    """The others are listed at the top of this file."""
    facts = json.loads((fixtures / "gslrm_variants.json").read_text())
    recorded = load_file(fixtures / "gslrm_variants.safetensors")
    case = base_of(cases, facts)
    means = case.model(case.images, case.cameras).means[:1]
    shipped = [
        name
        for name, variant in facts["variants"].items()
        if not variant["model_over"] and variant["config_inference"] != "False"
    ]
    assert shipped
    for name in shipped:
        assert_close(means, recorded[f"{name}.xyz"])
        farthest = means[:, case.config.free_gaussians :].detach().max().item()
        assert farthest == pytest.approx(facts["variants"][name]["pixel_xyz_max"], abs=1e-5)


def test_parameter_table_of_the_production_size(shared: Path) -> None:
    with (shared / "gslrm_state_dict.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if not row["key"].startswith(LOSS_PREFIX)]
    with torch.device("meta"):
        model = GSLRM(GSLRMConfig())
    found = {name: "x".join(map(str, value.shape)) for name, value in model.state_dict().items()}
    assert found == {row["key"]: row["shape"] for row in rows}
    assert sum(value.numel() for value in model.parameters()) == 303_565_824
    assert [name for name, _ in model.named_parameters()] == [row["key"] for row in rows]


def test_published_checkpoint_folder(fixtures: Path, caplog: pytest.LogCaptureFixture) -> None:
    facts = json.loads((fixtures / "checkpoint.json").read_text())
    newest = max(facts["find_checkpoints_order"])
    with caplog.at_level("INFO"):
        model = load_gslrm(fixtures / "ckpt_dir")
    assert newest in caplog.text
    content = torch.load(fixtures / "ckpt_dir" / newest, weights_only=True)
    assert list(content) == facts["top_keys"]
    state = content["model"]
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == facts["model_keys"]
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
        digest.update(value.numpy().tobytes())
    assert digest.hexdigest() == facts["model_sha256"]


def test_weight_decay_as_in_the_published_checkpoint(fixtures: Path) -> None:
    facts = json.loads((fixtures / "checkpoint.json").read_text())
    model = load_gslrm(fixtures / "ckpt_dir")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    published, ours = facts["optimizer_param_groups"], OptimizerConfig()
    groups = make_adamw(model, ours, fused=False).param_groups
    for group, expected, members in zip(groups, published, (facts["decay"], facts["no_decay"]), strict=True):
        assert [names[id(parameter)] for parameter in group["params"]] == members
        assert group["weight_decay"] == expected["weight_decay"]
        assert list(group["betas"]) == expected["betas"]
        assert group["eps"] == expected["eps"]
