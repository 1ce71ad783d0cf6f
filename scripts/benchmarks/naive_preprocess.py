"""The obvious loop: what a competent person writes first. The yardstick of the preprocessing benchmark.

OpenCV seeks every wanted frame in every video, all pictures are kept in memory, then cropped to the middle
square, resized, given the thresholded mask as alpha, and saved by PIL. No cameras, no centring, no checks.

    python scripts/benchmarks/naive_preprocess.py RECORDING OUTPUT FRAME [FRAME ...] [--size 512]
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

THRESHOLD = 127


def read_frames(path: Path, frames: list[int]) -> list[NDArray[np.uint8]]:
    """The wanted frames of one video as RGB. [H, W, 3] each"""
    video = cv2.VideoCapture(str(path))
    pictures = []
    for frame in frames:
        video.set(cv2.CAP_PROP_POS_FRAMES, frame)
        found, picture = video.read()
        if not found:
            sys.exit(f"{path}: frame {frame} cannot be read")
        pictures.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    video.release()
    return pictures


def compose(picture: NDArray[np.uint8], mask: NDArray[np.uint8], size: int) -> Image.Image:
    """The middle square of a picture as RGBA, animal opaque."""
    height, width = mask.shape
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    rgb = Image.fromarray(picture).crop(box).resize((size, size), Image.Resampling.LANCZOS)
    alpha = Image.fromarray(np.where(mask > THRESHOLD, np.uint8(255), np.uint8(0)))
    rgb.putalpha(alpha.crop(box).resize((size, size), Image.Resampling.NEAREST))
    return rgb


def preprocess(recording: Path, output: Path, frames: list[int], size: int) -> None:
    """Write `sample_NNNNNN/images/cam_CCC.png` for every frame and camera."""
    videos = sorted((recording / "videos_undist").glob("*.mp4"))
    masks = sorted((recording / "simpleclick_undist").glob("*.mp4"))
    pictures_of = [read_frames(path, frames) for path in videos]
    masks_of = [[picture[..., 0].copy() for picture in read_frames(path, frames)] for path in masks]
    for position in range(len(frames)):
        images = output / f"sample_{position:06d}" / "images"
        images.mkdir(parents=True)
        for camera, (pictures, alphas) in enumerate(zip(pictures_of, masks_of, strict=True)):
            compose(pictures[position], alphas[position], size).save(images / f"cam_{camera:03d}.png")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("frames", type=int, nargs="+")
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    preprocess(arguments.recording, arguments.output, arguments.frames, arguments.size)


if __name__ == "__main__":
    main()
