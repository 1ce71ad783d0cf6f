"""What studies print and draw."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from script_modules import import_script

from mouse_facelift.evaluation.config import BootstrapConfig
from mouse_facelift.evaluation.scores import Score


@pytest.fixture(scope="module")
def report() -> ModuleType:
    return import_script("studies", "study_report")


def _write_log(folder: Path, lines: list[dict[str, float]]) -> Path:
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_table_holds_trivial_predictions_and_only_figures_that_exist(report: ModuleType) -> None:
    values = {"psnr_animal_db": 20.0, "psnr_outline_db": 18.0, "chamfer_mm": None}
    rows = [Score("m", "novel", f"frame{n}", n, 6, "novel", "clean", values) for n in range(6)]
    text = report.table({"ours": rows}, BootstrapConfig(), "what")
    assert text.splitlines() == [
        "| what | PSNR animal, dB | true outline, one colour, dB |",
        "|---|---|---|",
        "| ours | 20.00 [20.00, 20.00] | 18.00 [18.00, 18.00] |",
    ]


def test_seconds_of_a_step_leave_out_pauses_and_other_lines(report: ModuleType, tmp_path: Path) -> None:
    times = {10: 100.0, 20: 105.0, 30: 110.0, 40: 195.0, 50: 200.0}
    lines: list[dict[str, float]] = [{"step": step, "time": time, "loss": 1} for step, time in times.items()]
    lines.insert(3, {"step": 30, "time": 190.0, "validation/iou": 0.5})
    assert report.step_seconds(_write_log(tmp_path / "run", lines)) == pytest.approx(0.5)


def test_training_curve_is_the_mean_of_stretches(report: ModuleType, tmp_path: Path) -> None:
    lines = [{"step": step, "time": 0.0, "loss": 1.0, "psnr": 2.0 * step} for step in (1, 2, 3, 4)]
    run = _write_log(tmp_path / "run", lines)
    assert report.training_curve(run, points=2) == [(1.5, 3.0), (3.5, 7.0)]


def test_curves_are_drawn_where_their_points_lie(report: ModuleType, tmp_path: Path) -> None:
    report.write_curves(tmp_path / "c.png", {"low": [(0, 1), (9, 1)], "high": [(0, 2), (9, 2)]}, "x", "y")
    with Image.open(tmp_path / "c.png") as picture:
        pixels = np.asarray(picture)
    column = pixels[report.TOP + 5 : -report.BOTTOM - 2, report.WIDTH // 2]
    rows = [np.flatnonzero((column == colour).all(axis=-1)) for colour in report.COLOURS[:2]]
    assert rows[1].size and rows[0].size and rows[1].max() < rows[0].min()


def test_one_point_is_a_curve(report: ModuleType, tmp_path: Path) -> None:
    report.write_curves(tmp_path / "c.png", {"one": [(3, 1)]}, "x", "y")
    assert (tmp_path / "c.png").is_file()
