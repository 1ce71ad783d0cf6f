"""Perceptual distances of pictures: VGG-19 features as the published training compares them, and LPIPS.

Both need weights that others trained. They are read from a path and never downloaded.
"""

import math
import re
import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..capture.mat_files import DAMAGE, load_mat
from ..errors import CheckpointError, DependencyError
from ..training.tensors import read_tensors

WIDTHS = (64, 64, 128, 128, *4 * (256,), *4 * (512,), *2 * (512,))
"""Output channels of VGG-19's convolutions as far as they are used; the network has two more."""

POOLED = (2, 4, 8, 12)
"""Convolutions, counted from 1, after which the picture is halved."""

COMPARED = {2: 1 / 2.6, 4: 1 / 4.8, 6: 1 / 3.7, 10: 1 / 5.6, 14: 10 / 1.5}
"""Convolutions after whose ReLU features are compared, and the weights of their differences."""

MATCONVNET_MEAN = (123.68, 116.779, 103.939)
TORCHVISION_MEAN = (0.485, 0.456, 0.406)
TORCHVISION_STD = (0.229, 0.224, 0.225)

MAT_BYTES = 1 << 30
"""Unpacked size allowed for the published VGG-19, 575 MB with its unused classifier."""

VGG19_SOURCES = (
    "Take imagenet-vgg-verydeep-19.mat from https://www.vlfeat.org/matconvnet/pretrained/ (as published), "
    "torchvision's vgg19-dcbb9e9d.pth from https://download.pytorch.org/models/, or the published GS-LRM "
    "checkpoint, which holds them too; put the file into checkpoints/ and set loss.perceptual_weights to it."
)
VGG16_SOURCES = (
    "Take torchvision's vgg16-397923af.pth from https://download.pytorch.org/models/, put the file into "
    "checkpoints/ and set lpips_weights to it (for training, loss.lpips_weights)."
)

_PUBLISHED = re.compile(r"(?:.*\.)?conv(\d+)\.(weight|bias)")
_TORCHVISION = re.compile(r"features\.(\d+)\.(weight|bias)")

Layers = list[tuple[Tensor, Tensor]]
"""Weight [out, in, 3, 3] and bias [out] of convolutions, in order."""


def check_vgg(path: Path, layers: Literal[16, 19]) -> None:
    """Make sure that there is a file to read the weights of a VGG from.

    Raises:
        CheckpointError: there is none; says where to get one.
    """
    if not path.is_file():
        sources = VGG19_SOURCES if layers == 19 else VGG16_SOURCES
        raise CheckpointError(f"{path}: no such file; expected the weights of VGG-{layers}. {sources}")


class PerceptualLoss(nn.Module):
    """Weighted L1 distance of pictures and of their VGG-19 features (facelift_spec 4.2).

    Average pooling; input 0 to 255 minus the mean, RGB. Frozen.
    """

    def __init__(self, layers: Layers, mean: Tensor) -> None:
        """Take the first 14 convolutions; `mean` is subtracted from pictures of 0 to 255. [3]"""
        super().__init__()
        self.convolutions = nn.ModuleList()
        for weight, bias in layers[: len(WIDTHS)]:
            with torch.device("meta"):
                convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            state = {"weight": weight.contiguous(memory_format=torch.channels_last), "bias": bias}
            convolution.load_state_dict(state, assign=True)
            self.convolutions.append(convolution)
        self.mean: Tensor
        self.register_buffer("mean", mean)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path) -> "PerceptualLoss":
        """Read the weights of VGG-19.

        torchvision's network sees pictures of unit variance. Its input layer and biases are scaled so that it
        takes 0 to 255 and answers in that unit, as the published one; the function is otherwise the same.

        Args:
            path: MatConvNet's .mat file, a state dict of torchvision's, or a file with the published
                names `conv1.weight` to `conv16.bias`, such as a published GS-LRM checkpoint.

        Raises:
            CheckpointError: missing, damaged, or not a VGG-19.
        """
        check_vgg(path, 19)
        mean = torch.tensor(MATCONVNET_MEAN)
        if path.suffix == ".mat":
            layers = _layers_of_mat(path)
        else:
            state = _read_state(path)
            layers = _layers_of(state, _PUBLISHED)
            if not layers and (layers := _layers_of(state, _TORCHVISION)):
                layers, mean = _rescaled(layers), 255 * torch.tensor(TORCHVISION_MEAN)
        _check(path, layers)
        return cls(layers, mean)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss. images, targets: in [0, 1], images not clamped [N, 3, H, W]; targets get no gradient."""
        weights = images.new_tensor([1.0, *COMPARED.values()], dtype=torch.float32)
        return (weights * self.distances(images, targets)).sum() / 255

    def distances(self, images: Tensor, targets: Tensor) -> Tensor:
        """Mean absolute difference of the pictures (0 to 255) and of each compared layer's features. [6]"""
        # Small differences of large features would drown in half precision.
        with torch.autocast(images.device.type, enabled=False):
            with torch.no_grad():
                real = self.features(targets)
            return torch.stack([F.l1_loss(a, b) for a, b in zip(self.features(images), real, strict=True)])

    def features(self, images: Tensor) -> list[Tensor]:
        """The picture in 0 to 255 without its mean, and the features that are compared."""
        x = 255 * images.float() - self.mean.view(3, 1, 1)
        found = [x]
        for number, convolution in enumerate(self.convolutions, start=1):
            x = convolution(x).relu()
            if number in COMPARED:
                found.append(x)
            if number in POOLED:
                x = F.avg_pool2d(x, 2)
        return found


