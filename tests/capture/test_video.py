from pathlib import Path

import av
import numpy as np
import pytest

from mouse_facelift.capture.video import VideoReader
from mouse_facelift.errors import DataError


@pytest.fixture(scope="module")
def numbered(tmp_path_factory, write_numbered_video) -> Path:
    return write_numbered_video(tmp_path_factory.mktemp("video") / "0.mp4", 70)


def test_facts_of_a_video(numbered):
    reader = VideoReader(numbered)
    assert (reader.width, reader.height, reader.frame_count) == (80, 48, 70)
    assert reader.fps == pytest.approx(30)


def test_every_frame_carries_its_own_number(numbered, read_number):
    found = [(index, read_number(picture)) for index, picture in VideoReader(numbered).frames(range(70))]
    assert found == [(index, index) for index in range(70)]


@pytest.mark.parametrize("indices", [[0], [69], [13], [5, 6, 31, 60], [11, 12, 13, 47, 48], [0, 59, 69]])
@pytest.mark.parametrize("gop", ["open", "closed"])
def test_seeking_gives_the_same_frames_as_decoding_all(
    tmp_path, write_numbered_video, read_number, indices, gop
):
    options = {"x264-params": "open-gop=1"} if gop == "open" else {}
    reader = VideoReader(write_numbered_video(tmp_path / "0.mp4", 70, **options))
    whole = dict(reader.frames(range(70)))
    sparse = dict(reader.frames(indices))
    assert list(sparse) == indices
    for index, picture in sparse.items():
        assert read_number(picture) == index
        np.testing.assert_array_equal(picture, whole[index])


def test_sparse_reading_really_seeks(numbered, monkeypatch):
    reader = VideoReader(numbered)
    decoded = []
    original = VideoReader._decode

    def counting(self, container, first):
        for item in original(self, container, first):
            decoded.append(item[0])
            yield item

    monkeypatch.setattr(VideoReader, "_decode", counting)
    list(reader.frames([62]))
    assert decoded[-1] == 62
    assert decoded[0] >= 50  # A keyframe at least every 12 frames.


def test_irregular_timestamps_are_counted_not_divided(tmp_path, write_numbered_video, read_number):
    times = np.cumsum([1 + 37 * (i % 5 == 0) + i % 3 for i in range(50)]).tolist()
    reader = VideoReader(write_numbered_video(tmp_path / "0.mp4", 50, times))
    assert [read_number(picture) for _, picture in reader.frames([3, 20, 21, 49])] == [3, 20, 21, 49]


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


def test_damaged_frame_is_named_not_replaced(tmp_path, numbered):
    with av.open(str(numbered)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][30]
        start, size = packet.pos, packet.size
    content = bytearray(numbered.read_bytes())
    content[start : start + size] = bytes(size)
    path = tmp_path / "0.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"frame \d+"):
        list(VideoReader(path).frames(range(70)))
