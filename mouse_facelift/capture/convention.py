"""What R and T in a calibration mean, decided by evidence: the masks' centroids.

The centroids of the animal's masks are nearly the pictures of one 3D point. Under the true convention they
triangulate with a small residual; under a wrong one (R transposed, T the camera's centre, ...) they do not.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError
from ..geometry import Camera
from .centroid_residuals import Poses, Witness, count_positions
from .raw_cameras import Array, Rig, numbers
from .rig_faults import explain, find_fault

logger = logging.getLogger(__name__)

MIN_SPREAD_MM, MAX_SPREAD_MM = 100.0, 10_000.0
"""Plausible distance between the two cameras farthest apart."""
MAX_RESIDUAL = 0.04
"""Share of the picture's diagonal that centroids of masks may disagree by; a true rig stays near 0.01."""
CLEAR = 0.5
"""The winner's residual is at most this share of the runner-up's ..."""
CLEAR_DOCUMENTED = 1 / 1.5
"""... or this share, where it is the convention that the format is documented to have."""
ENOUGH_FRAMES = 20
"""With so many frames in which all views have a mask, the others are left out."""
MIN_CONSTRAINTS = 5
"""Each position of the animal seen by n views constrains the rig 2 n - 3 times: one position with four
cameras, two with three, five with two. Fewer fit a wrong convention by chance."""
APART = 0.02
"""Positions that differ by less of the picture's diagonal are one: their residuals are not independent."""


@dataclass(frozen=True)
class Evidence:
    """How well one convention explains the masks.

    Attributes:
        convention: The convention in words.
        residual_share: Median over frames of the mean over views of the distance between the mask's centroid
            and the triangulated point's picture, as a share of the diagonal; at most 1, which also stands for
            points behind a camera.
        frames: Frames it was measured on.
        possible: Whether the numbers allow this convention at all.
        reason: Why not.
    """

    convention: str
    residual_share: float
    frames: int
    possible: bool = True
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The cameras of a recording, and why they are believed.

    Attributes:
        cameras: World in millimetres, half-pixel centres, in the videos' order. V
        convention: The convention that R, T and K turned out to have, in words.
        evidence: All conventions that were considered, the chosen one first.
    """

    cameras: tuple[Camera, ...]
    convention: str
    evidence: tuple[Evidence, ...]


def _transposed(R: Array) -> Array:
    return np.swapaxes(R, -1, -2)


def _from_centers(R: Array, centers: Array) -> Poses:
    return R, -np.einsum("vij,vj->vi", R, centers)


HYPOTHESES: dict[str, Callable[[Array, Array], Poses]] = {
    "x = R X + T": lambda R, t: (R, t),
    "x = R' X + T (R transposed)": lambda R, t: (_transposed(R), t),
    "X = R x + T (camera to world)": lambda R, t: _from_centers(_transposed(R), t),
    "x = R (X - T) (T is the centre)": _from_centers,
}
"""Meaning of R and T -> world-to-camera poses; x is in the camera, X in the world."""
STANDARD, ROW_VECTORS = list(HYPOTHESES)[:2]


def hypotheses(rig: Rig) -> dict[str, Poses]:
    """The rig's poses under every convention that gives different cameras, the documented one first."""
    documented = ROW_VECTORS if rig.row_vectors else STANDARD
    poses: dict[str, Poses] = {}
    for name in sorted(HYPOTHESES, key=lambda name: name != documented):
        R, t = HYPOTHESES[name](rig.R, rig.t)
        if not any(np.allclose(R, seen[0]) and np.allclose(t, seen[1]) for seen in poses.values()):
            poses[name] = R, t
    return poses


def camera_distances(poses: Poses) -> Array:
    """Distances between the cameras in the world's unit. [V, V]"""
    R, t = poses
    centers = -np.einsum("vji,vj->vi", R, t)
    with np.errstate(over="ignore", invalid="ignore"):
        apart: Array = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    return apart


def spread(poses: Poses) -> float:
    """Distance between the two cameras farthest apart."""
    return float(camera_distances(poses).max())


def is_plausible(spread_mm: float) -> bool:
    """Whether a rig for small animals can be so large."""
    return MIN_SPREAD_MM <= spread_mm <= MAX_SPREAD_MM


def decide(
    rig: Rig, sizes: Sequence[tuple[int, int]], centroids: Array, frames: Sequence[int]
) -> Calibration:
    """Choose the convention under which the masks' centroids triangulate.

    Args:
        rig: The cameras as stored.
        sizes: Width and height of the videos. V
        centroids: Centroids of the masks in pixels, NaN where there is none. [T, V, 2]
        frames: The frames' numbers, for messages. T

    Raises:
        CalibrationError: too few masks, no convention fits, two fit alike, or another rig (two cameras
            exchanged, other focal lengths) fits clearly better.
    """
    witness = _summon(rig, sizes, np.asarray(centroids, float), frames)
    poses = hypotheses(rig)
    documented = next(iter(poses))
    implausible = {name: size for name, pose in poses.items() if not is_plausible(size := spread(pose))}
    shares = {name: witness.share(pose) for name, pose in poses.items() if name not in implausible}
    ranked = [documented] if rig.fixed_convention else sorted(shares, key=lambda name: shares[name])
    _refuse(rig, witness, poses, shares, ranked)
    evidence = [_evidence(rig, name, shares[name], witness.frames) for name in ranked]
    _log(rig, evidence)
    cameras = tuple(
        Camera.from_rt(K, R, t, width, height)
        for K, R, t, (width, height) in zip(rig.K, *poses[ranked[0]], sizes, strict=True)
    )
    impossible = [
        Evidence(name, 1.0, 0, False, f"the cameras farthest apart would be {size:.4g} mm from each other")
        for name, size in implausible.items()
        if not rig.fixed_convention
    ]
    return Calibration(cameras, evidence[0].convention, (*evidence, *impossible, _other_form_of_K(rig)))


