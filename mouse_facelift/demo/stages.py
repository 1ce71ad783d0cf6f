"""The demo's stages: each is the command a user would type, and then what it made, for the closing table."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..evaluation.compare import run as compare
from ..evaluation.compare_config import EVALUATION, CompareConfig
from ..evaluation.run import SCORES_FILE, SUMMARY_FILE
from ..gaussians import Gaussians
from ..gslrm.config import TrainGSLRMConfig
from ..inference.config import InferConfig
from ..inference.run import run as infer
from ..mvdiffusion.config import TrainMVDiffConfig
from ..preprocess.config import PreprocessConfig
from ..preprocess.run import run as preprocess
from ..samples.format import read_list, read_sample, write_list
from ..spacing import spread_evenly
from .config import DemoConfig
from .finetuning import Figures, tune_gslrm, tune_mvdiff
from .places import Places
from .recording import write_recording
from .truth import alpha_iou, center_error_mm, truth_frames, write_truth

log = logging.getLogger(__name__)

Measured = Sequence[tuple[str, str, Path]]
"""What was made or measured, the figure, and where it lies."""

MEASURED_AT = {
    "leave-one-camera-out": "camera left out",
    "single-view": "other cameras",
    "novel": "new cameras",
}
"""Protocols by what they measure; the others flatter."""


def make_recording(config: DemoConfig, places: Places) -> Measured:
    """Film the mouse, or keep what was filmed: `places.marker` says that it is of these settings."""
    if places.recording.is_dir():
        log.info("%s: kept", places.recording)
    else:
        write_recording(places.recording, config.recording)
    size = sum(path.stat().st_size for path in places.recording.rglob("*") if path.is_file())
    made = config.recording
    what = f"{made.frames} frames, 6 cameras, {made.width}x{made.height}"
    return [(what, f"{size / 1e6:.1f} MB", places.recording)]


def make_samples(config: PreprocessConfig, count: int, places: Places) -> Measured:
    """`mfl preprocess`; then choose what is measured later, and write its truth."""
    preprocess(config)
    train, val = (read_list(places.samples / f"data_{part}.txt") for part in ("train", "val"))
    chosen = _with_truth(places.recording, val, count)
    write_list(places.held_out, chosen)
    samples = [read_sample(folder) for folder in chosen]
    for sample in samples:
        if not (folder := places.truth / sample.folder.name).is_dir():
            write_truth(folder, places.recording, sample, config.size)
    centers = [center_error_mm(places.recording, sample) for sample in samples]
    overlaps = [alpha_iou(places.recording, sample) for sample in samples]
    report = places.samples / "quality.html"
    return [
        ("samples, train / val", f"{len(train)} / {len(val)}", places.samples),
        ("centre to the true body centroid", f"{np.mean(centers):.1f} mm", report),
        ("alpha against the true outline, IoU", f"{np.mean(overlaps):.4f}", report),
    ]


def reconstruct(config: InferConfig) -> Measured:
    """`mfl infer`."""
    infer(config)
    measured = _read(config.output / "metrics.json")
    means, samples = measured["mean"], measured["samples"]
    first = config.output / read_list(config.input)[0].name
    rows = [
        (
            f"{what}, {samples} samples",
            _quality(means[f"{role}/psnr_animal_db"], means[f"{role}/iou"]),
            first / "comparison.png",
        )
        for role, what in (("input", "cameras shown"), ("held_out", "other cameras"))
        if f"{role}/iou" in means
    ]
    count = len(Gaussians.load_ply(first / "gaussians.ply"))
    return [
        *rows,
        ("Gaussians, to turn in a browser", f"{count}", first / "view.html"),
        ("turntable", f"{config.turntable.frames} frames", first / "turntable.mp4"),
    ]


def evaluate(config: CompareConfig, places: Places) -> Measured:
    """`mfl evaluate compare`, which also evaluates with every protocol that fits."""
    compare(config)
    place = config.output / EVALUATION
    groups = [group for group in _read(place / SUMMARY_FILE)["groups"] if group["protocol"] in MEASURED_AT]
    rows = [
        (
            f"{group['method']}, {MEASURED_AT[group['protocol']]}",
            _quality(_mean(group, "psnr_animal_db"), _mean(group, "iou")),
            places.page,
        )
        for group in groups
    ]
    novel = next(group for group in groups if group["protocol"] == "novel")
    verdicts = sorted({verdict for group in groups for verdict in group["leaks"]})
    return [
        *rows,
        ("outline in one colour, new cameras", f"{_mean(novel, 'psnr_outline_db'):.2f} dB", places.page),
        ("seen in training", ", ".join(verdicts), place / SCORES_FILE),
    ]


def fine_tune_mvdiff(config: TrainMVDiffConfig, places: Places) -> Measured:
    """`mfl train-mvdiff` from the shipped weights."""
    before = places.before("mvdiffusion")
    figures = tune_mvdiff(config, before)
    return _change(figures, ("psnr_animal", "iou"), config.training.steps, (before, config.output))


def fine_tune_gslrm(config: TrainGSLRMConfig, places: Places) -> Measured:
    """`mfl train-gslrm`, likewise."""
    before = places.before("gslrm")
    figures = tune_gslrm(config, before)
    return _change(figures, ("psnr_held_out", "iou_held_out"), config.training.steps, (before, config.output))


def _change(
    figures: tuple[Figures, Figures], names: tuple[str, str], steps: int, folders: tuple[Path, Path]
) -> Measured:
    """Validation before and after, by the names of PSNR and IoU."""
    psnr, iou = names
    titles = "validation, as shipped", f"validation after {steps} steps"
    rows = zip(titles, figures, folders, strict=True)
    return [(title, _quality(found[psnr], found[iou]), folder) for title, found, folder in rows]


def _quality(psnr_db: float | str, iou: float | str) -> str:
    return f"{float(psnr_db):.2f} dB, IoU {float(iou):.3f}"


def _mean(group: Mapping[str, Any], metric: str) -> float:
    return float(group["metrics"][metric]["mean"])


def _with_truth(recording: Path, folders: Sequence[Path], count: int) -> list[Path]:
    """Validation samples whose frames were also seen by the held-out cameras, spread over time."""
    frames = truth_frames(recording)
    known = [folder for folder in folders if read_sample(folder).frame_index in frames]
    if not known:
        raise ConfigError(
            f"none of the {len(folders)} validation samples lies on a frame with true novel views; "
            "set recording.truth_every lower."
        )
    return [known[index] for index in spread_evenly(len(known), count)]


def _read(path: Path) -> Mapping[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
