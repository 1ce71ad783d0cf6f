"""One frame in 3D: where the animal is, what is wrong with a frame, and whom to blame."""

import json
from dataclasses import replace

import numpy as np
import pytest
from balls import animal, mask, masks, ring

from mouse_facelift.capture.config import InputConfig
from mouse_facelift.capture.masks import CleanMask, clean_mask
from mouse_facelift.capture.recording import open_recording
from mouse_facelift.errors import CalibrationError
from mouse_facelift.geometry import Camera
from mouse_facelift.preprocess.config import GeometryConfig, Limit, QualityConfig
from mouse_facelift.preprocess.observation import from_record, to_record
from mouse_facelift.preprocess.survey import check_calibration, observe

CAMERAS = ring()
IDS = (0, 1, 2, 4, 5, 7)
GEOMETRY, QUALITY = GeometryConfig(), QualityConfig()
SEEN = masks(CAMERAS, animal())


def look(views=SEEN, cameras=CAMERAS, geometry=GEOMETRY, quality=QUALITY, frame=3):
    return observe(frame, views, cameras, IDS[: len(cameras)], geometry, quality)


def changed(view, new):
    return [new if index == view else seen for index, seen in enumerate(SEEN)]


def with_extra(seen: CleanMask, rows, columns) -> CleanMask:
    """The mask with a block of something else beside the animal, joined to it."""
    pixels = seen.mask.copy()
    pixels[rows, columns] = True
    return clean_mask(np.where(pixels, np.uint8(255), np.uint8(0)), join_distance_px=1000.0)


