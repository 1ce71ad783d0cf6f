"""Results of a recording's frames put together in time: videos from virtual cameras, one file, flicker.

Everything is read back from the samples' results a few moments ahead, in threads, so memory does not grow
with their number. Videos are encoded in a thread of their own.
"""

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import DataError
from ..files import atomic_folder, write_json
from ..gaussians import Gaussians, render
from ..gaussians.compact import open_compact
from ..geometry import Camera, similarity_scale
from ..geometry.rays import camera_tensors
from ..parallel import overlapped
from ..pictures import to_uint8
from ..progress import track
from ..provenance import noted, sha256
from ..videos import open_video
from .config import InferConfig, SequenceConfig
from .flicker import Flicker
from .inputs import Views
from .moments import FOLDER, Moment, check_frames, check_scales
from .virtual_cameras import aimed_cameras, smoothed

log = logging.getLogger(__name__)

EXTENT_SHARES = (0.005, 0.995)
"""Share of the Gaussians on either side of every axis that does not count for the animal's box."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Outline:
    """What the cameras must know of a moment: the animal's middle [3] and its box's corners [8, 3], mm."""

    middle: Array
    corners: Array
    extent: float
    count: int


def write_sequence(
    config: InferConfig,
    folders: Iterable[Path],
    read: Callable[[Sequence[str]], Generator[Views, None, None]],
    device: torch.device,
) -> dict[str, Any]:
    """Write `sequence/` into the output, unless it is there and made of these very results.

    Args:
        config: Of the inference.
        folders: Results of the samples, in any order.
        read: Gives the views of samples, by their names, in that order.
        device: Where to render.

    Returns:
        What is in `sequence/metrics.json`.

    Raises:
        DataError: results that are no sequence: fewer than two frames, one frame twice, or several scales.
    """
    moments = sorted((Moment.of(folder) for folder in folders), key=lambda moment: moment.frame_index)
    check_frames({moment.name: moment.frame_index for moment in moments})
    scales = {moment.name: similarity_scale(moment.world_from_model) for moment in moments}
    check_scales(scales)
    made_from, place = _digest(moments, config), config.output / FOLDER
    earlier = noted(place / "metrics.json")
    if earlier.get("made_from") == made_from and not config.overwrite:
        log.info("%s: made of the same results already, kept", place)
        return earlier
    time = _timing(moments)
    with atomic_folder(place) as temporary, torch.no_grad():
        outlines = _first_pass(temporary, moments, config)
        flicker = Flicker(time["step"], config.background) if config.sequence.flicker else None
        cameras = _cameras(moments, outlines, config.sequence)
        with closing(read([moment.name for moment in moments])) if flicker else nullcontext() as views:
            _second_pass(temporary, moments, cameras, flicker, views, config, device)
        metrics = {
            **time,
            "samples": {moment.name: moment.frame_index for moment in moments},
            "mm_per_unit": float(np.mean(list(scales.values()))),
            "gaussians": _spread([outline.count for outline in outlines]),
            "extent_mm": _spread([outline.extent for outline in outlines]),
            "flicker": flicker.result() if flicker else None,
            "cameras": {name: _facts(path) for name, path in cameras.items()},
            "made_from": made_from,
        }
        write_json(temporary / "metrics.json", metrics)
    if metrics["flicker"] and (ratio := metrics["flicker"]["ratio"]) is not None:
        log.info("%s: renderings flicker %.2f times as much as the real pictures", place, ratio)
    return metrics


def remove_sequence(output: Path) -> None:
    """Remove the sequence of results that are about to be replaced."""
    if "made_from" in noted(output / FOLDER / "metrics.json"):
        shutil.rmtree(output / FOLDER)


def _first_pass(folder: Path, moments: Sequence[Moment], config: InferConfig) -> list[_Outline]:
    """Where the animal is at each moment; the compact file is written on the way."""

    def look(moment: Moment) -> tuple[Gaussians, _Outline | None]:
        scene = moment.gaussians()
        return scene, _outline(scene, moment.world_from_model)

    outlines: list[_Outline] = []
    compact = open_compact(folder / "gaussians.npz") if config.sequence.compact else nullcontext()
    with compact as writer, closing(overlapped(look, moments, config.readers)) as seen:
        results = zip(moments, seen, strict=True)
        for moment, (scene, outline) in track(results, "sequence: Gaussians", len(moments)):
            if writer is not None:
                writer.write(scene, moment.frame_index, moment.world_from_model)
            outlines.append(outline or _nothing(moment.world_from_model, outlines[-1] if outlines else None))
    return outlines


def _outline(scene: Gaussians, world_from_model: Array) -> _Outline | None:
    """None where nothing is left of the animal."""
    if len(scene) == 0:
        return None
    means = scene.means.double().numpy() @ world_from_model[:3, :3].T + world_from_model[:3, 3]
    low, high = np.quantile(means, EXTENT_SHARES, axis=0)
    grid = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1)
    return _Outline((low + high) / 2, grid.reshape(8, 3), float(np.linalg.norm(high - low)), len(means))


def _nothing(world_from_model: Array, before: _Outline | None) -> _Outline:
    """An animal of which nothing is left is taken to be where it was."""
    if before is not None:
        return replace(before, extent=0.0, count=0)
    middle = world_from_model[:3, 3]
    return _Outline(middle, np.repeat(middle[None], 8, axis=0), 0.0, 0)


def _cameras(
    moments: Sequence[Moment], outlines: Sequence[_Outline], config: SequenceConfig
) -> dict[str, list[Camera]]:
    """Of each video: a camera for every moment, in the rig's frame."""
    boxes = np.stack([outline.corners for outline in outlines])
    frames = [moment.frame_index for moment in moments]
    path = smoothed(np.stack([outline.middle for outline in outlines]), frames, config.smoothing_frames)
    corners = boxes.reshape(-1, 3)
    middle = np.broadcast_to((corners.min(0) + corners.max(0)) / 2, path.shape)
    turning = 360 * np.arange(len(moments)) / (config.fps * config.turn_s)
    videos = {
        "fixed": (config.fixed, middle, 0 * turning),
        "follow": (config.follow, path, 0 * turning),
        "turntable": (config.turntable, path, turning),
    }
    return {
        name: aimed_cameras(targets, camera.azimuth_deg + turn, boxes, camera, config.size)
        for name, (camera, targets, turn) in videos.items()
        if camera.enabled
    }


