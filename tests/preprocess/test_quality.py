import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.preprocess.quality import QualityRow, quality_metadata, rows_of, write_quality_csv
from mouse_facelift.samples.format import read_sample, write_sample

ROW = QualityRow(
    sample="sample_000007",
    frame=5901,
    time_s=59.01,
    segment=1,
    camera=0,
    part="val",
    center_residual_px=12.3456789012345,
    hull_iou=1 / 3,
    foreground_share=0.1,
    clipped_share=0.0,
    outside_share=0.25,
    touches_border=1,
    area_px=123456,
    area_jump=-0.125,
    removed_share=1e-17,
    warnings="camera 0: mask is ragged; the animal touches the border in 2 views",
)


def written(folder, rows):
    camera = Camera.look_at((0, -2.7, 0), (0, 0, 0), 20.0, 16)
    return write_sample(
        folder / rows[0].sample,
        [np.zeros((16, 16, 4), np.uint8)] * len(rows),
        [camera] * len(rows),
        [row.camera for row in rows],
        {"frame_index": rows[0].frame, "quality": quality_metadata(rows)},
    )


def test_rows_come_back_from_disk_exactly(tmp_path):
    rows = [ROW, replace(ROW, camera=5, hull_iou=float(np.nextafter(0.7, 1)), warnings="", time_s=None)]
    sample = written(tmp_path, rows)
    assert rows_of(sample, "val") == rows
    assert rows_of(read_sample(sample.folder), "val") == rows


def test_numpy_scalars_are_stored_as_numbers(tmp_path):
    loose = replace(ROW, hull_iou=np.float64(0.5), area_px=np.int64(9), touches_border=np.bool_(True))
    (row,) = rows_of(written(tmp_path, [loose]), "val")
    assert (row.hull_iou, row.area_px, row.touches_border) == (0.5, 9, 1)
    assert type(row.area_px) is int


def test_what_was_not_measured_stays_nan(tmp_path):
    sample = written(tmp_path, [replace(ROW, hull_iou=math.nan, area_jump=math.inf)])
    (row,) = rows_of(sample, "val")
    assert math.isnan(row.hull_iou)
    assert math.isnan(row.area_jump)
    assert "NaN" not in (sample.folder / "opencv_cameras.json").read_text()


def test_warnings_are_listed_once_per_sample():
    rows = [ROW, replace(ROW, camera=1), replace(ROW, camera=2, warnings="camera 2: late")]
    assert quality_metadata(rows)["warnings"] == [
        "camera 0: mask is ragged",
        "the animal touches the border in 2 views",
        "camera 2: late",
    ]


@pytest.mark.parametrize(
    "quality",
    [None, {}, {"rows": []}, {"rows": [{"camera": 0}]}, {"rows": "text"}, {"rows": [None]}],
)
def test_garbled_figures_name_the_file(tmp_path, quality):
    path = written(tmp_path, [ROW]).folder / "opencv_cameras.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "quality": quality}))
    with pytest.raises(DataError, match=r"opencv_cameras\.json: 'quality' is missing or garbled"):
        rows_of(read_sample(path.parent), "train")


def test_csv_has_a_line_per_sample_and_camera(tmp_path):
    rows = [ROW, replace(ROW, camera=1, center_residual_px=math.nan, time_s=None, warnings='a "b", c')]
    write_quality_csv(tmp_path / "quality.csv", rows)
    with (tmp_path / "quality.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == list(QualityRow.__dataclass_fields__)
    assert (first["sample"], first["frame"], first["part"]) == ("sample_000007", "5901", "val")
    assert float(first["hull_iou"]) == pytest.approx(1 / 3, rel=1e-5)
    assert math.isnan(float(second["center_residual_px"]))
    assert (second["time_s"], second["warnings"]) == ("", 'a "b", c')
