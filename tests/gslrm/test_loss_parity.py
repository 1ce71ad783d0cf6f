"""Every loss of the published training that the fixtures hold, within ten times the fixtures' own deviation.

Not built, and written out here where recorded sums contain it: the pixel alignment term, which our Gaussians,
lying on their rays by construction, make 0; and what the mouse fork does to its inputs (clamping, which stops
gradients where a rendering is too bright, hard masks, SSIM of pictures filled with grey).
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from vgg_weights import generated_vgg19

from mouse_facelift import metrics
from mouse_facelift.gaussians import Rendering
from mouse_facelift.gslrm.config import LossConfig
from mouse_facelift.gslrm.losses import PixelPoints, RenderingLoss, weights_at

pytestmark = pytest.mark.parity

TOLERANCE = 3e-5
NAMES = {"l2": "l2", "ssim": "ssim", "perceptual": "perceptual", "points": "pointsdist"}
"""Our name of a term, and the published one."""


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "fixtures" / "facelift"


@pytest.fixture(scope="module")
def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "losses.json").read_text())


@pytest.fixture(scope="module")
def recorded(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "losses.safetensors")


@pytest.fixture(scope="module")
def vgg19(facts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg19.safetensors"
    tensors = {}
    for i, (weight, bias) in enumerate(generated_vgg19(facts["vgg"]["seed"]), start=1):
        tensors |= {f"conv{i}.weight": torch.from_numpy(weight), f"conv{i}.bias": torch.from_numpy(bias)}
    save_file(tensors, path)
    return path


def assert_close(found: Tensor, expected: Tensor) -> None:
    deviation = (found.detach().double() - expected).abs().max() / expected.abs().max()
    assert deviation <= TOLERANCE, f"deviates by {deviation:.2g}"


def configured(published: dict[str, Any], vgg19: Path) -> LossConfig:
    weights = {ours: published[f"{theirs}_loss_weight"] for ours, theirs in NAMES.items()}
    return LossConfig(alpha=0, warmup_l2_steps=0, perceptual_weights=vgg19, **weights)


def rendering(rgb: Tensor) -> Rendering:
    return Rendering(rgb, torch.zeros_like(rgb[:, :, :1]), torch.zeros_like(rgb[:, :, :1]))


def pixel_points(xyz: Tensor, recorded: dict[str, Tensor]) -> PixelPoints:
    return PixelPoints(xyz.flatten(3).mT, recorded["ray_o"][..., 0, 0])


def pixel_alignment(xyz: Tensor, recorded: dict[str, Tensor], mask: Tensor | None) -> Tensor:
    """Mean distance of points from their rays (facelift_spec 4.1)."""
    offset, direction = xyz - recorded["ray_o"], recorded["ray_d"]
    along = (offset.detach() * direction).sum(2, keepdim=True)
    error = offset - along * direction
    return (error if mask is None else error * mask).norm(dim=2).mean()


def cases_of(facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: case for name, case in facts.items() if isinstance(case, dict) and "l2_loss_weight" in case}


def test_terms_sums_and_gradients(facts: dict[str, Any], recorded: dict[str, Tensor], vgg19: Path) -> None:
    cases = cases_of(facts)
    assert cases
    for name, published in cases.items():
        rgb = recorded["rendering"].clone().requires_grad_()
        xyz = recorded["img_aligned_xyz"].clone().requires_grad_()
        target, mask = recorded["target"].split((3, 1), dim=2)
        criterion = RenderingLoss(configured(published, vgg19))
        found = criterion(rendering(rgb), target, mask, points=pixel_points(xyz, recorded))
        for ours in found.keys() & NAMES.keys():
            assert_close(found[ours], recorded[f"{name}.{NAMES[ours]}_loss"])
        masked = published.get("masked_pixelalign_loss", True)
        aligned = pixel_alignment(xyz, recorded, mask if masked else None)
        loss = found["loss"] + published["pixelalign_loss_weight"] * aligned
        assert_close(loss, recorded[f"{name}.loss"])
        loss.backward()
        gradients = {"rendering": rgb.grad, "xyz": torch.zeros_like(xyz) if xyz.grad is None else xyz.grad}
        for key, gradient in gradients.items():
            if f"{name}.grad_{key}" in recorded:
                assert_close(gradient, recorded[f"{name}.grad_{key}"])
            elif recorded[f"{name}.grad_{key}_norm"].any():
                assert_close(gradient.double().norm(), recorded[f"{name}.grad_{key}_norm"])
            else:
                assert not gradient.any()


def test_ssim_and_metrics(recorded: dict[str, Tensor]) -> None:
    rgb, target = recorded["rendering"], recorded["target"][:, :, :3]
    assert_close(1 - metrics.ssim_map(rgb, target).mean(), recorded["ssim.loss"])
    assert_close(1 - metrics.ssim_map(rgb.clamp(0, 1), target).mean(), recorded["ssim.loss_clamped_input"])
    images, targets = rgb.flatten(0, 1), target.flatten(0, 1)
    assert_close(metrics.psnr(images, targets), recorded["metrics.psnr"])
    assert_close(metrics.ssim(images, targets), recorded["metrics.ssim_skimage"])


def test_losses_of_the_mouse_fork(folder: Path, recorded: dict[str, Tensor]) -> None:
    fork = load_file(folder / "fork_losses.safetensors")
    cases = json.loads((folder / "fork_losses.json").read_text())["cases"]
    target, alpha = fork["target"].split((3, 1), dim=2)
    inside, outside = (alpha > 0.5).float(), (alpha < 0.5).float()
    assert cases
    for name, published in cases.items():
        leaf = recorded["rendering"].clone().requires_grad_()
        rgb = leaf.clamp(0, 1) if published.get("clamp_rendering", True) else leaf

        def term(ours: str, images: Tensor, real: Tensor, mask: Tensor, region: str = "full") -> Tensor:
            config = LossConfig(**{"l2": 0, "ssim": 0, "alpha": 1e-30, ours: 1, "region": region})
            return RenderingLoss(config)(rendering(images), real, mask)[ours]

        l2 = term("l2", rgb, target, inside, "masked" if published.get("masked_l2_loss") else "full")
        fill = inside if published.get("masked_ssim_loss") else torch.ones_like(inside)
        filled = [images * fill + 0.5 * (1 - fill) for images in (rgb, target)]
        ssim = term("ssim", *filled, inside)
        color = torch.tensor(published.get("background_color_target", [1.0, 1.0, 1.0])).view(3, 1, 1)
        background = term("background", rgb, color.expand_as(target), 1 - outside)
        points = term_of_points(recorded)
        weights = {key.removesuffix("_loss_weight"): w for key, w in published.items() if "weight" in key}
        terms = {"l2": l2, "ssim": ssim, "background": background, "pointsdist": points}
        terms["pixelalign"] = pixel_alignment(recorded["img_aligned_xyz"], recorded, alpha)
        used = {key: value for key, value in terms.items() if weights.get(key)}
        for key, value in used.items():
            assert_close(value, fork[f"{name}.{key}_loss"])
        loss = torch.stack([weights[key] * value for key, value in used.items()]).sum()
        assert_close(loss, fork[f"{name}.loss"])
        loss.backward()
        assert_close(leaf.grad.double().norm(), fork[f"{name}.grad_rendering_norm"])

        threshold = published.get("mask_iou_threshold", 0.1)
        seen = (rgb - color).abs().mean(2, keepdim=True) > threshold
        scene = [mask.flatten()[None, None] for mask in (seen, inside)]
        assert_close(metrics.silhouette_iou(*scene)[None], fork[f"{name}.mask_iou"])


def term_of_points(recorded: dict[str, Tensor]) -> Tensor:
    config = LossConfig(l2=0, ssim=0, alpha=1e-30, points=1)
    rgb = torch.zeros_like(recorded["rendering"])
    points = pixel_points(recorded["img_aligned_xyz"], recorded)
    return RenderingLoss(config)(rendering(rgb), rgb, rgb[:, :, :1], points=points)["points"]


def test_warm_ups(folder: Path) -> None:
    """Their lengths are read off the recorded rows; clipping of positions does not exist here."""
    schedules = json.loads((folder / "schedules.json").read_text())["warmup_losses"]
    assert schedules
    for rows in schedules.values():
        last, terms = rows[-1], ("l2", "perceptual", "lpips")
        spread = [row["step"] for row in rows if not row["l2"]]
        quiet = [row["step"] for row in rows if not row["perceptual"]]
        config = LossConfig(
            l2=last["l2"],
            ssim=0,
            alpha=0,
            perceptual=last["perceptual"],
            lpips=last["lpips"],
            points=last["pointsdist"],
            perceptual_weights=Path("unread"),
            lpips_weights=Path("unread"),
            warmup_l2_steps=max(quiet, default=-1) + 1,
            warmup_points_steps=max(spread, default=-1) + 1,
        )
        for row in rows:
            found = weights_at(config, row["step"])
            assert found.points == row["pointsdist"], row
            assert [getattr(found, term) for term in terms] == [row[term] for term in terms], row
