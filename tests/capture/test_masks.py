import numpy as np
import pytest

from mouse_facelift.capture.masks import clean_mask
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


def test_inverted_mask_names_the_switch():
    with pytest.raises(DataError, match=r"input\.mask_inverted=true"):
        clean_mask(255 - canvas())
    np.testing.assert_array_equal(clean_mask(255 - canvas(), inverted=True).mask, canvas() > 127)


def test_border_contact():
    gray = canvas()
    gray[40:100, 60:70] = 255
    assert clean_mask(gray).touches_border


def test_centroid_and_bounds_use_half_pixel_centres():
    result = clean_mask(canvas())
    assert result.centroid() == (75.0, 55.0)
    assert result.bounds() == (50, 40, 100, 70)
