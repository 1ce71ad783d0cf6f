from pathlib import Path

import av
import numpy as np
import pytest

from mouse_facelift.errors import DataError
from mouse_facelift.videos import write_video


def frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Flat colours that differ from frame to frame."""
    return [np.full((height, width, 3), (20 * i, 200 - 15 * i, 90), np.uint8) for i in range(count)]


def test_video_holds_the_frames_in_order_with_their_colours(tmp_path: Path):
    path = tmp_path / "turntable.mp4"
    write_video(path, iter(frames(9)), fps=12.5)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == 12.5
        decoded = [
            frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
            for frame in container.decode(stream)
        ]
    assert len(decoded) == 9
    for found, expected in zip(decoded, frames(9), strict=True):
        assert np.abs(found.astype(int) - expected).max() <= 6
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "plays before it is loaded"
    assert [file.name for file in tmp_path.iterdir()] == ["turntable.mp4"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "no frames"),
        (frames(2, height=47), "needs even numbers"),
        ([*frames(1), *frames(1, width=32)], "frame 1 is uint8 of shape"),
        ([frame / 255 for frame in frames(1)], "frame 0 is float64"),
    ],
)
def test_unusable_frames_leave_no_file(tmp_path: Path, bad: list[np.ndarray], message: str):
    with pytest.raises(DataError, match=message):
        write_video(tmp_path / "x.mp4", bad)
    assert not list(tmp_path.iterdir())


def test_failing_source_leaves_no_file(tmp_path: Path):
    def broken():
        yield from frames(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "x.mp4", broken())
    assert not list(tmp_path.iterdir())
