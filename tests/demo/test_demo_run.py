import json
import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest

from mouse_facelift.config import load_config
from mouse_facelift.demo import stages
from mouse_facelift.demo.config import DemoConfig
from mouse_facelift.demo.run import open_report, run
from mouse_facelift.errors import CheckpointError, ConfigError
from mouse_facelift.evaluation.scores import read_scores
from mouse_facelift.gaussians import Gaussians
from mouse_facelift.samples.format import read_list
from mouse_facelift.training.checkpoints import list_checkpoints

pytestmark = pytest.mark.slow

SHORT = [
    "recording.frames=16",
    "recording.width=192",
    "recording.height=170",
    "recording.truth_every=1",
    "samples=1",
    "preprocess=[size=64, split.guard_s=0.05]",
    "infer=[diffusion.steps=2, turntable.frames=3, turntable.size=32, named_view_size=32]",
    "compare=[diffusion.steps=2]",
    "train_mvdiff=[data.image_size=32, training.steps=2, validation.samples=1, validation.sampling.steps=2]",
    "train_gslrm=[data.image_size=32, training.steps=2, validation.samples=1]",
]

Settings = Callable[..., DemoConfig]


@pytest.fixture(scope="module")
def settings(demo_weights: Path) -> Settings:
    return lambda *more: load_config(DemoConfig, None, [*SHORT, f"weights={demo_weights}", *more])


@pytest.fixture(scope="module")
def folder(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(settings(f"output={tmp_path_factory.mktemp('demo')}"))


def test_every_stage_leaves_what_the_real_command_leaves(folder: Path) -> None:
    assert (folder / "recording/new_cam.pkl").is_file()
    assert (folder / "samples/data_val.txt").is_file()
    (sample,) = read_list(folder / "held_out.txt")
    assert (folder / "truth" / sample.name / "surface.npz").is_file()
    for mode in ("direct", "e2e"):
        result = folder / mode / sample.name
        assert len(Gaussians.load_ply(result / "gaussians.ply")) > 0
        for file in ("turntable.mp4", "comparison.png", "view.html", "metrics.json"):
            assert (result / file).is_file()
    assert len(list((folder / "e2e" / sample.name / "views").glob("cam_*.png"))) == 6
    assert "</html>" in (folder / "compare/compare.html").read_text()
    for model in ("gslrm", "mvdiffusion"):
        assert list_checkpoints(folder / "fine_tuned" / model)[-1].step == 2
        assert list((folder / "fine_tuned" / f"{model}_before").glob("views_*.png"))


def test_measured_is_what_no_training_has_seen(folder: Path) -> None:
    """The weights' record, the recording's cameras and the held-out samples do not meet."""
    scores = read_scores(folder / "compare/evaluation/scores.csv")
    measured = {(score.method, score.protocol) for score in scores}
    assert measured >= {("direct", "leave-one-camera-out"), ("direct", "novel"), ("e2e", "single-view")}
    assert {score.leak for score in scores} == {"clean"}


def test_table_tells_measured_figures_and_existing_places(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    rows = {(row["stage"], row["item"]): row for row in summary["rows"]}
    alpha = rows["preprocess", "alpha against the true outline, IoU"]["value"]
    center = rows["preprocess", "centre to the true body centroid"]["value"]
    assert float(alpha) > 0.97
    assert float(center.removesuffix(" mm")) < 6
    assert list(dict.fromkeys(row["stage"] for row in summary["rows"])) == [
        "recording",
        "preprocess",
        "infer --mode direct",
        "infer --mode e2e",
        "evaluate compare",
        "train-mvdiff",
        "train-gslrm",
    ]
    for trainer in ("train-mvdiff", "train-gslrm"):
        assert "dB, IoU" in rows[trainer, "validation, as shipped"]["value"]
        assert "dB, IoU" in rows[trainer, "validation after 2 steps"]["value"]
    assert all(Path(row["place"]).exists() for row in summary["rows"])


def test_second_call_keeps_what_is_finished(
    folder: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    (sample,) = read_list(folder / "held_out.txt")
    kept = [
        folder / "recording/videos_undist/0.mp4",
        folder / "e2e" / sample.name / "gaussians.ply",
        folder / "fine_tuned/gslrm_before/figures.json",
        folder / "fine_tuned/gslrm/checkpoints/step_00000002/manifest.json",
    ]
    before = [path.stat().st_mtime_ns for path in kept]
    run(settings(f"output={folder}"))
    assert [path.stat().st_mtime_ns for path in kept] == before
    out = capsys.readouterr().out
    assert "seconds in all" in out and str(folder / "compare/compare.html") in out


def test_demo_of_another_recording_is_not_mixed_in(folder: Path, settings: Settings) -> None:
    with pytest.raises(ConfigError, match="holds a demo of another recording"):
        run(settings(f"output={folder}", "recording.seed=9"))


def test_demo_of_other_weights_is_not_mixed_in(folder: Path, settings: Settings) -> None:
    marker = folder / "demo.json"
    original = marker.read_text()
    marker.write_text(json.dumps({**json.loads(original), "weights": ["0" * 64]}))
    try:
        with pytest.raises(ConfigError, match="holds a demo of other weights"):
            run(settings(f"output={folder}"))
    finally:
        marker.write_text(original)


def test_demo_of_an_older_version_is_not_mixed_in(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "recording").mkdir()
    with pytest.raises(ConfigError, match="holds a demo of an older version"):
        run(settings(f"output={tmp_path}"))


def test_wrong_stage_setting_is_refused_before_anything_runs(tmp_path: Path, settings: Settings) -> None:
    config = settings(f"output={tmp_path / 'x'}", "train_gslrm=[optimizer.rl=3]")
    with pytest.raises(ConfigError, match=r"train_gslrm\.yaml: unknown key 'optimizer\.rl'"):
        run(config)
    assert not (tmp_path / "x").exists()


def test_dry_run_checks_and_writes_nothing(tmp_path: Path, settings: Settings) -> None:
    run(settings(f"output={tmp_path / 'x'}"), dry_run=True)
    assert not (tmp_path / "x").exists()


def test_interrupted_demo_goes_on(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut short in the middle, called again: the recording is kept, and the settings are known."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages, "preprocess", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(settings(f"output={tmp_path}", "recording.frames=2"))
    video = tmp_path / "recording/videos_undist/0.mp4"
    before = video.stat().st_mtime_ns
    with pytest.raises(ConfigError, match="another recording"):
        run(settings(f"output={tmp_path}", "recording.frames=3"))
    with monkeypatch.context() as patch:
        patch.setattr(stages, "preprocess", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(settings(f"output={tmp_path}", "recording.frames=2"))
    assert video.stat().st_mtime_ns == before


def test_report_opens_in_a_browser_and_its_absence_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    open_report(tmp_path)
    assert opened == [(tmp_path / "compare/compare.html").as_uri()]

    def absent(_: str) -> None:
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(webbrowser, "open", absent)
    open_report(tmp_path)


def test_weights_that_are_not_there_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no demo weights at .*train_demo\.py.*weights=DIR"):
        run(load_config(DemoConfig, None, [f"weights={tmp_path / 'x'}", f"output={tmp_path / 'y'}"]))


def test_folder_of_another_kind_is_not_taken_for_weights(tmp_path: Path) -> None:
    (tmp_path / "gslrm").mkdir()
    with pytest.raises(CheckpointError, match=r"has no folder mvdiffusion; expected demo weights"):
        run(load_config(DemoConfig, None, [f"weights={tmp_path}", f"output={tmp_path / 'y'}"]))
