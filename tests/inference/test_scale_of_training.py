"""A warning where animals are shown larger or smaller than GS-LRM was trained on."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mouse_facelift.inference.checks import warn_of_scale
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.inference.inputs import find_sources
from mouse_facelift.inference.recordings import RecordedFrame
from mouse_facelift.inference.run import run
from mouse_facelift.samples.format import CAMERAS_FILE
from mouse_facelift.samples.training_data import Rig, TrainedSet, TrainingData


def trained_at(*scales: tuple[float, float] | None) -> TrainingData:
    return TrainingData(tuple(TrainedSet(Rig("monday", {}), (0,), (), (), mm) for mm in scales))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[..., str]:
    def make(record: TrainingData | None, *scales: float | None) -> str:
        caplog.clear()
        frames = [
            RecordedFrame(Path("mouse"), f"at_{mm}", frame=n, mm_per_unit=mm) for n, mm in enumerate(scales)
        ]
        with caplog.at_level(logging.WARNING):
            warn_of_scale(record, ((frame.name, frame.mm_per_unit) for frame in frames))
        return caplog.text

    return make


def test_size_as_in_training_is_no_matter(told: Callable[..., str]) -> None:
    assert told(trained_at((50, 60)), 50, 55, 64, 47, None) == ""
    assert told(trained_at((50, 50), (80, 80)), 52, 77) == ""


def test_other_sizes_are_told_with_the_scale_of_training(told: Callable[..., str]) -> None:
    text = told(trained_at((50, 60), (200, 200)), 55, 75, 90)
    assert "2 of 3 samples" in text and "in at_90 it is 0.67 times as large" in text
    assert "geometry.scale=0.01667" in text
    assert "2 times as large" in told(trained_at((50, 60)), 25)


def test_nothing_is_said_where_training_is_not_fully_known(told: Callable[..., str]) -> None:
    for record in (None, trained_at(), trained_at(None), trained_at((50, 60), None)):
        assert told(record, 500) == ""


def test_the_record_beside_the_weights_is_read(
    config: Callable[..., InferConfig],
    balls: Path,
    gslrm: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    weights = shutil.copytree(gslrm, tmp_path / "weights")
    trained_at((50, 50)).save(weights)
    for source, mm in zip(find_sources(balls), (52, 80), strict=True):
        path = source.path / CAMERAS_FILE
        content = json.loads(path.read_text()) | {"world_from_model": np.diag([mm, mm, mm, 1.0]).tolist()}
        path.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        run(config(f"input={balls}", f"gslrm={weights}"), dry_run=True)
    assert "1 of 2 samples" in caplog.text and "sample_000001" in caplog.text
