"""The words for a view are those that FaceLift's own slots and the subject's left and right demand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.geometry import Camera
from mouse_facelift.mvdiffusion.prompts.texts import (
    COMPASS,
    PromptView,
    compass_word,
    elevation_near_deg,
    height_phrase,
)
from mouse_facelift.mvdiffusion.slots import FACELIFT_NAMES, FACELIFT_RELATIVE_DEG


def test_published_directions_get_the_published_words() -> None:
    assert tuple(compass_word(azimuth) for azimuth in FACELIFT_RELATIVE_DEG) == FACELIFT_NAMES


@given(st.sampled_from(range(8)), st.floats(-22.4, 22.4), st.integers(-3, 3))
def test_nearest_word_whatever_the_turn(eighth: int, off: float, turns: int) -> None:
    assert compass_word(45 * eighth + off + 360 * turns) == COMPASS[eighth]


@given(st.floats(-720, 720))
def test_mirrored_camera_gets_the_mirrored_word(azimuth: float) -> None:
    swapped = compass_word(azimuth).replace("left", "?").replace("right", "left").replace("?", "right")
    assert compass_word(-azimuth) == swapped


@pytest.mark.parametrize(
    ("elevation", "phrase"),
    [
        (-90, "from below"),
        (0, "at eye level"),
        (20, "slightly from above"),
        (40, "from above at an angle"),
        (90, "from straight above"),
    ],
)
def test_height_in_words(elevation: float, phrase: str) -> None:
    assert height_phrase(elevation) == phrase


def test_text_takes_the_word_and_the_height_before_the_final_stop() -> None:
    assert PromptView("left").text("a mouse, {view} view.") == "a mouse, left view."
    assert PromptView.at(90, 40).text("a mouse, {view} view.") == (
        "a mouse, left view, from above at an angle."
    )
    assert PromptView.at(-90, 0).text("{view} view") == "right view, at eye level"


def test_height_is_that_of_the_camera_in_this_direction() -> None:
    cameras = [Camera.look_at(center, (0, 0, 0), 100, 64) for center in ([0, -2, 0], [2, 0, 2], [0, 2, -2])]
    assert elevation_near_deg(0, cameras) == pytest.approx(0)
    assert elevation_near_deg(80, cameras) == pytest.approx(45)
    assert elevation_near_deg(-170, cameras) == pytest.approx(-45)
