import json
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mouse_facelift import progress
from mouse_facelift.capture.calibration import read_rig
from mouse_facelift.capture.config import InputConfig
from mouse_facelift.capture.video import VideoReader
from mouse_facelift.demo import recording
from mouse_facelift.demo.animal import MousePose, MouseShape
from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.demo.mouse import Mesh, mouse_mesh
from mouse_facelift.demo.raster import render_mesh
from mouse_facelift.demo.recording import write_recording
from mouse_facelift.geometry import Camera

CONFIG = RecordingConfig(seed=2, frames=7, width=288, height=256, fps=10, truth_every=3)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    return write_recording(tmp_path_factory.mktemp("demo") / "recording", CONFIG)


def true_mesh(folder: Path, frame: int) -> Mesh:
    truth = np.load(folder / "ground_truth" / "vertices.npz")
    mesh = mouse_mesh(MouseShape(), MousePose.standing())
    assert (truth["faces"] == mesh.faces).all()
    return type(mesh)(**{**vars(mesh), "vertices": truth["vertices"][frame].astype(float)})


def stored_cameras(folder: Path) -> list[Camera]:
    """The cameras as `new_cam.pkl` states them."""
    rig = read_rig(InputConfig(recording=folder), range(6), [(CONFIG.width, CONFIG.height)] * 6)
    return [
        Camera.from_rt(*parts, CONFIG.width, CONFIG.height) for parts in zip(rig.K, rig.R, rig.t, strict=True)
    ]


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_files_lie_where_a_real_recording_has_them(recorded) -> None:
    names = {path.relative_to(recorded).as_posix() for path in recorded.rglob("*") if path.is_file()}
    expected = {"new_cam.pkl"}
    expected |= {f"{place}/{i}.mp4" for place in ("videos_undist", "simpleclick_undist") for i in range(6)}
    expected |= {f"ground_truth/{name}" for name in ("cameras.json", "vertices.npz", "track.npz")}
    expected |= {f"ground_truth/masks/frame{f:04d}_cam{c}.png" for f in (0, 3, 6) for c in range(6)}
    expected |= {f"ground_truth/novel_views/frame{f:04d}_cam{c}.png" for f in (0, 3, 6) for c in range(6, 10)}
    assert names == expected


def test_videos_have_the_length_size_and_rate_that_were_asked_for(recorded) -> None:
    for place in ("videos_undist", "simpleclick_undist"):
        for index in range(6):
            reader = VideoReader(recorded / place / f"{index}.mp4")
            assert (reader.width, reader.height, reader.frame_count, reader.fps) == (288, 256, 7, 10)


def test_calibration_is_a_protocol_3_pickle_of_arrays_only(recorded) -> None:
    content = (recorded / "new_cam.pkl").read_bytes()
    operations = [(code.name, argument) for code, argument, _ in pickletools.genops(content)]
    assert operations[0] == ("PROTO", 3)
    names = {argument for name, argument in operations if name == "GLOBAL"}
    assert all(name.startswith("numpy") for name in names)
    entries = pickle.loads(content)
    assert len(entries) == 6
    for entry in entries:
        assert {key: value.shape for key, value in entry.items()} == {"K": (3, 3), "R": (3, 3), "T": (3,)}
        assert all(type(value) is np.ndarray and value.dtype == np.float64 for value in entry.values())


def test_calibration_is_read_back_as_the_cameras_of_the_truth(recorded) -> None:
    cameras = stored_cameras(recorded)
    truth = json.loads((recorded / "ground_truth" / "cameras.json").read_text())
    assert "(0.5, 0.5)" in truth["convention"]
    assert [entry["id"] for entry in truth["cameras"]] == list(range(10))
    assert [entry["role"] for entry in truth["cameras"]] == ["input"] * 6 + ["held_out"] * 4
    for camera, entry in zip(cameras, truth["cameras"], strict=False):
        np.testing.assert_allclose(camera.K, entry["K"], atol=1e-9)
        np.testing.assert_allclose(camera.w2c, entry["w2c"], atol=1e-9)
        assert (camera.width, camera.height) == (entry["width"], entry["height"])


def test_true_vertices_fall_on_the_decoded_masks(recorded) -> None:
    cameras = stored_cameras(recorded)
    for index, camera in enumerate(cameras):
        masks = dict(
            VideoReader(recorded / "simpleclick_undist" / f"{index}.mp4").frames((1, 3, 6), pixels="gray")
        )
        for frame, mask in masks.items():
            silhouette = render_mesh(true_mesh(recorded, frame), camera).alpha >= 0.5
            assert iou(silhouette, mask > 127) > 0.97
            assert mask.max() > 200 and mask.min() < 20


