"""Turntables: cameras in a circle, frames one at a time, and H.264 that every player opens."""

import itertools
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, DependencyError
from ..files import atomic_path
from ..geometry import Camera
from .gaussians import Gaussians
from .rendering import Backend, render

BT709 = 1
"""FFmpeg's number of ITU-R BT.709 for matrix, primaries and transfer."""

LIMITED_RANGE = 1
"""FFmpeg's number of 16..235 luma."""


def turntable_cameras(
    n: int, size: int, elevation_deg: float = 0.0, radius: float = 2.7, fov_deg: float = 50.0
) -> list[Camera]:
    """Cameras in a circle about the z axis that look at the origin.

    Args:
        n: How many; camera i stands at azimuth 270 + 360 i / n degrees, so the first one is the front view.
        size: Image width and height in pixels.
        elevation_deg: Of the cameras above the xy plane.
        radius: Distance from the origin, model units.
        fov_deg: Full field of view, horizontal and vertical.
    """
    focal = size / (2 * math.tan(math.radians(fov_deg) / 2))
    elevation = math.radians(elevation_deg)
    cameras = []
    for azimuth in np.radians(270 + 360 * np.arange(n) / n):
        flat = radius * math.cos(elevation)
        center = (flat * math.cos(azimuth), flat * math.sin(azimuth), radius * math.sin(elevation))
        cameras.append(Camera.look_at(center, (0, 0, 0), focal, size))
    return cameras


@torch.no_grad()
def render_turntable(
    gaussians: Gaussians,
    n: int,
    size: int,
    background: float | Tensor | None = None,
    elevation_deg: float = 0.0,
    backend: Backend = "auto",
) -> Iterator[NDArray[np.uint8]]:
    """Yield the n frames of a turntable of one scene, drawn when they are asked for. [H, W, 3]"""
    for camera in turntable_cameras(n, size, elevation_deg):
        K, w2c = (torch.from_numpy(matrix)[None] for matrix in (camera.K, camera.w2c))
        rgb = render(gaussians, K, w2c, size, size, background, backend).rgb[0]
        yield to_uint8(rgb)


def to_uint8(rgb: Tensor) -> NDArray[np.uint8]:
    """Clamp and round a colour image [3, H, W] in [0, 1] to 8 bits. [H, W, 3]"""
    levels = (rgb.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.movedim(0, -1).contiguous().cpu().numpy()


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float = 30.0) -> None:
    """Write frames as H.264 (yuv420p, BT.709, index in front) into an MP4; it appears only when complete.

    Args:
        path: Ends in .mp4.
        frames: RGB, all of one even size; consumed one at a time. [H, W, 3]
        fps: Frames per second.

    Raises:
        DataError: no frames, frames of odd or different sizes, or not RGB uint8.
        DependencyError: this PyAV cannot encode H.264.
    """
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise DataError(f"{path}: no frames to write.")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise DataError(f"{path}: frames are {width}x{height}, expected even sizes (yuv420p halves them).")
    with atomic_path(path) as temporary:
        options = {"movflags": "+faststart"}
        with av.open(str(temporary), "w", format="mp4", options=options) as container:
            stream = _add_stream(container, width, height, fps)
            for index, frame in enumerate(itertools.chain([first], remaining)):
                if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
                    raise DataError(
                        f"{path}: frame {index} is {frame.dtype} of shape {frame.shape}, "
                        f"expected uint8 of shape {(height, width, 3)}."
                    )
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace="ITU709")))
            container.mux(stream.encode())


def _add_stream(
    container: av.container.OutputContainer, width: int, height: int, fps: float
) -> av.VideoStream:
    try:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
    except ValueError as error:
        raise DependencyError(
            f"write_video: this PyAV cannot encode H.264 ({error}). Install the `av` wheel from PyPI."
        ) from None
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.options = {"crf": "16", "preset": "medium"}
    codec = stream.codec_context
    codec.colorspace = codec.color_primaries = codec.color_trc = BT709
    codec.color_range = LIMITED_RANGE
    return stream
