import html
import math
import re
from pathlib import Path

import numpy as np
import pytest
from test_viewer_scene import random_gaussians

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.viewer import Scene, View, pack, splat_viewer, write_viewer

PACKED = pack(random_gaussians(0, 5))


def test_page_refers_to_nothing_outside(tmp_path: Path) -> None:
    write_viewer(tmp_path / "view.html", [Scene("mouse", [PACKED])], "A mouse")
    text = (tmp_path / "view.html").read_text()
    assert not re.search(r"https?:|//[a-z]+\.|\bsrc\s*=|\bhref\s*=|@import|\bimport\b|fetch\(|XMLHttp", text)
    assert html.escape("default-src 'none'") in text


def test_names_cannot_become_markup() -> None:
    text = splat_viewer([Scene("</script><b>", [PACKED])])
    assert "<b>" not in text
    assert text.count("</script>") == text.count("<script")


def test_camera_is_the_one_that_looks_at_the_target() -> None:
    view = View(200, -30, 2.0, focal=1.5, target=(0.1, 0.2, 0.3))
    ours = view.camera(300, 200)
    out = np.array([math.cos(math.radians(200)), math.sin(math.radians(200)), -math.tan(math.radians(30))])
    center = np.array(view.target) + 2 * math.cos(math.radians(30)) * out
    other = Camera.look_at(center, view.target, 1.5 * 200, (300, 200))
    assert np.allclose(ours.w2c, other.w2c)
    assert np.allclose(ours.K, other.K)


def test_view_from_straight_above_has_the_front_below() -> None:
    pixels, _ = View(270, 90).camera(100, 100).project([(0, -0.5, 0), (0.5, 0, 0)])
    assert pixels[0, 1] > 60
    assert pixels[1, 0] > 60


@pytest.mark.parametrize(
    "values", [{"distance": 0}, {"elevation_deg": 91}, {"azimuth_deg": math.nan}, {"focal": -1}]
)
def test_impossible_views_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(DataError, match="expected"):
        View(**values)


def test_sequences_of_different_length_are_refused() -> None:
    scenes = [Scene("one", [PACKED]), Scene("two", [PACKED] * 2), Scene("three", [PACKED] * 3)]
    splat_viewer(scenes[:2])
    with pytest.raises(DataError, match="one: 1, two: 2, three: 3"):
        splat_viewer(scenes)
    with pytest.raises(DataError, match="at least one scene"):
        splat_viewer([])


def test_a_scene_needs_frames() -> None:
    with pytest.raises(DataError, match="no frames"):
        Scene("nothing", [])
