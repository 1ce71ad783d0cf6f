"""The demo's closing table, and the figures in it that need the synthetic recording's ground truth."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..gaussians import Gaussians, render
from ..metrics import outline_in_one_color, psnr, silhouette_iou
from ..pictures import contact_sheet, write_png
from ..samples.datasets import composite
from ..samples.format import Sample, read_sample
from .truth import alpha_iou, center_error_mm, novel_views


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        stage: The command.
        item: What was made or measured.
        value: The figure.
        place: Where it lies.
        seconds: Duration of the stage, in its first row.
    """

    stage: str
    item: str
    value: str
    place: Path
    seconds: float | None = None

    def lasting(self, seconds: float) -> "Row":
        """The same row with the stage's duration."""
        return replace(self, seconds=seconds)

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"place": str(self.place)}


@dataclass(frozen=True)
class GeometryFigures:
    """How true the samples are: mean distance of their centres and overlap of their alpha with the truth."""

    center_error_mm: float
    alpha_iou: float


@dataclass(frozen=True)
class NovelFigures:
    """Quality from cameras that no model has seen, on pixels of the animal."""

    psnr_db: float
    iou: float
    baseline_db: float
    gaussians: int


def measure_geometry(recording: Path, samples: Sequence[Sample]) -> GeometryFigures:
    """Compare samples with the recording's ground truth."""
    errors = [center_error_mm(recording, sample) for sample in samples]
    return GeometryFigures(float(np.mean(errors)), float(np.mean([alpha_iou(recording, s) for s in samples])))


@torch.no_grad()
def measure_novel_views(recording: Path, folders: Sequence[Path], results: Path, size: int) -> NovelFigures:
    """Render reconstructions from the held-out cameras and compare with the true pictures.

    Writes `novel_views.png` into every result folder: the truth above, the rendering below.
    """
    scores, counts = [], []
    for folder in folders:
        truth = novel_views(recording, read_sample(folder), size)
        gaussians = Gaussians.load_ply(results / folder.name / "gaussians.ply")
        picture = render(gaussians, truth.K, truth.w2c, size, size)
        real, alpha = composite(truth.rgba, 1.0), truth.rgba[:, 3:]
        write_png(results / folder.name / "novel_views.png", contact_sheet(real, picture.rgb))
        scores.append(
            [
                psnr(picture.rgb, real, alpha).mean(),
                silhouette_iou(picture.alpha, alpha).mean(),
                psnr(outline_in_one_color(truth.rgba), real, alpha).mean(),
            ]
        )
        counts.append(len(gaussians))
    quality, overlap, baseline = np.mean(scores, axis=0)
    return NovelFigures(float(quality), float(overlap), float(baseline), counts[0])


def show(rows: Sequence[Row], seconds: float, root: Path) -> None:
    """Print the table on standard output; places are told relative to `root`."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.ASCII2)
    for name in ("stage", "s", "what", "measured"):
        table.add_column(name, no_wrap=True)
    table.add_column(f"in {root}/", overflow="fold")
    before = ""
    for row in rows:
        if before and row.stage != before:
            table.add_section()
        time = "" if row.seconds is None else f"{row.seconds:.0f}"
        table.add_row(
            "" if row.stage == before else row.stage,
            time,
            row.item,
            row.value,
            os.path.relpath(row.place, root),
        )
        before = row.stage
    # A log file has no width to respect: nothing is folded there.
    console = Console(markup=False, width=None if sys.stdout.isatty() else 132)
    console.print(table)
    console.print(f"{seconds:.0f} seconds in all.")
