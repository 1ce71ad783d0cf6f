import pickle
import shutil
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mouse_facelift.capture.config import InputConfig
from mouse_facelift.capture.jumps import find_jumps
from mouse_facelift.capture.recording import open_recording
from mouse_facelift.capture.video import VideoReader
from mouse_facelift.errors import DataError, MflError
from mouse_facelift.geometry import look_at_rotation

BAD = {
    "cam_R_not_orthonormal": "camera 4.*not orthonormal",
    "cam_R_reflection": "camera 0.*determinant -1",
    "cam_R_singular": "camera 1.*singular",
    "cam_nan_in_K": "camera 2.*NaN",
    "cam_not_a_pickle": "not a readable pickle",
    "cam_only_five": "5 cameras.*6 videos",
    "cam_pickle_runs_code": "builtins.exec",
    "camera_3_missing": "camera 3 is missing",
    "mask_all_black": r"none of 12 frames.*camera 3: mask is empty \(12 frames\)",
    "mask_inverted": "0.mp4: mask is white along 100%.*in 12 of 12 frames.*input.mask_inverted=true",
    "mask_other_resolution": "camera 2: mask video is 144x128, video is 288x256",
    "mp4_truncated_no_index": "2.mp4: not a readable video",
    "mp4_truncated_partial": "2.mp4: announces 12 frames, only 4 can be decoded",
    "mp4_zero_bytes": "1.mp4: the file is empty",
    "rgb_frame_counts_differ": "4.mp4 has 9 frames.*input.max_frame_count_difference=3",
}
WIDTH, HEIGHT = 160, 96


def rig(views):
    """Cameras around the origin at different heights, integer pixel centres."""
    cameras = []
    for i in range(views):
        angle = 2 * np.pi * i / views
        center = np.array([300 * np.cos(angle), 300 * np.sin(angle), 60 + 50 * (i % 3)])
        R = look_at_rotation(-center)
        K = np.array([[240.0, 0, 79.5], [0, 240, 47.5], [0, 0, 1]])
        cameras.append({"R": R, "T": -R @ center, "K": K})
    return cameras


def ball(frame):
    """Where the animal is. [3]"""
    return np.array([45 * np.cos(frame / 9), 40 * np.sin(frame / 7), 15 + 10 * np.sin(frame / 5)])


def mask_picture(entry, frame, inverted=False):
    """A ball of 18 mm, white on black. [H, W, 3]"""
    x = entry["K"] @ (entry["R"] @ ball(frame) + entry["T"])
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    center = tuple(round(value * 16) for value in x[:2] / x[2])
    cv2.circle(picture, center, int(16 * 240 * 18 / x[2]), (255, 255, 255), -1, cv2.LINE_8, 4)
    return 255 - picture if inverted else picture


@pytest.fixture
def make_recording(tmp_path, numbered_frame, write_video):
    """A folder with `views` cameras of `frames` frames; the pictures say their number.

    Single streams can be given another length, be late (their first frames cut), or be PNG frames.
    """

    def make(views=6, frames=24, lengths=None, late=None, first=0, png=(), alpha=False, inverted=()) -> Path:
        folder = tmp_path / "rec"
        for i, entry in enumerate(rig(views)):
            for name in ("videos_undist", "simpleclick_undist"):
                start = (late or {}).get(i, 0)
                numbers = range(start, start + (lengths or {}).get(f"{name}/{i}", frames))
                if name == "videos_undist":
                    pictures = [numbered_frame(number, WIDTH, HEIGHT) for number in numbers]
                    if alpha:
                        pictures = [
                            np.dstack([picture, mask_picture(entry, number)[..., 0]])
                            for picture, number in zip(pictures, numbers, strict=True)
                        ]
                else:
                    pictures = [mask_picture(entry, number, i in inverted) for number in numbers]
                path = folder / name / str(first + i)
                if name in png:
                    path.mkdir(parents=True)
                    for place, picture in enumerate(pictures):
                        Image.fromarray(picture).save(path / f"{place:06d}.png", compress_level=1)
                else:
                    write_video(path.with_suffix(".mp4"), pictures, crf="12", g="12", bf="2")
        (folder / "new_cam.pkl").write_bytes(pickle.dumps(rig(views)))
        return folder

    return make


