import errno
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from mouse_facelift import parallel
from mouse_facelift.errors import CheckpointError, ConfigError, DataError, DependencyError
from mouse_facelift.gaussians import Gaussians
from mouse_facelift.gaussians.turntable import NAMED_VIEWS
from mouse_facelift.gslrm import load_gslrm, save_gslrm
from mouse_facelift.inference import drawing
from mouse_facelift.inference import run as run_module
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.inference.direct import Direct
from mouse_facelift.inference.drawing import draw_results
from mouse_facelift.inference.inputs import Source, Views, find_sources
from mouse_facelift.inference.models import choose_device
from mouse_facelift.inference.results import Results
from mouse_facelift.inference.run import _mean_over_samples, run
from mouse_facelift.inference.writing import write_results
from mouse_facelift.provenance import sha256
from mouse_facelift.training.checkpoints import write_checkpoint

Make = Callable[..., InferConfig]
VIEWS = (0, 1, 2, 3, 7)


def hashes(folder: Path) -> dict[str, str]:
    """All results but `run.json`, which holds times."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / "run.json"]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def test_gslrm_is_shown_pictures_as_large_as_in_its_training(
    config: Make, balls: Path, gslrm: Path, tmp_path: Path
) -> None:
    save_gslrm(load_gslrm(gslrm), tmp_path / "small", image_size=16)
    counts = {}
    for name, settings in {"told": [f"gslrm={tmp_path / 'small'}"], "asked": ["image_size=16"]}.items():
        out = run(
            config(f"input={balls}", "limit=1", f"output={tmp_path / name}", "turntable.frames=0", *settings)
        )
        metrics = json.loads((out / "sample_000000" / "metrics.json").read_text())
        counts[name] = metrics["gaussians"] + sum(metrics["filter"]["dropped"].values())
        side = 32 if name == "told" else 16
        assert Image.open(out / "sample_000000" / "render_cam_007.png").size == (side, side)
    assert counts["told"] == counts["asked"]


def test_pictures_as_large_as_those_of_the_training_are_decoded_once(
    config: Make, balls: Path, gslrm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_gslrm(load_gslrm(gslrm), tmp_path / "told", image_size=32)
    read, sizes = Source.read, []

    def counted(source: Source, size: int | None, fill: float) -> Views:
        sizes.append(size)
        return read(source, size, fill)

    monkeypatch.setattr(Source, "read", counted)
    run(config(f"input={balls}", f"gslrm={tmp_path / 'told'}", "turntable.frames=0"))
    assert sizes == [None, None]


def test_direct_writes_every_promised_file(config: Make, balls: Path) -> None:
    out = run(config(f"input={balls}"))
    renders = {f"{kind}_cam_{view:03d}.png" for kind in ("render", "depth", "alpha") for view in VIEWS}
    novel = {f"novel_{side}.png" for side in NAMED_VIEWS}
    promised = (
        {"gaussians.ply", "turntable.mp4", "view.html", "metrics.json", "comparison.png"} | renders | novel
    )
    for name in ("sample_000000", "sample_000001"):
        assert {path.name for path in (out / name).iterdir()} == promised
        assert len(Gaussians.load_ply(out / name / "gaussians.ply")) > 0
        assert Image.open(out / name / "render_cam_007.png").size == (32, 32)
    assert {path.name for path in out.iterdir()} == {
        "sample_000000",
        "sample_000001",
        "metrics.json",
        "run.json",
    }


def test_turntable_is_h264_yuv420p_with_every_frame(config: Make, balls: Path) -> None:
    out = run(config(f"input={balls}", "limit=1", "turntable.frames=5"))
    with av.open(str(out / "sample_000000" / "turntable.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        frames = list(container.decode(stream))
    assert [(frame.width, frame.height) for frame in frames] == [(16, 16)] * 5


def test_no_turntable_frames_means_no_video(config: Make, balls: Path) -> None:
    out = run(config(f"input={balls}", "limit=1", "turntable.frames=0"))
    assert not (out / "sample_000000" / "turntable.mp4").exists()


def test_no_page_means_no_page(config: Make, balls: Path) -> None:
    out = run(config(f"input={balls}", "limit=1", "page=false"))
    assert not (out / "sample_000000" / "view.html").exists()


def test_input_views_hold_out_the_others(config: Make, balls: Path) -> None:
    out = run(config(f"input={balls}", "limit=1", "input_views=[7, 0, 3]"))
    metrics = json.loads((out / "sample_000000" / "metrics.json").read_text())
    roles = {row["view_id"]: row["role"] for row in metrics["views"]}
    assert roles == {0: "input", 1: "held_out", 2: "held_out", 3: "input", 7: "input"}
    scores = [row["iou"] for row in metrics["views"] if row["role"] == "held_out"]
    assert metrics["mean"]["held_out/iou"] == pytest.approx(np.mean(scores))
    assert set(metrics["definitions"]) <= set(metrics["views"][0])


def test_metrics_at_the_top_are_means_over_samples(config: Make, balls: Path) -> None:
    out = run(config(f"input={balls}"))
    single = [
        json.loads((out / f"sample_{n:06d}" / "metrics.json").read_text())["mean"]["input/iou"]
        for n in range(2)
    ]
    top = json.loads((out / "metrics.json").read_text())
    assert top["samples"] == 2
    assert top["mean"]["input/iou"] == pytest.approx(sum(single) / 2)


def test_renders_are_what_metrics_are_about(config: Make, balls: Path) -> None:
    out = run(config(f"input={balls}", "limit=1"))
    row = json.loads((out / "sample_000000" / "metrics.json").read_text())["views"][0]
    picture = np.asarray(Image.open(out / "sample_000000" / "render_cam_000.png"), float) / 255
    truth = np.asarray(Image.open(balls.parent / "sample_000000" / "images" / "cam_000.png"), float) / 255
    animal = truth[..., 3] > 0.5
    error = np.square(picture - truth[..., :3])[animal].mean()
    assert row["psnr_animal_db"] == pytest.approx(-10 * np.log10(error), abs=0.05)


def test_same_command_again_keeps_finished_samples(
    config: Make, balls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(f"input={balls}")
    before = hashes(run(settings))
    monkeypatch.setattr(run_module, "write_results", None)
    assert hashes(run(settings)) == before


def test_doing_it_all_again_gives_the_same_files(config: Make, balls: Path) -> None:
    before = hashes(run(config(f"input={balls}")))
    assert hashes(run(config(f"input={balls}", "overwrite=true"))) == before


def test_interruption_leaves_only_complete_samples_and_is_continued(
    config: Make, balls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = hashes(run(config(f"input={balls}", f"output={balls.parent / 'undisturbed'}")))
    write_results = run_module.write_results

    def interrupted(folder: Path, *args: object) -> None:
        write_results(folder, *args)
        if "sample_000001" in folder.name:
            raise KeyboardInterrupt

    settings = config(f"input={balls}")
    monkeypatch.setattr(run_module, "write_results", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(settings)
    assert {path.name for path in settings.output.iterdir()} == {"sample_000000", "run.json"}
    monkeypatch.undo()
    assert hashes(run(settings)) == undisturbed


def test_what_a_killed_run_left_half_written_goes(config: Make, balls: Path) -> None:
    """A second Ctrl-C does not wait for the writers."""
    settings = config(f"input={balls}", "turntable.frames=0")
    for name in (".sample_000001.a1b2c3_4", ".sequence.abcdefgh", ".other.abcdefgh"):
        (settings.output / name).mkdir(parents=True)
        (settings.output / name / "gaussians.ply").write_text("half")
    run(settings)
    left = {path.name for path in settings.output.iterdir() if path.name.startswith(".")}
    assert left == {".other.abcdefgh"}, "of samples that are not ours nobody knows who writes them"


def test_interruption_while_the_models_work_finishes_what_is_being_written(
    config: Make, four_balls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the main thread: the samples in the writers' hands are whole, there is no other."""
    undisturbed = hashes(run(config(f"input={four_balls}", f"output={four_balls.parent / 'undisturbed'}")))
    draw_results, drawn = run_module.draw_results, []

    def interrupted(*args: object) -> Results:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(draw_results(*args))
        return drawn[-1]

    settings = config(f"input={four_balls}", "workers=3")
    monkeypatch.setattr(run_module, "draw_results", interrupted)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run(settings)
    assert threading.active_count() == before
    left = {path.name for path in settings.output.iterdir()}
    assert left <= {"sample_000000", "sample_000001", "run.json"}
    monkeypatch.undo()
    assert hashes(run(settings)) == undisturbed


