"""Videos and folders of pictures whose frames say their own number."""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

BITS = 10


def _numbered_frame(number: int, width: int, height: int) -> np.ndarray:
    frame = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        frame[:, bit * width // BITS : (bit + 1) * width // BITS] = 235 if number >> bit & 1 else 20
    return frame


@pytest.fixture(scope="session")
def numbered_frame() -> Callable[..., np.ndarray]:
    return _numbered_frame


@pytest.fixture(scope="session")
def read_number() -> Callable[[np.ndarray], int]:
    def read(picture: np.ndarray) -> int:
        gray = picture.mean(-1) if picture.ndim == 3 else picture
        columns = [int((bit + 0.5) * picture.shape[1] / BITS) for bit in range(BITS)]
        return sum(1 << bit for bit, column in enumerate(columns) if gray[:, column].mean() > 127)

    return read


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Encode given RGB frames."""

    def write(
        path: Path,
        frames: Sequence[np.ndarray],
        timestamps: Sequence[int] | None = None,
        codec: str = "libx264",
        pixels: str = "yuv420p",
        tick: Fraction = Fraction(1, 600),
        muxer: dict[str, str] | None = None,
        **options: str,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w", options=muxer or {}) as container:
            stream = container.add_stream(codec, rate=30)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = pixels
            stream.options = options
            stream.codec_context.time_base = tick
            for number, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = timestamps[number] if timestamps else round(number / 30 / tick)
                frame.time_base = tick
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture(scope="session")
def write_numbered_video(write_video) -> Callable[..., Path]:
    def write(
        path: Path,
        frames: int,
        timestamps: Sequence[int] | None = None,
        size: tuple[int, int] = (80, 48),
        **options,
    ) -> Path:
        pictures = [_numbered_frame(number, *size) for number in range(frames)]
        if options.get("codec", "libx264") == "libx264":
            options = {"crf": "18", "g": "12", "bf": "3", **options}
        return write_video(path, pictures, timestamps, **options)

    return write


@pytest.fixture(scope="session")
def cut_by_edit_list() -> Callable[..., Path]:
    """Rewrite an MP4's edit list so that frames at its ends are not shown."""

    def cut(path: Path, first: int, last: int = 0) -> Path:
        content = bytearray(path.read_bytes())
        with av.open(str(path), options={"ignore_editlist": "1"}) as container:
            stream = container.streams.video[0]
            media, count = int(1 / stream.time_base), stream.frames
        place = content.index(b"elst") + 4
        version, entries = content[place], struct.unpack_from(">I", content, place + 4)[0]
        assert (version, entries) == (0, 1)
        duration, start = struct.unpack_from(">Ii", content, place + 8)
        left = count - first - last
        struct.pack_into(
            ">Ii", content, place + 8, duration * left // count, start + round(first * media / 30)
        )
        path.write_bytes(content)
        return path

    return cut


@pytest.fixture(scope="session")
def damage_packet() -> Callable[..., Path]:
    """Overwrite part of the packet that holds a frame; the container stays whole."""

    def damage(path: Path, frame: int, kind: str = "noise", seed: int = 0) -> Path:
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            times = sorted(packet.pts for packet in packets)
            packet = next(packet for packet in packets if packet.pts == times[frame])
            start, size = packet.pos, packet.size
        content = bytearray(path.read_bytes())
        if kind == "zeros":
            content[start : start + size] = bytes(size)
        else:
            noise = np.random.default_rng(seed).bytes(size - size // 3)
            content[start + size // 3 : start + size] = noise
        path.write_bytes(content)
        return path

    return damage


@pytest.fixture(scope="session")
def write_numbered_folder() -> Callable[..., Path]:
    def write(folder: Path, frames: int, first: int = 0, size: tuple[int, int] = (80, 48)) -> Path:
        folder.mkdir(parents=True)
        for number in range(frames):
            Image.fromarray(_numbered_frame(number, *size)).save(folder / f"{first + number:06d}.png")
        return folder

    return write
