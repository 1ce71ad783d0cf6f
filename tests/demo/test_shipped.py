"""The weights in checkpoints/demo, where they are: small, plain, and honest about what they have seen."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from mouse_facelift.demo.herd import Herd, training_data
from mouse_facelift.demo.shipped import DemoWeights, find_configs, find_demo_weights
from mouse_facelift.errors import CheckpointError
from mouse_facelift.samples.training_data import TrainingData

MOST_BYTES = 30e6


def test_shipped_weights_are_small_and_hold_no_code(shipped: DemoWeights) -> None:
    files = [path for path in shipped.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}
    assert (shipped.folder / "README.md").is_file()


def test_shipped_weights_tell_that_they_have_seen_the_herd(
    shipped: DemoWeights, train_demo: ModuleType
) -> None:
    herd = Herd(**json.loads((shipped.folder / train_demo.FIGURES).read_text())["herd"])
    assert replace(train_demo.HERD, mice=herd.mice) == herd
    expected = training_data(herd)
    assert TrainingData.load(shipped.gslrm) == TrainingData.load(shipped.mvdiffusion) == expected


def test_given_folder_goes_before_the_shipped_one(demo_weights: Path) -> None:
    weights = find_demo_weights(demo_weights)
    assert weights.folder == demo_weights
    assert weights.model().width == 32


def test_half_of_a_pipeline_is_refused(demo_weights: Path, tmp_path: Path) -> None:
    for part in demo_weights.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "mvdiffusion").unlink()
    (tmp_path / "mvdiffusion").mkdir()
    for part in (demo_weights / "mvdiffusion").iterdir():
        if part.name != "vae":
            (tmp_path / "mvdiffusion" / part.name).symlink_to(part)
    with pytest.raises(CheckpointError, match="no vae"):
        find_demo_weights(tmp_path)


def test_configurations_are_found_in_a_checkout() -> None:
    assert (find_configs() / "demo" / "compare.yaml").is_file()
