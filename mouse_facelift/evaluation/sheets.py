"""Pictures of an evaluation: for some frames the truth, and what each method shows at the same cameras."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..pictures import label, write_png
from .config import Protocol
from .kept import KeptScores
from .subjects import Subject

FOLDER = "pictures"


def write_sheets(
    output: Path,
    kept: KeptScores,
    subjects: Sequence[Subject],
    methods: Sequence[str],
    protocols: Sequence[Protocol],
) -> list[Path]:
    """Write `pictures/<protocol>_<sample>.png`: rows of the truth and of the methods, columns of cameras."""
    written = []
    for protocol in protocols:
        for subject in subjects:
            rows = _rows(kept, protocol, subject, methods)
            if rows:
                path = output / FOLDER / f"{protocol}_{subject.name}.png"
                write_png(path, sheet(rows))
                written.append(path)
    return written


def _rows(
    kept: KeptScores, protocol: Protocol, subject: Subject, methods: Sequence[str]
) -> list[tuple[str, Tensor]]:
    """Methods below their truth, which differs where they are shown other views."""
    rows: list[tuple[str, Tensor]] = []
    shown: Tensor | None = None
    for method in methods:
        files = [kept.strip(protocol, subject, method, truth) for truth in (True, False)]
        if not all(file.is_file() for file in files):
            continue
        truth, rendered = map(_read, files)
        if shown is None or not torch.equal(shown, truth):
            rows.append(("truth", truth))
            shown = truth
        rows.append((method, rendered))
    return rows


def sheet(rows: Sequence[tuple[str, Tensor]]) -> Tensor:
    """Named strips of equal height below each other. strips: [3, H, W] -> [3, R * H, H + W]"""
    height, width = rows[0][1].shape[-2], max(strip.shape[-1] for _, strip in rows)
    lines = []
    for name, strip in rows:
        filled = torch.ones(3, height, width)
        filled[..., : strip.shape[-1]] = strip
        lines.append(torch.cat([label(name.replace("_", "\n"), height, height // 2), filled], dim=-1))
    return torch.cat(lines, dim=-2)


def _read(path: Path) -> Tensor:
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).movedim(-1, 0).float() / 255
