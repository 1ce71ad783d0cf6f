"""Perceptual distances: the published numbers, and every form in which the weights come."""

import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scipy.io import savemat
from torch import Tensor, nn
from vgg_weights import FEATURES, Layers, digest, generated_vgg19

from mouse_facelift.errors import CheckpointError, DependencyError
from mouse_facelift.gslrm.perceptual import COMPARED, LPIPS, MATCONVNET_MEAN, PerceptualLoss

SEED = 3


@pytest.fixture(scope="module")
def layers() -> Layers:
    return generated_vgg19(SEED)


@pytest.fixture(scope="module")
def state(layers: Layers) -> dict[str, Tensor]:
    """As in a published checkpoint, whose tensors are permuted views of others."""
    return {
        f"loss_calculator.perceptual_loss_module.net.conv{i}.{part}": torch.from_numpy(value)
        for i, pair in enumerate(layers, start=1)
        for part, value in zip(("weight", "bias"), pair, strict=True)
    }


@pytest.fixture(scope="module")
def reference(layers: Layers) -> PerceptualLoss:
    pairs = [(torch.from_numpy(weight), torch.from_numpy(bias)) for weight, bias in layers]
    return PerceptualLoss(pairs, torch.tensor([123.68, 116.779, 103.939]))


def pictures(count: int = 1) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, 3, 32, 40, generator=generator) for _ in range(2))


@pytest.fixture(scope="module")
def facts(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "fixtures/facelift/losses.json").read_text())


@pytest.fixture(scope="module")
def recorded(shared: Path) -> dict[str, Tensor]:
    return load_file(shared / "fixtures/facelift/losses.safetensors")


@pytest.fixture(scope="module")
def published(facts: dict[str, Any]) -> PerceptualLoss:
    layers = generated_vgg19(facts["vgg"]["seed"])
    expected = facts["vgg"]["sha256_of_concatenated_float32_C_order_conv1w_conv1b_to_conv16b"]
    assert digest(layers) == expected
    pairs = [(torch.from_numpy(weight), torch.from_numpy(bias)) for weight, bias in layers]
    return PerceptualLoss(pairs, torch.tensor(facts["imagenet_mean"]))


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Within ten times the fixtures' own deviation, relative to the largest magnitude."""
    assert found.shape == expected.shape
    assert (found.detach() - expected).abs().max() <= 3e-5 * expected.abs().max()


@pytest.mark.parity
def test_published_value_layers_and_gradient(published: PerceptualLoss, recorded: dict[str, Tensor]) -> None:
    images = recorded["rendering"].flatten(0, 1).requires_grad_()
    targets = recorded["target"][:, :, :3].flatten(0, 1)
    loss = published(images, targets)
    loss.backward()
    assert_close(loss[None], recorded["perceptual.loss"])
    assert_close(images.grad, recorded["perceptual.grad_pred"])
    assert_close(published.distances(images, targets), recorded["perceptual.layer_l1"])


@pytest.mark.parity
def test_published_features(published: PerceptualLoss, recorded: dict[str, Tensor]) -> None:
    features = published.features(recorded["target"][:, :, :3].flatten(0, 1))[1:]
    means = torch.stack([feature.mean() for feature in features])
    assert_close(means, recorded["perceptual.feat_mean_real"])
    corner = recorded["perceptual.feat4_real_first"]
    assert_close(features[4][: corner.shape[0], : corner.shape[1]], corner)


@pytest.mark.parity
def test_published_constants(facts: dict[str, Any]) -> None:
    assert [1.0, *COMPARED.values()] == pytest.approx(facts["vgg_layer_weights"])
    assert list(MATCONVNET_MEAN) == facts["imagenet_mean"]


@pytest.mark.parametrize("form", ["mat", "older mat", "checkpoint", "safetensors"])
def test_published_weights_are_read_in_every_form(
    tmp_path: Path, layers: Layers, state: dict[str, Tensor], reference: PerceptualLoss, form: str
) -> None:
    path = tmp_path / {"checkpoint": "ckpt.pt", "safetensors": "vgg.safetensors"}.get(form, "vgg.mat")
    if form == "checkpoint":
        others = {"patch_embedder.1.weight": torch.zeros(2, 3)}
        torch.save({"model": state | others, "fwdbwd_pass_step": 3}, path)
    elif form == "safetensors":
        save_file({name.rpartition("net.")[2]: value for name, value in state.items()}, path)
    else:
        write_mat(path, layers, older=form == "older mat")
    loss = PerceptualLoss.load(path)
    a, b = pictures()
    torch.testing.assert_close(loss(a, b), reference(a, b))


def write_mat(path: Path, layers: Layers, older: bool) -> None:
    """As MatConvNet does: a cell of structs of every layer, weights [3, 3, in, out], compressed."""
    cells = []
    for i, (weight, bias) in enumerate(layers, start=1):
        filters = weight.transpose(2, 3, 1, 0)
        pair = np.empty((1, 2), dtype=object)
        pair[0, 0], pair[0, 1] = filters, bias[None]
        values = {"filters": filters, "biases": bias[None]} if older else {"weights": pair}
        cells.append({"name": f"conv{i}", "type": "conv", **values})
        cells.append({"name": f"relu{i}", "type": "relu"})
    content = np.empty((1, len(cells)), dtype=object)
    content[0, :] = cells
    savemat(path, {"layers": content})
    if not older:
        header, variable = path.read_bytes()[:128], path.read_bytes()[128:]
        packed = zlib.compress(variable, level=0)
        path.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)


