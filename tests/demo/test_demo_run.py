import json
import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest

from mouse_facelift.config import load_config
from mouse_facelift.demo import stages
from mouse_facelift.demo.config import DemoConfig
from mouse_facelift.demo.finetuning import last_validation, tune_gslrm, tune_mvdiff
from mouse_facelift.demo.run import open_report, run
from mouse_facelift.errors import CheckpointError, ConfigError, DataError
from mouse_facelift.evaluation.scores import read_scores
from mouse_facelift.gaussians import Gaussians
from mouse_facelift.gslrm.config import TrainGSLRMConfig
from mouse_facelift.mvdiffusion.config import TrainMVDiffConfig
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


def test_figures_of_other_settings_are_not_taken_for_those_asked_for(
    folder: Path, settings: Settings
) -> None:
    """The validation before fine-tuning is kept: after it, more samples would be measured than before."""
    more = ["data.image_size=32", "training.steps=2", "validation.samples=2"]
    with pytest.raises(ConfigError, match=r"train_gslrm\.validation\.samples: then 1, now 2"):
        run(settings(f"output={folder}", f"train_gslrm=[{', '.join(more)}]"))


def test_validation_before_is_the_training_s_own(folder: Path, settings: Settings, tmp_path: Path) -> None:
    """Same samples, same noise: where nothing is learned, the figures are those before, to the digit."""
    config = json.loads((folder / "fine_tuned/mvdiffusion/run.json").read_text())["config"]
    config |= {"output": str(tmp_path / "run"), "optimizer": {"lr": 1e-30, "warmup_steps": 0}}
    before, after = tune_mvdiff(TrainMVDiffConfig(**config), tmp_path / "before")
    assert {**before} == {**after}
    config = json.loads((folder / "fine_tuned/gslrm/run.json").read_text())["config"]
    config |= {"output": str(tmp_path / "lrm"), "optimizer": {"lr": 1e-30, "warmup_steps": 0}}
    before, after = tune_gslrm(TrainGSLRMConfig(**config), tmp_path / "lrm_before")
    assert {**before} == {**after}


def test_wrong_stage_setting_is_refused_before_anything_runs(tmp_path: Path, settings: Settings) -> None:
    config = settings(f"output={tmp_path / 'x'}", "train_gslrm=[optimizer.rl=3]")
    with pytest.raises(ConfigError, match=r"the demo's train_gslrm: unknown key 'optimizer\.rl'"):
        run(config)
    assert not (tmp_path / "x").exists()


def test_dry_run_checks_and_writes_nothing(
    tmp_path: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        run(settings(f"output={tmp_path / 'x'}"), dry_run=True)
    assert "are in order" in caplog.text
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
    with pytest.raises(ConfigError, match=r"recording\.frames: then 2, now 3"):
        run(settings(f"output={tmp_path}", "recording.frames=3"))
    with monkeypatch.context() as patch:
        patch.setattr(stages, "preprocess", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(settings(f"output={tmp_path}", "recording.frames=2"))
    assert video.stat().st_mtime_ns == before


def test_report_opens_in_a_browser_and_its_absence_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda page: bool(opened.append(page)) or True)
    open_report(tmp_path)
    assert opened == [(tmp_path / "compare/compare.html").as_uri() + "#view"]
    assert not caplog.text

    def absent(_: str) -> bool:
        raise webbrowser.Error("could not locate runnable browser")

    for none in (absent, lambda _: False):
        caplog.clear()
        monkeypatch.setattr(webbrowser, "open", none)
        open_report(tmp_path)
        assert f"open {tmp_path / 'compare/compare.html'} where there is one" in caplog.text


def test_training_that_measured_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    with pytest.raises(DataError, match="has measured nothing"):
        last_validation(tmp_path)


def test_weights_that_are_not_there_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no demo weights at .*train_demo\.py.*weights=DIR"):
        run(load_config(DemoConfig, None, [f"weights={tmp_path / 'x'}", f"output={tmp_path / 'y'}"]))


def test_folder_of_another_kind_is_not_taken_for_weights(tmp_path: Path) -> None:
    (tmp_path / "gslrm").mkdir()
    with pytest.raises(CheckpointError, match=r"has no folder mvdiffusion; expected demo weights"):
        run(load_config(DemoConfig, None, [f"weights={tmp_path}", f"output={tmp_path / 'y'}"]))
