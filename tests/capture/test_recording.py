import pickle
from pathlib import Path

import numpy as np
import pytest

from mouse_facelift.capture.config import InputConfig
from mouse_facelift.capture.recording import open_recording
from mouse_facelift.errors import DataError, MflError
from mouse_facelift.geometry import look_at_rotation

BAD = {
    "cam_R_not_orthonormal": "camera 4.*not orthonormal",
    "cam_R_reflection": "camera 0.*determinant -1",
    "cam_R_singular": "camera 1.*singular",
    "cam_nan_in_K": "camera 2.*NaN",
    "cam_not_a_pickle": "not a readable pickle",
    "cam_only_five": "holds 5 cameras, but there are 6 videos",
    "cam_pickle_runs_code": "builtins.exec",
    "camera_3_missing": "camera 3 is missing",
    "mask_inverted": "input.mask_inverted=true",
    "mask_other_resolution": "camera 2: mask video is 144x128, video is 288x256",
    "mp4_truncated_no_index": "2.mp4: not a readable video",
    "mp4_truncated_partial": "2.mp4: announces 12 frames, only 4 can be decoded",
    "mp4_zero_bytes": "1.mp4: the file is empty",
    "rgb_frame_counts_differ": "4.mp4 has 9 frames.*input.max_frame_count_difference=3",
}


@pytest.fixture
def make_recording(tmp_path, write_numbered_video):
    """A folder with `cameras` videos of `frames` frames; single videos can be given other lengths."""

    def make(cameras=3, frames=20, lengths=None, first=0) -> Path:
        entries = []
        for i in range(cameras):
            angle = 2 * np.pi * i / cameras
            center = np.array([300 * np.cos(angle), 300 * np.sin(angle), 50])
            R = look_at_rotation(-center)
            entries.append(
                {"R": R, "T": -R @ center, "K": np.array([[120.0, 0, 40], [0, 120, 24], [0, 0, 1]])}
            )
            for folder in ("videos_undist", "simpleclick_undist"):
                length = (lengths or {}).get(f"{folder}/{i}", frames)
                write_numbered_video(tmp_path / "rec" / folder / f"{first + i}.mp4", length)
        (tmp_path / "rec" / "new_cam.pkl").write_bytes(pickle.dumps(entries))
        return tmp_path / "rec"

    return make


def test_all_cameras_show_the_same_moment(make_recording, read_number):
    recording = open_recording(InputConfig(recording=make_recording(), mask_threshold=200))
    steps = list(recording.frames([2, 3, 17]))
    assert [step.index for step in steps] == [2, 3, 17]
    for step in steps:
        assert [read_number(image) for image in step.images] == [step.index] * 3
        assert all(read_number(255 * mask.mask) for mask in step.masks)


def test_masks_alone_decode_no_colour(make_recording, monkeypatch):
    recording = open_recording(InputConfig(recording=make_recording()))
    monkeypatch.setattr(recording.videos[0], "frames", None)
    assert [step.images for step in recording.frames([1, 2], images=False)] == [(), ()]


def test_nothing_asked_nothing_given(make_recording):
    assert list(open_recording(InputConfig(recording=make_recording())).frames([])) == []


def test_stopping_early_is_clean(make_recording):
    recording = open_recording(InputConfig(recording=make_recording()))
    steps = recording.frames(range(20))
    assert next(steps).index == 0
    steps.close()


def test_ten_cameras_are_in_numeric_order(make_recording):
    recording = open_recording(InputConfig(recording=make_recording(cameras=11, frames=2)))
    assert recording.camera_ids == tuple(range(11))
    assert [video.path.stem for video in recording.videos] == [str(i) for i in range(11)]


def test_cameras_may_be_numbered_from_one(make_recording):
    assert open_recording(InputConfig(recording=make_recording(first=1))).camera_ids == (1, 2, 3)


def test_slightly_different_lengths_use_the_common_range(make_recording):
    folder = make_recording(lengths={"videos_undist/1": 18, "simpleclick_undist/2": 19})
    assert open_recording(InputConfig(recording=folder)).frame_count == 18


def test_very_different_lengths_are_refused_with_the_way_out(make_recording):
    folder = make_recording(lengths={"simpleclick_undist/1": 15})
    with pytest.raises(DataError, match=r"1: 20 / 15.*input\.max_frame_count_difference=5"):
        open_recording(InputConfig(recording=folder))
    assert open_recording(InputConfig(recording=folder, max_frame_count_difference=5)).frame_count == 15


def test_missing_mask_video(make_recording):
    folder = make_recording()
    (folder / "simpleclick_undist/2.mp4").unlink()
    with pytest.raises(DataError, match=r"masks of cameras \[0, 1\]"):
        open_recording(InputConfig(recording=folder))


def test_missing_folders_name_the_key(make_recording, tmp_path):
    with pytest.raises(DataError, match=r"input\.recording"):
        open_recording(InputConfig(recording=tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"input\.masks"):
        open_recording(InputConfig(recording=make_recording(), masks="elsewhere"))


def test_real_sub_paths_can_be_renamed(make_recording):
    folder = make_recording()
    (folder / "videos_undist").rename(folder / "rgb")
    assert open_recording(InputConfig(recording=folder, videos="rgb")).frame_count == 20


@pytest.mark.parametrize("name", BAD)
def test_broken_capture_is_explained(shared, name, tmp_path, monkeypatch):
    marker = tmp_path / "pwned"
    monkeypatch.setenv("BAD_PICKLE_MARKER", str(marker))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MflError, match=f"(?s){BAD[name]}"):
        recording = open_recording(InputConfig(recording=shared / "data/bad_captures" / name))
        list(recording.frames(range(recording.frame_count)))
    assert not marker.exists()
    assert list(tmp_path.iterdir()) == []


def test_valid_small_capture_opens(shared):
    recording = open_recording(InputConfig(recording=shared / "data/bad_captures/control_valid"))
    assert recording.frame_count == 12
    assert all(mask.area > 1000 for step in recording.frames([0, 11]) for mask in step.masks)
