import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mouse_facelift.config import load_config
from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.demo.recording import write_recording
from mouse_facelift.errors import ConfigError, DataError
from mouse_facelift.inference import run as run_module
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.inference.inputs import Views, find_sources
from mouse_facelift.inference.opening import open_inputs
from mouse_facelift.inference.run import run
from mouse_facelift.preprocess import first_pass
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.run import run as preprocess
from mouse_facelift.preprocess.second_pass import Lost, SecondPass
from mouse_facelift.provenance import Run, sha256
from mouse_facelift.samples.format import read_rgba, read_sample

Make = Callable[..., InferConfig]
SETTINGS = (
    *("size=32", "workers=1", "geometry.cell_mm=4", "quality.sync_window=0", "input.jumps=[]"),
    *("selection.mode=interval", "selection.step=2"),
)
FRAMES = [0, 2, 4]
NAMES = [f"sample_{number:06d}" for number in range(3)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording") / "mouse"
    return write_recording(folder, RecordingConfig(frames=5, width=144, height=128, truth_every=8))


@pytest.fixture(scope="module")
def written(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `mfl preprocess` writes."""
    output = tmp_path_factory.mktemp("samples") / "data"
    settings = [f"input.recording={recording}", f"output={output}", *SETTINGS]
    return preprocess(load_config(PreprocessConfig, None, settings))


@pytest.fixture
def settings(config: Make, recording: Path) -> Make:
    def make(*more: str) -> InferConfig:
        light = ("named_views=false", "turntable.frames=0", "image_size=32")
        return config(f"input={recording}", *(f"preprocess.{item}" for item in SETTINGS), *light, *more)

    return make


def results(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "run.json"]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def test_pictures_and_cameras_are_those_that_preprocess_writes(settings: Make, written: Path) -> None:
    inputs = open_inputs(settings(), Run("infer", settings()))
    with inputs.find() as sources:
        assert [source.name for source in sources] == NAMES
        prepared = list(inputs.stream(sources))
    for source, folder in zip(prepared, sorted(written.glob("sample_*")), strict=True):
        sample = read_sample(folder)
        made = source.prepared
        for image, camera, view in zip(made.images, made.cameras, sample.views, strict=True):
            assert np.array_equal(image, read_rgba(view.file))
            assert np.array_equal(camera.K, view.camera.K)
            assert np.array_equal(camera.w2c, view.camera.w2c)
        assert json.loads(json.dumps(made.metadata)) == dict(sample.metadata)
        (on_disk,) = find_sources(folder)
        for size in (None, 24):
            assert_equal_views(source.read(size, 0.6), on_disk.read(size, 0.6))


def assert_equal_views(a: Views, b: Views) -> None:
    for name in ("rgba", "K", "w2c"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert (a.view_ids, a.frame_index) == (b.view_ids, b.frame_index)
    assert a.world_from_model is not None
    np.testing.assert_array_equal(a.world_from_model, b.world_from_model)


def test_results_are_those_of_the_written_samples_and_tell_their_frames(
    settings: Make, config: Make, written: Path, recording: Path, tmp_path: Path
) -> None:
    out = run(settings())
    light = ("named_views=false", "turntable.frames=0", "image_size=32")
    other = run(config(f"input={written}", f"output={tmp_path / 'other'}", *light))
    assert results(out) == results(other)
    metrics = [json.loads((out / name / "metrics.json").read_text()) for name in NAMES]
    assert [item["frame_index"] for item in metrics] == FRAMES
    record = json.loads((out / "run.json").read_text())
    places = [f"{recording.resolve()}, frame {frame}" for frame in FRAMES]
    assert list(record["samples"].values()) == places
    assert record["recording"]["dropped"] == {}
    video = recording / "videos_undist" / "0.mp4"
    assert record["inputs"][str(video)] == sha256(video)
    assert {path.name for path in out.iterdir()} == {*NAMES, "metrics.json", "run.json"}


def test_interrupted_run_goes_on_without_looking_at_the_masks_again(
    settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = results(run(settings(f"output={tmp_path / 'undisturbed'}")))
    write_results, done = run_module.write_results, []

    def interrupted(*args: object) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(write_results(*args))

    monkeypatch.setattr(run_module, "write_results", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(settings("workers=1"))
    out = settings().output
    assert {path.name for path in out.iterdir() if path.name[0] != "."} == {NAMES[0], "run.json"}
    monkeypatch.undo()
    monkeypatch.setattr(first_pass, "observe", lambda *_, **__: pytest.fail("surveyed again"))
    kept = (out / NAMES[0] / "gaussians.ply").stat().st_mtime_ns
    assert results(run(settings())) == undisturbed
    assert (out / NAMES[0] / "gaussians.ply").stat().st_mtime_ns == kept
    assert not list(out.glob(".*"))


def test_unfinished_preprocessing_in_the_same_folder_keeps_its_work(settings: Make) -> None:
    work = settings().output / ".work"
    work.mkdir(parents=True)
    (work / "identity.json").write_text("{}")
    run(settings("limit=1"))
    assert (work / "identity.json").is_file()


def test_second_command_at_the_same_place_is_refused_and_disturbs_nothing(settings: Make) -> None:
    with open_inputs(settings(), Run("infer", settings())).find():
        with pytest.raises(ConfigError, match="another process is writing here"):
            run(settings())
        assert (settings().output / ".frames" / ".work" / "identity.json").is_file()


def test_results_may_lie_beside_the_recording(settings: Make, recording: Path) -> None:
    run(settings(f"output={recording.parent}"), dry_run=True)


def test_limit_takes_the_first_samples_of_the_same_geometry(
    settings: Make, written: Path, tmp_path: Path
) -> None:
    out = run(settings("limit=1"))
    assert [path.name for path in out.glob("sample_*")] == NAMES[:1]
    more = run(settings())
    assert [path.name for path in sorted(more.glob("sample_*"))] == NAMES


def test_frame_whose_picture_is_lost_is_left_out_and_named(
    settings: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepare = SecondPass._prepare

    def lossy(self, sample, step):
        lost = Lost(2, "camera 2: the picture cannot be decoded")
        return lost if sample.frame == 2 else prepare(self, sample, step)

    monkeypatch.setattr(SecondPass, "_prepare", lossy)
    with caplog.at_level(logging.WARNING):
        out = run(settings())
    assert [path.name for path in sorted(out.glob("sample_*"))] == [NAMES[0], NAMES[2]]
    assert "sample_000001: frame 2 is dropped: camera 2: the picture cannot be decoded" in caplog.text
    assert json.loads((out / "metrics.json").read_text())["samples"] == 2
    dropped = json.loads((out / "run.json").read_text())["recording"]["dropped"]
    assert dropped == {"2": ["camera 2: the picture cannot be decoded"]}


def test_recording_works_end_to_end_from_one_view(settings: Make, facelift_pipeline: Path) -> None:
    out = run(settings("mode=e2e", f"mvdiffusion={facelift_pipeline}", "reference_view=1", "limit=1"))
    metrics = json.loads((out / NAMES[0] / "metrics.json").read_text())
    assert [row["role"] for row in metrics["views"]] == ["held_out", "input", *4 * ["held_out"]]


def test_rig_frame_is_known_of_every_recording(settings: Make) -> None:
    out = run(settings("output_frame=rig", "limit=1"))
    assert json.loads((out / NAMES[0] / "metrics.json").read_text())["output_frame"] == "rig"


def test_other_frames_are_another_configuration_but_other_threads_are_not(settings: Make) -> None:
    run(settings("limit=1"))
    with pytest.raises(ConfigError, match=r"preprocess\.selection\.step: then 2, now 4"):
        run(settings("preprocess.selection.step=4"))
    run(settings("limit=1", "preprocess.workers=2"))


def test_wrong_recordings_are_refused_with_keys_that_infer_knows(
    settings: Make, config: Make, balls: Path
) -> None:
    beyond = settings("preprocess.selection.mode=list", "preprocess.selection.frames=[99]")
    cases = [
        (beyond, r"preprocess\.selection\.frames holds 99"),
        (settings("preprocess.input.masks=nowhere"), r"Set preprocess\.input\.masks"),
        (settings("input_views=[0,9]"), r"input_views \[9\] are not among the views"),
        (config(f"input={balls}", "preprocess.selection.count=5"), r"is no recording .* Remove them; limit"),
    ]
    for wrong, message in cases:
        with pytest.raises((ConfigError, DataError), match=message):
            run(wrong)
        assert not wrong.output.exists()


def test_refused_masks_leave_nothing(settings: Make) -> None:
    wrong = settings("preprocess.quality.mask_share.value=0.9")
    with pytest.raises(DataError, match="none of 3 frames can be used"):
        run(wrong)
    assert not wrong.output.exists()


def test_dry_run_opens_the_recording_and_writes_nothing(settings: Make) -> None:
    run(settings(), dry_run=True)
    assert not settings().output.exists()


def test_frames_of_a_recording_become_the_sequence_that_their_samples_do(
    settings: Make, config: Make, written: Path, tmp_path: Path
) -> None:
    wanted = ("sequence.enabled=true", "sequence.size=32", "named_views=false", "turntable.frames=0")
    from_recording = run(settings(*wanted, f"output={tmp_path / 'a'}"))
    from_samples = run(config(*wanted, f"input={written}", "image_size=32", f"output={tmp_path / 'b'}"))
    found = json.loads((from_recording / "sequence" / "metrics.json").read_text())
    assert list(found["samples"].values()) == FRAMES
    assert found["flicker"]["triples"] == 1
    assert results(from_recording / "sequence") == results(from_samples / "sequence")
