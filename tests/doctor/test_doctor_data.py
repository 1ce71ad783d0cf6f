"""Every check of a data set finds what it looks for."""

import csv
import errno
import json
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mouse_facelift.doctor import data, dataset, quality
from mouse_facelift.doctor.config import DoctorConfig
from mouse_facelift.doctor.dataset import DataSet, open_data
from mouse_facelift.doctor.findings import Finding
from mouse_facelift.errors import ConfigError
from mouse_facelift.geometry import Camera
from mouse_facelift.preprocess.quality import QualityRow
from mouse_facelift.samples.format import CAMERAS_FILE, Sample, read_sample, write_list, write_sample

SIZE, VIEWS, SCALE = 32, (0, 1, 2), 80.0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Three samples for training and one for validation, as `mfl preprocess` writes them."""
    folders = [tmp_path / f"sample_{number:06d}" for number in range(4)]
    for number, folder in enumerate(folders):
        write(folder, frame=10 * number)
    write_list(tmp_path / "data_train.txt", folders[:3])
    write_list(tmp_path / "data_val.txt", folders[3:])
    return tmp_path


def write(folder: Path, frame: int = 0, scale: float = SCALE, views: tuple[int, ...] = VIEWS) -> None:
    cameras = []
    for view in views:
        angle = 2 * np.pi * view / 5
        center = 2.7 * np.array([np.cos(angle), np.sin(angle), 0.2])
        cameras.append(Camera.look_at(center, (0, 0, 0), 34.3, SIZE))
    picture = np.full((SIZE, SIZE, 4), 255, np.uint8)
    picture[..., 3] = 0
    picture[10:22, 8:26] = (90, 70, 60, 255)
    world = np.diag([scale, scale, scale, 1.0])
    facts = {"frame_index": frame, "world_from_model": world.tolist()}
    write_sample(folder, [picture] * len(cameras), cameras, list(views), facts)


def edit(folder: Path, view: int = 0, **changes: Any) -> None:
    path = folder / CAMERAS_FILE
    content = json.loads(path.read_text())
    content["frames"][view].update(changes)
    path.write_text(json.dumps(content))


def repaint(path: Path, change: Callable[[np.ndarray], None]) -> None:
    picture = np.array(Image.open(path))
    change(picture)
    Image.fromarray(picture).save(path)


def look(check: Callable[[DataSet], Any], place: Path, **settings: Any) -> Finding:
    found = list(check(open_data(place, DoctorConfig(data=place, **settings))))
    return max(found, key=lambda finding: ("ok", "warning", "problem").index(finding.level))


def test_sound_data_is_sound_in_every_respect(place: Path) -> None:
    checks = (
        data.check_lists,
        data.check_samples,
        data.check_pictures,
        data.check_cameras,
        data.check_scale,
        data.check_overlap,
    )
    for check in checks:
        assert look(check, place).level == "ok", look(check, place)
    assert look(data.check_lists, place).found == "data_train.txt: 3 samples, data_val.txt: 1 sample"
    assert "the animal covers 21.1% in the median" in look(data.check_pictures, place).found


@pytest.mark.parametrize("name", ["data_train.txt", "data_val.txt", "sample_000000", "."])
def test_list_folder_and_sample_are_all_data(place: Path, name: str) -> None:
    opened = open_data(place / name, DoctorConfig())
    assert opened.count == (1 if name == "sample_000000" else 4)


def test_folder_of_samples_without_lists_is_data(place: Path) -> None:
    for name in ("data_train.txt", "data_val.txt"):
        (place / name).unlink()
    assert open_data(place, DoctorConfig()).count == 4


@pytest.mark.parametrize("name", ["none", "empty"])
def test_what_is_no_data_is_refused(place: Path, name: str) -> None:
    (place / "empty").mkdir()
    with pytest.raises(ConfigError, match=name):
        open_data(place / name, DoctorConfig())


def test_only_so_many_samples_are_read_unless_told(place: Path) -> None:
    assert len(open_data(place, DoctorConfig(samples=1)).samples) == 2
    assert len(open_data(place, DoctorConfig(samples=1, thorough=True)).samples) == 4


def test_list_that_names_a_folder_that_is_gone(place: Path) -> None:
    (place / "data_val.txt").write_text("sample_999999\n")
    found = look(data.check_lists, place)
    assert found.level == "problem" and "sample_999999, which is not a folder" in found.found


def test_list_that_names_a_sample_twice(place: Path) -> None:
    (place / "data_val.txt").write_text("sample_000003\nsample_000003\n")
    found = look(data.check_lists, place)
    assert found.level == "warning" and found.found.endswith("sample_000003 2 times")


def test_sample_without_its_picture(place: Path) -> None:
    (place / "sample_000001/images/cam_001.png").unlink()
    found = look(data.check_samples, place)
    assert found.level == "problem" and found.found.startswith("1 of 4 cannot be read")


def test_mirrored_camera_is_no_camera(place: Path) -> None:
    mirrored = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirrored[2, 3] = 2.7
    edit(place / "sample_000000", w2c=mirrored.tolist())
    found = look(data.check_samples, place)
    assert found.level == "problem" and "determinant -1.000" in found.found


@pytest.mark.parametrize("entry", [{"w": math.inf}, {"view_id": math.inf}, {"w2c": "none"}, {"fx": None}])
def test_numbers_that_are_none(place: Path, entry: dict[str, Any]) -> None:
    edit(place / "sample_000000", **entry)
    found = look(data.check_samples, place)
    assert found.level == "problem" and found.found.startswith("1 of 4 cannot be read")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", '{"frames": [5]}', '{"frames": [], "frame_index": [1]}']
)
def test_cameras_file_of_another_kind(place: Path, text: str) -> None:
    (place / "sample_000000" / CAMERAS_FILE).write_text(text)
    assert look(data.check_samples, place).level == "problem"


def test_sample_that_may_not_be_read_is_one_fault_among_others(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> Sample:
        if folder.name == "sample_000001":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder / CAMERAS_FILE))
        return read_sample(folder)

    monkeypatch.setattr(dataset, "read_sample", refuse)
    found = look(data.check_samples, place)
    assert found.level == "problem" and found.found.startswith("1 of 4 cannot be read: [Errno 13] Permission")


def test_list_with_a_line_that_can_be_no_path(place: Path) -> None:
    (place / "data_val.txt").write_text("x" * 5000)
    found = look(data.check_lists, place)
    assert found.level == "problem" and "File name too long" in found.found


def test_frame_that_is_no_number(place: Path) -> None:
    path = place / "sample_000000" / CAMERAS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"frame_index": [1]}))
    assert "frame_index is [1], expected a whole number" in look(data.check_samples, place).found
    assert look(data.check_overlap, place).level == "ok"


def test_samples_of_different_rigs(place: Path) -> None:
    write(place / "sample_000002", views=(0, 1, 4))
    found = look(data.check_samples, place)
    assert found.level == "problem" and "sample_000002 has the cameras [0, 1, 4]" in found.found


def test_picture_that_was_cut_off(place: Path) -> None:
    path = place / "sample_000000/images/cam_000.png"
    path.write_bytes(path.read_bytes()[:60])
    found = look(data.check_pictures, place)
    assert found.level == "problem" and "not a readable picture" in found.found


def test_picture_without_alpha(place: Path) -> None:
    path = place / "sample_000000/images/cam_000.png"
    Image.open(path).convert("RGB").save(path)
    assert "expected RGBA" in look(data.check_pictures, place).found


def test_picture_of_another_size_than_its_camera(place: Path) -> None:
    path = place / "sample_000000/images/cam_000.png"
    Image.open(path).resize((16, 16)).save(path)
    found = look(data.check_pictures, place)
    assert found.level == "problem" and "is 16x16, its camera is for 32x32" in found.found


@pytest.mark.parametrize(
    ("alpha", "level", "words"),
    [
        (0, "problem", "is empty"),
        (255, "problem", "is all animal"),
        ("speck", "warning", "shows hardly any animal"),
        ("ghost", "warning", "is half transparent"),
    ],
)
def test_alpha_that_shows_no_animal(place: Path, alpha: int | str, level: str, words: str) -> None:
    def change(picture: np.ndarray) -> None:
        if alpha == "speck":
            picture[..., 3] = 0
            picture[5, 5, 3] = 100
        elif alpha == "ghost":
            picture[..., 3] //= 2
        else:
            picture[..., 3] = alpha

    repaint(place / "sample_000001/images/cam_002.png", change)
    found = look(data.check_pictures, place)
    assert found.level == level and words in found.found


def test_animal_behind_a_camera(place: Path) -> None:
    w2c = np.eye(4)
    w2c[2, 3] = -2.7
    edit(place / "sample_000000", w2c=w2c.tolist())
    found = look(data.check_cameras, place)
    assert found.level == "problem" and "lies behind it" in found.found


def test_camera_that_looks_past_the_animal(place: Path) -> None:
    w2c = np.eye(4)
    w2c[:3, 3] = (3.0, 0, 2.7)
    edit(place / "sample_000000", w2c=w2c.tolist())
    assert "lies outside its picture" in look(data.check_cameras, place).found


def test_two_cameras_at_one_place(place: Path) -> None:
    first = json.loads((place / "sample_000000" / CAMERAS_FILE).read_text())["frames"][0]["w2c"]
    edit(place / "sample_000000", view=1, w2c=first)
    assert "two cameras stand at the same place" in look(data.check_cameras, place).found


def test_pixels_that_are_not_square(place: Path) -> None:
    edit(place / "sample_000000", fy=36.0)
    found = look(data.check_cameras, place)
    assert found.level == "warning" and "fx 34.30 and fy 36.00 differ" in found.found


def test_cameras_in_millimetres(place: Path) -> None:
    w2c = np.eye(4)
    w2c[2, 3] = 450.0
    edit(place / "sample_000000", w2c=w2c.tolist())
    found = look(data.check_cameras, place)
    assert found.level == "warning" and "are these millimetres?" in found.found


def test_samples_of_two_scales(place: Path) -> None:
    write(place / "sample_000003", frame=30, scale=81.0)
    found = look(data.check_scale, place)
    assert found.level == "problem" and "from 80 to 81 mm per unit" in found.found


@pytest.mark.parametrize(
    "matrix",
    [
        "big",
        [[1, 2], [3]],
        [1, 2, 3],
        [[None] * 4] * 4,
        [[math.nan] * 4] * 4,
        np.diag([-1.0, 1, 1, 1]).tolist(),
    ],
)
def test_scale_that_is_no_matrix(place: Path, matrix: Any) -> None:
    path = place / "sample_000000" / CAMERAS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"world_from_model": matrix}))
    assert look(data.check_scale, place).level == "problem"


def test_scale_that_nobody_recorded(place: Path) -> None:
    for folder in place.glob("sample_*"):
        content = json.loads((folder / CAMERAS_FILE).read_text())
        del content["world_from_model"]
        (folder / CAMERAS_FILE).write_text(json.dumps(content))
    assert "not recorded" in look(data.check_scale, place).found


def test_sample_in_both_lists(place: Path) -> None:
    (place / "data_val.txt").write_text("sample_000000\n")
    found = look(data.check_overlap, place / "data_val.txt")
    assert found.level == "problem" and "is in both lists" in found.found


def test_frame_in_both_lists_under_two_names(place: Path) -> None:
    write(place / "sample_000003", frame=10)
    found = look(data.check_overlap, place)
    assert found.level == "problem" and "are both of frame 10" in found.found


def write_quality(place: Path, warnings: str = "") -> None:
    """Of five samples with two cameras, of which two have warnings and one is in no list."""
    with (place / "quality.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["sample", "camera", "warnings"])
        writer.writeheader()
        for number in range(5):
            for camera in (0, 2):
                row = {"sample": f"sample_{number:06d}", "camera": camera}
                writer.writerow({**row, "warnings": warnings if number in (1, 4) else ""})


def test_figures_beyond_their_limits(place: Path) -> None:
    write_quality(place)
    assert look(quality.check_quality, place).found.startswith("8 views in")
    write_quality(place, "camera 2: mask agrees by 0.30; the masks' centroids lie 7% apart")
    found = look(quality.check_quality, place)
    assert found.level == "warning"
    assert found.found == (
        "2 figures of 8 views beyond a limit: sample_000001: camera 2: mask agrees by 0.30; "
        "sample_000001: the masks' centroids lie 7% apart"
    )


def test_samples_of_one_data_set_do_not_count_for_another(place: Path, tmp_path: Path) -> None:
    """Both have a sample_000001, and only one of them is listed."""
    other = tmp_path / "other"
    write(other / "sample_000001")
    for each in (place, other):
        write_quality(each, "touches the border")
    write_list(place / "data_train.txt", [place / "sample_000000", other / "sample_000001"])
    write_list(place / "data_val.txt", [place / "sample_000003"])
    found = list(quality.check_quality(open_data(place, DoctorConfig(data=place))))
    assert [finding.level for finding in found] == ["ok", "warning"]
    assert found[0].found.startswith("4 views in")
    assert found[1].found == "1 figures of 2 views beyond a limit: sample_000001: touches the border"


def test_figures_of_other_samples(place: Path) -> None:
    write_quality(place)
    write_list(place / "data_train.txt", [place / "sample_000003"])
    text = (place / "quality.csv").read_text().replace("sample_000003", "sample_000009")
    (place / "quality.csv").write_text(text)
    found = look(quality.check_quality, place)
    assert found.level == "warning" and "none of the listed samples" in found.found


def test_quality_is_what_preprocess_has_found(place: Path) -> None:
    """Limits of whole samples, such as the mean centre residual, are known to `mfl preprocess` alone."""
    assert {"sample", "warnings"} <= {field.name for field in fields(QualityRow)}


def test_figures_that_cannot_be_read(place: Path) -> None:
    (place / "quality.csv").write_text("sample,camera\nsample_000001,0\n")
    found = look(quality.check_quality, place)
    assert found.level == "warning" and "quality.csv lacks or garbles 'warnings'" in found.found
