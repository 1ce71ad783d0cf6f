"""A long recording for benchmarks, made in minutes: the demo mouse, six 1152x1024 cameras, real file layout.

Rendering 18,000 moments would take hours. So a short loop is rendered once, played forwards and backwards
with fresh sensor noise, encoded as encoders do by default (x264 medium, crf 23, a keyframe every 250 frames,
B-frames), and the encoded stretch is repeated packet by packet to the wanted length. File size and decoding
time are like those of a real recording.

    python scripts/benchmarks/generated_recording.py FOLDER [--frames 4500]
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.demo.recording import write_recording
from mouse_facelift.files import atomic_folder, write_json

VIDEOS, MASKS, CALIBRATION = "videos_undist", "simpleclick_undist", "new_cam.pkl"
CAMERAS = 6
NOISE_MARGIN = 64
"""Sensor noise is one larger picture per camera, seen through a window that jumps with every frame."""

Planes = NDArray[np.uint8]


@dataclass(frozen=True)
class Plan:
    """What is made. The recording is `repeats * stretch` frames long.

    Attributes:
        repeats: How often the encoded stretch follows itself.
        stretch: Frames that are encoded; a multiple of `gop` and of `2 * (moments - 1)`, so that neither a
            keyframe comes early nor the mouse jumps where stretches meet.
        moments: Frames that are rendered.
        width: Picture width in pixels.
        height: Picture height in pixels.
        fps: Frames per second.
        gop: Frames from keyframe to keyframe; 250 is x264's default.
        noise: Standard deviation of the sensor noise in grey levels.
        crf: H.264 quality of colour and mask videos; 23 is x264's default.
        preset: x264's effort; medium is its default.
    """

    repeats: int = 9
    stretch: int = 500
    moments: int = 51
    width: int = 1152
    height: int = 1024
    fps: int = 100
    gop: int = 250
    noise: float = 1.5
    crf: int = 23
    preset: str = "medium"

    @property
    def frames(self) -> int:
        """Length of the recording."""
        return self.repeats * self.stretch

    def of_length(self, frames: int) -> "Plan":
        """The same with at least `frames` frames, in whole stretches."""
        return replace(self, repeats=-(-frames // self.stretch))

    def name(self, kind: str) -> str:
        """Folder name that tells plans apart."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]
        return f"{kind}_{self.width}x{self.height}_{digest}"


def generate(folder: Path, plan: Plan) -> Path:
    """Make the recording, or find it made by an earlier call.

    Returns:
        Its folder, inside `folder`.
    """
    recording = folder / f"{plan.name('recording')}_{plan.frames}"
    if recording.is_dir():
        return recording
    started = time.perf_counter()
    stretch = _stretch(folder, replace(plan, repeats=1))
    with atomic_folder(recording) as temporary:
        for name in (VIDEOS, MASKS):
            (temporary / name).mkdir()
            for camera in range(CAMERAS):
                file = Path(name, f"{camera}.mp4")
                _repeat(stretch / file, temporary / file, plan)
        shutil.copy(stretch / CALIBRATION, temporary / CALIBRATION)
        write_json(temporary / "recording.json", asdict(plan))
    size = sum(file.stat().st_size for file in (recording / VIDEOS).iterdir())
    rate = 8e-6 * size / CAMERAS / (plan.frames / plan.fps)
    _say(f"{plan.frames} frames made in {time.perf_counter() - started:.0f} s, {rate:.2f} Mbit/s per camera")
    return recording


