from fractions import Fraction
from pathlib import Path
from threading import Event

import av
import cv2
import numpy as np
import pytest

from mouse_facelift.capture.packets import Arrivals
from mouse_facelift.capture.video import VideoReader
from mouse_facelift.errors import DataError


@pytest.fixture(scope="module")
def numbered(tmp_path_factory, write_numbered_video) -> Path:
    return write_numbered_video(tmp_path_factory.mktemp("video") / "0.mp4", 70)


def test_facts_of_a_video(numbered):
    reader = VideoReader(numbered)
    assert (reader.width, reader.height, reader.frame_count) == (80, 48, 70)
    assert reader.fps == pytest.approx(30)


def test_sparse_reading_really_seeks(numbered, monkeypatch):
    arrived = []
    original = Arrivals.arrive
    monkeypatch.setattr(
        Arrivals, "arrive", lambda self, frame, *rest: arrived.append(frame) or original(self, frame, *rest)
    )
    list(VideoReader(numbered).frames([62]))
    assert max(arrived) <= 66  # As far as the frames that this one may be predicted from.
    assert min(arrived) >= 50  # A keyframe at least every 12 frames.


def test_frames_that_none_needs_are_not_decoded(numbered, monkeypatch):
    arrived = []
    original = Arrivals.arrive
    monkeypatch.setattr(
        Arrivals, "arrive", lambda self, frame, *rest: arrived.append(frame) or original(self, frame, *rest)
    )
    reader = VideoReader(numbered)
    list(reader.frames(range(0, 70, 5)))
    assert len(arrived) < 60


def test_gray_frames_are_flat(numbered, read_number):
    _, picture = next(VideoReader(numbered).frames([7], "gray"))
    assert picture.shape == (48, 80)
    assert read_number(picture) == 7


@pytest.mark.parametrize("indices", [[3, 3], [5, 4], [-1, 2], [69, 70]])
def test_impossible_frame_numbers_are_refused(numbered, indices):
    with pytest.raises(DataError, match=r"frame"):
        list(VideoReader(numbered).frames(indices))


