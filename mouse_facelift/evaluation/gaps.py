"""The domain gap of a whole comparison: figures of generated and real views at the same cameras."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..geometry.cameras import Array
from ..metrics import finite, psnr, silhouette_iou
from .domain_gap import common_inside, look, ring_centres, sharpness_db


@dataclass(frozen=True)
class Figure:
    """One figure of the gap.

    Attributes:
        title: On the page.
        form: How a value is written.
        meaning: What it tells.
    """

    title: str
    form: str
    meaning: str


FIGURES: Mapping[str, Figure] = {
    "fine_db": Figure(
        "fine detail",
        "{:+.2f} dB",
        "power of the luma from a quarter cycle a pixel on, against the real view's",
    ),
    "noise": Figure(
        "noise, grey levels",
        "{:.2f}",
        "white noise that would explain the finest structure (median of Immerkær's mask)",
    ),
    "lab_l": Figure("lightness L*", "{:.1f}", "mean over the animal"),
    "lab_a": Figure("green to red a*", "{:+.1f}", "mean over the animal"),
    "lab_b": Figure("blue to yellow b*", "{:+.1f}", "mean over the animal"),
    "spread_l": Figure("spread of L*", "{:.1f}", "standard deviation over the animal's pixels"),
    "spread_a": Figure("spread of a*", "{:.1f}", "the same of a*"),
    "spread_b": Figure("spread of b*", "{:.1f}", "the same of b*"),
    "own_loss": Figure(
        "GS-LRM's own loss",
        "{:.4f}",
        "training's loss (mean squared colour error + 0.2 (1 - SSIM) + 0.2 mean squared error of the "
        "silhouette) of the six shown views rendered again",
    ),
    "own_psnr_db": Figure(
        "GS-LRM on what it was shown, dB",
        "{:.2f}",
        "PSNR on the animal of the six shown views rendered again",
    ),
}
"""What is measured of real and of generated views, in the order of the table."""

COMMON: Mapping[str, Figure] = {
    "psnr_animal_db": Figure("PSNR on the animal", "{:.2f} dB", "of the generated view against the real one"),
    "iou": Figure(
        "silhouette IoU", "{:.3f}", "of the generated view's estimated silhouette and the real one"
    ),
    "delta_e": Figure(
        "colour difference", "{:.1f}", "distance of the mean colours in CIELAB; 2 is just visible"
    ),
}
"""What is measured between the two."""


@dataclass(frozen=True)
class Gap:
    """Figures over all pairs of a generated and a real view.

    Attributes:
        frequencies: Rings of the spectra, cycles a pixel. [BINS]
        spectra: Mean power in dB, by `real` and `generated`. [BINS]
        figures: By name, then `real`, `generated`: one value a pair.
        common: By name: one value a pair.
    """

    frequencies: Sequence[float]
    spectra: Mapping[str, Sequence[float]]
    figures: Mapping[str, Mapping[str, Sequence[float]]]
    common: Mapping[str, Sequence[float]]


def measure_gap(rgb: Tensor, alpha: Tensor, real_rgb: Tensor, real_alpha: Tensor) -> list[dict[str, Any]]:
    """Measure generated views of one frame against the real ones at the same cameras.

    Args:
        rgb: Generated, on white. [V, 3, H, W]
        alpha: Their estimated silhouettes. [V, 1, H, W]
        real_rgb: On white. [V, 3, H, W]
        real_alpha: [V, 1, H, W]

    Returns:
        JSON-ready, one entry a view: `real` and `generated` with their figures and spectrum, and `common`.
    """
    inside = common_inside(alpha, real_alpha)
    looks = {"generated": look(rgb, inside), "real": look(real_rgb, inside)}
    fine = {name: sharpness_db(each.spectrum, looks["real"].spectrum) for name, each in looks.items()}
    delta = (looks["generated"].lab_mean - looks["real"].lab_mean).norm(dim=-1)
    masked = psnr(rgb, real_rgb, real_alpha)
    overlap = silhouette_iou(alpha, real_alpha)
    entries: list[dict[str, Any]] = []
    for index in range(len(rgb)):
        entry: dict[str, Any] = {
            "common": {
                "psnr_animal_db": finite(masked[index]),
                "iou": finite(overlap[index]),
                "delta_e": finite(delta[index]),
            }
        }
        for name, each in looks.items():
            entry[name] = {
                "spectrum": [finite(value) for value in each.spectrum[index]],
                "fine_db": finite(fine[name][index]),
                "noise": finite(each.noise[index]),
                **{f"lab_{axis}": finite(each.lab_mean[index, i]) for i, axis in enumerate("lab")},
                **{f"spread_{axis}": finite(each.lab_spread[index, i]) for i, axis in enumerate("lab")},
            }
        entries.append(entry)
    return entries


def gather(frames: Sequence[Mapping[str, Any]]) -> Gap | None:
    """Put the frames' measurements together.

    Args:
        frames: Each with `views`, as of `measure_gap`, and `own`: by `real` and `generated`, `own_loss` and
            `own_psnr_db` of GS-LRM fed with them.

    Returns:
        None where there is no pair of views.
    """
    views = [view for frame in frames for view in frame["views"]]
    if not views:
        return None
    sides = ("real", "generated")
    figures: dict[str, dict[str, list[float]]] = {}
    for name in FIGURES:
        own = name.startswith("own_")
        figures[name] = {
            side: [_number((item["own"] if own else item)[side][name]) for item in (frames if own else views)]
            for side in sides
        }
    return Gap(
        frequencies=ring_centres(),
        spectra={side: _mean_db([view[side]["spectrum"] for view in views]) for side in sides},
        figures=figures,
        common={name: [_number(view["common"][name]) for view in views] for name in COMMON},
    )


def _mean_db(spectra: Sequence[Sequence[float | None]]) -> list[float]:
    """Mean power of the views that have a spectrum, in dB of one squared grey level of 255."""
    power: Array = np.array([[_number(value) for value in spectrum] for spectrum in spectra], float)
    power = power[np.isfinite(power).all(axis=1)]
    if len(power) == 0:
        return []
    return [float(value) for value in 10 * np.log10(np.maximum(power.mean(axis=0) * 255**2, 1e-6))]


def _number(value: float | None) -> float:
    return math.nan if value is None else value
