"""What was measured of every sample and camera, as a table for programs and a page for people."""

import base64
import csv
import html
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import write_text
from ..samples.format import Sample, read_rgba

THUMBNAIL_PX = 112


@dataclass(frozen=True)
class QualityRow:
    """One view of one sample.

    Attributes:
        sample: Its folder's name.
        frame: Frame number in the videos.
        camera: The recording's camera number.
        part: train, val or guard.
        center_residual_px: Distance of the mask's centroid from the views' common point, source pixels.
        hull_iou: Share of the mask that the other views support.
        foreground_share: Mean alpha of the written picture.
        clipped_share: Share of the mask outside the written picture.
        outside_share: Share of the written picture that the recorded one does not cover.
        touches_border: 1 where the animal reaches the recorded picture's border.
        area_px: The mask's area in the recorded picture.
        area_jump: Relative change of that area since the sample before; 0 for the first.
        removed_share: Share of the raw mask that was removed as not the animal's.
    """

    sample: str
    frame: int
    camera: int
    part: str
    center_residual_px: float
    hull_iou: float
    foreground_share: float
    clipped_share: float
    outside_share: float
    touches_border: int
    area_px: int
    area_jump: float
    removed_share: float


def write_quality_csv(path: Path, rows: Sequence[QualityRow]) -> None:
    """Write one line per sample and camera."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(QualityRow)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _number(value) for key, value in asdict(row).items()})
    write_text(path, text.getvalue())


def write_quality_html(
    path: Path,
    rows: Sequence[QualityRow],
    samples: Sequence[Sample],
    summary: Mapping[str, object],
    shown: int,
) -> None:
    """Write one self-contained page: the run in numbers, every camera's figures, the worst samples first.

    Args:
        path: The page.
        rows: All measurements.
        samples: The written samples that `rows` speak of.
        summary: Lines for the head of the page.
        shown: How many samples get pictures.
    """
    by_sample: dict[str, list[QualityRow]] = defaultdict(list)
    by_camera: dict[int, list[QualityRow]] = defaultdict(list)
    for row in rows:
        by_sample[row.sample].append(row)
        by_camera[row.camera].append(row)
    worst = sorted(samples, key=lambda sample: -max(map(badness, by_sample[sample.folder.name])))[:shown]
    blocks = "".join(_sample_block(sample, by_sample[sample.folder.name]) for sample in worst)
    facts = "".join(f"<tr><th>{_escape(k)}</th><td>{_escape(v)}</td></tr>" for k, v in summary.items())
    write_text(
        path,
        "<!doctype html><html lang=en><meta charset=utf-8><title>Sample quality</title>"
        f"<style>{_STYLE}</style>"
        f"<h1>Sample quality</h1><table>{facts}</table>"
        f"<h2>Cameras</h2>{_camera_table(by_camera)}<h2>Samples, worst first</h2>{blocks}</html>\n",
    )


def badness(row: QualityRow) -> float:
    """What a view lacks, 0 to 1: support by the other views, or a part of the animal."""
    return max(1 - row.hull_iou, row.clipped_share)


_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2em;color:#222;background:#fff}"
    "table{border-collapse:collapse}"
    "td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:right;font-variant-numeric:tabular-nums}"
    "th{font-weight:600}figure{display:inline-block;margin:.3em;text-align:center;font-size:12px}"
    "img{display:block;border:1px solid #ddd}"
)
_FIGURES = (
    "center_residual_px",
    "hull_iou",
    "foreground_share",
    "clipped_share",
    "outside_share",
    "touches_border",
    "area_jump",
)


def _camera_table(by_camera: Mapping[int, Sequence[QualityRow]]) -> str:
    """Median and worst of each figure, per camera."""
    head = "".join(f"<th>{name}</th>" for name in ("camera", *_FIGURES))
    lines = []
    for camera, rows in sorted(by_camera.items()):
        cells = []
        for name in _FIGURES:
            values = np.abs([getattr(row, name) for row in rows])
            extreme = values.min() if name == "hull_iou" else values.max()
            cells.append(f"<td>{_number(float(np.median(values)))} ({_number(float(extreme))})</td>")
        lines.append(f"<tr><th>{camera}</th>{''.join(cells)}</tr>")
    return f"<p>Median (worst) of all samples.</p><table><tr>{head}</tr>{''.join(lines)}</table>"


def _sample_block(sample: Sample, rows: Sequence[QualityRow]) -> str:
    figures = "".join(
        f"<figure><img alt='camera {row.camera}' src='{_thumbnail(view.file)}'>camera {row.camera}<br>"
        f"IoU {row.hull_iou:.3f}, clipped {row.clipped_share:.1%}<br>"
        f"residual {row.center_residual_px:.1f} px</figure>"
        for view, row in zip(sample.views, rows, strict=True)
    )
    title = f"{_escape(sample.folder.name)}, frame {rows[0].frame}, {rows[0].part}"
    return f"<section><h3>{title}</h3>{figures}</section>"


def _thumbnail(file: Path) -> str:
    picture = Image.fromarray(read_rgba(file))
    picture = picture.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX, reducing_gap=None)
    content = io.BytesIO()
    picture.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _number(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _escape(value: object) -> str:
    return html.escape(str(value))