def same(one, other):
    for name in ("point", "center", "outline", "residual_px", "hull_iou", "descriptor"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    for name in ("frame", "problems", "warnings", "fatal"):
        assert getattr(one, name) == getattr(other, name)
    assert str(one.masks) == str(other.masks)


def test_a_good_frame():
    seen = look()
    balls = animal()
    low = np.min([center - radius for center, radius in balls], axis=0)
    high = np.max([center + radius for center, radius in balls], axis=0)
    assert seen.problems == seen.warnings == seen.fatal == ()
    np.testing.assert_allclose(seen.center, (low + high) / 2, atol=2.5)
    assert seen.hull_iou.min() > 0.9
    assert seen.residual_px.max() < 8
    assert np.linalg.norm(seen.point - balls[1][0]) < 20
    np.testing.assert_allclose(seen.outline.max(0), seen.center * 2 - seen.outline.min(0), atol=1e-6)
    assert seen.descriptor.shape == (266,)


def test_the_body_alone_may_be_the_centre():
    whole, body = look(), look(geometry=GeometryConfig(fit_to="body"))
    head_to_tail = animal()[0][0] - animal()[-1][0]
    assert (body.center - whole.center) @ head_to_tail > 0
    assert np.ptp(body.outline, axis=0).max() < 0.9 * np.ptp(whole.outline, axis=0).max()


@pytest.mark.parametrize(
    "views",
    [
        SEEN,
        changed(2, clean_mask(np.zeros((256, 288), np.uint8))),
        changed(2, replace(SEEN[2], problem="cannot be decoded")),
        changed(1, mask(CAMERAS[1], animal(position=(0, 60)))),
    ],
    ids=["good", "empty", "broken", "moved"],
)
def test_a_record_gives_the_very_same_observation(views):
    seen = look(views)
    text = json.dumps(to_record(seen), allow_nan=False)
    same(seen, from_record(json.loads(text)))


def test_an_empty_mask_drops_the_frame():
    seen = look(changed(3, clean_mask(np.zeros((256, 288), np.uint8))))
    assert [problem.text for problem in seen.problems] == ["camera 4: mask is empty"]
    assert seen.problems[0].kind == "camera 4: quality.mask_share"
    assert np.isnan(seen.center).all()
    assert seen.descriptor.shape == (0,)


def test_a_broken_mask_drops_the_frame_whatever_the_limit_says():
    quality = QualityConfig(mask_share=Limit(value=None, action="warn"))
    seen = look(changed(5, replace(SEEN[5], problem="cannot be decoded")), quality=quality)
    assert [str(problem) for problem in seen.problems] == ["camera 7: cannot be decoded"]


def test_limits_warn_drop_or_stop():
    for action, place in (("warn", "warnings"), ("drop", "problems"), ("stop", "fatal")):
        seen = look(quality=QualityConfig(mask_share=Limit(value=0.03, action=action)))
        found = {name: getattr(seen, name) for name in ("warnings", "problems", "fatal")}
        assert [name for name in found if found[name]] == [place]
        problem = found[place][0]
        assert (problem.figure, problem.limit, problem.action) == ("mask_share", 0.03, action)
        assert problem.found == seen.masks[IDS.index(problem.camera)].area / (288 * 256)
        assert np.isnan(seen.center).any() == (action != "warn")


def test_a_message_names_camera_figure_limit_and_key():
    limit = Limit(value=0.2, action="warn")
    problem = look(
        changed(0, replace(SEEN[0], removed_share=0.34)), quality=QualityConfig(removed_share=limit)
    )
    assert [item.text for item in problem.warnings] == [
        "camera 0: cleaning removed 34% of the mask, limit 20% (quality.removed_share)"
    ]


def test_border_contact_is_counted_over_views():
    views = [replace(view, touches_border=index < 4) for index, view in enumerate(SEEN)]
    (problem,) = look(views).problems
    assert problem.text == "the animal touches the border in 4 views, limit 3 (quality.border_views)"
    assert look(changed(0, replace(SEEN[0], touches_border=True))).problems == ()


@pytest.mark.parametrize("view", [0, 3, 5])
def test_the_view_that_sees_another_place_is_named_alone(view):
    seen = look(changed(view, mask(CAMERAS[view], animal(position=(15, 30), yaw=2.0))))
    (problem,) = seen.problems
    assert problem.camera == IDS[view]
    assert f"camera {IDS[view]}: contradicts the other views" in problem.text


def test_a_mask_with_half_of_the_animal_missing_is_blamed_not_the_others():
    """It agrees perfectly with the hull, which it has cut itself; the others do not."""
    pixels = SEEN[4].mask.copy()
    left, _, right, _ = SEEN[4].bounds()
    pixels[:, (left + right) // 2 :] = False
    seen = look(changed(4, clean_mask(np.where(pixels, np.uint8(255), np.uint8(0)))))
    assert seen.hull_iou.argmax() == 4
    (problem,) = seen.problems
    assert problem.camera == IDS[4]
    assert problem.found == seen.hull_iou.min()
    assert "limit 0.60 (quality.hull_iou)" in problem.text


def test_a_reflection_beside_the_animal_is_blamed_on_its_view():
    _, top, right, bottom = SEEN[1].bounds()
    seen = look(changed(1, with_extra(SEEN[1], slice(top - 20, bottom), slice(right, right + 35))))
    assert [problem.camera for problem in (*seen.problems, *seen.warnings)] == [IDS[1]]


def test_two_wrong_views_are_named_by_their_figures():
    moved = mask(CAMERAS[1], animal(position=(0, 22)))
    other = mask(CAMERAS[4], animal(position=(22, 0)))
    views = changed(1, moved)
    views[4] = other
    seen = look(views, quality=QualityConfig(hull_iou=Limit(value=0.8, action="drop")))
    assert len(seen.problems) > 1
    for problem in seen.problems:
        assert problem.text == (
            f"camera {problem.camera}: mask agrees with the visual hull by {problem.found:.2f}, "
            "limit 0.80 (quality.hull_iou)"
        )


def test_masks_that_share_no_space_drop_the_frame():
    views = [
        mask(camera, [(animal()[0][0] + 60 * np.array([np.cos(view), np.sin(view), 0.5]), 6.0)])
        for view, camera in enumerate(CAMERAS)
    ]
    quality = QualityConfig(
        center_residual=Limit(value=None, action="drop"), hull_iou=Limit(value=None, action="warn")
    )
    (problem,) = look(views, quality=quality).problems
    assert problem.text == "the masks share no point in space: the visual hull is empty"


def test_a_small_limit_is_a_warning_where_it_says_so():
    quality = QualityConfig(hull_iou=Limit(value=0.999, action="warn"))
    seen = look(quality=quality)
    assert seen.problems == ()
    assert len(seen.warnings) >= 5
    assert np.isfinite(seen.center).all()


def test_three_views_blame_nobody_alone():
    cameras, views = CAMERAS[::2], SEEN[::2]
    views = [mask(cameras[0], animal(position=(40, 30))), *views[1:]]
    seen = observe(0, views, cameras, (0, 1, 2), GEOMETRY, QUALITY)
    assert seen.problems
    assert all("contradicts" not in problem.text for problem in seen.problems)


def test_centre_of_a_rendered_mouse_is_true_and_smooth(shared):
    folder = shared / "data/mouse_capture"
    recording = open_recording(InputConfig(recording=folder))
    track = np.load(folder / "ground_truth/track.npz")
    frames = range(148, 160)
    seen = [
        observe(step.index, step.masks, recording.cameras, recording.camera_ids, GEOMETRY, QUALITY)
        for step in recording.read_masks(frames)
    ]
    true = (track["bbox_min_mm"] + track["bbox_max_mm"])[list(frames)] / 2
    error = np.stack([item.center for item in seen]) - true
    assert np.median(np.linalg.norm(error, axis=1)) < 3
    assert np.median(np.linalg.norm(np.diff(error, axis=0), axis=1)) < 1
    assert min(item.hull_iou.min() for item in seen) > 0.94
    assert all(item.problems == item.warnings == () for item in seen)


PATH = [animal(position=(3.0 * t - 20, 15 * np.sin(t)), yaw=0.4 * t) for t in range(8)]
FILM = [masks(CAMERAS, balls) for balls in PATH]


def survey(cameras, film=FILM):
    return [look(views, cameras, frame=frame) for frame, views in enumerate(film)]


def test_a_true_rig_passes():
    check_calibration(survey(CAMERAS), CAMERAS, QUALITY)


def test_swapped_cameras_are_refused():
    cameras = [CAMERAS[view] for view in (0, 4, 2, 3, 1, 5)]
    with pytest.raises(CalibrationError, match="contradicts the masks"):
        check_calibration(survey(cameras), cameras, QUALITY)


def test_transposed_rotations_are_refused():
    cameras = [Camera.from_rt(c.K, c.R.T, c.t, c.width, c.height) for c in CAMERAS]
    with pytest.raises(CalibrationError, match="contradicts the masks"):
        check_calibration(survey(cameras), cameras, QUALITY)


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0])
def test_intrinsics_of_another_picture_size_are_refused(factor):
    cameras = [
        Camera(np.diag([factor, factor, 1]) @ camera.K, camera.w2c, camera.width, camera.height)
        for camera in CAMERAS
    ]
    with pytest.raises(CalibrationError, match="contradicts the masks"):
        check_calibration(survey(cameras), cameras, QUALITY)