def opened(folder, **options):
    return open_recording(InputConfig(recording=folder, **options))


def shows(recording, step, frame):
    """Whether all masks lie where the ball is in a frame."""
    distances = []
    for camera, mask in zip(recording.cameras, step.masks, strict=True):
        pixel, _ = camera.project(ball(frame)[None])
        distances.append(np.linalg.norm(np.array(mask.centroid()) - pixel[0]))
    return max(distances) < 1.0


def test_all_cameras_show_the_same_moment(make_recording, read_number):
    recording = opened(make_recording())
    assert recording.camera_ids == (0, 1, 2, 3, 4, 5)
    assert (recording.frame_count, recording.fps) == (24, pytest.approx(30))
    assert recording.notes == ()
    assert recording.frame_counts == dict.fromkeys(range(6), (24, 24))
    pictures, masks = list(recording.read_pictures([2, 3, 17])), list(recording.read_masks([2, 3, 17]))
    for frame, picture, mask in zip([2, 3, 17], pictures, masks, strict=True):
        assert picture.index == mask.index == frame
        assert [read_number(image) for image in picture.images] == [frame] * 6
        assert shows(recording, mask, frame)
        assert mask.overlaps == {}


def test_convention_is_decided_by_twenty_moments_or_more(make_recording):
    calibration = opened(make_recording(frames=40)).calibration
    assert calibration.evidence[0].frames >= 20
    assert calibration.evidence[0].residual_share < 0.01


def test_opening_reads_masks_alone(make_recording, monkeypatch):
    asked = []
    original = VideoReader.frames

    def frames(self, *arguments):
        asked.append(self.path.parent.name)
        return original(self, *arguments)

    monkeypatch.setattr(VideoReader, "frames", frames)
    opened(make_recording())
    assert set(asked) == {"simpleclick_undist"}


def test_nothing_asked_nothing_given(make_recording):
    recording = opened(make_recording())
    assert list(recording.read_masks([])) == []
    assert list(recording.read_pictures([])) == []


@pytest.mark.parametrize("end", ["close", "error in the caller", "error in a stream"])
def test_stopping_early_leaves_no_threads_and_no_open_files(make_recording, end):
    recording = opened(make_recording())
    threads, files = set(threading.enumerate()), len(list(Path("/proc/self/fd").iterdir()))
    steps = recording.read_masks(range(24), watch=True)
    assert next(steps).index == 0
    if end == "close":
        steps.close()
    elif end == "error in the caller":
        with pytest.raises(RuntimeError):
            steps.throw(RuntimeError("disk full"))
    else:
        with pytest.raises(DataError, match="there are 24"):
            list(recording.read_pictures([0, 99]))
        steps.close()
    assert set(threading.enumerate()) == threads
    assert len(list(Path("/proc/self/fd").iterdir())) == files


def test_stopping_does_not_wait_for_the_next_step(make_recording, monkeypatch):
    recording = opened(make_recording(frames=120))
    original = VideoReader._decode

    def slow(self, *arguments):
        for item in original(self, *arguments):
            time.sleep(0.02)
            yield item

    monkeypatch.setattr(VideoReader, "_decode", slow)
    steps = recording.read_masks([0, 119], watch=True)
    next(steps)
    start = time.perf_counter()
    steps.close()
    assert time.perf_counter() - start < 1  # All frames between take more than two seconds.


def test_eleven_cameras_are_in_numeric_order(make_recording):
    recording = opened(make_recording(views=11, frames=4))
    assert recording.camera_ids == tuple(range(11))
    assert [source.path.stem for source in recording.pictures] == [str(i) for i in range(11)]


