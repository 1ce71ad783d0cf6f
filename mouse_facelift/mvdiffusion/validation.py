"""Deterministic validation: fixed samples, references and seeds; figures per slot, and grids to look at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from ..geometry.rays import CameraBatch
from ..metrics import outline_in_one_color, psnr, silhouette_iou, ssim
from ..pictures import contact_sheet, label, write_png
from ..samples.datasets import composite
from ..spacing import spread_evenly
from .config import ValidationConfig
from .pipeline import MVDiffusionPipeline
from .silhouettes import estimate_silhouettes

BACKGROUND = 1.0
"""The model is shown, and makes, pictures on white."""
VISIBLE_PX = 160
"""Smaller pictures are enlarged in grids, pixel by pixel, at least to this side."""
FULL_ERROR = 0.5
"""Error of a colour channel that is drawn in full colour."""
PER_SLOT = ("psnr_animal", "ssim_animal", "iou")


def validate(
    pipeline: MVDiffusionPipeline, samples: Dataset[dict[str, Any]], settings: ValidationConfig, folder: Path
) -> dict[str, float]:
    """Make the views of some samples and compare them with the real ones.

    The samples are spread evenly over the data set, thus over the recording's time. Each has its own fixed
    seed, and its reference is slot 0, however references are chosen in training: equal weights give equal
    figures, and no random state outside is read or changed.

    Args:
        pipeline: With the weights to judge.
        samples: Items with `rgba`, `K` and `w2c` of the views in slot order.
        settings: How many samples, and how they are sampled.
        folder: Gets a grid `views_XX.png` per sample.

    Returns:
        Means over the samples, see `mean_scores`.
    """
    device, names, scores = pipeline.unet.device, pipeline.slots.names, []
    for number, index in enumerate(spread_evenly(len(samples), settings.samples)):  # type: ignore[arg-type]
        item = samples[index]
        rgba = item["rgba"].to(device)
        cameras = CameraBatch(item["K"][None], item["w2c"][None]).to(device)
        real = composite(rgba, BACKGROUND)
        made = pipeline(
            real[:1],
            generators=[Generator().manual_seed(settings.seed + number)],
            sampling=settings.sampling,
            cameras=cameras if pipeline.slots.mode == "pose" else None,
        )[0]
        found = view_scores(made, rgba)
        scores.append(found)
        measured = zip(names, found["psnr_animal"].tolist(), found["iou"].tolist(), strict=True)
        captions = [f"{name}\n{decibels:.1f} dB, IoU {iou:.2f}" for name, decibels, iou in measured]
        write_grid(folder / f"views_{number:02d}.png", real[0], real, made, captions)
    return mean_scores(scores, names)


def view_scores(generated: Tensor, rgba: Tensor) -> dict[str, Tensor]:
    """Compare the generated views of one sample with the real ones.

    Args:
        generated: RGB in [0, 1], on white, slot 0 the reference. [V, 3, H, W]
        rgba: The real views, straight alpha; where it is above 0.5 is the animal. [V, 4, H, W]

    Returns:
        Per view [V]: `psnr_animal` and `psnr_full` in dB; `ssim_animal` over windows centred on the animal;
        `iou` of the real silhouette and the one estimated from the generated colours; and `psnr_outline`, the
        `psnr_animal` of a trivial prediction: the true outline filled with its own mean colour. NaN
        where the animal has no pixel.
    """
    real, alpha = composite(rgba, BACKGROUND), rgba[:, 3:]
    return {
        "psnr_animal": psnr(generated, real, alpha),
        "psnr_full": psnr(generated, real),
        "ssim_animal": ssim(generated, real, alpha),
        "iou": silhouette_iou(estimate_silhouettes(generated, BACKGROUND), alpha),
        "psnr_outline": psnr(outline_in_one_color(rgba, BACKGROUND), real, alpha),
    }


def mean_scores(scores: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> dict[str, float]:
    """Means over samples.

    Args:
        scores: One `view_scores` per sample.
        names: Of the slots. [V]

    Returns:
        Every score over slots 1 and up, since slot 0 shows what the model was given; then of every slot
        `psnr_animal_<slot>`, `ssim_animal_<slot>` and `iou_<slot>`.
    """
    per_slot = {name: torch.stack([each[name] for each in scores]).nanmean(0) for name in scores[0]}
    novel = slice(1, None) if len(names) > 1 else slice(None)
    means = {name: float(values[novel].nanmean()) for name, values in per_slot.items()}
    for score in PER_SLOT:
        means |= {f"{score}_{slot}": float(v) for slot, v in zip(names, per_slot[score], strict=True)}
    return means


def write_grid(
    path: Path, reference: Tensor, real: Tensor, generated: Tensor, captions: Sequence[str]
) -> None:
    """Write a PNG: the reference at the left; rows of real views, generated views, signed error.

    Args:
        path: The PNG.
        reference: RGB in [0, 1]. [3, H, W]
        real: [V, 3, H, W]
        generated: [V, 3, H, W]
        captions: Words above each view. [V]
    """
    rows = [reference[None].cpu(), real.cpu(), generated.cpu(), signed_error(generated, real).cpu()]
    enlarged = -(-VISIBLE_PX // reference.shape[-1])
    picture, *views = (row.repeat_interleave(enlarged, -1).repeat_interleave(enlarged, -2) for row in rows)
    height, width = picture.shape[-2:]
    words = ["reference", *captions]
    notes = "generated", f"error\nred: too bright\nblue: too dark\nfull colour: {FULL_ERROR}"
    left = [picture, *(label(note, height, width)[None] for note in notes)]
    header = torch.stack([label(word, VISIBLE_PX // 4, width) for word in words])
    write_png(path, contact_sheet(header, *(torch.cat(row) for row in zip(left, views, strict=True))))


def signed_error(generated: Tensor, real: Tensor) -> Tensor:
    """Draw differences on white: red where the generated picture is too bright, blue where it is too dark.

    The depth of colour is the largest difference of a channel, full at FULL_ERROR; the sign is that of the
    mean over channels. On white, red is missing animal and blue is animal where none should be.

    Args:
        generated: RGB in [0, 1]. [V, 3, H, W]
        real: [V, 3, H, W]

    Returns:
        RGB in [0, 1]. [V, 3, H, W]
    """
    difference = generated - real
    strength = (difference.abs().amax(dim=1) / FULL_ERROR).clamp(max=1)
    bright = difference.mean(dim=1) >= 0
    faded, full = 1 - strength, torch.ones_like(strength)
    return torch.stack([full.where(bright, faded), faded, faded.where(bright, full)], dim=1)
