"""What `mfl infer` writes for one sample: PLY, renders, turntable, generated views, metrics."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..files import write_json
from ..gaussians import Gaussians, render
from ..gaussians.filters import FilterReport
from ..gaussians.similarity import transformed
from ..gaussians.turntable import render_turntable
from ..metrics import psnr, silhouette_iou, ssim
from ..pictures import contact_sheet, write_png
from ..samples.datasets import composite
from ..videos import write_video
from ..viewer import Scene, pack, write_viewer
from .config import InferConfig
from .inputs import Views
from .refine import Refinement
from .renders import write_named_views, write_real_cameras

METRICS = {
    "psnr_animal_db": "PSNR over pixels with real alpha above 0.5, both pictures on the background",
    "psnr_full_db": "PSNR over all pixels (mostly background: flattering)",
    "ssim_animal": "SSIM over windows whose centre has real alpha above 0.5",
    "iou": "intersection over union of the silhouettes, alpha above 0.5",
}


@dataclass(frozen=True)
class Reconstruction:
    """One sample's result.

    Attributes:
        gaussians: Filtered, model units, on the computing device.
        report: What the filters cut.
        shown_ids: Camera ids of the real views that were given to a model.
        generated: MVDiffusion's views on their background, in slot order (mode e2e). [V, 3, S, S]
        generated_ids: Their camera ids.
        unfiltered: What the filters were given; None where nobody wants to know.
        filter_cost_db: See `filter_cost.filter_cost_db`; None where not measured.
        refinement: What fitting to the shown views did.
    """

    gaussians: Gaussians
    report: FilterReport
    shown_ids: tuple[int, ...]
    generated: Tensor | None = None
    generated_ids: tuple[int, ...] = ()
    unfiltered: Gaussians | None = None
    filter_cost_db: float | None = None
    refinement: Refinement | None = None


def write_results(
    folder: Path, views: Views, result: Reconstruction, config: InferConfig
) -> dict[str, float]:
    """Fill `folder` with one sample's results.

    Returns:
        Mean metrics by role, such as `held_out/iou`; empty where there are no real views with cameras.

    Raises:
        DataError: the PLY is wanted in the rig's frame, and the way there is not known.
    """
    _in_output_frame(views, result, config).save_ply(folder / "gaussians.ply")
    if result.generated is not None:
        for view_id, picture in zip(result.generated_ids, result.generated, strict=True):
            write_png(folder / "views" / f"cam_{view_id:03d}.png", picture)
    if config.named_views:
        write_named_views(folder, result.gaussians, config.named_view_size, config.background)
    if config.turntable.frames:
        turn = config.turntable
        frames = render_turntable(
            result.gaussians, turn.frames, turn.size, config.background, turn.elevation_deg
        )
        write_video(folder / "turntable.mp4", frames, turn.fps)
    if config.page:
        title = "Reconstruction" if views.frame_index is None else f"Frame {views.frame_index}"
        scene = Scene(title, [pack(result.gaussians)])
        write_viewer(folder / "view.html", [scene], title, background=config.background)
    rows, facts = _render_real_cameras(folder, views, result, config)
    means, report = _means(rows), result.report
    content: dict[str, Any] = {
        "mode": config.mode,
        "frame_index": views.frame_index,
        "world_from_model": None if views.world_from_model is None else views.world_from_model.tolist(),
        "output_frame": config.output_frame,
        "definitions": METRICS,
        "gaussians": len(result.gaussians),
        "filter": {
            "dropped": report.dropped,
            "opacity_cut": report.opacity_cut,
            "psnr_cost_db": result.filter_cost_db,
        },
        "refine": None if result.refinement is None else asdict(result.refinement),
        **facts,
        "views": rows,
        "mean": means,
    }
    write_json(folder / "metrics.json", content)
    return means


def _in_output_frame(views: Views, result: Reconstruction, config: InferConfig) -> Gaussians:
    if config.output_frame == "model":
        return result.gaussians
    if views.world_from_model is None:
        raise DataError(
            "has no world_from_model, which output_frame=rig needs. Use output_frame=model, or samples "
            "written by `mfl preprocess`."
        )
    return transformed(result.gaussians, views.world_from_model)


def _render_real_cameras(
    folder: Path, views: Views, result: Reconstruction, config: InferConfig
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Render at every real camera, save beside the truth, and measure; a lone picture has no camera."""
    device = result.gaussians.means.device
    if views.K is None or views.w2c is None:
        return [], {}
    size = views.rgba.shape[-1]
    with torch.no_grad():
        picture = render(
            result.gaussians, views.K.to(device), views.w2c.to(device), size, size, config.background
        )
    real, alpha = composite(views.rgba, config.background).to(device), views.rgba[:, 3:].to(device)
    scores = {
        "psnr_animal_db": psnr(picture.rgb, real, alpha),
        "psnr_full_db": psnr(picture.rgb, real),
        "ssim_animal": ssim(picture.rgb, real, alpha),
        "iou": silhouette_iou(picture.alpha, alpha),
    }
    rows = []
    for index, view_id in enumerate(views.view_ids):
        role = "input" if view_id in result.shown_ids else "held_out"
        values = {name: _finite(value[index]) for name, value in scores.items()}
        rows.append({"view_id": view_id, "role": role, **values})
    facts = write_real_cameras(folder, views.view_ids, picture, config.depth, config.alpha)
    write_png(folder / "comparison.png", contact_sheet(real, picture.rgb))
    return rows, facts


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    means = {}
    for role in ("input", "held_out"):
        for name in METRICS:
            values = [row[name] for row in rows if row["role"] == role and row[name] is not None]
            if values:
                means[f"{role}/{name}"] = float(np.mean(values))
    return means


def _finite(value: Tensor) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None
