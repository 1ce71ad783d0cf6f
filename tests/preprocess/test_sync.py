"""Cameras out of step are found, named once, and the advice puts them right."""

import json
import re
from dataclasses import asdict, replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from balls import animal, masks, ring

from mouse_facelift.capture.config import InputConfig
from mouse_facelift.capture.masks import CleanMask
from mouse_facelift.capture.recording import open_recording
from mouse_facelift.preprocess.config import Limit, QualityConfig
from mouse_facelift.preprocess.sync import CameraLag, check_colours, check_lags, choose_moments, measure_lags

CAMERAS = ring(size=(144, 128), focal=200.0)
IDS = (0, 1, 2, 3, 5, 8)
FRAMES, SPARE = 44, 8
QUALITY = QualityConfig(sync_window=4, sync_moments=8)
STILL = (0,) * 6


def walk(time):
    return animal(
        position=(1.6 * time - 40, 22 * np.sin(0.2 * time)), yaw=0.12 * time, bend=20 * np.sin(0.3 * time)
    )


def rest(time):
    return animal(position=(0.02 * np.sin(time), 0))


@cache
def film(pose):
    return [masks(CAMERAS, pose(time - SPARE)) for time in range(FRAMES + 2 * SPARE)]


class Film:
    """A recording of balls. A camera that is late by n shows at file frame k what happened at time k - n."""

    def __init__(self, pose=walk, late=STILL, colour_late=STILL, offsets=STILL, broken=()):
        self.pose, self.late, self.colour_late, self.broken = pose, late, colour_late, broken
        self.offsets, self.cameras, self.camera_ids = tuple(offsets), tuple(CAMERAS), IDS
        self.frame_count = FRAMES - max(offsets)
        self.keyframes = [0]

    def at(self, index, view, late):
        return film(self.pose)[index + self.offsets[view] - late[view] + SPARE][view]

    def read_masks(self, indices):
        for index in indices:
            seen = [self.at(index, view, self.late) for view in range(6)]
            if index in self.broken:
                seen[1] = CleanMask(np.zeros_like(seen[1].mask), 0, False, 0.0, "cannot be decoded")
            yield SimpleNamespace(index=index, masks=tuple(seen), overlaps={})

    def read_pictures(self, indices):
        for index in indices:
            noise = np.random.default_rng(index)
            images = []
            for view in range(6):
                image = noise.normal(170, 4, (128, 144, 3)) - np.linspace(0, 60, 144)[:, None]
                image[self.at(index, view, self.colour_late).mask] = 45
                images.append(image.clip(0, 255).astype(np.uint8))
            if index in self.broken:
                images[2] = None
            yield SimpleNamespace(index=index, images=tuple(images))


def measure(recording, quality=QUALITY):
    return measure_lags(recording, choose_moments(recording, quality), quality, 3.0)


def late(**frames):
    return tuple(frames.get(f"camera_{number}", 0) for number in IDS)


def advised(messages):
    (offsets,) = {re.search(r"frame_offsets=\[([\d,]+)\]", message)[1] for message in messages}
    return tuple(map(int, offsets.split(",")))


def test_cameras_in_step_give_no_message():
    lags = measure(Film())
    assert [item.camera for item in lags] == list(IDS)
    assert check_lags(lags, QUALITY) == []
    for item in lags:
        assert (item.best, item.mask_lag, item.conclusive, item.gain) == (0, 0, True, 0.0)
        assert item.lags == tuple(range(-4, 5))
        assert np.argmax(item.hull_iou) == 4
    json.dumps([asdict(item) for item in lags], allow_nan=False)


@pytest.mark.parametrize("frames", [3, 1, -1, -3])
def test_one_camera_out_of_step_gives_one_message_whose_advice_cures_it(frames):
    shift = late(camera_5=frames)
    lags = measure(Film(late=shift, colour_late=shift))
    assert {item.camera: item.best for item in lags if item.best} == {5: frames}
    (message,) = check_lags(lags, QUALITY)
    source = f"t{-frames:+d}"
    assert message.startswith(f"camera 5 shows at frame t what the others show at {source}:")
    offsets = advised([message])
    assert offsets == ((0, 0, 0, 0, frames, 0) if frames > 0 else (-frames,) * 4 + (0, -frames))
    cured = measure(Film(late=shift, colour_late=shift, offsets=offsets))
    assert check_lags(cured, QUALITY) == []


def test_the_advice_counts_what_is_skipped_already():
    shift = late(camera_2=3)
    lags = measure(Film(late=shift, colour_late=shift, offsets=(0, 0, 1, 2, 0, 0)))
    offsets = advised(check_lags(lags, QUALITY))
    assert offsets == (0, 0, 3, 0, 0, 0)


def test_two_cameras_out_of_step_are_both_named_with_one_cure():
    shift = late(camera_1=2, camera_8=-1)
    messages = check_lags(measure(Film(late=shift, colour_late=shift)), QUALITY)
    assert [message[:8] for message in messages] == ["camera 1", "camera 8"]
    offsets = advised(messages)
    assert offsets == (1, 3, 1, 1, 1, 0)
    cured = Film(late=shift, colour_late=shift, offsets=offsets)
    assert check_lags(measure(cured), QUALITY) == []


def test_a_lag_at_the_window_end_may_be_larger():
    shift = late(camera_3=6)
    (message,) = check_lags(measure(Film(late=shift, colour_late=shift)), QUALITY)
    assert "t-4:" in message
    assert "larger quality.sync_window" in message


def test_a_colour_video_that_lags_its_own_masks_is_found():
    lags = measure(Film(colour_late=late(camera_3=2)))
    assert [item.mask_lag for item in lags] == [0, 0, 0, -2, 0, 0]
    (message,) = check_lags(lags, QUALITY)
    assert message.startswith("camera 3: its mask at frame t is that of frame t+2 of its own video;")
    assert "its masks are in step and its video 2 frames late" in message
    assert "frame_offsets" not in message


