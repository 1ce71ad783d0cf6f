"""The table that `mfl evaluate` ends with."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .bootstrap import FEWEST_FRAMES
from .summary import LOUD

SHOWN = {
    "psnr_animal_db": ("PSNR animal", 2),
    "psnr_outline_db": ("(one colour)", 2),
    "ssim_animal": ("SSIM", 3),
    "iou": ("IoU", 3),
    "boundary_px": ("edge px", 2),
    "lpips": ("LPIPS", 3),
    "depth_mm": ("depth mm", 2),
    "chamfer_mm": ("Chamfer mm", 2),
}
"""Metric: its heading and its digits."""

WIDE = 190
"""Columns from which intervals are shown; a log file has them."""


def show(summary: Mapping[str, Any]) -> None:
    """Print the figures of all methods and protocols, intervals where there is room, and what spoils them."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDE)
    groups: Sequence[Mapping[str, Any]] = summary["groups"]
    there = [name for name in SHOWN if any(name in group["metrics"] for group in groups)]
    table = Table(box=box.ASCII2)
    for heading in ("method", "protocol", "frames", *(SHOWN[name][0] for name in there), "seen in training"):
        table.add_column(heading, no_wrap=True)
    for group in groups:
        metrics = group["metrics"]
        frames = max((metric["frames"] for metric in metrics.values()), default=0)
        cells = [_cell(metrics.get(name), SHOWN[name][1], console.width >= WIDE) for name in there]
        table.add_row(group["method"], _named(group), str(frames), *cells, _leaks(group["leaks"]))
    console.print(table)
    for line in notes(summary):
        console.print(line, soft_wrap=True)


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What a reader of the figures must know."""
    lines = [
        f"{method}: skipped {reason}" for method, reasons in summary["skipped"].items() for reason in reasons
    ]
    figures = [metric for group in summary["groups"] for metric in group["metrics"].values()]
    if figures and all(metric["low"] is None for metric in figures):
        lines.append(
            f"No intervals: they need at least {FEWEST_FRAMES} frames, or blocks of bootstrap.block."
        )
    if any("note" in group for group in summary["groups"]):
        lines.append("* reconstruction: the measured views were shown. It flatters.")
    alike = [found for group in summary["groups"] if (found := group["alike_neighbours"]) is not None]
    if alike:
        lines.append(
            f"! Neighbouring frames are alike (correlation up to {max(alike):.2f}): the intervals are too "
            "narrow. Set bootstrap.block to as many frames as look alike, or measure frames farther apart."
        )
    for verdict in LOUD:
        methods = sorted({group["method"] for group in summary["groups"] if verdict in group["leaks"]})
        if methods:
            lines.append(f"! {', '.join(methods)}: {verdict}: {summary['verdicts'][verdict]}.")
    return lines


def _named(group: Mapping[str, Any]) -> str:
    return f"{group['protocol']} *" if "note" in group else str(group["protocol"])


def _cell(metric: Mapping[str, Any] | None, digits: int, interval: bool) -> str:
    if metric is None:
        return ""
    mean = f"{metric['mean']:.{digits}f}"
    if metric["low"] is None or not interval:
        return mean
    return f"{mean}\n[{metric['low']:.{digits}f}, {metric['high']:.{digits}f}]"


def _leaks(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    return "\n".join(
        f"{'! ' if verdict in LOUD else ''}{verdict} {count}/{total}" for verdict, count in counts.items()
    )
