"""Samples as moments of one recording: what a sequence must know of each, and what cannot be one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..gaussians import Gaussians
from ..gaussians.similarity import transformed
from ..geometry import Similarity, similarity_scale
from .inputs import Source

FOLDER = "sequence"
"""Where it goes, in the output of `mfl infer`."""

SCALE_TOLERANCE = 1e-4
"""Relative difference of scales that are one."""


@dataclass(frozen=True)
class Moment:
    """One sample's results.

    Attributes:
        name: The sample's.
        folder: Where its results lie.
        frame_index: Of the recording.
        world_from_model: To the rig's millimetres. [4, 4]
        in_rig: Whether its PLY is in millimetres.
    """

    name: str
    folder: Path
    frame_index: int
    world_from_model: NDArray[np.float64]
    in_rig: bool

    @classmethod
    def of(cls, folder: Path) -> "Moment":
        """Read what its `metrics.json` says.

        Raises:
            DataError: it lacks what a sequence needs.
        """
        path = folder / "metrics.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            frame, matrix = content["frame_index"], np.asarray(content["world_from_model"], float)
            complete = isinstance(frame, int) and matrix.shape == (4, 4)
            in_rig = content["output_frame"] == "rig"
        except (OSError, KeyError, TypeError, ValueError):
            complete = False
        if not complete:
            raise DataError(
                f"{path}: has no frame_index and world_from_model, which a sequence needs. Recordings "
                "and samples of `mfl preprocess` have them; make old results again with overwrite=true."
            )
        return cls(folder.name, folder, frame, matrix, in_rig)

    @property
    def ply(self) -> Path:
        """Its Gaussians."""
        return self.folder / "gaussians.ply"

    @property
    def similarity(self) -> Similarity:
        """From the rig's millimetres to its model units."""
        return Similarity.from_world_from_model(self.world_from_model)

    def gaussians(self) -> Gaussians:
        """Its Gaussians in model units, on the CPU."""
        scene = Gaussians.load_ply(self.ply)
        return transformed(scene, self.similarity.model_from_world) if self.in_rig else scene


def check_sequence(sources: Sequence[Source]) -> None:
    """Refuse inputs that cannot become a sequence, before anything is computed.

    Raises:
        ConfigError: a lone picture, or a sample whose results would be in the way.
        DataError: samples without frame number or similarity, of different scales, or of one frame.
    """
    for source in sources:
        if source.is_picture:
            raise ConfigError(
                f"sequence.enabled=true, but {source.path} is one picture. A sequence needs samples of "
                "several frames, or a recording."
            )
        if source.name == FOLDER:
            raise ConfigError(
                f"{source.path}: its results would lie where the sequence goes, in {FOLDER}. Rename it."
            )
    frames, scales = {}, {}
    for source in sources:
        if (moment := source.moment) is None:
            continue
        frame, matrix = moment
        if frame is None or matrix is None or matrix.shape != (4, 4):
            raise DataError(
                f"{source.path}: its cameras file has no frame_index or no world_from_model, which a "
                "sequence needs. Use samples written by `mfl preprocess`, or sequence.enabled=false."
            )
        frames[source.name], scales[source.name] = frame, similarity_scale(matrix)
    if frames:
        check_frames(frames)
        check_scales(scales)


def check_frames(frames: Mapping[str, int]) -> None:
    """Two moments at least, each once."""
    if len(frames) < 2:
        raise DataError(
            f"sequence.enabled=true, but there is {len(frames)} sample with results; a sequence needs two. "
            "Use sequence.enabled=false."
        )
    first: dict[int, str] = {}
    for name, frame in frames.items():
        if frame in first:
            raise DataError(
                f"{first[frame]} and {name} are both of frame {frame}; a sequence needs every frame once, of "
                "one recording. Use sequence.enabled=false, or a list without one of them."
            )
        first[frame] = name


def check_scales(scales: Mapping[str, float]) -> None:
    """One animal keeps its size only where one scale is used."""
    low, high = min(scales, key=scales.__getitem__), max(scales, key=scales.__getitem__)
    if scales[high] > (1 + SCALE_TOLERANCE) * scales[low]:
        raise DataError(
            f"samples have different scales: {scales[low]:.6g} mm per unit in {low}, {scales[high]:.6g} in "
            f"{high}; a sequence needs one. Prepare the frames with one scale (geometry.scale), or use "
            "sequence.enabled=false."
        )
