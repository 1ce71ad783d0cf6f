"""Weights of VGG-19 from a formula, and the forms in which the real ones are published."""

import hashlib
import itertools

import numpy as np
from numpy.typing import NDArray

WIDTHS = [3, *2 * [64], *2 * [128], *4 * [256], *8 * [512]]
"""Channels of the picture and of each of the 16 convolutions."""

FEATURES = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
"""Numbers of the convolutions among torchvision's layers, which count ReLUs and poolings too."""

Layers = list[tuple[NDArray[np.float32], NDArray[np.float32]]]


def uniform(seed: int, stream: int, count: int) -> NDArray[np.float64]:
    """In [0, 1): splitmix64 of a counter, as the fixtures' README defines it."""
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(seed) * np.uint64(0xA0761D6478BD642F) + np.uint64(stream) * np.uint64(
            0xD1B54A32D192ED03
        )
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)) / 2**24


def generated_vgg19(seed: int) -> Layers:
    """Weight [out, in, 3, 3] and bias [out] of all 16 convolutions."""
    layers = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(WIDTHS), start=1):
        weight = (2 * uniform(seed, 2 * i, outputs * inputs * 9) - 1) * np.sqrt(6 / (9 * inputs))
        bias = (2 * uniform(seed, 2 * i + 1, outputs) - 1) * 5
        layers.append((weight.astype(np.float32).reshape(outputs, inputs, 3, 3), bias.astype(np.float32)))
    return layers


def digest(layers: Layers) -> str:
    """SHA-256 of all values in order."""
    found = hashlib.sha256()
    for weight, bias in layers:
        found.update(weight.tobytes())
        found.update(bias.tobytes())
    return found.hexdigest()