def _second_pass(
    folder: Path,
    moments: Sequence[Moment],
    cameras: dict[str, list[Camera]],
    flicker: Flicker | None,
    views: Iterator[Views] | None,
    config: InferConfig,
    device: torch.device,
) -> None:
    """Draw the videos and compare renderings with real pictures, one moment after the other."""
    size, fps = config.sequence.size, config.sequence.fps

    def draw(scenes: Iterator[Gaussians]) -> Iterator[NDArray[np.uint8]]:
        for number, (moment, scene) in enumerate(zip(moments, scenes, strict=True)):
            on_device = scene.to(device)
            seen = [path[number].similarity(moment.similarity) for path in cameras.values()]
            yield _draw(on_device, seen, size, config.background)
            if flicker is not None and views is not None:
                flicker.add(moment.frame_index, _views_of(moment, views), on_device)

    with ExitStack() as stack:
        videos = [
            stack.enter_context(open_video(folder / f"{name}.mp4", size, size, fps)) for name in cameras
        ]

        def encode(pictures: NDArray[np.uint8]) -> None:
            for video, picture in zip(videos, pictures, strict=True):
                video.write(picture)

        scenes = stack.enter_context(closing(overlapped(Moment.gaussians, moments, config.readers)))
        # One thread: a video's frames must come one after the other.
        encoded = stack.enter_context(closing(overlapped(encode, draw(scenes), 1, at_once=True)))
        for _ in track(encoded, "sequence: videos", len(moments)):
            pass


def _views_of(moment: Moment, views: Iterator[Views]) -> Views:
    """The next views, which must be this moment's.

    Raises:
        DataError: its pictures, from which its results were made, cannot be read any more.
    """
    found = next(views, None)
    if found is None or found.frame_index != moment.frame_index:
        raise DataError(
            f"{moment.folder}: the pictures of frame {moment.frame_index} cannot be read any more. Restore "
            "the input, or set sequence.flicker=false."
        )
    return found


def _draw(scene: Gaussians, cameras: Sequence[Camera], size: int, background: float) -> NDArray[np.uint8]:
    """[V, size, size, 3]"""
    if not cameras:
        return np.empty((0, size, size, 3), np.uint8)
    K, w2c = camera_tensors(cameras)
    return to_uint8(render(scene, K, w2c, size, size, background).rgb)


def _timing(moments: Sequence[Moment]) -> dict[str, Any]:
    """First and last frame, the usual step, and the gaps, which are told."""
    frames = [moment.frame_index for moment in moments]
    steps = np.diff(frames).tolist()
    step = min(Counter(steps).items(), key=lambda item: (-item[1], item[0]))[0]
    gaps = [[frames[i], frames[i + 1]] for i, distance in enumerate(steps) if distance > step]
    if gaps:
        log.warning(
            "the sequence has %d gaps of more than its usual %d frames, such as from %d to %d; the videos "
            "jump there",
            len(gaps),
            step,
            *gaps[0],
        )
    return {"frames": len(frames), "first": frames[0], "last": frames[-1], "step": step, "gaps": gaps}


def _digest(moments: Sequence[Moment], config: InferConfig) -> str:
    """Another one where a result or a setting has changed."""

    def describe(moment: Moment) -> list[Any]:
        return [moment.name, moment.frame_index, moment.world_from_model.tolist(), sha256(moment.ply)]

    content = {
        "settings": config.sequence.model_dump(mode="json"),
        "background": config.background,
        "moments": list(overlapped(describe, moments, config.readers)),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


def _facts(path: Sequence[Camera]) -> dict[str, Any]:
    """The first and the last camera of a video, in millimetres."""
    return {
        "K": path[0].K.tolist(),
        "first_w2c": path[0].w2c.tolist(),
        "last_w2c": path[-1].w2c.tolist(),
    }
