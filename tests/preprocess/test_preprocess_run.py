import csv
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from mouse_facelift.capture.recording import open_recording
from mouse_facelift.config import describe, load_config
from mouse_facelift.errors import CalibrationError, ConfigError, DataError
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.run import run
from mouse_facelift.samples.format import read_list, read_rgba, read_sample

SMALL = {"size": 128, "selection": {"mode": "interval", "step": 2}, "split": {"guard_s": 0.07}}


def config(recording, output, **changes):
    values = {"input": {"recording": recording}, "output": output, **SMALL, **changes}
    return PreprocessConfig.model_validate(values)


@pytest.fixture(scope="module")
def made(recording_folder, tmp_path_factory) -> Path:
    return run(config(recording_folder, tmp_path_factory.mktemp("made") / "out"))


def samples(output):
    return [read_sample(path) for path in sorted(output.glob("sample_*"))]


def contents(folder):
    """All bytes but those of `run.json`, which tells when and how fast."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.json")
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_written_alpha_is_the_true_silhouette_through_the_written_camera(made, animal):
    offsets = []
    for sample in samples(made):
        centers, radii = animal(sample.frame_index)
        matrix = np.linalg.inv(sample.world_from_model)
        scale = sample.metadata["similarity"]["scale"]
        for view in sample.views:
            camera = view.camera
            x, y = np.meshgrid(np.arange(128) + 0.5, np.arange(128) + 0.5)
            rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(camera.K).T
            rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
            truth = np.zeros((128, 128), bool)
            for center, radius in zip(centers, radii, strict=True):
                to_center = camera.R @ (matrix[:3, :3] @ center + matrix[:3, 3]) + camera.t
                truth |= to_center @ to_center - (rays @ to_center) ** 2 <= (scale * radius) ** 2
            found = read_rgba(view.file)[..., 3] > 127
            assert (found & truth).sum() / (found | truth).sum() > 0.97
            offset = np.array([np.mean(p) for p in np.nonzero(found)]) - [
                np.mean(p) for p in np.nonzero(truth)
            ]
            offsets.append(offset)
    assert np.abs(offsets).max() < 0.3
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.05


def test_animal_is_centred_and_inside_the_box(made, animal):
    for sample in samples(made):
        (body, head), radii = animal(sample.frame_index)
        low = np.minimum(body - radii[0], head - radii[1])
        high = np.maximum(body + radii[0], head + radii[1])
        matrix = np.linalg.inv(sample.world_from_model)
        corners = np.stack([low, high]) @ matrix[:3, :3].T + matrix[:3, 3]
        assert np.abs(corners.mean(0)).max() < 0.05
        assert np.abs(corners).max() < 0.92


def test_samples_hold_what_readers_expect(made):
    for sample in samples(made):
        assert [view.view_id for view in sample.views] == [0, 1, 2, 3]
        for view in sample.views:
            camera = view.camera
            assert (camera.width, camera.height) == (128, 128)
            np.testing.assert_array_equal(camera.K[:2, 2], 64)
            assert camera.K[0, 0] == pytest.approx(548.9937744 / 4 * np.linalg.norm(camera.center) / 2.7)
            rgba = read_rgba(view.file)
            assert (rgba[rgba[..., 3] == 0] == (255, 255, 255, 0)).all()
            inside = rgba[rgba[..., 3] == 255][:, :3].astype(float).mean(0)
            np.testing.assert_allclose(inside, (70, 60, 50), atol=6)


def test_lists_manifest_and_disk_agree(made):
    manifest = json.loads((made / "manifest.json").read_text())
    parts = {item["name"]: item["part"] for item in manifest["samples"]}
    assert manifest["complete"]
    assert [item["frame"] for item in manifest["samples"]] == list(range(0, 16, 2))
    assert sorted(parts) == [sample.folder.name for sample in samples(made)]
    for part in ("train", "val"):
        listed = [folder.name for folder in read_list(made / f"data_{part}.txt")]
        assert listed == sorted(name for name, found in parts.items() if found == part)
        assert (made / f"data_{part}.txt").read_text().endswith("\n")
        assert listed


def test_quality_is_written_for_every_view(made):
    with (made / "quality.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * 4
    assert min(float(row["hull_iou"]) for row in rows) > 0.97
    assert max(float(row["center_residual_px"]) for row in rows) < 6
    assert {row["clipped_share"] for row in rows} == {"0"}
    for row in rows:
        alpha = read_rgba(made / row["sample"] / f"images/cam_{int(row['camera']):03d}.png")[..., 3]
        assert float(row["foreground_share"]) == pytest.approx(alpha.mean() / 255, abs=2e-3)


def test_quality_page_is_self_contained(made):
    page = (made / "quality.html").read_text()
    assert page.count("data:image/png;base64,") == 8 * 4
    assert "http" not in page
    assert "sample_000003" in page


def test_quality_page_links_to_its_pictures(made):
    links = re.findall(r"<a [^>]*href=['\"]?([^'\" >]+)", (made / "quality.html").read_text())
    assert len(links) == 8 * 4
    assert all((made / link).is_file() for link in links)


def test_run_json_holds_config_and_input_hashes(made, recording_folder):
    facts = json.loads((made / "run.json").read_text())
    assert facts["command"] == "preprocess"
    assert facts["config"]["size"] == 128
    assert len(facts["inputs"]) == 1 + 4 + 4
    assert all(len(value) == 64 for value in facts["inputs"].values())


def test_other_thread_counts_give_identical_bytes(recording_folder, made, tmp_path):
    output = run(config(recording_folder, tmp_path / "out", workers=3))
    assert contents(output) == contents(made)


def test_other_settings_are_refused_unless_overwriting(recording_folder, tmp_path):
    output = tmp_path / "out"
    run(config(recording_folder, output))
    changed = {"selection": {"mode": "list", "frames": [3, 9]}}
    with pytest.raises(ConfigError, match="other settings"):
        run(config(recording_folder, output, **changed))
    assert len(samples(output)) == 8
    run(config(recording_folder, output, overwrite=True, **changed))
    assert [sample.frame_index for sample in samples(output)] == [3, 9]


def test_foreign_samples_are_not_overwritten_by_accident(recording_folder, tmp_path):
    (tmp_path / "out/sample_000000").mkdir(parents=True)
    with pytest.raises(ConfigError, match="--overwrite"):
        run(config(recording_folder, tmp_path / "out"))


def test_recording_is_no_output(recording_folder):
    before = contents(recording_folder)
    with pytest.raises(ConfigError, match="is the recording itself"):
        run(config(recording_folder, recording_folder))
    assert contents(recording_folder) == before


def test_output_that_cannot_be_written_is_refused_before_the_videos_are_read(
    recording_folder, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file is a file, expected a folder"):
        run(config(recording_folder, tmp_path / "file" / "out"), dry_run=True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="cannot be written to"):
        run(config(recording_folder, tmp_path / "out"), dry_run=True)


def test_dry_run_writes_nothing(recording_folder, tmp_path):
    run(config(recording_folder, tmp_path / "out"), dry_run=True)
    assert not (tmp_path / "out").exists()


def test_frames_without_a_mask_are_dropped_with_their_reason(build_recording, tmp_path):
    def spoil(view, frame, image, mask):
        return image, np.zeros_like(mask) if (view, frame) in ((2, 4), (0, 4), (1, 8)) else mask

    selection = {**SMALL["selection"], "replace_within": 0}
    output = run(config(build_recording(tmp_path / "rec", spoil), tmp_path / "out", selection=selection))
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["dropped"] == [
        {
            "frame": 4,
            "reasons": ["camera 0: mask is empty", "camera 2: mask is empty"],
            "replaced_by": None,
        },
        {"frame": 8, "reasons": ["camera 1: mask is empty"], "replaced_by": None},
    ]
    assert [sample.frame_index for sample in samples(output)] == [0, 2, 6, 10, 12, 14]
    assert len(read_list(output / "data_train.txt")) > 0


def test_reflection_taken_for_the_animal_is_dropped(build_recording, tmp_path):
    def spoil(view, frame, image, mask):
        return image, np.roll(mask, 70, axis=1) if (view, frame) == (3, 6) else mask

    output = run(config(build_recording(tmp_path / "rec", spoil), tmp_path / "out"))
    dropped = json.loads((output / "manifest.json").read_text())["dropped"]
    assert [item["frame"] for item in dropped] == [6]


def recalibrated(folder, target, change):
    shutil.copytree(folder, target)
    entries = pickle.loads((folder / "new_cam.pkl").read_bytes())
    (target / "new_cam.pkl").write_bytes(pickle.dumps(change(entries)))
    return target


def test_transposed_rotations_are_understood(recording_folder, made, tmp_path):
    folder = recalibrated(
        recording_folder,
        tmp_path / "rec",
        lambda entries: [{**entry, "R": entry["R"].T} for entry in entries],
    )
    output = run(config(folder, tmp_path / "out"))
    assert "R transposed" in json.loads((output / "manifest.json").read_text())["recording"]["convention"]
    for found, expected in zip(samples(output), samples(made), strict=True):
        for view, other in zip(found.views, expected.views, strict=True):
            np.testing.assert_allclose(view.camera.w2c, other.camera.w2c, atol=1e-9)
            assert view.file.read_bytes() == other.file.read_bytes()


def test_swapped_cameras_are_refused(recording_folder, tmp_path):
    folder = recalibrated(
        recording_folder, tmp_path / "rec", lambda entries: [entries[1], entries[0], *entries[2:]]
    )
    with pytest.raises(CalibrationError, match="cameras 0 and 1 exchanged"):
        run(config(folder, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "geometry",
    [
        {"virtual_camera": "crop"},
        {"focal": "fixed", "scale": "mean_distance"},
        {"scale": 0.01, "smoothing_frames": 3.0, "fit_to": "body"},
    ],
)
def test_variants_keep_pixels_and_cameras_together(recording_folder, tmp_path, animal, geometry):
    for sample in samples(run(config(recording_folder, tmp_path / "out", geometry=geometry))):
        (body, _), _ = animal(sample.frame_index)
        matrix = np.linalg.inv(sample.world_from_model)
        for view in sample.views:
            pixel = view.camera.project(matrix[:3, :3] @ body + matrix[:3, 3])[0]
            alpha = read_rgba(view.file)[..., 3]
            assert alpha[tuple(np.floor(pixel[::-1]).astype(int))] == 255


def test_command_line_needs_only_recording_and_output(recording_folder, tmp_path):
    overrides = [f"input.recording={recording_folder}", f"output={tmp_path}/out"]
    found = load_config(PreprocessConfig, None, overrides)
    assert found.input.recording == recording_folder
    with pytest.raises(ConfigError, match=r"input\.recording|'input' is required"):
        load_config(PreprocessConfig, None, ["output=x"])


def test_documented_file_has_every_key_with_its_default():
    path = Path(__file__).parents[2] / "configs/preprocess.yaml"
    from_file = load_config(PreprocessConfig, path, ["input.recording=R", "output=O"])
    assert from_file == load_config(PreprocessConfig, None, ["input.recording=R", "output=O"])
    text = path.read_text()
    for field in describe(PreprocessConfig):
        assert f"{field.key.split('.')[-1]}:" in text
        assert field.description


def test_black_mask_video_leaves_nothing(shared, tmp_path):
    folder = shared / "data/bad_captures/mask_all_black"
    with pytest.raises(DataError, match=r"none of 12 frames.*camera 3: mask is empty \(12 frames\)"):
        run(config(folder, tmp_path / "out", selection={"middle_share": 1.0}))
    assert not (tmp_path / "out").exists()


def test_small_valid_capture_works(shared, tmp_path):
    output = run(config(shared / "data/bad_captures/control_valid", tmp_path / "out", selection={}))
    assert len(samples(output)) >= 10
    assert read_list(output / "data_val.txt")


def test_small_quarter_size_calibration_is_refused(shared, tmp_path):
    folder = tmp_path / "rec"
    shutil.copytree(shared / "data/bad_captures/control_valid", folder)
    (folder / "new_cam.pkl").unlink()
    shutil.copy(shared / "data/mouse_capture/new_cam.pkl", folder / "new_cam.pkl")
    with pytest.raises(CalibrationError, match="another resolution"):
        open_recording(config(folder, tmp_path / "out").input)