class LPIPS(nn.Module):
    """Learned perceptual distance (Zhang et al. 2018) with VGG-16, by the library `lpips`.

    The library brings the learned weights of the comparison; those of VGG-16 come from a file.
    """

    def __init__(self, path: Path) -> None:
        """Read torchvision's VGG-16.

        Raises:
            CheckpointError: missing, damaged, or not a VGG-16.
            DependencyError: the library is not installed.
        """
        super().__init__()
        check_vgg(path, 16)
        try:
            import lpips
        except (ImportError, OSError, RuntimeError) as error:
            raise DependencyError(
                f"LPIPS needs the library lpips, and torchvision of the same build as torch ({error}). "
                "Run: pip install 'mouse-facelift[metrics]'"
            ) from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The library calls torchvision by an old name.
            self.network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
        found = {name.removeprefix("features."): value for name, value in _read_state(path).items()}
        trunk = {name: f"{name.split('.')[1]}.{name.split('.')[2]}" for name in self.network.net.state_dict()}
        try:
            self.network.net.load_state_dict({name: found[source] for name, source in trunk.items()})
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: not torchvision's VGG-16 (lacks or garbles features.{error}). {VGG16_SOURCES}"
            ) from None
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Distance of each pair. images, targets: in [0, 1] [N, 3, H, W] -> [N]"""
        with torch.autocast(images.device.type, enabled=False):
            return self.network(2 * images.float() - 1, 2 * targets.float() - 1).flatten()


def _read_state(path: Path) -> Mapping[str, Tensor]:
    content = read_tensors(path)
    state = content.get("model", content) if isinstance(content, dict) else {}
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _layers_of(state: Mapping[str, Tensor], names: re.Pattern[str]) -> Layers:
    """Convolutions whose names match a pattern of (number, part), by number."""
    parts: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        if match := names.fullmatch(name):
            parts.setdefault(int(match[1]), {})[match[2]] = value.float()
    return [(part["weight"], part["bias"]) for _, part in sorted(parts.items()) if len(part) == 2]


def _layers_of_mat(path: Path) -> Layers:
    """Convolutions of a MatConvNet file, whose weights are stored [3, 3, in, out]."""
    try:
        found = load_mat(path, ["layers"], MAT_BYTES)["layers"]
        layers = [_mat_layer(layer) for layer in found if layer.get("type") == "conv"]
    except (*DAMAGE, AttributeError) as error:
        raise CheckpointError(f"{path}: not a network of MatConvNet's ({error!r}). {VGG19_SOURCES}") from None
    return [(torch.from_numpy(weight), torch.from_numpy(bias)) for weight, bias in layers]


def _mat_layer(layer: Mapping[str, Any]) -> tuple[Any, Any]:
    """Weight and bias of a layer, by the names in newer and in older files."""
    weight, bias = layer["weights"] if "weights" in layer else (layer["filters"], layer["biases"])
    weight = np.ascontiguousarray(np.asarray(weight, dtype=np.float32).transpose(3, 2, 0, 1))
    return weight, np.array(bias, dtype=np.float32).ravel()


def _rescaled(layers: Layers) -> Layers:
    """torchvision's network in the published unit: ReLU networks commute with a positive scale."""
    unit = 255 * math.fsum(TORCHVISION_STD) / 3
    std = 255 * torch.tensor(TORCHVISION_STD).view(3, 1, 1)
    (first, bias), *others = layers
    if first.shape[1] == 3:
        first = first * unit / std
    return [(first, bias * unit), *((weight, bias * unit) for weight, bias in others)]


def _check(path: Path, layers: Layers) -> None:
    found = [tuple(weight.shape) for weight, _ in layers[: len(WIDTHS)]]
    expected = [(outputs, inputs, 3, 3) for inputs, outputs in pairwise((3, *WIDTHS))]
    biases = [len(bias) for _, bias in layers[: len(WIDTHS)]]
    if found == expected and biases == list(WIDTHS):
        return
    wrong = next((i for i, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
    detail = f"{len(layers)} convolutions" if wrong is None else f"convolution {wrong + 1} is {found[wrong]}"
    raise CheckpointError(f"{path}: not a VGG-19 ({detail}). {VGG19_SOURCES}")