def test_masks_that_lag_their_own_video_are_not_blamed_on_the_video():
    (message,) = check_lags(measure(Film(late=late(camera_3=2))), QUALITY)
    assert "its mask at frame t is that of frame t-2 of its own video" in message
    assert "its masks are 2 frames late and its video in step" in message


def test_a_resting_animal_tells_nothing():
    shift = late(camera_2=3)
    lags = measure(Film(pose=rest, late=shift, colour_late=shift))
    assert not any(item.conclusive for item in lags)
    assert {item.best for item in lags} == {0}
    assert {item.mask_lag for item in lags} == {None}
    assert check_lags(lags, QUALITY) == []


def test_broken_frames_cost_their_moments_only():
    moments = choose_moments(Film(), QUALITY)
    shift = late(camera_5=2)
    lags = measure(Film(late=shift, colour_late=shift, broken=(moments[0], moments[3] + 1)))
    assert {item.camera: item.best for item in lags if item.best} == {5: 2}


def test_masks_broken_throughout_conclude_nothing():
    lags = measure(Film(broken=range(FRAMES)))
    assert lags[1].hull_iou == ()
    assert not any(item.conclusive for item in lags)
    assert check_lags(lags, QUALITY) == []


def test_nothing_is_read_where_no_lag_is_looked_for_or_no_window_fits():
    assert measure_lags(SimpleNamespace(frame_count=20), [5, 9], QualityConfig(sync_window=0), 3.0) == ()
    assert measure_lags(SimpleNamespace(frame_count=8), [1, 3], QUALITY, 3.0) == ()


class Exchanged(Film):
    """The colour videos of two cameras have each other's names."""

    def read_pictures(self, indices):
        for step in super().read_pictures(indices):
            images = list(step.images)
            images[1], images[4] = images[4], images[1]
            yield SimpleNamespace(index=step.index, images=tuple(images))


def test_exchanged_colour_videos_are_named():
    assert check_colours(measure(Film()), QUALITY) == []
    (message,) = check_colours(measure(Exchanged()), QUALITY)
    assert "Are the colour videos of cameras 1 and 5 exchanged?" in message
    off = QualityConfig(colour_match=Limit(value=None, action="stop"))
    assert check_colours(measure(Exchanged()), off) == []


def test_animal_that_looks_like_its_surroundings_in_all_cameras_accuses_nobody():
    lags = [CameraLag(i, (0,), (0.9,), 0, 0.0, True, 0, 0, match) for i, match in enumerate((0.1, 0.3, 0.2))]
    assert check_colours(lags, QUALITY) == []


def test_limits():
    lags = (
        CameraLag(0, (-1, 0, 1), (0.5, 0.6, 0.5), 0, 0.0, True, None, 0),
        CameraLag(1, (-1, 0, 1), (0.5, 0.6, 0.7), 1, 0.1, True, 0, 2),
    )
    assert len(check_lags(lags, QualityConfig())) == 1
    assert check_lags(lags, QualityConfig(sync_lag=Limit(value=1, action="stop"))) == []
    assert check_lags(lags, QualityConfig(sync_lag=Limit(value=None, action="stop"))) == []
    assert advised(check_lags(lags, QualityConfig())) == (0, 3)


def test_windows_start_at_keyframes_where_there_are_enough():
    recording = SimpleNamespace(frame_count=1000, keyframes=[-2, 248, 498, 748])
    quality = QualityConfig(sync_window=5, sync_moments=3)
    assert choose_moments(recording, quality) == [253, 503, 753]
    recording.keyframes = [0]
    assert choose_moments(recording, QualityConfig(sync_window=5, sync_moments=5)) == [5, 252, 500, 747, 994]
    recording.frame_count = 12
    assert choose_moments(recording, quality) == [5, 6]
    recording.frame_count = 10
    assert choose_moments(recording, quality) == []


REAL = QualityConfig(sync_window=3)
MOMENTS = list(range(34, 200, 20))


def opened(shared, offsets):
    return open_recording(
        InputConfig(
            recording=shared / "data/mouse_capture", frame_offsets=offsets, max_frame_count_difference=9
        )
    )


@pytest.fixture(scope="module")
def in_step(shared):
    return opened(shared, [])


def test_a_rendered_mouse_in_step(in_step):
    lags = measure_lags(in_step, MOMENTS, REAL, 1.5)
    assert check_lags(lags, REAL) == []
    assert [item.mask_lag for item in lags] == [0] * 6
    assert all(item.conclusive for item in lags)


def test_a_rendered_mouse_with_camera_3_late(shared):
    """Skipping three frames of all others is camera 3 late by three, masks and video alike."""
    recording = opened(shared, [3, 3, 3, 0, 3, 3])
    (message,) = check_lags(measure_lags(recording, MOMENTS, REAL, 1.5), REAL)
    assert message.startswith("camera 3 shows at frame t what the others show at t-3:")
    assert advised([message]) == STILL


def test_a_rendered_mouse_with_only_one_colour_video_late(shared, in_step):
    shifted = opened(shared, [0, 3, 0, 0, 0, 0])
    recording = replace(in_step, frame_count=shifted.frame_count)
    mixed = SimpleNamespace(
        **vars(recording),
        cameras=recording.cameras,
        read_masks=recording.read_masks,
        read_pictures=shifted.read_pictures,
    )
    (message,) = check_lags(measure_lags(mixed, MOMENTS, REAL, 1.5), REAL)
    assert message.startswith("camera 1: its mask at frame t is that of frame t-3 of its own video;")
    assert "its masks are in step and its video 3 frames early" in message