def _stretch(folder: Path, plan: Plan) -> Path:
    """All twelve videos once, encoded side by side."""
    target = folder / plan.name("stretch")
    if target.is_dir():
        return target
    loop = _loop(folder, plan)
    _say(f"encoding {plan.stretch} frames of {2 * CAMERAS} videos")
    with atomic_folder(target) as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:
        for name in (VIDEOS, MASKS):
            (temporary / name).mkdir()
        files = [
            (Path(name, f"{camera}.mp4"), camera) for name in (VIDEOS, MASKS) for camera in range(CAMERAS)
        ]
        tasks = [
            pool.submit(
                _encode, loop / file, temporary / file, plan, camera if VIDEOS in file.parts else None
            )
            for file, camera in files
        ]
        for task in tasks:
            task.result()
        shutil.copy(loop / CALIBRATION, temporary / CALIBRATION)
    return target


def _loop(folder: Path, plan: Plan) -> Path:
    """The rendered moments, noiseless and nearly lossless."""
    target = folder / f"loop_{plan.width}x{plan.height}_{plan.moments}_{plan.fps}"
    if not target.is_dir():
        _say(f"rendering {plan.moments} moments of {CAMERAS} cameras")
        config = RecordingConfig(
            frames=plan.moments,
            fps=plan.fps,
            width=plan.width,
            height=plan.height,
            truth_every=plan.moments,
            noise=0,
            crf=4,
            mask_crf=4,
            threads=os.cpu_count() or 1,
        )
        write_recording(target, config)
    return target


def _encode(source: Path, target: Path, plan: Plan, noise_seed: int | None) -> None:
    """Play a loop there and back, with sensor noise where a seed is given."""
    with av.open(str(source)) as container:
        moments = [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
    there_and_back = [*moments, *moments[-2:0:-1]]
    pictures: Iterator[Planes] = (there_and_back[i % len(there_and_back)] for i in range(plan.stretch))
    if noise_seed is not None:
        pictures = _noisy(pictures, plan, np.random.default_rng(noise_seed))
    with av.open(str(target), "w") as container:
        stream: Any = container.add_stream("libx264", rate=plan.fps)
        stream.width, stream.height, stream.pix_fmt = plan.width, plan.height, "yuv420p"
        # A camera that stands still has no scene cuts, yet x264 sees some in the noise of a compressed loop.
        options = {"crf": plan.crf, "g": plan.gop, "sc_threshold": 0, "threads": 1}
        stream.options = {"preset": plan.preset, **{name: str(value) for name, value in options.items()}}
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, plan.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _noisy(pictures: Iterator[Planes], plan: Plan, rng: np.random.Generator) -> Iterator[Planes]:
    """Add noise to the luma plane, the first H rows of a yuv420p picture [3 H / 2, W]."""
    shape = (plan.height + NOISE_MARGIN, plan.width + NOISE_MARGIN)
    noise = np.rint(plan.noise * rng.standard_normal(shape, np.float32)).astype(np.int16)
    for picture in pictures:
        top, left = rng.integers(0, NOISE_MARGIN, 2)
        luma = picture[: plan.height] + noise[top : top + plan.height, left : left + plan.width]
        yield np.concatenate([np.clip(luma, 0, 255).astype(np.uint8), picture[plan.height :]])


def _repeat(source: Path, target: Path, plan: Plan) -> None:
    """Copy packets `plan.repeats` times in a row; every stretch begins with a keyframe."""
    with av.open(str(target), "w") as output:
        stream: Any = None
        for repeat in range(plan.repeats):
            with av.open(str(source)) as stretch:
                video = stretch.streams.video[0]
                stream = stream or output.add_stream_from_template(video)
                shift = round(repeat * plan.stretch / plan.fps / video.time_base)
                for packet in stretch.demux(video):
                    if packet.dts is None:  # The demuxer's end mark.
                        continue
                    packet.pts += shift
                    packet.dts += shift
                    packet.stream = stream
                    output.mux(packet)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Make one recording and print its folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="Where recordings are kept; made ones are found again.")
    parser.add_argument("--frames", type=int, default=4500, help="Length, rounded up to whole stretches.")
    arguments = parser.parse_args()
    print(generate(arguments.folder, Plan().of_length(arguments.frames)))


if __name__ == "__main__":
    main()
