import json
from pathlib import Path

import pytest

from mouse_facelift.config import load_config
from mouse_facelift.demo.config import DemoConfig
from mouse_facelift.demo.run import run
from mouse_facelift.errors import ConfigError
from mouse_facelift.gaussians import Gaussians
from mouse_facelift.training.checkpoints import list_checkpoints

pytestmark = pytest.mark.slow

SHORT = [
    "recording.frames=16",
    "recording.width=192",
    "recording.height=170",
    "recording.truth_every=1",
    "samples=1",
    "preprocess=[size=64, split.guard_s=0.05]",
    "train_mvdiff=[data.image_size=32, training.steps=2, start.vae_steps=3, validation.sampling.steps=2]",
    "train_gslrm=[data.image_size=32, training.steps=2, model.width=32, model.layers=1]",
    "infer=[image_size=32, diffusion.steps=2, turntable.frames=3, turntable.size=32]",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    return run(load_config(DemoConfig, None, [*SHORT, f"output={folder}"]))


def test_every_stage_leaves_what_the_real_command_leaves(folder: Path) -> None:
    assert (folder / "recording/new_cam.pkl").is_file()
    assert (folder / "samples/data_val.txt").is_file()
    assert list_checkpoints(folder / "mvdiffusion")[-1].step == 2
    assert list_checkpoints(folder / "gslrm")[-1].step == 2
    name = (folder / "held_out.txt").read_text().strip().split("/")[-1]
    for mode in ("direct", "e2e"):
        assert len(Gaussians.load_ply(folder / mode / name / "gaussians.ply")) > 0
        for file in ("turntable.mp4", "comparison.png", "novel_views.png", "metrics.json"):
            assert (folder / mode / name / file).is_file()
    assert len(list((folder / "e2e" / name / "views").glob("cam_*.png"))) == 6


def test_table_tells_measured_figures_and_existing_places(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    rows = {(row["stage"], row["item"]): row for row in summary["rows"]}
    alpha = rows["preprocess", "alpha against the true outline, IoU"]["value"]
    center = rows["preprocess", "centre to the true body centroid"]["value"]
    assert float(alpha) > 0.97
    assert float(center.removesuffix(" mm")) < 6
    assert {row["stage"] for row in summary["rows"]} == {
        "recording",
        "preprocess",
        "train-mvdiff",
        "train-gslrm",
        "infer --mode direct",
        "infer --mode e2e",
    }
    assert all(Path(row["place"]).exists() for row in summary["rows"])


def test_second_call_keeps_recording_and_training(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = [
        folder / "recording/videos_undist/0.mp4",
        folder / "gslrm/checkpoints/step_00000002/manifest.json",
    ]
    before = [path.stat().st_mtime_ns for path in kept]
    run(load_config(DemoConfig, None, [*SHORT, f"output={folder}"]))
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert "seconds in all" in capsys.readouterr().out


def test_demo_of_another_recording_is_not_mixed_in(folder: Path) -> None:
    with pytest.raises(ConfigError, match="holds a demo of another recording"):
        run(load_config(DemoConfig, None, [*SHORT, "recording.seed=9", f"output={folder}"]))


def test_wrong_stage_setting_is_refused_before_anything_runs(tmp_path: Path) -> None:
    config = load_config(DemoConfig, None, [f"output={tmp_path / 'x'}", "train_gslrm=[model.widht=3]"])
    with pytest.raises(ConfigError, match=r"train_gslrm\.yaml: unknown key 'model\.widht'"):
        run(config)
    assert not (tmp_path / "x").exists()
