"""A reconstruction drawn and measured on the device; all that its files are made of is fetched from there."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..gaussians import Gaussians, render
from ..gaussians.similarity import transformed
from ..gaussians.turntable import render_turntable
from ..metrics import finite, psnr, silhouette_iou, ssim
from ..parallel import MAX_BYTES
from ..pictures import contact_sheet, to_uint8
from ..samples.datasets import composite
from .config import InferConfig
from .filter_cost import filter_cost_db
from .inputs import Views
from .renders import DEPTH, alpha_levels, depth_levels, named_views
from .results import Reconstruction, Results

METRICS = {
    "psnr_animal_db": "PSNR over pixels with real alpha above 0.5, both pictures on the background",
    "psnr_full_db": "PSNR over all pixels (mostly background: flattering)",
    "ssim_animal": "SSIM over windows whose centre has real alpha above 0.5",
    "iou": "intersection over union of the silhouettes, alpha above 0.5",
}

Pictures = dict[str, NDArray[np.uint8] | NDArray[np.uint16]]


@torch.no_grad()
def draw_results(views: Views, result: Reconstruction, config: InferConfig) -> Results:
    """Draw one sample's pictures and measure them.

    Raises:
        DataError: the PLY is wanted in the rig's frame, and the way there is not known.
    """
    gaussians, turn, report = result.gaussians, config.turntable, result.report
    stored = _in_output_frame(views, result, config)
    pictures: Pictures = {}
    if result.generated is not None:
        made = to_uint8(result.generated)
        names = (f"views/cam_{view_id:03d}.png" for view_id in result.generated_ids)
        pictures |= zip(names, made, strict=True)
    if config.named_views:
        named = named_views(gaussians, config.named_view_size, config.background)
        pictures |= {f"novel_{side}.png": picture for side, picture in named.items()}
    around = render_turntable(gaussians, turn.frames, turn.size, config.background, turn.elevation_deg)
    around_nbytes = 3 * turn.frames * turn.size**2
    real, rows, cost = _at_real_cameras(views, result, config)
    metrics: dict[str, Any] = {
        "mode": config.mode,
        "frame_index": views.frame_index,
        "world_from_model": None if views.world_from_model is None else views.world_from_model.tolist(),
        "output_frame": config.output_frame,
        "definitions": METRICS,
        "gaussians": len(gaussians),
        "filter": {"dropped": report.dropped, "opacity_cut": report.opacity_cut, "psnr_cost_db": cost},
        "refine": None if result.refinement is None else asdict(result.refinement),
        **({"depth": DEPTH} if rows and config.depth else {}),
        "views": rows,
        "mean": _means(rows),
    }
    fetched = gaussians.to("cpu")
    return Results(
        fetched,
        fetched if stored is gaussians else stored.to("cpu"),
        pictures | real,
        around if around_nbytes > MAX_BYTES else list(around),
        around_nbytes,
        metrics,
    )


def _in_output_frame(views: Views, result: Reconstruction, config: InferConfig) -> Gaussians:
    if config.output_frame == "model":
        return result.gaussians
    if views.world_from_model is None:
        raise DataError(
            "has no world_from_model, which output_frame=rig needs. Use output_frame=model, or samples "
            "written by `mfl preprocess`."
        )
    return transformed(result.gaussians, views.world_from_model)


def _at_real_cameras(
    views: Views, result: Reconstruction, config: InferConfig
) -> tuple[Pictures, list[dict[str, Any]], float | None]:
    """Pictures at every real camera, their scores, and the filters' cost; a lone picture has no camera."""
    if views.K is None or views.w2c is None:
        return {}, [], None
    size = views.rgba.shape[-1]
    picture = render(result.gaussians, views.K, views.w2c, size, size, config.background)
    rgba = views.rgba.to(picture.rgb.device)
    real, alpha = composite(rgba, config.background), rgba[:, 3:]
    animal_db = psnr(picture.rgb, real, alpha)
    scores = {
        "psnr_animal_db": animal_db,
        "psnr_full_db": psnr(picture.rgb, real),
        "ssim_animal": ssim(picture.rgb, real, alpha),
        "iou": silhouette_iou(picture.alpha, alpha),
    }
    cost = filter_cost_db(replace(views, rgba=rgba), result, config.background, animal_db)
    rows = _rows(views.view_ids, result.shown_ids, scores)
    files: Pictures = {"comparison.png": to_uint8(contact_sheet(real, picture.rgb))}
    kinds: dict[str, NDArray[np.uint8] | NDArray[np.uint16]] = {"render": to_uint8(picture.rgb)}
    if config.depth:
        kinds["depth"] = depth_levels(picture.depth, picture.alpha)
    if config.alpha:
        kinds["alpha"] = alpha_levels(picture.alpha)
    for kind, levels in kinds.items():
        files |= {
            f"{kind}_cam_{view_id:03d}.png": level
            for view_id, level in zip(views.view_ids, levels, strict=True)
        }
    return files, rows, None if cost is None else finite(cost)


def _rows(
    view_ids: Sequence[int], shown_ids: Sequence[int], scores: dict[str, Tensor]
) -> list[dict[str, Any]]:
    """The scores of each view. They are fetched together: every single number would wait for the device."""
    values = torch.stack(list(scores.values()), dim=1).tolist()
    return [
        {
            "view_id": view_id,
            "role": "input" if view_id in shown_ids else "held_out",
            **dict(zip(scores, map(finite, row), strict=True)),
        }
        for view_id, row in zip(view_ids, values, strict=True)
    ]


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    means = {}
    for role in ("input", "held_out"):
        for name in METRICS:
            values = [row[name] for row in rows if row["role"] == role and row[name] is not None]
            if values:
                means[f"{role}/{name}"] = float(np.mean(values))
    return means
