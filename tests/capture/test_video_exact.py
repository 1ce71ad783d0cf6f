"""However a file stores its frames and whichever are picked: each one given is the one that was asked for."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mouse_facelift.capture.video import VideoReader

FRAMES = 70
IRREGULAR = np.cumsum([1 + 37 * (i % 5 == 0) + i % 3 for i in range(FRAMES)]).tolist()
OPEN = "open-gop=1:b-adapt=0:scenecut=0"
LATE = [4000 + 20 * i for i in range(FRAMES)]

# Name -> file, numbers shown, how it is made.
KINDS: dict[str, tuple[str, range, dict]] = {
    "closed GOP": ("0.mp4", range(FRAMES), {}),
    "open GOP": ("0.mp4", range(FRAMES), {"x264-params": OPEN}),
    "open GOP, deep": ("0.mp4", range(FRAMES), {"x264-params": OPEN, "bf": "8", "refs": "6"}),
    "no B-frames": ("0.mp4", range(FRAMES), {"bf": "0"}),
    "keyframes only": ("0.mp4", range(FRAMES), {"g": "1"}),
    "every second a keyframe": ("0.mp4", range(FRAMES), {"g": "2"}),
    "one keyframe": ("0.mp4", range(FRAMES), {"g": "1000", "sc_threshold": "0"}),
    "no keyframe after the first": ("0.mp4", range(FRAMES), {"bf": "0", "x264-params": "intra-refresh=1"}),
    "irregular": ("0.mp4", range(FRAMES), {"timestamps": IRREGULAR}),
    "starts late": ("0.mp4", range(FRAMES), {"timestamps": LATE}),
    "edit list from a B-frame": ("0.mp4", range(5, FRAMES), {"cut": (5, 0)}),
    "edit list past a keyframe": ("0.mp4", range(17, FRAMES), {"cut": (17, 0)}),
    "edit list, open GOP": ("0.mp4", range(14, FRAMES), {"cut": (14, 0), "x264-params": OPEN}),
    "edit list at both ends": ("0.mp4", range(13, FRAMES - 6), {"cut": (13, 6)}),
    "mkv": ("0.mkv", range(FRAMES), {}),
    "mkv, starts late": ("0.mkv", range(FRAMES), {"timestamps": LATE}),
    "mkv, open GOP": ("0.mkv", range(FRAMES), {"x264-params": OPEN}),
    "mkv, two frames a millisecond": (
        "0.mkv",
        range(FRAMES),
        {"timestamps": range(FRAMES), "tick": Fraction(1, 2000)},
    ),
    "avi": ("0.avi", range(FRAMES), {"tick": Fraction(1, 30)}),
    "avi, MPEG-4": (
        "0.avi",
        range(FRAMES),
        {"tick": Fraction(1, 30), "codec": "mpeg4", "bf": "2", "qscale": "2"},
    ),
    "avi, JPEG": ("0.avi", range(FRAMES), {"tick": Fraction(1, 30), "codec": "mjpeg", "pixels": "yuvj420p"}),
    "mov, MPEG-4": ("0.mov", range(FRAMES), {"codec": "mpeg4", "bf": "2", "g": "12", "b": "2M"}),
    "HEVC": ("0.mp4", range(FRAMES), {"codec": "libx265", "x265-params": "keyint=12:log-level=none"}),
}


@pytest.fixture(scope="module")
def video(tmp_path_factory, write_numbered_video, cut_by_edit_list) -> Callable[[str], tuple]:
    made: dict[str, tuple] = {}

    def make(kind: str) -> tuple:
        if kind not in made:
            name, numbers, options = KINDS[kind]
            options = dict(options)
            cut = options.pop("cut", None)
            path = write_numbered_video(tmp_path_factory.mktemp("video") / name, FRAMES, **options)
            if cut:
                cut_by_edit_list(path, *cut)
            reader = VideoReader(path)
            made[kind] = reader, list(numbers), dict(reader.frames(range(reader.frame_count)))
        return made[kind]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_carries_its_own_number(kind, video, read_number):
    reader, numbers, whole = video(kind)
    assert reader.frame_count == len(numbers)
    assert [read_number(picture) for picture in whole.values()] == numbers


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_selection_gives_the_frames_of_decoding_all(kind, video, data):
    reader, numbers, whole = video(kind)
    chosen = data.draw(st.sets(st.integers(0, len(numbers) - 1), min_size=1, max_size=12).map(sorted))
    # A fresh reader: what one selection found out about keyframes must not be needed for the next.
    found = dict(VideoReader(reader.path).frames(chosen))
    assert list(found) == chosen
    for index, picture in found.items():
        np.testing.assert_array_equal(picture, whole[index])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "open GOP" in kind or kind == "HEVC"])
def test_open_groups_are_open(kind, video):
    table = video(kind)[0]._table
    assert any(table.is_leading(frame) for frame in range(table.frame_count))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "edit list" in kind])
def test_edit_lists_hide_packets_that_must_be_decoded(kind, video):
    assert any(packet.hidden for packet in video(kind)[0]._table.packets)
