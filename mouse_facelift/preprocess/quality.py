"""What was measured of every sample and camera, as a table for programs and a page for people."""

import base64
import csv
import html
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import write_text
from ..samples.format import Sample, read_rgba

THUMBNAIL_PX = 144


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
    blocks = "".join(_sample_block(path.parent, item, by_sample[item.folder.name]) for item in worst)
    facts = "".join(f"<tr><th>{_escape(k)}</th><td>{_escape(v)}</td></tr>" for k, v in summary.items())
    meanings = "".join(f"<dt>{_escape(f.title)}</dt><dd>{_escape(f.meaning)}</dd>" for f in FIGURES)
    write_text(
        path,
        "<!doctype html><html lang=en><meta charset=utf-8><title>Sample quality</title>"
        f"<style>{_STYLE}</style>"
        f"<h1>Sample quality</h1><table>{facts}</table>"
        f"<h2>Cameras</h2>{_camera_table(by_camera)}<dl>{meanings}</dl>"
        f"<h2>Samples, worst first</h2><p>{len(worst)} of {len(samples)}; what is red may need a look. "
        f"A click opens the picture.</p>{blocks}</html>\n",
    )


def badness(row: QualityRow) -> float:
    """What a view lacks, 0 to 1: support by the other views, or a part of the animal."""
    return max(1 - row.hull_iou, row.clipped_share)


@dataclass(frozen=True)
class Figure:
    """A column of the page's table: a field of `QualityRow`, and how people read it."""

    name: str
    title: str
    form: str
    meaning: str
    worst: Callable[[Sequence[float]], float] = max


FIGURES = (
    Figure(
        "center_residual_px",
        "centre residual, px",
        "{:.1f}",
        "Distance between the middle of the mask and the animal's 3D centre in this camera, in pixels of the "
        "recording. Much larger in one camera: its calibration or its synchronization is off.",
    ),
    Figure(
        "hull_iou",
        "agreement",
        "{:.3f}",
        "Share of the mask that all other cameras agree with, 1 at best. Low: a wrong mask or camera.",
        min,
    ),
    Figure("foreground_share", "animal", "{:.1%}", "Share of the written picture that is animal."),
    Figure(
        "clipped_share", "cut off", "{:.1%}", "Share of the animal that lies outside the written picture."
    ),
    Figure(
        "outside_share",
        "not recorded",
        "{:.1%}",
        "Share of the written picture that the camera did not see; it is transparent.",
    ),
    Figure("touches_border", "at the border", "{:.0f}", "1 where the animal reaches the recording's border."),
    Figure("area_jump", "area jump", "{:.1%}", "Change of the mask's area since the sample before."),
)
"""What is shown of each camera; `quality.csv` holds all."""

_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2em;color:#222;background:#fff;max-width:75em}"
    "table{border-collapse:collapse}"
    "td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:right;font-variant-numeric:tabular-nums}"
    "th{font-weight:600}dl{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1em;color:#555}"
    "dt{font-weight:600;text-align:right}dd{margin:0}"
    f"figure{{display:inline-block;width:{THUMBNAIL_PX + 2}px;margin:.3em .5em .3em 0;font-size:12px}}"
    "img{display:block;border:1px solid #ddd}.bad{color:#b00020;font-weight:600}"
)
_SUSPECT_AGREEMENT, _SUSPECT_CUT = 0.9, 0.01
"""Below and above these a figure is red on the page; they drop nothing."""


def _camera_table(by_camera: Mapping[int, Sequence[QualityRow]]) -> str:
    """Median and worst of each figure, per camera."""
    head = "".join(f"<th>{name}</th>" for name in ("camera", *(figure.title for figure in FIGURES)))
    lines = []
    for camera, rows in sorted(by_camera.items()):
        cells = []
        for figure in FIGURES:
            values = [abs(float(getattr(row, figure.name))) for row in rows]
            shown = (figure.form.format(value) for value in (np.median(values), figure.worst(values)))
            cells.append("<td>{} ({})</td>".format(*shown))
        lines.append(f"<tr><th>{camera}</th>{''.join(cells)}</tr>")
    return f"<p>Median (worst) of all samples.</p><table><tr>{head}</tr>{''.join(lines)}</table>"


def _sample_block(base: Path, sample: Sample, rows: Sequence[QualityRow]) -> str:
    """A sample's pictures with their figures; links are relative to `base`."""
    figures = "".join(
        f"<figure><a href='{_escape(view.file.relative_to(base).as_posix())}'>"
        f"<img alt='camera {row.camera}' src='{_thumbnail(view.file)}'></a>{_caption(row)}</figure>"
        for view, row in zip(sample.views, rows, strict=True)
    )
    title = f"{_escape(sample.folder.name)}, frame {rows[0].frame}, {rows[0].part}"
    return f"<section><h3>{title}</h3>{figures}</section>"


def _caption(row: QualityRow) -> str:
    lines = [
        (f"camera {row.camera}", False),
        (f"agreement {row.hull_iou:.3f}", row.hull_iou < _SUSPECT_AGREEMENT),
        (f"residual {row.center_residual_px:.1f} px", False),
        (f"cut off {row.clipped_share:.1%}", row.clipped_share > _SUSPECT_CUT),
    ]
    if row.touches_border:
        lines.append(("at the border", True))
    return "<br>".join(f"<span class=bad>{text}</span>" if bad else text for text, bad in lines)


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