def test_cameras_may_be_numbered_from_one(make_recording):
    assert opened(make_recording(first=1)).camera_ids == (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize("count", [1, 17])
def test_camera_counts_out_of_range_are_refused(tmp_path, write_numbered_video, count):
    for i in range(count):
        write_numbered_video(tmp_path / "videos_undist" / f"{i}.mp4", 1)
    with pytest.raises(DataError, match=rf"found {count} videos.*expected 2 to 16"):
        opened(tmp_path)


def test_a_file_and_a_folder_with_one_number_are_refused(make_recording):
    folder = make_recording()
    (folder / "simpleclick_undist/02").mkdir()
    with pytest.raises(DataError, match=r"02 and 2\.mp4 have the same number"):
        opened(folder)


def test_slightly_different_lengths_use_the_common_range_and_say_so(make_recording, caplog):
    recording = opened(make_recording(lengths={"videos_undist/1": 22, "simpleclick_undist/2": 23}))
    assert recording.frame_count == 22
    assert recording.frame_counts[1] == (22, 24)
    assert len(recording.notes) == 1
    assert "1.mp4 has 22 frames" in recording.notes[0]
    assert recording.notes[0] in caplog.text


def test_very_different_lengths_are_refused_with_the_way_out(make_recording):
    folder = make_recording(lengths={"simpleclick_undist/1": 19})
    with pytest.raises(DataError, match=r"1: 24 / 19.*input\.max_frame_count_difference=5"):
        opened(folder)
    assert opened(folder, max_frame_count_difference=5).frame_count == 19


def test_offsets_bring_cameras_into_step(make_recording, read_number):
    lengths = {f"{name}/0": 21 for name in ("videos_undist", "simpleclick_undist")}
    folder = make_recording(late={0: 3}, lengths=lengths)
    recording = opened(folder, frame_offsets=[0, 3, 3, 3, 3, 3])
    assert (recording.frame_count, recording.notes) == (21, ())
    assert [read_number(image) for image in next(recording.read_pictures([20])).images] == [23] * 6
    step = next(recording.read_masks([0]))
    assert (step.index, shows(recording, step, 3)) == (0, True)
    watched = {}
    for step in recording.read_masks([0, 9], watch=True):
        watched.update(step.overlaps)
    assert [frame for frame in watched if frame > 0] == list(range(1, 10))
    with pytest.raises(DataError, match="holds 2 numbers, expected one for each of the 6 cameras"):
        opened(folder, frame_offsets=[0, 3])
    with pytest.raises(DataError, match=r"5\.mp4 has 24 frames, but input\.frame_offsets skips 30"):
        opened(folder, frame_offsets=[0, 0, 0, 0, 0, 30])


def test_frame_rate_can_be_stated_and_is_0_where_unknown(make_recording):
    folder = make_recording(png=("videos_undist",))
    assert opened(folder).fps == 0
    assert opened(folder, fps=100).fps == 100


def test_folders_of_png_frames(make_recording, read_number):
    recording = opened(make_recording(png=("videos_undist", "simpleclick_undist")))
    assert recording.frame_count == 24
    assert len(recording.files) == 1 + 12 * 24
    step = next(recording.read_masks([7]))
    assert shows(recording, step, 7)
    assert [read_number(image) for image in next(recording.read_pictures([7])).images] == [7] * 6


def test_numbering_from_one_is_noted(make_recording):
    folder = make_recording(png=("simpleclick_undist",))
    for camera in (folder / "simpleclick_undist").iterdir():
        for path in sorted(camera.iterdir(), reverse=True):
            path.rename(camera / f"{int(path.stem) + 1:06d}.png")
    recording = opened(folder)
    assert "start at 0 and 1; position counts" in recording.notes[0]
    assert shows(recording, next(recording.read_masks([5])), 5)


def test_masks_from_the_alpha_channel(make_recording, read_number):
    folder = make_recording(png=("videos_undist",), alpha=True)
    shutil.rmtree(folder / "simpleclick_undist")
    recording = opened(folder, masks="alpha")
    assert len(recording.files) == 1 + 6 * 24
    assert shows(recording, next(recording.read_masks([7])), 7)
    assert [read_number(image) for image in next(recording.read_pictures([7])).images] == [7] * 6


def test_alpha_channel_that_is_not_there(make_recording):
    with pytest.raises(DataError, match=r"0\.mp4: has no alpha channel.*input\.masks=alpha"):
        opened(make_recording(), masks="alpha")


def test_inverted_masks_need_the_switch_and_normal_ones_refuse_it(make_recording, tmp_path):
    folder = make_recording(inverted=range(6))
    with pytest.raises(DataError, match=r"white along 100%.*24 of 24 frames.*set input\.mask_inverted=true"):
        opened(folder)
    recording = opened(folder, mask_inverted=True)
    assert shows(recording, next(recording.read_masks([3])), 3)
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=r"are not inverted.*input\.mask_inverted=false"):
        opened(make_recording(), mask_inverted=True)


