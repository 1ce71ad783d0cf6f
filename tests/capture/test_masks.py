import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mouse_facelift.capture.masks import CleanMask, clean_mask
from mouse_facelift.errors import DataError


def canvas():
    gray = np.zeros((100, 160), np.uint8)
    gray[40:70, 50:100] = 255
    return gray


def test_lossy_levels_become_binary():
    noise = np.random.default_rng(0).integers(-90, 90, (100, 160))
    noisy = np.clip(canvas() + noise, 0, 255).astype(np.uint8)
    result = clean_mask(noisy)
    np.testing.assert_array_equal(result.mask, canvas() > 127)
    assert result.area == 30 * 50
    assert not result.touches_border


def test_far_specks_go_and_are_counted():
    gray = canvas()
    gray[5:10, 140:150] = 255
    result = clean_mask(gray, join_distance_px=20)
    assert result.area == 1500
    assert result.removed_share == pytest.approx(50 / 1550)


def test_tail_cut_off_twice_by_whiskers_stays():
    gray = canvas()
    gray[55:58, 103:115] = 255
    gray[55:58, 119:130] = 255
    result = clean_mask(gray, join_distance_px=6)
    assert result.area == 1500 + 3 * 12 + 3 * 11
    assert result.removed_share == 0


def test_join_distance_is_the_gap_between_parts():
    gray = canvas()
    gray[50:60, 110:120] = 255  # 10 px of black between them: nearest pixel centres are 11 apart.
    assert clean_mask(gray, join_distance_px=12).area == 1600
    assert clean_mask(gray, join_distance_px=8).area == 1500


def test_small_holes_are_filled_and_real_ones_stay():
    gray = canvas()
    gray[45:47, 60:62] = 0
    gray[55:65, 70:90] = 0
    result = clean_mask(gray, max_hole=0.01)
    assert result.mask[45:47, 60:62].all()
    assert not result.mask[55:65, 70:90].any()
    assert result.area == 1500 - 200


def test_black_frame_is_empty_not_an_error():
    result = clean_mask(np.zeros((100, 160), np.uint8))
    assert result.area == 0
    with pytest.raises(DataError, match="empty"):
        result.centroid()


def test_white_border_is_a_problem_not_a_mask():
    result = clean_mask(255 - canvas())
    assert result.problem == "mask is white along 100% of the picture's border"
    assert clean_mask(canvas()).problem == ""
    np.testing.assert_array_equal(clean_mask(255 - canvas(), inverted=True).mask, canvas() > 127)


def test_frame_that_cannot_be_decoded_is_empty_with_its_reason():
    result = CleanMask.missing(160, 100)
    assert result.mask.shape == (100, 160)
    assert (result.area, result.problem) == (0, "mask cannot be decoded")


def test_border_contact():
    gray = canvas()
    gray[40:100, 60:70] = 255
    assert clean_mask(gray).touches_border


def test_centroid_and_bounds_use_half_pixel_centres():
    result = clean_mask(canvas())
    assert result.centroid() == (75.0, 55.0)
    assert result.bounds() == (50, 40, 100, 70)


def test_the_largest_part_is_the_one_with_most_pixels_not_the_longest_outline():
    gray = np.zeros((100, 160), np.uint8)
    gray[10:40, 10:50] = 255
    gray[50:95, 60:140] = 255
    gray[52:93, 62:138] = 0  # A frame: long outline, few pixels.
    result = clean_mask(gray, join_distance_px=5)
    assert result.bounds() == (10, 10, 50, 40)


def reference(gray, threshold, join_distance_px, max_hole):
    """`clean_mask` in whole-picture operations."""
    mask = gray > threshold
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    largest = labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
    gap = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    _, grown = cv2.connectedComponents((gap <= join_distance_px / 2).astype(np.uint8), connectivity=8)
    animal = mask & (grown == grown[largest][0])
    background = np.pad(~animal, 1, constant_values=True).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(background, connectivity=4)
    fill = stats[:, cv2.CC_STAT_AREA] <= max_hole * animal.sum()
    fill[[0, labels[0, 0]]] = False
    return animal | fill[labels][1:-1, 1:-1]


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    blur=st.floats(0.6, 6),
    threshold=st.integers(100, 220),
    join_distance_px=st.floats(0, 15),
    max_hole=st.sampled_from([0, 0.005, 0.05, 1]),
)
def test_working_on_the_animals_box_changes_nothing(seed, blur, threshold, join_distance_px, max_hole):
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((rng.integers(20, 120), rng.integers(20, 120))), (0, 0), blur)
    gray = (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
    gray[[0, -1]] //= 4
    gray[:, [0, -1]] //= 4
    _, _, stats, _ = cv2.connectedComponentsWithStats((gray > threshold).astype(np.uint8), connectivity=8)
    areas = sorted(stats[1:, cv2.CC_STAT_AREA])
    assume(len(areas) and (len(areas) == 1 or areas[-1] > areas[-2]))
    result = clean_mask(gray, threshold, False, join_distance_px, max_hole)
    expected = reference(gray, threshold, join_distance_px, max_hole)
    np.testing.assert_array_equal(result.mask, expected)
    assert result.area == expected.sum()
    rows, columns = np.nonzero(expected)
    assert result.centroid() == pytest.approx((columns.mean() + 0.5, rows.mean() + 0.5))
