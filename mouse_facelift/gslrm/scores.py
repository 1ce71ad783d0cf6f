"""What validation measures: pixels of the animal, on shown and on held-out views apart, and what is good."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..metrics import outline_in_one_color, psnr, silhouette_iou
from ..samples.datasets import composite
from .views import ViewSplit

GOOD_INPUT_DB = 30
"""PSNR on the input views that a model which can learn reaches on few samples."""


def view_scores(
    rgb: Tensor, alpha: Tensor, rgba: Tensor, background: float, split: ViewSplit
) -> dict[str, Tensor]:
    """Compare renderings of one sample with its views.

    Args:
        rgb: Rendered. [V, 3, H, W]
        alpha: Rendered. [V, 1, H, W]
        rgba: Real views, straight alpha. [V, 4, H, W]
        background: Grey level of the renderings.
        split: Which views were shown.

    Returns:
        Means over the views of each group that is not empty: `psnr_input` and `psnr_held_out` in dB on pixels
        of the animal, `iou_input` and `iou_held_out` of the silhouettes, and `psnr_outline_held_out`, the
        PSNR of the trivial prediction: each view's true outline, filled with the animal's mean colour in it.
    """
    real, silhouettes, scores = composite(rgba, background), rgba[:, 3:], {}
    for group, views in (("input", list(split.shown)), ("held_out", list(split.held_out))):
        if views:
            mask = silhouettes[views]
            scores[f"psnr_{group}"] = psnr(rgb[views], real[views], mask).nanmean()
            scores[f"iou_{group}"] = silhouette_iou(alpha[views], mask).mean()
    if split.held_out:
        views = list(split.held_out)
        flat = outline_in_one_color(rgba[views], background)
        scores["psnr_outline_held_out"] = psnr(flat, real[views], silhouettes[views]).nanmean()
    return scores


def mean_scores(scores: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Means over samples."""
    return {name: float(torch.stack([each[name] for each in scores]).nanmean()) for name in scores[0]}


def overfit_verdict(measured: Mapping[str, Any], steps: int) -> str:
    """The end of an overfitting run in words: what was measured last, and what to expect.

    Args:
        measured: As `GSLRMTask.validate` returns it.
        steps: Length of the run.
    """
    advice = (
        "reached. "
        if measured["psnr_input"] > GOOD_INPUT_DB
        else "not reached. Train longer; if the loss stands still, look at the pictures in validation/ and "
        "at the samples' quality.html. "
    )
    return (
        f"overfit, {steps} steps:\n"
        f"  input views (cameras {measured['input_views']}): "
        f"PSNR {measured['psnr_input']:.2f} dB, IoU {measured['iou_input']:.3f}\n"
        f"  held-out views (cameras {measured['held_out_views']}, never trained on): "
        f"PSNR {measured['psnr_held_out']:.2f} dB, IoU {measured['iou_held_out']:.3f}\n"
        f"  there, the true outline in one mean colour has: {measured['psnr_outline_held_out']:.2f} dB\n"
        f"Expect more than {GOOD_INPUT_DB} dB on the input views: {advice}"
        "Held-out views should lie well above the one-colour outline. If only the inputs are good, the "
        "Gaussians stick to their views: because of wrong cameras, or few views and depth_anchor=origin."
    )