def test_a_single_wrong_camera_is_refused():
    angle = np.radians(6)
    pan = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    turned = CAMERAS[3].reaim(CAMERAS[3].K, pan @ CAMERAS[3].R, 288, 256)[0]
    cameras = [*CAMERAS[:3], turned, *CAMERAS[4:]]
    with pytest.raises(CalibrationError, match="contradicts the masks"):
        check_calibration(survey(cameras), cameras, QUALITY)


def test_one_video_three_frames_late_shows_in_its_overlap():
    late = [
        [views[view] if view != 2 else FILM[max(t - 3, 0)][2] for view in range(6)]
        for t, views in enumerate(FILM)
    ][3:]
    true = np.median([seen.hull_iou.min() for seen in survey(CAMERAS)])
    seen = survey(CAMERAS, late)
    assert np.median([item.hull_iou.min() for item in seen]) < true - 0.1
    blamed = [problem.camera for item in seen for problem in item.problems]
    assert blamed.count(IDS[2]) > len(blamed) / 2


def test_frames_dropped_for_their_masks_say_nothing_about_the_calibration():
    empty = clean_mask(np.zeros((256, 288), np.uint8))
    touching = [[replace(view, touches_border=True) for view in views] for views in FILM]
    film = [*touching, FILM[0], [empty] * 6]
    check_calibration(survey(CAMERAS, film), CAMERAS, QUALITY)
