"""scripts/draw_demo.py puts a demo's pictures together."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from script_modules import import_script

from mouse_facelift.errors import DataError
from mouse_facelift.gaussians.turntable import NAMED_VIEWS

S = 8


def paint(path: Path, width: int, *rows: int) -> None:
    """Rows of S pixels, each of one grey level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.repeat(np.uint8(rows), S)[:, None, None]
    Image.fromarray(np.broadcast_to(levels, (len(levels), width, 3)).copy()).save(path)


def test_rows_are_truth_direct_its_sides_and_e2e(tmp_path: Path) -> None:
    module = import_script(".", "draw_demo")
    paint(tmp_path / "direct" / "sample_1" / "comparison.png", 6 * S, 10, 20)
    paint(tmp_path / "e2e" / "sample_1" / "comparison.png", 6 * S, 10, 40)
    for name in NAMED_VIEWS:
        paint(tmp_path / "direct" / "sample_1" / f"novel_{name}.png", 2 * S, 30, 30)
    picture = np.asarray(module.picture(tmp_path, "sample_1"))
    assert picture.shape == (4 * S, 6 * S, 3)
    assert [row.tolist() for row in picture[S // 2 :: S, 0, 0]] == [10, 20, 30, 40]


def test_folder_of_something_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`mfl demo` writes it"):
        import_script(".", "draw_demo").picture(tmp_path, "sample_1")
