"""The study on a recording with ground truth: its reading of the truth, against the recording itself."""

from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from script_modules import import_script

from mouse_facelift.geometry import Camera
from mouse_facelift.samples.format import read_rgba, read_sample, write_sample

FRAME, SIZE = 52, 128


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return import_script("studies", "capture")


@pytest.fixture
def recording(shared: Path) -> Path:
    folder = shared / "data" / "mouse_capture"
    if not folder.is_dir():
        pytest.skip(f"no recording at {folder}")
    return folder


@pytest.fixture
def plan(script: ModuleType, recording: Path, tmp_path: Path):
    return script.Plan(recording, tmp_path, SIZE, 64, 1, 1.0, True)


def test_rotations_are_those_of_their_vectors(script: ModuleType) -> None:
    quarter, none = script.rotations(np.array([[0, 0, np.pi / 2], [0, 0, 0]]))
    np.testing.assert_allclose(quarter @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(none, np.eye(3))


def test_the_mesh_is_posed_as_the_recording_says(script: ModuleType, recording: Path) -> None:
    truth = recording / "ground_truth"
    with np.load(truth / "vertices_gt_frames.npz") as content:
        index = content["frames"].tolist().index(FRAME)
        expected = content["vertices_mm"][index].astype(float)
    # The file holds half floats, off by up to 0.06 mm.
    np.testing.assert_allclose(script.Mesh.read(truth).vertices(FRAME), expected, atol=0.08)


def test_truth_samples_show_the_surface_where_it_is(script: ModuleType, plan, tmp_path: Path) -> None:
    sample = _sample(plan.recording, tmp_path)
    script.write_truth(plan, sample, script.Mesh.read(plan.recording / "ground_truth"))
    truth = read_sample(plan.truth / "sample_000003")
    assert [view.view_id for view in truth.views] == [6, 7, 8, 9]
    assert truth.sample_id == sample.sample_id
    with np.load(truth.folder / "surface.npz") as content:
        points = content["points_mm"].astype(float)
    model = np.linalg.inv(truth.world_from_model)
    for view in truth.views:
        pixels, _ = view.camera.project(points @ model[:3, :3].T + model[:3, 3])
        column, row = np.floor(pixels).astype(int).T
        alpha = read_rgba(view.file)[..., 3] > 127
        drawn = np.zeros_like(alpha)
        drawn[row, column] = True
        # A point marks its whole pixel, of which the animal may cover less than half.
        around = cv2.dilate(alpha.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert (alpha & ~drawn).sum() < 0.01 * alpha.sum()
        assert (drawn & ~around).sum() < 0.01 * alpha.sum()


def test_the_fragment_is_a_table_of_all_groups(script: ModuleType, plan, tmp_path: Path) -> None:
    for name in ("gslrm", "mvdiff"):
        (tmp_path / f"{name}_steps.json").write_text('{"steps": 5, "minutes": 3.5}')
    figure = {"mean": 20.0, "low": 19.0, "high": 21.0}
    metrics = dict.fromkeys((*script.COLUMNS, *script.TRIVIAL), figure)
    side = {"method": "direct", "protocol": "novel"}
    text = script.fragment(
        plan,
        {
            "groups": [{**side, "role": "novel", "metrics": metrics}],
            "differences": [{"one": side, "other": side, "role": "novel", "metrics": metrics}],
        },
    )
    assert "| direct | novel | 20.00 [19.00, 21.00] |" in text
    assert "5 steps of GS-LRM in 3.5 minutes" in text
    assert "all white 20.00 [19.00, 21.00] dB" in text


def _sample(recording: Path, folder: Path):
    """A sample of a frame whose frame of reference is known; its own picture plays no part."""
    with np.load(recording / "ground_truth" / "track.npz") as track:
        center = track["body_centroid_mm"][FRAME]
    world_from_model = np.eye(4)
    world_from_model[:3] = np.column_stack([70 * np.eye(3), center])
    metadata = {
        "frame_index": FRAME,
        "world_from_model": world_from_model.tolist(),
        "source": {"recording": "mouse_capture"},
    }
    picture = np.full((8, 8, 4), 255, np.uint8)
    camera = Camera.look_at((2.7, 0, 0), (0, 0, 0), 10, 8)
    return write_sample(folder / "sample_000003", [picture], [camera], [0], metadata)
