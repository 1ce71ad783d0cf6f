"""Videos whose frames say their own number."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

BITS = 10


def _numbered_frame(number: int, width: int, height: int) -> np.ndarray:
    frame = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        frame[:, bit * width // BITS : (bit + 1) * width // BITS] = 235 if number >> bit & 1 else 20
    return frame


@pytest.fixture(scope="session")
def read_number() -> Callable[[np.ndarray], int]:
    def read(picture: np.ndarray) -> int:
        gray = picture.mean(-1) if picture.ndim == 3 else picture
        columns = [int((bit + 0.5) * picture.shape[1] / BITS) for bit in range(BITS)]
        return sum(1 << bit for bit, column in enumerate(columns) if gray[:, column].mean() > 127)

    return read


@pytest.fixture(scope="session")
def write_numbered_video() -> Callable[..., Path]:
    def write(
        path: Path,
        frames: int,
        timestamps: Sequence[int] | None = None,
        size: tuple[int, int] = (80, 48),
        **options: str,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.options = {"crf": "18", "g": "12", "bf": "3", **options}
            stream.codec_context.time_base = Fraction(1, 600)
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(_numbered_frame(number, *size), format="rgb24")
                frame.pts = 20 * number if timestamps is None else timestamps[number]
                frame.time_base = Fraction(1, 600)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return write
