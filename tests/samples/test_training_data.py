"""What a training leaves behind about its data."""

import json
from pathlib import Path

import numpy as np
import pytest

from mouse_facelift.geometry import Camera
from mouse_facelift.samples.format import Sample, write_sample
from mouse_facelift.samples.training_data import Rig, TrainingData


def sample(folder: Path, frame: int, scale: float = 40.0, move: float = 0.0) -> Sample:
    """Two cameras fixed in millimetres, whatever the sample's own frame is."""
    world_from_model = np.diag([scale, scale, scale, 1.0])
    world_from_model[0, 3] = move
    cameras = []
    for place in ((100.0, 0, 0), (0, 100.0, 0)):
        center = (np.array(place) - world_from_model[:3, 3]) / scale
        cameras.append(Camera.look_at(center, (0, 0, 0), 10, 8))
    image = np.full((8, 8, 4), 255, np.uint8)
    metadata = {
        "frame_index": frame,
        "world_from_model": world_from_model.tolist(),
        "source": {"recording": "monday"},
    }
    return write_sample(folder, [image, image], cameras, [0, 5], metadata)


def test_a_rig_is_the_same_whatever_frame_and_scale_its_samples_have(tmp_path: Path) -> None:
    one = Rig.of(sample(tmp_path / "a", 1))
    other = Rig.of(sample(tmp_path / "b", 2, scale=55.0, move=13.7))
    assert one == other
    assert one.centers_mm[5] == pytest.approx((0, 100, 0), abs=0.1)


def test_samples_are_grouped_by_recording(tmp_path: Path) -> None:
    samples = [sample(tmp_path / f"sample_{n}", n, move=n) for n in range(3)]
    record = TrainingData.of(samples, [5])
    (only,) = record.sets
    assert [known.frame for known in only.samples] == [0, 1, 2]
    assert (only.view_ids, only.held_out_views) == ((5,), (0,))


def test_the_file_is_readable_json(tmp_path: Path) -> None:
    TrainingData.of([sample(tmp_path / "a", 1)], [0, 5]).save(tmp_path)
    content = json.loads((tmp_path / "training_data.json").read_text())
    assert content["sets"][0]["rig"]["recording"] == "monday"
    assert content["sets"][0]["samples"][0]["name"] == "a"


def test_scales_of_the_samples_are_told_where_all_are_known(tmp_path: Path) -> None:
    samples = [sample(tmp_path / f"sample_{n}", n, scale=40.0 + n) for n in range(3)]
    record = TrainingData.of(samples, [0, 5])
    assert record.sets[0].mm_per_unit == pytest.approx((40, 42))
    record.save(tmp_path / "weights")
    assert TrainingData.load(tmp_path / "weights") == record
    del samples[1].metadata["world_from_model"]
    assert [data.mm_per_unit for data in TrainingData.of(samples[1:], [0, 5]).sets] == [
        None,
        pytest.approx((42, 42)),
    ]


def test_record_from_before_scales_were_told_is_still_read(tmp_path: Path) -> None:
    TrainingData.of([sample(tmp_path / "a", 1)], [0, 5]).save(tmp_path)
    path = tmp_path / "training_data.json"
    content = json.loads(path.read_text())
    del content["sets"][0]["mm_per_unit"]
    path.write_text(json.dumps(content))
    assert TrainingData.load(tmp_path).sets[0].mm_per_unit is None
