"""What studies on synthetic recordings share: the recording, its samples, its truth, comparable trainings."""

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from mouse_facelift.config import dump_config, load_config
from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.demo.recording import write_recording
from mouse_facelift.demo.truth import truth_frames, write_truth
from mouse_facelift.errors import ConfigError
from mouse_facelift.files import write_json
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.run import run as preprocess
from mouse_facelift.samples.format import Sample, read_list, read_sample

WALK = {"fps": 6, "truth_every": 2}
"""Frames a sixth of a second apart, every other one seen by the held-out cameras."""
HELD_OUT = ("selection={mode: interval, step: 1}", "split={val_share: 0.2, blocks: 3, guard_s: 0.35}")
"""All frames become samples, a fifth of them for validation."""

QUICK_GSLRM = (
    "model.width=32",
    "model.head_width=16",
    "model.layers=1",
    "views.target_views=2",
    "training.batch_size=1",
    "training.workers=0",
    "training.log_every=1",
    "validation.samples=1",
)
"""A training of GS-LRM for smoke tests."""


@dataclass(frozen=True)
class StudyPlan:
    """How large a study of trainings on one synthetic recording is.

    Attributes:
        output: Where everything goes.
        frames: Of the recording, a sixth of a second apart; a fifth is held out, half of which is measured.
        size: Side of the samples' pictures.
        steps: Of each training; of as many samples, where some go on.
        picture: Width and height of the recording.
        settings: Of all trainings, on top.
    """

    output: Path
    frames: int = 120
    size: int = 128
    steps: int = 1500
    picture: tuple[int, int] = (576, 512)
    settings: tuple[str, ...] = ()

    def quick(self) -> Self:
        """The same as a smoke test."""
        settings = (*QUICK_GSLRM, *self.settings)
        return replace(self, frames=12, size=64, steps=4, picture=(288, 256), settings=settings)

    @property
    def recording(self) -> Path:
        """The recording."""
        return self.output / "recording"

    @property
    def truth(self) -> Path:
        """Folder of the truth samples."""
        return self.output / "truth"

    def record(self) -> Path:
        """Make the recording, or keep it."""
        width, height = self.picture
        return record(self.recording, RecordingConfig(frames=self.frames, width=width, height=height, **WALK))

    @classmethod
    def of_command_line(
        cls, parser: argparse.ArgumentParser, output: Path
    ) -> tuple[Self, argparse.Namespace]:
        """Read a command line with a plan's arguments and the parser's own."""
        parser.add_argument("--output", type=Path, default=output)
        parser.add_argument("--steps", type=int, help=f"of a training, by default {cls.steps}")
        parser.add_argument("--quick", action="store_true", help="a smoke test on a CPU")
        parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of all trainings, on top")
        options = parser.parse_args()
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        plan = cls(options.output, settings=tuple(options.settings))
        plan = plan.quick() if options.quick else plan
        return replace(plan, steps=options.steps or plan.steps), options


def record(folder: Path, config: RecordingConfig) -> Path:
    """Make a recording, or keep the one that is there.

    Raises:
        ConfigError: that is another one.
    """
    told, wanted = folder.with_suffix(".json"), dump_config(config)
    if not folder.is_dir():
        # First: what is killed here is made again.
        write_json(told, wanted)
        write_recording(folder, config)
    found = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else None
    if found != wanted:
        raise ConfigError(
            f"{folder}: was made with other settings ({found}), expected {wanted}. Choose another output, or "
            "remove the recording and what was made of it."
        )
    return folder


def prepare(
    recording: Path, output: Path, size: int, settings: Sequence[str] = ()
) -> dict[str, list[Sample]]:
    """Samples of a recording as `mfl preprocess` makes them, `train` and `val` (which may be empty)."""
    places = [f"input.recording={recording}", f"output={output}", f"size={size}"]
    preprocess(load_config(PreprocessConfig, None, [*places, *settings]))
    lists = {part: output / f"data_{part}.txt" for part in ("train", "val")}
    return {
        part: [read_sample(folder) for folder in read_list(path)] if path.stat().st_size else []
        for part, path in lists.items()
    }


def write_truths(
    folder: Path, recording: Path, samples: Sequence[Sample], size: int, surface: bool = True
) -> list[Sample]:
    """Truth of the samples whose frames the held-out cameras saw, in `folder`; returns these samples."""
    frames = truth_frames(recording)
    known = [sample for sample in samples if sample.frame_index in frames]
    for sample in known:
        place = folder / sample.folder.resolve().name
        if not place.is_dir():
            write_truth(place, recording, sample, size, surface)
    return known


def check_alike(runs: Sequence[Path], apart: Sequence[str]) -> None:
    """Refuse to compare trainings that differ in more than what is studied.

    Args:
        runs: Their folders.
        apart: Keys that may differ, with dots.

    Raises:
        ConfigError: with the sections that differ.
    """
    first, *others = (_without(settings_of(run), apart) for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        differing = [key for key in first if first[key] != other[key]]
        if differing:
            changes = "; ".join(f"{key}: {first[key]} and {other[key]}" for key in differing)
            raise ConfigError(
                f"{runs[0]} and {run} were trained with different settings ({changes}), so they "
                "cannot be compared. Train one of them again, in another output."
            )


def settings_of(run: Path) -> dict[str, Any]:
    """The configuration that a training ran with, which need not be that of the command line."""
    config: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))["config"]
    return config


def _without(config: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    for key in keys:
        *sections, name = key.split(".")
        place = config
        for section in sections:
            place = place[section]
        del place[name]
    return config
