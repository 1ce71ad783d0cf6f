"""Recordings that are not perfect, through the whole command."""

import json
import shutil

import numpy as np
import pytest

from mouse_facelift.errors import ConfigError, DataError
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.run import run
from mouse_facelift.samples.format import read_sample


def make(recording, output, **changes):
    """Run with small settings; returns the manifest."""
    values = {"input": {"recording": recording}, "output": output, "size": 64, "split": {"guard_s": 0.05}}
    run(PreprocessConfig.model_validate({**values, **changes}))
    return json.loads((output / "manifest.json").read_text())


def frames(manifest):
    return [item["frame"] for item in manifest["samples"]]


def without_mask(*spoiled):
    """Spoils a recording: these (view, frame) pairs show no animal."""
    return lambda view, frame, image, mask: (image, mask & ((view, frame) not in spoiled))


EVERY_FOURTH = {"mode": "interval", "step": 4}


def test_failed_frame_is_replaced_by_the_next_good_one_and_listed(build_recording, tmp_path):
    recording = build_recording(tmp_path / "rec", without_mask((2, 4), (1, 5), (0, 12)))
    manifest = make(recording, tmp_path / "out", selection=EVERY_FOURTH)
    assert frames(manifest) == [0, 6, 8, 13]
    assert [(item["frame"], item["replaced_by"]) for item in manifest["dropped"]] == [(4, 6), (12, 13)]
    assert "camera 2: mask is empty" in manifest["dropped"][0]["reasons"][0]


def test_replacement_stays_within_its_reach(build_recording, tmp_path):
    recording = build_recording(tmp_path / "rec", without_mask((2, 4), (2, 5)))
    near = {**EVERY_FOURTH, "replace_within": 1}
    assert frames(make(recording, tmp_path / "out", selection=near)) == [0, 8, 12]


def test_listed_frames_are_not_replaced(build_recording, tmp_path):
    recording = build_recording(tmp_path / "rec", without_mask((2, 4)))
    manifest = make(recording, tmp_path / "out", selection={"mode": "list", "frames": [4, 9]})
    assert frames(manifest) == [9]
    assert manifest["dropped"][0]["replaced_by"] is None


def test_diverse_selection_has_the_count_and_the_extremes(recording_folder, tmp_path):
    selection = {"mode": "diverse", "count": 4, "candidates": 4, "middle_share": 1.0}
    manifest = make(recording_folder, tmp_path / "out", selection=selection)
    assert len(frames(manifest)) == 4
    assert max(np.diff(frames(manifest))) > 1


def glued(rendered):
    """The walk jumps back after frame 7, where a second take begins."""
    return lambda view, frame, image, mask: rendered(view, frame if frame < 8 else frame + 12)


def test_jump_is_found_and_divides_the_recording(build_recording, rendered, tmp_path):
    recording = build_recording(tmp_path / "rec", glued(rendered))
    every = {"mode": "interval", "step": 1}
    manifest = make(recording, tmp_path / "out", selection=every, geometry={"smoothing_frames": 3.0})
    assert manifest["jumps"] == [8]
    segments = [
        read_sample(path).metadata["source"]["segment"] for path in sorted((tmp_path / "out").glob("s*_*"))
    ]
    assert segments == [0] * 8 + [1] * 8


def test_given_jumps_are_taken_and_none_looked_for(build_recording, rendered, tmp_path):
    recording = build_recording(tmp_path / "rec", glued(rendered))
    for given in ([], [5]):
        manifest = make(
            recording,
            tmp_path / f"out{len(given)}",
            input={"recording": recording, "jumps": given},
            selection=EVERY_FOURTH,
        )
        assert manifest["jumps"] == given


def test_limit_that_stops_leaves_nothing(build_recording, tmp_path):
    recording = build_recording(tmp_path / "rec", without_mask((2, 4)))
    with pytest.raises(DataError, match=r"frame 4: camera 2: mask is empty|frame 4: .*quality\.mask_share"):
        make(recording, tmp_path / "out", quality={"mask_share": {"action": "stop"}})
    assert not (tmp_path / "out").exists()


def test_limit_that_warns_keeps_the_frame_and_marks_it(recording_folder, tmp_path):
    limits = {"hull_iou": {"value": 0.999, "action": "warn"}}
    manifest = make(recording_folder, tmp_path / "out", selection=EVERY_FOURTH, quality=limits)
    assert frames(manifest) == [0, 4, 8, 12]
    assert "quality.hull_iou" in (tmp_path / "out/quality.csv").read_text()