def test_half_a_pixel_of_wrong_convention_would_show(recorded) -> None:
    K, R, T = (pickle.loads((recorded / "new_cam.pkl").read_bytes())[0][key] for key in "KRT")
    true = np.asarray(Image.open(recorded / "ground_truth" / "masks" / "frame0003_cam0.png")) > 0
    mesh = true_mesh(recorded, 3)
    right, wrong = K.copy(), K.copy()
    right[:2, 2] += 0.5
    scores = [
        iou(render_mesh(mesh, Camera.from_rt(k, R, T, 288, 256)).alpha >= 0.5, true) for k in (right, wrong)
    ]
    assert scores[0] > 0.999 > scores[1]


def test_lossless_masks_are_binary_and_the_coded_ones_are_not(recorded) -> None:
    for path in (recorded / "ground_truth" / "masks").iterdir():
        assert set(np.unique(np.asarray(Image.open(path)))) == {0, 255}
    _, coded = next(VideoReader(recorded / "simpleclick_undist" / "0.mp4").frames((3,), pixels="gray"))
    assert len(np.unique(coded)) > 2


def test_novel_views_are_straight_rgba_of_the_true_mesh(recorded) -> None:
    truth = json.loads((recorded / "ground_truth" / "cameras.json").read_text())
    for entry in truth["cameras"][6:]:
        path = recorded / "ground_truth" / "novel_views" / f"frame0003_cam{entry['id']}.png"
        picture = np.asarray(Image.open(path))
        assert picture.shape == (256, 288, 4)
        camera = Camera(np.array(entry["K"]), np.array(entry["w2c"]), entry["width"], entry["height"])
        silhouette = render_mesh(true_mesh(recorded, 3), camera).alpha
        assert np.abs(silhouette - picture[..., 3] / 255.0).mean() < 0.002
        edge = (picture[..., 3] > 0) & (picture[..., 3] < 128)
        assert picture[edge][:, :3].mean() > 0.4 * picture[picture[..., 3] == 255][:, :3].mean()


def test_the_animal_is_darker_than_its_floor_and_the_background_is_still(recorded) -> None:
    frames = dict(VideoReader(recorded / "videos_undist" / "1.mp4").frames((0, 6)))
    masks = dict(VideoReader(recorded / "simpleclick_undist" / "1.mp4").frames((0, 6), pixels="gray"))
    first, last = frames[0].astype(float), frames[6].astype(float)
    corner = np.abs(first[:60, :60] - last[:60, :60])
    assert corner.mean() < 5
    assert first[masks[0] > 127].mean() < 0.7 * first[200:].mean()


def test_the_track_is_where_the_vertices_are(recorded) -> None:
    track = np.load(recorded / "ground_truth" / "track.npz")
    vertices = np.load(recorded / "ground_truth" / "vertices.npz")["vertices"]
    assert vertices.dtype == np.float32
    np.testing.assert_allclose(track["bbox_min_mm"], vertices.min(axis=1), atol=1e-3)
    np.testing.assert_allclose(track["bbox_max_mm"], vertices.max(axis=1), atol=1e-3)
    trunk = vertices[:, :3920].mean(axis=1)
    assert np.linalg.norm(track["body_centroid_mm"] - trunk, axis=1).max() < 12
    apart = np.linalg.norm(track["centroid_mm"] - track["body_centroid_mm"], axis=1)
    assert (apart > 1).all() and (apart < 15).all()


def test_the_same_seed_writes_the_same_bytes(tmp_path) -> None:
    config = RecordingConfig(seed=4, frames=2, width=96, height=80, truth_every=1)
    first = write_recording(tmp_path / "first", config)
    second = write_recording(tmp_path / "second", config.model_copy(update={"threads": 1}))
    other = write_recording(tmp_path / "other", config.model_copy(update={"seed": 5}))
    for name in (
        "videos_undist/3.mp4",
        "simpleclick_undist/3.mp4",
        "ground_truth/novel_views/frame0001_cam7.png",
    ):
        assert (first / name).read_bytes() == (second / name).read_bytes()
        assert (first / name).read_bytes() != (other / name).read_bytes()


def test_a_recording_that_fails_leaves_nothing(tmp_path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(recording, "_write_novel_view", fail)
    with pytest.raises(OSError, match="disk full"):
        write_recording(tmp_path / "recording", RecordingConfig(frames=1, width=96, height=80))
    assert not list(tmp_path.iterdir())
    assert progress.console is None


def test_odd_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 2"):
        RecordingConfig(width=577)