@pytest.mark.parametrize("workers", [1, 3])
def test_results_are_those_of_one_step_after_the_other(
    config: Make, four_balls: Path, tmp_path: Path, gslrm: Path, workers: int
) -> None:
    settings = config(f"input={four_balls}", f"workers={workers}")
    together = hashes(run(settings))
    reconstruct = Direct(settings, load_gslrm(gslrm))
    for source in find_sources(four_balls):
        views = source.read(None, 1.0)
        folder = tmp_path / "alone" / source.name
        folder.mkdir(parents=True)
        write_results(folder, draw_results(views, reconstruct(views), settings), settings, source.name)
    alone = hashes(tmp_path / "alone")
    assert len(alone) > 4 * 20
    assert {name: value for name, value in together.items() if "/" in name} == alone


@pytest.mark.parametrize("workers", [1, 4])
def test_unreadable_third_sample_is_named_and_those_before_it_are_complete(
    config: Make, four_balls: Path, workers: int
) -> None:
    whole = hashes(run(config(f"input={four_balls}", f"output={four_balls.parent / 'whole'}")))
    picture = four_balls.parent / "sample_000002" / "images" / "cam_003.png"
    good = picture.read_bytes()
    picture.write_bytes(good[: len(good) // 2])
    settings = config(f"input={four_balls}", f"workers={workers}")
    with pytest.raises(DataError, match=r"sample_000002.*cam_003\.png: not a readable picture"):
        run(settings)
    assert {path.name for path in settings.output.iterdir()} == {"sample_000000", "sample_000001", "run.json"}
    picture.write_bytes(good)
    assert hashes(run(settings)) == whole


def test_write_that_fails_ends_the_command_with_its_error(
    config: Make, four_balls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results = run_module.write_results

    def full(folder: Path, *args: object) -> None:
        write_results(folder, *args)
        if "sample_000001" in folder.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    settings = config(f"input={four_balls}", "workers=2")
    monkeypatch.setattr(run_module, "write_results", full)
    with pytest.raises(OSError, match=r"No space left on device: .*sample_000001"):
        run(settings)
    names = {path.name for path in settings.output.iterdir()}
    assert "sample_000000" in names and "sample_000001" not in names
    assert not [name for name in names if name.startswith(".")]


def test_full_disk_is_told_before_all_the_others_are_computed(
    config: Make, four_balls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_results, drawn, failed = run_module.draw_results, [], threading.Event()

    def full(folder: Path, *_: object) -> None:
        failed.set()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def after_the_failure(*args: object) -> Results:
        assert not drawn or failed.wait(10)
        time.sleep(0.05)
        drawn.append(draw_results(*args))
        return drawn[-1]

    monkeypatch.setattr(run_module, "write_results", full)
    monkeypatch.setattr(run_module, "draw_results", after_the_failure)
    with pytest.raises(OSError, match=r"No space left on device: .*sample_000000"):
        run(config(f"input={four_balls}", "workers=16"))
    assert len(drawn) == 2


def test_turntable_too_large_for_the_memory_is_drawn_frame_by_frame_by_the_main_thread(
    config: Make, balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (f"input={balls}", "turntable.frames=150")
    held = hashes(run(config(*settings, f"output={tmp_path / 'held'}")))
    for module in (drawing, parallel):
        monkeypatch.setattr(module, "MAX_BYTES", 100_000)
    write_results, seen = run_module.write_results, []

    def watched(folder: Path, results: Results, *args: object) -> None:
        seen.append((isinstance(results.turntable, list), threading.current_thread().name))
        write_results(folder, results, *args)

    monkeypatch.setattr(run_module, "write_results", watched)
    assert hashes(run(config(*settings, f"output={tmp_path / 'streamed'}"))) == held
    assert seen == [(False, threading.main_thread().name)] * 2


def test_means_do_not_depend_on_which_samples_were_finished_before() -> None:
    means = [{"input/iou": value} for value in (0.1, 0.2, 0.3)]
    assert sum(item["input/iou"] for item in means) != sum(item["input/iou"] for item in means[::-1])
    assert _mean_over_samples(means) == _mean_over_samples(means[::-1])


def test_warnings_come_in_the_order_of_samples(
    config: Make, four_balls: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(
        config(f"input={four_balls}", "workers=4", "filter.box=[0.3,0.3,0.3]", "filter.floater_distance=null")
    )
    told = [record.message.split(":")[0] for record in caplog.records if "of the opacity" in record.message]
    assert told == [f"sample_{n:06d}" for n in range(4)]


def test_result_of_a_sample_does_not_depend_on_the_others(config: Make, balls: Path, tmp_path: Path) -> None:
    both = run(config(f"input={balls}", f"output={tmp_path / 'both'}"))
    alone = run(config(f"input={balls.parent / 'sample_000001'}", f"output={tmp_path / 'alone'}"))
    assert hashes(alone / "sample_000001") == hashes(both / "sample_000001")


def test_results_of_another_configuration_are_not_mixed_in(config: Make, balls: Path) -> None:
    run(config(f"input={balls}", "limit=1"))
    with pytest.raises(ConfigError, match=r"another configuration \(input_views: then None, now \[0, 1\]\)"):
        run(config(f"input={balls}", "input_views=[0,1]"))
    run(config(f"input={balls}"))
    run(config(f"input={balls}", "input_views=[0,1]", "overwrite=true"))


def test_results_of_weights_that_changed_under_the_same_path_are_not_mixed_in(
    config: Make, balls: Path, gslrm: Path, tmp_path: Path
) -> None:
    model = load_gslrm(gslrm)
    save_gslrm(model, tmp_path / "weights")
    settings = config(f"input={balls}", "limit=1", f"gslrm={tmp_path / 'weights'}")
    run(settings)
    model.input_layer_norm.weight.data.mul_(2)
    save_gslrm(model, tmp_path / "weights")
    with pytest.raises(ConfigError, match="other weights"):
        run(settings)


def test_weights_are_told_by_their_bytes_and_not_by_how_their_path_is_written(
    config: Make, balls: Path, gslrm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = run(config(f"input={balls}", "limit=1"))
    before = hashes(output)
    monkeypatch.chdir(gslrm.parent)
    run(config(f"input={balls}", "limit=1", f"gslrm={gslrm.name}"))
    assert hashes(output) == before


def test_sample_of_the_same_name_from_elsewhere_is_not_taken_for_finished(
    config: Make, balls: Path, write_ball: Callable[..., Path], tmp_path: Path
) -> None:
    run(config(f"input={balls}"))
    other = write_ball(tmp_path / "other" / "sample_000000", shift=-0.2)
    with pytest.raises(ConfigError, match=r"results of .*other/.* was made from .*data/sample_000000"):
        run(config(f"input={other}"))


def test_sample_that_changed_since_is_not_taken_for_finished(
    config: Make, balls: Path, write_ball: Callable[..., Path]
) -> None:
    run(config(f"input={balls}"))
    write_ball(balls.parent / "sample_000001", view_ids=[0, 1, 2])
    with pytest.raises(ConfigError, match=r"sample_000001.* made before that file changed"):
        run(config(f"input={balls}"))


def test_samples_may_be_added_one_run_after_the_other(config: Make, balls: Path) -> None:
    for name in ("sample_000000", "sample_000001"):
        out = run(config(f"input={balls.parent / name}"))
    record = json.loads((out / "run.json").read_text())
    assert list(record["samples"]) == ["sample_000000", "sample_000001"]
    assert len(record["inputs"]) == 2
    run(config(f"input={balls}"))


def test_results_never_replace_the_input(config: Make, balls: Path) -> None:
    with pytest.raises(ConfigError, match="replace the input"):
        run(config(f"input={balls}", f"output={balls.parent}", "overwrite=true"))
    assert (balls.parent / "sample_000000" / "opencv_cameras.json").is_file()


def test_output_that_is_the_input_or_of_another_command_is_refused(config: Make, balls: Path) -> None:
    folder = balls.parent / "sample_000000"
    with pytest.raises(ConfigError, match="is the input itself"):
        run(config(f"input={folder}", f"output={folder}"))
    training = balls.parent / "training"
    training.mkdir()
    (training / "run.json").write_text('{"command": "train-gslrm"}')
    with pytest.raises(ConfigError, match="belongs to `mfl train-gslrm`"):
        run(config(f"input={folder}", f"output={training}"))


def test_similarity_that_is_none_is_refused_before_anything_is_written(config: Make, balls: Path) -> None:
    cameras = balls.parent / "sample_000001" / "opencv_cameras.json"
    cameras.write_text(json.dumps({**json.loads(cameras.read_text()), "world_from_model": [[1, 2], [3]]}))
    settings = config(f"input={balls}")
    with pytest.raises(DataError, match=r"sample_000001/opencv_cameras\.json: world_from_model is"):
        run(settings)
    assert not settings.output.exists()


def test_folders_that_are_no_results_are_left_alone(config: Make, balls: Path) -> None:
    settings = config(f"input={balls}")
    (settings.output / "sample_000001").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"run\.json does not list it"):
        run(settings)


@pytest.mark.parametrize("text", ["{", "[]", '{"command": "infer", "config": 3}', "\udcff"])
def test_malformed_run_json_is_an_error_that_names_it(config: Make, balls: Path, text: str) -> None:
    settings = config(f"input={balls}")
    settings.output.mkdir()
    (settings.output / "run.json").write_bytes(os.fsencode(text))
    with pytest.raises((ConfigError, DataError), match=r"run\.json: (not a run|expected a JSON object)"):
        run(settings)


def test_malformed_metrics_of_a_finished_sample_are_an_error_that_names_them(
    config: Make, balls: Path
) -> None:
    settings = config(f"input={balls}", "limit=1")
    path = run(settings) / "sample_000000" / "metrics.json"
    path.write_text("{}")
    with pytest.raises(DataError, match=r"sample_000000/metrics\.json: expected a JSON object with mean"):
        run(settings)


def test_run_json_tells_what_made_the_folder(config: Make, balls: Path, gslrm: Path) -> None:
    settings = config(f"input={balls}")
    record = json.loads((run(settings) / "run.json").read_text())
    assert record["command"] == "infer"
    assert record["config"]["seed"] == settings.seed
    cameras = balls.parent / "sample_000001" / "opencv_cameras.json"
    assert record["samples"]["sample_000001"] == str(cameras)
    assert record["inputs"][str(cameras)] == sha256(cameras)
    weights = gslrm / "gslrm.safetensors"
    assert record["weights"] == {str(weights): sha256(weights)}
    assert set(record["seconds"]) == {"loading", "inputs", "samples"}


def test_dry_run_checks_and_writes_nothing(config: Make, balls: Path) -> None:
    settings = config(f"input={balls}")
    run(settings, dry_run=True)
    assert not settings.output.exists()
    (balls.parent / "sample_000001" / "opencv_cameras.json").write_text("{}")
    with pytest.raises(DataError, match="sample_000001"):
        run(settings, dry_run=True)


def test_a_scene_without_gaussians_is_still_written(
    config: Make, balls: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        out = run(config(f"input={balls}", "limit=1", "filter.min_opacity=0.99"))
    assert len(Gaussians.load_ply(out / "sample_000000" / "gaussians.ply")) == 0
    assert "no Gaussians are left" in caplog.text


def test_pictures_are_scaled_with_their_cameras(config: Make, balls: Path, tmp_path: Path) -> None:
    out = run(config(f"input={balls}", "limit=1", "image_size=16"))
    assert Image.open(out / "sample_000000" / "render_cam_000.png").size == (16, 16)


def test_background_is_behind_renders_and_turntable(config: Make, balls: Path) -> None:
    out = run(config(f"input={balls}", "limit=1", "background=0", "filter.min_opacity=0.99"))
    assert not np.asarray(Image.open(out / "sample_000000" / "render_cam_000.png")).any()


def test_wrong_inputs_are_refused_before_anything_is_written(
    config: Make, balls: Path, write_ball: Callable[..., Path], tmp_path: Path
) -> None:
    lone = write_ball(tmp_path / "lone" / "sample_000000", view_ids=[2])
    picture = balls.parent / "sample_000000" / "images" / "cam_000.png"
    cases: list[tuple[list[str], type[Exception], str]] = [
        ([f"input={lone}"], DataError, "has one view; direct mode needs at least two. Use mode=e2e"),
        ([f"input={picture}"], DataError, "one picture has no cameras; direct mode needs a sample"),
        ([f"input={tmp_path / 'nowhere'}"], DataError, "no such file or folder"),
        ([f"input={balls}", "input_views=[0,5]"], ConfigError, r"input_views \[5\] are not among .*sample_"),
        ([f"input={balls}", f"gslrm={tmp_path / 'none'}"], CheckpointError, "no such file or folder"),
    ]
    for settings, error, message in cases:
        with pytest.raises(error, match=message):
            run(config(*settings))
    assert not config(f"input={balls}").output.exists()


def test_camera_id_that_occurs_twice_would_overwrite_its_render(config: Make, balls: Path) -> None:
    cameras = balls.parent / "sample_000001" / "opencv_cameras.json"
    cameras.write_text(cameras.read_text().replace('"view_id": 7', '"view_id": 3'))
    with pytest.raises(DataError, match=r"sample_000001: views \[0, 1, 2, 3, 3\] hold a camera id twice"):
        run(config(f"input={balls}"))


def test_mvdiffusion_given_as_gslrm_is_refused(
    config: Make, balls: Path, rig_pipeline: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=str(rig_pipeline)):
        run(config(f"input={balls}", f"gslrm={rig_pipeline}"))
    training_run = tmp_path / "run"
    write_checkpoint(
        training_run,
        2,
        lambda folder: shutil.copytree(rig_pipeline / "unet", folder / "weights" / "unet"),
        {},
    )
    with pytest.raises(CheckpointError, match=r"holds no gslrm\.safetensors; it is of another model"):
        run(config(f"input={balls}", f"gslrm={training_run}"))


def test_size_that_the_patches_do_not_fill_names_the_sample(config: Make, balls: Path) -> None:
    with pytest.raises(
        DataError, match=r"sample_000000: GS-LRM would get pictures of 20 pixels.*image_size=16"
    ):
        run(config(f"input={balls}", "image_size=20"))


def test_run_that_failed_before_its_first_sample_may_be_repeated_with_other_settings(
    config: Make, balls: Path
) -> None:
    with pytest.raises(DataError):
        run(config(f"input={balls}", "image_size=20"))
    output = run(config(f"input={balls}", "image_size=24"))
    assert (output / "sample_000000" / "gaussians.ply").is_file()


def test_settings_of_the_other_mode_are_refused(config: Make, rig_pipeline: Path) -> None:
    e2e = ("input=x", "mode=e2e", f"mvdiffusion={rig_pipeline}")
    cases = [
        (["input=x", "mode=e2e"], "needs mvdiffusion=DIR"),
        (["input=x", f"mvdiffusion={rig_pipeline}"], "mode direct does not use mvdiffusion"),
        (["input=x", "reference_view=1"], "mode direct has no reference_view"),
        ([*e2e, "input_views=[0,1]"], "mode e2e shows one view"),
        ([*e2e, "background=0.5"], "background is 0.5, but mode e2e needs 1"),
        (["input=x", "input_views=[0,0]"], "once"),
        (["input=x", "input_views=[0]"], "at least 2"),
    ]
    for settings, message in cases:
        with pytest.raises(ConfigError, match=message):
            config(*settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a missing CUDA device")
def test_device_that_is_not_there() -> None:
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(DependencyError, match="device=cuda"):
        choose_device("cuda")


def test_checkpoint_of_a_run_is_chosen_once(
    config: Make, balls: Path, rig_pipeline: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_folder = tmp_path / "training"
    shutil.copytree(rig_pipeline, run_folder / "pipeline")
    for step in (1, 2):
        write_checkpoint(run_folder, step, lambda folder: _trained_part(rig_pipeline, folder), {})
    with caplog.at_level(logging.INFO):
        settings = config(
            f"input={balls}", "limit=1", "mode=e2e", f"mvdiffusion={run_folder}", "diffusion.steps=1"
        )
        out = run(settings)
    assert caplog.text.count("taking its newest checkpoint, step 2") == 1
    assert json.loads((out / "run.json").read_text())["config"]["mvdiffusion"] == str(run_folder)


def _trained_part(pipeline: Path, folder: Path) -> None:
    ignore = shutil.ignore_patterns("model_index.json")
    shutil.copytree(pipeline, folder / "weights", ignore=ignore)