def test_area_that_jumps_drops_the_frame_where_asked(build_recording, tmp_path):
    def thin(view, frame, image, mask):
        if (view, frame) != (1, 6):
            return image, mask
        thinner = mask & np.roll(mask, 6, 0) & np.roll(mask, -6, 0)
        return image, thinner

    recording = build_recording(tmp_path / "rec", thin)
    limits = {"area_jump": {"value": 0.2, "action": "drop"}}
    manifest = make(recording, tmp_path / "out", selection={"mode": "interval", "step": 2}, quality=limits)
    assert 6 not in frames(manifest)
    assert "quality.area_jump" in next(d for d in manifest["dropped"] if d["frame"] == 6)["reasons"][0]


def test_undecodable_picture_drops_its_sample_alone(recording_folder, tmp_path, monkeypatch):
    from mouse_facelift.capture.recording import Recording

    original = Recording.read_pictures

    def broken(self, indices):
        for step in original(self, indices):
            images = (None, *step.images[1:]) if step.index == 8 else step.images
            yield type(step)(step.index, images)

    monkeypatch.setattr(Recording, "read_pictures", broken)
    manifest = make(recording_folder, tmp_path / "out", selection=EVERY_FOURTH)
    assert frames(manifest) == [0, 4, 12]
    assert manifest["dropped"] == [
        {"frame": 8, "reasons": ["camera 0: the picture cannot be decoded"], "replaced_by": None}
    ]
    assert not (tmp_path / "out/sample_000002").exists()
    listed = (tmp_path / "out/data_train.txt").read_text() + (tmp_path / "out/data_val.txt").read_text()
    assert "sample_000002" not in listed


def test_shifted_camera_is_refused_and_the_offered_offsets_heal_it(build_recording, rendered, tmp_path):
    recording = build_recording(
        tmp_path / "rec", lambda view, frame, image, mask: rendered(view, frame + 2 * (view == 1))
    )
    quality = {"sync_window": 4}
    with pytest.raises(DataError, match=r"camera 1.*input\.frame_offsets=\[2,0,2,2\]"):
        make(recording, tmp_path / "out", quality=quality)
    assert not (tmp_path / "out").exists()
    manifest = make(
        recording,
        tmp_path / "out",
        input={"recording": recording, "frame_offsets": [2, 0, 2, 2], "max_frame_count_difference": 0},
        quality=quality,
        selection=EVERY_FOURTH,
    )
    assert manifest["recording"]["frame_count"] == 14


def test_moved_recording_is_the_same_recording(recording_folder, tmp_path):
    make(recording_folder, tmp_path / "out", selection=EVERY_FOURTH)
    moved = tmp_path / "elsewhere" / recording_folder.name
    shutil.copytree(recording_folder, moved)
    make(moved, tmp_path / "out", selection=EVERY_FOURTH)


@pytest.mark.parametrize("geometry", [{"centre": "fixed", "fixed_centre_mm": [5000, 0, 0]}, {"scale": 1e-5}])
def test_geometry_without_an_animal_is_refused(recording_folder, tmp_path, geometry):
    with pytest.raises(ConfigError, match=r"geometry\.scale and geometry\.fixed_centre_mm"):
        make(recording_folder, tmp_path / "out", geometry=geometry)
    assert not (tmp_path / "out").exists()


def test_missing_key_points_are_told_before_any_work(recording_folder, tmp_path):
    with pytest.raises(DataError, match=r"result_view_0\.pkl"):
        make(recording_folder, tmp_path / "out", geometry={"centre": "keypoints"})
    assert not (tmp_path / "out").exists()


def test_key_points_can_be_the_centre(shared, tmp_path):
    recording = shared / "data/mouse_capture"
    make(
        recording,
        tmp_path / "out",
        input={"recording": recording, "jumps": []},
        selection={"mode": "list", "frames": [12, 20]},
        geometry={"centre": "keypoints"},
        quality={"sync_window": 0},
    )
    sample = read_sample(tmp_path / "out/sample_000000")
    track = np.load(recording / "ground_truth/track.npz")
    assert np.linalg.norm(sample.world_from_model[:3, 3] - track["centroid_mm"][12]) < 12