def test_missing_empty_and_alien_files_are_told_apart(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video")
    for name, message in (
        ("none.mp4", "no such video"),
        ("empty.mp4", "0 bytes"),
        ("text.mp4", "not a readable"),
    ):
        with pytest.raises(DataError, match=message):
            VideoReader(tmp_path / name)


def test_video_without_index_is_refused(tmp_path, numbered):
    path = tmp_path / "0.mp4"
    path.write_bytes(numbered.read_bytes()[:-2000])
    with pytest.raises(DataError, match="lacks its index"):
        VideoReader(path)


def test_truncated_video_says_how_many_frames_are_left(tmp_path, numbered):
    whole, path = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    with (
        av.open(str(numbered)) as source,
        av.open(str(whole), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = whole.read_bytes()
    path.write_bytes(content[: int(0.7 * len(content))])
    with pytest.raises(DataError, match=r"announces 70 frames, only \d+ can be decoded"):
        VideoReader(path)
    path.write_bytes(content[: content.index(b"mdat") + 4])
    with pytest.raises(DataError, match="announces 70 frames, only 0 can be decoded"):
        VideoReader(path)


def test_cut_off_matroska_is_refused_although_it_announces_no_number(tmp_path, write_numbered_video):
    path = write_numbered_video(tmp_path / "0.mkv", 70)
    content = path.read_bytes()
    path.write_bytes(content[: int(0.7 * len(content))])
    with pytest.raises(DataError, match=r"announces 2\.33 s, only 1\.\d+ s are there.*cut off"):
        VideoReader(path)


@pytest.fixture(scope="module")
def moving(tmp_path_factory, write_video) -> Path:
    """Textured pictures that move, so that every frame is predicted from others; keyframes at 0, 20, 40."""
    texture = np.random.default_rng(0).integers(0, 255, (200, 320), dtype=np.uint8)
    texture = cv2.GaussianBlur(cv2.cvtColor(texture, cv2.COLOR_GRAY2RGB), (0, 0), 2)
    frames = [np.ascontiguousarray(texture[i : i + 128, 2 * i : 2 * i + 192]) for i in range(60)]
    return write_video(
        tmp_path_factory.mktemp("moving") / "0.mp4", frames, crf="20", g="20", bf="3", sc_threshold="0"
    )


@pytest.mark.parametrize("kind", ["noise", "zeros"])
@pytest.mark.parametrize("frame", [0, 20, 22, 23, 24, 31, 39, 59])
def test_damaged_frame_is_missing_and_no_other_is_wrong(tmp_path, moving, damage_packet, frame, kind):
    whole = dict(VideoReader(moving).frames(range(60)))
    path = tmp_path / "0.mp4"
    path.write_bytes(moving.read_bytes())
    reader = VideoReader(damage_packet(path, frame, kind))
    found = dict(reader.frames(range(60)))
    broken = [index for index, picture in found.items() if picture is None]
    assert frame in broken
    # Up to the next keyframe, not beyond; before it, those on their way out when the order is lost.
    assert all(frame // 20 * 20 - 4 <= index < frame // 20 * 20 + 20 for index in broken)
    for index in set(found) - set(broken):
        np.testing.assert_array_equal(found[index], whole[index])


@pytest.mark.parametrize("indices", [[22], [5, 25, 45], [39, 40], [20, 21, 59]])
def test_damage_is_the_same_however_it_is_reached(tmp_path, moving, damage_packet, indices):
    path = tmp_path / "0.mp4"
    path.write_bytes(moving.read_bytes())
    reader = VideoReader(damage_packet(path, 20))
    found = dict(VideoReader(path).frames(range(60)))
    for index, picture in reader.frames(indices):
        assert (picture is None) == (found[index] is None)
        assert (picture is None) == (20 <= index < 40)
        if picture is not None:
            np.testing.assert_array_equal(picture, found[index])


def test_damage_reaches_the_leading_frames_of_an_open_group(tmp_path, moving, write_video, damage_packet):
    frames = [picture for _, picture in VideoReader(moving).frames(range(60))]
    options = {"g": "20", "bf": "3", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}
    path = write_video(tmp_path / "0.mp4", frames, **options)
    whole = dict(VideoReader(path).frames(range(60)))
    table = VideoReader(path)._table
    leading = [frame for frame in range(60) if table.is_leading(frame)]
    before = min(leading) - 1
    found = dict(VideoReader(damage_packet(path, before)).frames(range(60)))
    assert all(found[frame] is None for frame in leading if frame < before + 5)
    assert found[table.keyframes[1]] is not None
    assert all(np.array_equal(found[i], whole[i]) for i in found if found[i] is not None)


def test_damage_where_frames_can_only_be_counted_is_an_error(tmp_path, moving, write_video, damage_packet):
    frames = [picture for _, picture in VideoReader(moving).frames(range(60))]
    path = write_video(tmp_path / "0.avi", frames, tick=Fraction(1, 30), g="20")
    damage_packet(path, 30)
    with pytest.raises(DataError, match=r"frame \d+ of 60 cannot be decoded.*no timestamps"):
        list(VideoReader(path).frames(range(60)))


def test_watching_sees_every_frame_once_in_order(numbered, read_number):
    reader, seen = VideoReader(numbered), {}
    asked = dict(reader.frames([20, 27, 65], "gray", watch=seen.__setitem__))
    first = max(key for key in reader.keyframes if key <= 20)
    assert list(seen) == list(range(first, 66))
    assert all(small.shape == (6, 10) for small in seen.values())
    for index, picture in asked.items():
        np.testing.assert_array_equal(seen[index], picture[::8, ::8])


def test_watching_leaves_broken_frames_out(tmp_path, moving, damage_packet):
    path = tmp_path / "0.mp4"
    path.write_bytes(moving.read_bytes())
    seen = []
    reader = VideoReader(damage_packet(path, 39, "zeros"))
    found = dict(reader.frames([0, 39, 59], "gray", watch=lambda index, small: seen.append(index)))
    assert found[39] is None
    assert found[59] is not None
    whole = [index for index, picture in reader.frames(range(60)) if picture is not None]
    assert seen == whole
    assert len(whole) >= 56


@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj420p", "yuv444p", "gray", "bgr0"])
def test_grey_levels_are_those_of_a_full_conversion(tmp_path, write_video, pixels):
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 16, axis=0).repeat(3, axis=2)
    codec = "libx264" if pixels.startswith("yuv") else "ffv1"
    options = {"qp": "0"} if codec == "libx264" else {}
    path = write_video(tmp_path / "0.mkv", [ramp] * 3, codec=codec, pixels=pixels, **options)
    with av.open(str(path)) as container:
        expected = next(container.decode(video=0)).to_ndarray(format="gray")
    _, gray = next(VideoReader(path).frames([0], "gray"))
    np.testing.assert_array_equal(gray, expected)
    assert (gray.min(), gray.max()) == (0, 255)


def test_alpha_channel_of_a_video(tmp_path, numbered):
    alpha = np.tile(np.arange(0, 240, 8, dtype=np.uint8), (16, 1))
    path = tmp_path / "0.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=30)
        stream.width, stream.height, stream.pix_fmt = 30, 16, "rgba"
        picture = np.dstack([np.full((16, 30, 3), 90, np.uint8), alpha])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
        container.mux(stream.encode())
    _, found = next(VideoReader(path).frames([0], "alpha"))
    np.testing.assert_array_equal(found, alpha)
    with pytest.raises(DataError, match=r"no alpha channel.*input\.masks"):
        list(VideoReader(numbered).frames([0], "alpha"))


def test_another_thread_can_end_the_reading(numbered):
    stop = Event()
    frames = VideoReader(numbered).frames(range(70), stop=stop)
    next(frames)
    stop.set()
    assert list(frames) == []


def test_reading_leaves_no_file_open(numbered):
    def opened() -> int:
        return sum(1 for link in Path("/proc/self/fd").iterdir() if link.exists() and link.samefile(numbered))

    frames = VideoReader(numbered).frames(range(70))
    next(frames)
    assert opened() == 1
    frames.close()
    assert opened() == 0
