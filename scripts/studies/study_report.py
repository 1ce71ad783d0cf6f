"""What the studies show: Markdown tables of scores beside trivial predictions, and curves as PNG."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mouse_facelift.evaluation.config import BootstrapConfig
from mouse_facelift.evaluation.scores import Score
from mouse_facelift.evaluation.summary import figures
from mouse_facelift.pages.axes import Axis
from mouse_facelift.pictures import FONT, write_png
from mouse_facelift.training.logging import read_log

COLUMNS = {
    "psnr_animal_db": ("PSNR animal, dB", 2),
    "ssim_animal": ("SSIM animal", 3),
    "iou": ("IoU", 3),
    "chamfer_mm": ("Chamfer, mm", 2),
    "psnr_white_db": ("all white, dB", 2),
    "psnr_outline_db": ("true outline, one colour, dB", 2),
    "psnr_shift_db": ("truth moved 1 px, dB", 2),
}
"""Figures of a table, their headings and digits. The last three are of trivial predictions."""

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 30, 50
FINE = 16
"""OpenCV draws at sixteenths of a pixel."""
TEXT = 0.45
COLOURS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (90, 90, 90))


def table(rows: Mapping[str, Sequence[Score]], bootstrap: BootstrapConfig, title: str = "") -> str:
    """A Markdown table of means, with intervals where there are enough frames.

    Args:
        rows: Scores by the name of the row.
        bootstrap: For the intervals.
        title: Heading of the names.
    """
    found = {name: figures(scores, bootstrap) for name, scores in rows.items()}
    shown = [key for key in COLUMNS if any(key in each for each in found.values())]
    lines = markdown_head([title, *(COLUMNS[key][0] for key in shown)])
    for name, each in found.items():
        lines.append(markdown_row([name, *(cell(each.get(key), COLUMNS[key][1]) for key in shown)]))
    return "\n".join(lines)


def markdown_head(headings: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [markdown_row(headings), "|---" * len(headings) + "|"]


def markdown_row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def cell(figure: Mapping[str, Any] | None, digits: int) -> str:
    """A mean and its interval; nothing where there is no figure."""
    if figure is None:
        return ""
    mean = f"{figure['mean']:.{digits}f}"
    if figure["low"] is None:
        return mean
    return f"{mean} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def device_name() -> str:
    """What a study ran on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def step_seconds(run: Path) -> float:
    """Seconds of a training step, once it runs evenly: the median over stretches of the log.

    Neither the start nor pauses for validation and checkpoints count.
    """
    lines = [line for line in read_log(run) if "loss" in line]
    return float(np.median([(b["time"] - a["time"]) / (b["step"] - a["step"]) for a, b in pairwise(lines)]))


def training_curve(run: Path, points: int = 24) -> list[tuple[float, float]]:
    """PSNR of the animal in training, by step: means over equal stretches of the log."""
    lines = [line for line in read_log(run) if "psnr" in line]
    parts = np.array_split(
        np.array([(line["step"], line["psnr"]) for line in lines]), min(points, len(lines))
    )
    return [(float(step), float(psnr)) for step, psnr in (part.mean(axis=0) for part in parts)]


def write_curves(
    path: Path, curves: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str
) -> None:
    """Draw lines over common axes, with a legend.

    Args:
        path: The PNG.
        curves: Points in order of x, by name; at least one point.
        x_label: Below the axis.
        y_label: Above the axis.
    """
    points = np.array([point for curve in curves.values() for point in curve], float)
    (x_low, y_low), (x_high, y_high) = points.min(axis=0), points.max(axis=0)
    room = 0.06 * (y_high - y_low) or 1.0
    across = Axis(x_low, x_high, LEFT, WIDTH - RIGHT)
    up = Axis(y_low - room, y_high + room, HEIGHT - BOTTOM, TOP)
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for tick in up.ticks(6):
        _line(canvas, [(LEFT, up(tick)), (WIDTH - RIGHT, up(tick))], (225, 225, 225), 1)
        _text(canvas, up.label(tick, 6), LEFT - 8, up(tick) + 4, align=1.0)
    for tick in across.ticks(7):
        _text(canvas, across.label(tick, 7), across(tick), HEIGHT - BOTTOM + 18, align=0.5)
    _text(canvas, x_label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, align=0.5)
    _text(canvas, y_label, 8, 16)
    end = WIDTH - RIGHT
    for number, (name, curve) in reversed(list(enumerate(curves.items()))):
        colour = COLOURS[number % len(COLOURS)]
        _line(canvas, [(across(x), up(y)) for x, y in curve], colour, 2)
        start = end - _width(name)
        _text(canvas, name, start, 16)
        _line(canvas, [(start - 26, 12), (start - 6, 12)], colour, 2)
        end = start - 40
    write_png(path, torch.from_numpy(canvas).movedim(-1, 0).float() / 255)


def _line(
    canvas: NDArray[np.uint8],
    places: Sequence[tuple[float, float]],
    colour: tuple[int, int, int],
    thickness: int,
) -> None:
    fine = np.round(FINE * np.array(places, float)).astype(np.int32)
    cv2.polylines(canvas, [fine], False, colour, thickness, cv2.LINE_AA, shift=FINE.bit_length() - 1)


def _text(canvas: NDArray[np.uint8], words: str, x: float, y: float, align: float = 0.0) -> None:
    """Words at a baseline; `align` is the share of their width that lies left of x."""
    place = round(x - align * _width(words)), round(y)
    cv2.putText(canvas, words, place, FONT, TEXT, (40, 40, 40), 1, cv2.LINE_AA)


def _width(words: str) -> int:
    return int(cv2.getTextSize(words, FONT, TEXT, 1)[0][0])