def torchvision_features(layers: Layers) -> nn.Sequential:
    """torchvision's VGG-19 with average pooling."""
    modules: list[nn.Module] = []
    while len(modules) <= FEATURES[-1]:
        if len(modules) in FEATURES:
            weight, bias = layers[FEATURES.index(len(modules))]
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
            modules += [layer, nn.ReLU()]
        else:
            modules.append(nn.AvgPool2d(2))
    return nn.Sequential(*modules)


@torch.no_grad()
def test_torchvision_network_sees_pictures_as_it_was_trained_and_answers_in_the_published_unit(
    tmp_path: Path, layers: Layers
) -> None:
    features = torchvision_features(layers)
    torch.save(
        {f"features.{name}": value for name, value in features.state_dict().items()}, tmp_path / "v.pth"
    )
    loss = PerceptualLoss.load(tmp_path / "v.pth")
    image, _ = pictures()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    unit = 255 * float(std.mean())
    found = loss.features(image)
    torch.testing.assert_close(found[0], 255 * (image - mean))
    for feature, convolution in zip(found[1:], (2, 4, 6, 10, 14), strict=True):
        expected = features[: FEATURES[convolution - 1] + 2]((image - mean) / std)
        torch.testing.assert_close(feature, unit * expected, rtol=1e-3, atol=1e-3 * float(feature.max()))


def test_same_pictures_are_no_distance_apart_and_targets_get_no_gradient(reference: PerceptualLoss) -> None:
    image, other = pictures()
    assert reference(image, image) == 0
    image.requires_grad_()
    other.requires_grad_()
    reference(image, other).backward()
    assert image.grad.isfinite().all() and image.grad.any()
    assert other.grad is None
    assert not any(parameter.requires_grad for parameter in reference.parameters())


def test_autocast_does_not_round_features(reference: PerceptualLoss) -> None:
    image, other = pictures()
    expected = reference(image, other)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(reference(image, other), expected)


def test_missing_file_tells_where_to_get_it_and_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"imagenet-vgg-verydeep-19\.mat from https.*checkpoints/"):
        PerceptualLoss.load(tmp_path / "vgg.mat")
    with pytest.raises(CheckpointError, match=r"vgg16-397923af\.pth from https.*checkpoints/"):
        LPIPS(tmp_path / "vgg16.pth")


@pytest.mark.parametrize(
    "fault", ["other tensors", "few layers", "wrong shape", "no mat", "other mat", "code"]
)
def test_file_of_something_else_is_one_clear_error(
    tmp_path: Path, state: dict[str, Tensor], fault: str
) -> None:
    path = tmp_path / ("x.mat" if "mat" in fault else "x.pth")
    if fault == "other tensors":
        torch.save({"a": torch.ones(2)}, path)
    elif fault == "few layers":
        torch.save({k: v for k, v in state.items() if "conv1." in k or "conv2." in k}, path)
    elif fault == "wrong shape":
        name = next(iter(state))
        torch.save(state | {name: torch.zeros(64, 3, 5, 5)}, path)
    elif fault == "no mat":
        path.write_bytes(b"something" * 100)
    elif fault == "other mat":
        savemat(path, {"params": np.zeros(3)})
    else:
        torch.save({"a": nn.Identity()}, path)
    with pytest.raises(CheckpointError, match=r"x\.(mat|pth)"):
        PerceptualLoss.load(path)


class FakeLPIPS(nn.Module):
    """The library's interface: a trunk in slices with torchvision's numbers, inputs in [-1, 1]."""

    def __init__(self, net: str, pnet_rand: bool, verbose: bool) -> None:
        super().__init__()
        assert (net, pnet_rand, verbose) == ("vgg", True, False), "anything else downloads or prints"
        self.net = nn.Module()
        self.net.slice1 = nn.Sequential()
        self.net.slice1.add_module("0", nn.Conv2d(3, 4, 3))
        self.net.slice2 = nn.Sequential()
        self.net.slice2.add_module("5", nn.Conv2d(4, 4, 3))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        assert min(a.min(), b.min()) < -0.5
        x, y = (self.net.slice2(self.net.slice1(image)) for image in (a, b))
        return F.mse_loss(x, y, reduction="none").mean((1, 2, 3), keepdim=True)


@pytest.fixture
def fake_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("lpips")
    library.LPIPS = FakeLPIPS  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", library)


def vgg16_file(path: Path) -> Path:
    trunk = {
        "features.0": nn.Conv2d(3, 4, 3),
        "features.5": nn.Conv2d(4, 4, 3),
        "classifier.0": nn.Linear(2, 2),
    }
    torch.save({f"{n}.{k}": v for n, module in trunk.items() for k, v in module.state_dict().items()}, path)
    return path


def test_lpips_takes_its_trunk_from_the_file(tmp_path: Path, fake_lpips: None) -> None:
    path = vgg16_file(tmp_path / "vgg16.pth")
    distance = LPIPS(path)
    stored = torch.load(path, weights_only=True)
    assert distance.network.net.slice2.state_dict()["5.weight"].equal(stored["features.5.weight"])
    a, b = pictures(2)
    assert distance(a, b).shape == (2,)
    assert (distance(a, b) > 0).all()
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_lpips_with_other_weights_is_one_clear_error(tmp_path: Path, fake_lpips: None) -> None:
    torch.save({"features.0.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "vgg16.pth")
    with pytest.raises(CheckpointError, match="not torchvision's VGG-16"):
        LPIPS(tmp_path / "vgg16.pth")


def test_lpips_that_is_not_installed_is_told_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(DependencyError, match=r"pip install 'mouse-facelift\[metrics\]'"):
        LPIPS(vgg16_file(tmp_path / "vgg16.pth"))