def _refuse(
    rig: Rig, witness: Witness, poses: dict[str, Poses], shares: dict[str, float], ranked: Sequence[str]
) -> None:
    """Raise unless the first of the ranked conventions fits, clearly best, without a fault."""
    best = ranked[0]
    if shares[best] > MAX_RESIDUAL:
        raise CalibrationError(_nothing_fits(rig, witness, poses, shares, ranked))
    clear = CLEAR_DOCUMENTED if best == next(iter(poses)) else CLEAR
    if len(ranked) > 1 and shares[best] > clear * shares[ranked[1]]:
        raise CalibrationError(_ambiguous(rig, witness, shares, ranked))
    _, fault = find_fault(witness, [poses[best]], rig.camera_ids, MAX_RESIDUAL)
    if fault:
        raise CalibrationError(
            f"{rig.path}: the masks' centroids miss by {_percent(shares[best])} of the picture's diagonal, "
            f"expected less. {fault}"
        )


def _summon(rig: Rig, sizes: Sequence[tuple[int, int]], centroids: Array, frames: Sequence[int]) -> Witness:
    """The frames to judge by, those that all views see where there are enough of them; refuse too few."""
    views: NDArray[np.int64] = np.all(np.isfinite(centroids), axis=-1).sum(axis=1)
    used = views == len(rig.cameras)
    if used.sum() < ENOUGH_FRAMES:
        used = views >= 2
    diagonal = np.hypot(*np.array(sizes, float).T)
    positions = count_positions(centroids[used], diagonal, APART)
    constraints = int((2 * views[used][positions] - 3).sum())
    if constraints >= MIN_CONSTRAINTS or (rig.fixed_convention and constraints > 0):
        return Witness(rig.K, diagonal, centroids[used])
    looked = f"{len(frames)} frames ({min(frames)} to {max(frames)})" if len(frames) else "no frames"
    raise CalibrationError(
        f"{rig.path}: of {looked} looked at, {int(used.sum())} show the animal in at least two masks, at "
        f"{len(positions)} positions: too few to decide what R and T mean. Expected five positions with two "
        "cameras, two with three, one with more. Check the masks (input.masks, input.mask_threshold), or "
        "write the cameras as our own cameras .json, whose convention is fixed (docs/recordings.md)."
    )


def _evidence(rig: Rig, name: str, share: float, frames: int) -> Evidence:
    return Evidence(f"{name}, K {'transposed' if rig.transposed_K else 'as stored'}", share, frames)


def _other_form_of_K(rig: Rig) -> Evidence:
    K = rig.cameras[0].K
    if rig.transposed_K:
        why = f"the last row of camera {rig.camera_ids[0]}'s K is {numbers(K[2])}, not 0, 0, 1"
        return Evidence("K as stored", 1.0, 0, False, why)
    why = f"the last column of camera {rig.camera_ids[0]}'s K is {numbers(K[:, 2])}, not 0, 0, 1"
    return Evidence("K transposed", 1.0, 0, False, why)


def _log(rig: Rig, evidence: Sequence[Evidence]) -> None:
    best, *others = evidence
    logger.info(
        "%s (%s): %s. The masks' centroids of %d frames agree to %s of the diagonal%s.",
        rig.path,
        rig.kind,
        best.convention,
        best.frames,
        _percent(best.residual_share),
        f"; next best {others[0].convention}: {_percent(others[0].residual_share)}" if others else "",
    )


def _nothing_fits(
    rig: Rig, witness: Witness, poses: dict[str, Poses], shares: dict[str, float], allowed: Sequence[str]
) -> str:
    message = (
        f"{rig.path}: the calibration does not explain the masks: triangulated over {witness.frames} frames, "
        f"the animal's centroids miss by {_table(shares, allowed)}; expected at most "
        f"{_percent(MAX_RESIDUAL)} of the picture's diagonal."
    )
    other = min(shares, key=lambda name: shares[name])
    if shares[other] <= MAX_RESIDUAL:
        return (
            f"{message} With {other} it is {_percent(shares[other])}: the file is not in the convention of a "
            f"{rig.kind}. Export it again."
        )
    meant = [poses[name] for name in allowed]
    hint = explain(witness, meant, rig.camera_ids, MAX_RESIDUAL)
    return f"{message} " + (
        hint
        or "Is it of another day or rig, are the videos named in the calibration's order, do they start at "
        "the same moment, and do the masks show the animal?"
    )


def _ambiguous(rig: Rig, witness: Witness, shares: dict[str, float], ranked: Sequence[str]) -> str:
    return (
        f"{rig.path}: the masks do not tell what R and T mean: triangulated over {witness.frames} frames, "
        f"the animal's centroids miss by {_table(shares, ranked)} of the picture's diagonal, expected one "
        f"clear winner. With {len(rig.cameras)} cameras this can happen where the animal hardly moves. Write "
        "the cameras as our own cameras .json, whose convention is fixed (docs/recordings.md), and set "
        "input.calibration to it."
    )


def _table(shares: dict[str, float], names: Sequence[str]) -> str:
    return "; ".join(f"{name}: {_percent(shares[name])}" for name in names)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
