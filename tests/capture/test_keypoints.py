"""Key points: one file per camera, half-pixel centres, nothing trusted."""

import pickle

import numpy as np
import pytest

from mouse_facelift.capture.config import InputConfig
from mouse_facelift.capture.keypoints import read_keypoints
from mouse_facelift.errors import DataError


def write(folder, views=3, frames=20, count=5, change=None):
    """x = 100 view + frame, y = key point, confidence 1."""
    (folder / "keypoints2d_undist").mkdir(parents=True)
    for view in range(views):
        rows = np.ones((frames, count, 3))
        rows[..., 0] = 100 * view + np.arange(frames)[:, None]
        rows[..., 1] = np.arange(count)
        if change:
            rows = change(view, rows)
        path = folder / f"keypoints2d_undist/result_view_{view}.pkl"
        path.write_bytes(pickle.dumps(rows, protocol=3))
    return InputConfig(recording=folder)


def test_pixel_centres_become_half_pixel_centres(tmp_path):
    found = read_keypoints(write(tmp_path), (0, 1, 2), 20)
    assert found.shape == (3, 20, 5, 2)
    np.testing.assert_array_equal(found[2, 7, 4], (207.5, 4.5))


@pytest.mark.parametrize("spoilt", [(0, 0, 0.24), (np.nan, 3, 0.9), (1, 2, np.nan), (1, np.inf, 1)])
def test_untrusted_key_points_are_nan(tmp_path, spoilt):
    def change(view, rows):
        rows[3, 2] = spoilt
        rows[3, 3, 2] = 0.25
        return rows.astype(np.float32)

    found = read_keypoints(write(tmp_path, change=change), (0, 1, 2), 20)
    assert np.isnan(found[:, 3, 2]).all()
    assert np.isfinite(np.delete(found[:, 3], 2, axis=1)).all()


def test_offsets_are_those_of_the_videos(tmp_path):
    config = write(tmp_path).model_copy(update={"frame_offsets": [0, 4, 2]})
    found = read_keypoints(config, (0, 1, 2), 16)
    assert found.shape == (3, 16, 5, 2)
    np.testing.assert_array_equal(found[:, 0, 0, 0], (0.5, 104.5, 202.5))
    with pytest.raises(DataError, match=r"view_1\.pkl: camera 1: holds 20 frames, expected at least 21"):
        read_keypoints(config, (0, 1, 2), 17)


def test_camera_numbers_name_the_files(tmp_path):
    np.testing.assert_array_equal(read_keypoints(write(tmp_path), (2, 0), 20)[:, 0, 0, 0], (200.5, 0.5))
    with pytest.raises(DataError, match=r"result_view_5\.pkl: no such file"):
        read_keypoints(InputConfig(recording=tmp_path), (0, 5), 20)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.ones((20, 5, 2)), r"shape \(20, 5, 2\)"),
        (np.ones((20, 15)), r"shape \(20, 15\)"),
        (np.ones((20, 0, 3)), r"shape \(20, 0, 3\)"),
        ({"a": 1}, "holds a dict"),
        (np.ones((20, 4, 3)), "holds 4 key points, the first camera 5"),
    ],
)
def test_other_shapes_are_refused(tmp_path, content, message):
    config = write(tmp_path, change=lambda view, rows: content if view == 1 else rows)
    with pytest.raises(DataError, match=message):
        read_keypoints(config, (0, 1, 2), 20)


class Payload:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle was run')",)


def test_code_in_the_pickle_is_not_run(tmp_path):
    config = write(tmp_path, change=lambda view, rows: Payload())
    with pytest.raises(DataError, match="could run code"):
        read_keypoints(config, (0, 1, 2), 20)


def test_key_points_of_the_reference_recording_lie_on_the_true_ones(shared):
    recording = shared / "data/mouse_capture"
    found = read_keypoints(InputConfig(recording=recording), range(6), 240)
    assert found.shape == (6, 240, 22, 2)
    assert 0.005 < np.isnan(found[..., 0]).mean() < 0.05
    with (recording / "new_cam.pkl").open("rb") as file:
        cameras = pickle.load(file)
    true = np.load(recording / "ground_truth/keypoints3d_mm.npy")
    for camera, pixels in zip(cameras, found, strict=True):
        projected = (true @ camera["R"].T + camera["T"]) @ camera["K"].T
        error = pixels - 0.5 - projected[..., :2] / projected[..., 2:]
        assert np.abs(np.nanmean(error, axis=(0, 1))).max() < 0.1
        assert np.nanstd(error) == pytest.approx(1.5, abs=0.1)
