import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mouse_facelift.errors import CalibrationError, DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.samples.format import read_list, read_rgba, read_sample, write_list, write_sample


def cameras(count: int, size: int = 16) -> list[Camera]:
    return [
        Camera.look_at((2.7 * np.cos(a), 2.7 * np.sin(a), 0.4), (0, 0, 0), 17.0 + a, size)
        for a in np.linspace(0, 5, count)
    ]


def images(count: int, size: int = 16) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (size, size, 4), np.uint8) for _ in range(count)]


def test_damaged_picture_is_told_whatever_is_damaged(tmp_path: Path) -> None:
    rng, file = np.random.default_rng(0), tmp_path / "a.png"
    Image.fromarray(images(1, 32)[0]).save(file)
    whole, told = file.read_bytes(), 0
    # Each byte of the header and of the first data, and bytes anywhere.
    places = [*range(80), *rng.integers(80, len(whole), 120)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            read_rgba(file)
        except DataError as error:
            assert "a.png" in str(error)
            told += 1
    assert told > 100


def test_sample_reads_back_exactly(tmp_path: Path) -> None:
    rigs, pictures = cameras(3), images(3)
    world = np.diag([90.0, 90, 90, 1]).tolist()
    write_sample(
        tmp_path / "sample_000007", pictures, rigs, [4, 0, 2], {"frame_index": 70, "world_from_model": world}
    )
    sample = read_sample(tmp_path / "sample_000007")
    assert sample.sample_id == "sample_000007"
    assert sample.frame_index == 70
    assert np.array_equal(sample.world_from_model, world)
    assert [view.view_id for view in sample.views] == [4, 0, 2]
    for view, camera, picture in zip(sample.views, rigs, pictures, strict=True):
        assert np.array_equal(view.camera.K, camera.K)
        assert np.array_equal(view.camera.w2c, camera.w2c)
        assert np.array_equal(read_rgba(view.file), picture)
    assert sample.views[0].file.name == "cam_004.png"


@pytest.mark.parametrize(
    "matrix",
    ["big", [[1, 2], [3]], np.eye(3).tolist(), [[np.inf] * 4] * 4, np.diag([-1.0, 1, 1, 1]).tolist()],
)
def test_similarity_that_is_none_is_refused_with_its_file(tmp_path: Path, matrix: object) -> None:
    sample = write_sample(tmp_path / "s", images(1), cameras(1), [0])
    garbled = replace(sample, metadata={"world_from_model": matrix})
    with pytest.raises(DataError, match=r"s/opencv_cameras\.json: world_from_model is .*, expected a 4x4"):
        _ = garbled.mm_per_unit


def test_picture_of_another_size_than_its_camera_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"camera 5.*\(8, 8, 4\).*\(16, 16, 4\)"):
        write_sample(tmp_path / "s", images(1, 8), cameras(1, 16), [5])
    assert list(tmp_path.iterdir()) == []


def test_missing_picture_names_view_and_file(tmp_path: Path) -> None:
    write_sample(tmp_path / "s", images(2), cameras(2), [0, 1])
    (tmp_path / "s/images/cam_001.png").unlink()
    with pytest.raises(DataError, match=r"view 1 names .*cam_001\.png"):
        read_sample(tmp_path / "s")


def test_mirrored_camera_is_refused_with_its_file_and_view(tmp_path: Path) -> None:
    write_sample(tmp_path / "s", images(2), cameras(2), [0, 1])
    file = tmp_path / "s/opencv_cameras.json"
    content = json.loads(file.read_text())
    content["frames"][1]["w2c"][0] = [-value for value in content["frames"][1]["w2c"][0]]
    file.write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match=r"opencv_cameras\.json: view 1: .*determinant -1"):
        read_sample(tmp_path / "s")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"frames": []}', '{"frames": [{"w": 1}]}', '{"frames": [3]}']
)
def test_garbled_cameras_file_is_a_data_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "opencv_cameras.json").write_text(content)
    with pytest.raises(DataError, match=r"opencv_cameras\.json"):
        read_sample(tmp_path)


def test_picture_without_alpha_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="mode RGB, expected RGBA"):
        read_rgba(tmp_path / "a.png")


def test_truncated_picture_is_a_data_error(tmp_path: Path) -> None:
    Image.fromarray(images(1, 64)[0]).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="not a readable picture"):
        read_rgba(tmp_path / "a.png")


def test_lists_are_relative_and_end_with_a_newline(tmp_path: Path) -> None:
    folders = [tmp_path / "data" / name for name in ("b", "a")]
    for folder in folders:
        folder.mkdir(parents=True)
    write_list(tmp_path / "data/train.txt", folders)
    assert (tmp_path / "data/train.txt").read_text() == "b\na\n"
    moved = (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert [folder.resolve() for folder in read_list(moved / "train.txt")] == [moved / "b", moved / "a"]


@pytest.mark.parametrize(("text", "message"), [("", "lists no samples"), ("gone\n", "not a folder")])
def test_empty_list_and_missing_sample_are_errors(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_list(tmp_path / "list.txt")


def test_list_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert read_list(tmp_path / "list.txt") == [tmp_path / "a", tmp_path / "b"]


def test_data_set_folder_given_as_a_list_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder, expected a list file, such as data_train\.txt"):
        read_list(tmp_path)


def test_published_sample_is_read_and_missing_views_are_named(shared: Path, tmp_path: Path) -> None:
    published = shared / "data/facelift_sample"
    with pytest.raises(DataError, match=r"view 1 names .*cam_001\.png, which does not exist"):
        read_sample(published)

    content = json.loads((published / "opencv_cameras.json").read_text())
    content["frames"] = [
        frame | {"file_path": str((published / frame["file_path"]).resolve())}
        for frame in content["frames"]
        if (published / frame["file_path"]).is_file()
    ]
    (tmp_path / "opencv_cameras.json").write_text(json.dumps(content))
    sample = read_sample(tmp_path)
    assert len(sample.views) == 8
    for view in sample.views:
        center, depth = view.camera.project((0, 0, 0))
        assert np.allclose(center, 256, atol=1e-3)
        assert np.isclose(depth, 2.7, atol=1e-5)
        assert read_rgba(view.file)[..., 3].any()