def test_one_camera_with_inverted_masks_is_named(make_recording):
    with pytest.raises(DataError, match=r"Of the cameras, 2 are so and 5 are not"):
        opened(make_recording(inverted=[2]))


def test_broken_mask_and_broken_picture_are_named_not_replaced(make_recording, damage_packet, read_number):
    folder = make_recording()
    damage_packet(folder / "simpleclick_undist/2.mp4", 13, "zeros")
    damage_packet(folder / "videos_undist/4.mp4", 13, "zeros")
    recording = opened(folder)
    steps = {step.index: step for step in recording.read_masks([2, 13, 23], watch=True)}
    assert [mask.problem for mask in steps[13].masks] == ["", "", "mask cannot be decoded", "", "", ""]
    assert shows(recording, steps[2], 2)
    images = {step.index: step.images for step in recording.read_pictures([2, 13])}
    assert [image is None for image in images[13]] == [False, False, False, False, True, False]
    assert all(image is not None for image in images[2])


def test_overlaps_of_all_frames_between_are_those_of_neighbours(make_recording):
    recording = opened(make_recording())
    steps = list(recording.read_masks([0, 5, 23], watch=True))
    assert [sorted(step.overlaps) for step in steps] == [[], list(range(1, 6)), list(range(6, 24))]
    assert all(0.3 < value <= 1 for step in steps for value in step.overlaps.values())


def test_glued_recording_jumps_exactly_at_the_glue(shared, tmp_path, write_video):
    source = shared / "data/mouse_capture"
    kept = [*range(70, 100), *range(170, 200)]
    recording = opened(source)
    assert find_jumps(_watched(recording, 240)) == []
    for i in range(6):
        pictures = [gray for _, gray in recording.masks[i].frames(kept, "gray")]
        small = [np.repeat(cv2.resize(gray, (576, 512))[..., None], 3, axis=-1) for gray in pictures]
        for name in ("videos_undist", "simpleclick_undist"):
            write_video(tmp_path / name / f"{i}.mp4", small, crf="20", preset="ultrafast")
    (tmp_path / "new_cam.pkl").write_bytes(pickle.dumps(_half_size(recording.cameras)))
    assert find_jumps(_watched(opened(tmp_path), len(kept))) == [30]


def _watched(recording, frames):
    overlaps = {}
    for step in recording.read_masks([0, frames - 1], watch=True):
        overlaps.update(step.overlaps)
    return overlaps


def _half_size(cameras):
    entries = []
    for camera in cameras:
        small, _ = camera.resized(camera.width // 2, camera.height // 2)
        K = small.K.copy()
        K[:2, 2] -= 0.5
        entries.append({"R": small.R, "T": small.t, "K": K})
    return entries


def test_missing_mask_video(make_recording):
    folder = make_recording()
    (folder / "simpleclick_undist/5.mp4").unlink()
    with pytest.raises(DataError, match=r"masks of cameras \[0, 1, 2, 3, 4\]"):
        opened(folder)


def test_missing_folders_name_the_key(make_recording, tmp_path):
    with pytest.raises(DataError, match=r"input\.recording"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"input\.masks"):
        opened(make_recording(), masks="elsewhere")


def test_sub_folders_can_be_renamed(make_recording):
    folder = make_recording()
    (folder / "videos_undist").rename(folder / "rgb")
    assert opened(folder, videos="rgb").frame_count == 24


@pytest.mark.parametrize("name", BAD)
def test_broken_capture_is_explained(shared, name, tmp_path, monkeypatch):
    marker = tmp_path / "pwned"
    monkeypatch.setenv("BAD_PICKLE_MARKER", str(marker))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MflError, match=f"(?s){BAD[name]}"):
        opened(shared / "data/bad_captures" / name)
    assert not marker.exists()
    assert list(tmp_path.iterdir()) == []


def test_valid_small_capture_opens(shared):
    recording = opened(shared / "data/bad_captures/control_valid")
    assert recording.frame_count == 12
    assert all(mask.area > 1000 for step in recording.read_masks([0, 11]) for mask in step.masks)
