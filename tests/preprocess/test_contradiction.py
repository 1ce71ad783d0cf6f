"""One false camera is told from true ones, and from masks that are poor in all views."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from balls import animal, masks, ring

from mouse_facelift.capture.masks import CleanMask, clean_mask
from mouse_facelift.geometry import Camera
from mouse_facelift.preprocess.config import Limit, QualityConfig
from mouse_facelift.preprocess.contradiction import contradiction_text, is_beyond, measure_contradiction

IDS = (0, 1, 2, 3, 5, 8)
CELL = 4.0
QUALITY = QualityConfig()


RIG = ring(size=(144, 128), focal=200.0)


@cache
def seen_at(time):
    return masks(RIG, animal(position=(12 * time - 36, 6 * time), yaw=0.6 * time, bend=6 * time))


class Film:
    """A recording of balls by true cameras, with the cameras that the calibration claims."""

    def __init__(self, claimed=None, spoil=None, count=6):
        self.cameras, self.camera_ids = tuple(claimed or RIG)[:count], IDS[:count]
        self.frame_count, self.keyframes = 6, [0]
        self.spoil = spoil or (lambda view, mask: mask)

    def read_masks(self, moments):
        for time in moments:
            seen = seen_at(time)[: len(self.cameras)]
            yield SimpleNamespace(index=time, masks=[self.spoil(*item) for item in enumerate(seen)])


def zoomed(camera, factor):
    return replace(camera, K=np.diag([factor, factor, 1]) @ camera.K + (1 - factor) * middle(camera))


def middle(camera):
    return np.array([[0, 0, camera.K[0, 2]], [0, 0, camera.K[1, 2]], [0, 0, 0]])


def turned(camera, degrees):
    """As if the camera had been turned about its own centre after calibration."""
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    return Camera.from_rt(camera.K, turn @ camera.R, turn @ camera.t, camera.width, camera.height)


def changed(view, change):
    cameras = list(RIG)
    cameras[view] = change(cameras[view])
    return cameras


def test_true_rig_has_nothing_to_say():
    found = measure_contradiction(Film(), CELL)
    assert found.camera is None
    assert contradiction_text(found, QUALITY) == ""
    assert not is_beyond(found, QUALITY)


@pytest.mark.parametrize("view", [0, 3])
@pytest.mark.parametrize(
    "change",
    [lambda c: zoomed(c, 1.1), lambda c: zoomed(c, 0.9), lambda c: turned(c, 3)],
    ids=["longer", "shorter", "turned"],
)
def test_one_false_camera_is_named(view, change):
    found = measure_contradiction(Film(changed(view, change)), CELL)
    assert found.camera == IDS[view]
    assert found.gain > 0.02
    assert f"camera {IDS[view]} contradicts all others" in contradiction_text(found, QUALITY)


def test_limit_decides_what_stops():
    found = measure_contradiction(Film(changed(2, lambda c: turned(c, 3))), CELL)
    assert is_beyond(found, QUALITY)
    assert not is_beyond(found, QualityConfig(contradiction=Limit(value=None, action="stop")))
    assert not is_beyond(found, QualityConfig(contradiction=Limit(value=0.9, action="stop")))


def test_all_cameras_false_alike_blames_none_and_still_says_so():
    shift = np.array([[0, 0, 4], [0, 0, 0], [0, 0, 0]])
    shifted = [replace(camera, K=camera.K + shift) for camera in RIG]
    found = measure_contradiction(Film(shifted), CELL)
    assert found.camera is None
    assert "no single camera is to blame" in contradiction_text(found, QUALITY)


def test_masks_larger_in_all_views_accuse_nobody():
    def larger(view, mask):
        return clean_mask(255 * cv2.dilate(mask.mask.astype(np.uint8), np.ones((3, 3))))

    assert contradiction_text(measure_contradiction(Film(spoil=larger), CELL), QUALITY) == ""


def test_moments_without_all_masks_are_left_out():
    def absent(view, mask):
        return CleanMask(np.zeros_like(mask.mask), 0, False, 0.0, "cannot be decoded")

    assert measure_contradiction(Film(spoil=absent), CELL) is None


def test_of_three_cameras_none_can_be_blamed():
    assert measure_contradiction(Film(count=3), CELL) is None
