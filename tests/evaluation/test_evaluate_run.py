"""Whole evaluations on tiny random models."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from one_ball import SIZE, UNIT_MM
from PIL import Image
from typer.testing import CliRunner

from mouse_facelift.cli import app
from mouse_facelift.errors import ConfigError, DataError
from mouse_facelift.evaluation import run as module
from mouse_facelift.evaluation.run import run
from mouse_facelift.evaluation.scores import COLUMNS, read_scores
from mouse_facelift.samples.format import read_sample
from mouse_facelift.samples.training_data import Rig, TrainedSet, TrainingData

DIRECT = "protocols=[reconstruction, leave-one-camera-out]"


def test_every_protocol_measures_its_cameras(config, truth: Path, pipeline: Path, tmp_path: Path) -> None:
    out = run(
        config(
            "protocols=[reconstruction, leave-one-camera-out, single-view, novel]",
            f"truth={truth}",
            "methods.six={}",
            "methods.one.mode=e2e",
            f"methods.one.mvdiffusion={pipeline}",
            "methods.one.diffusion.steps=2",
        )
    )
    found = {}
    for score in read_scores(out / "scores.csv"):
        found.setdefault((score.method, score.protocol, score.role), set()).add(score.view_id)
    assert found == {
        ("six", "reconstruction", "input"): {0, 1, 2, 3},
        ("six", "leave-one-camera-out", "held_out"): {0, 1, 2, 3},
        ("six", "novel", "novel"): {6, 7},
        ("one", "reconstruction", "input"): {2},
        ("one", "single-view", "held_out"): {0, 1, 3},
        ("one", "novel", "novel"): {6, 7},
    }
    summary = json.loads((out / "summary.json").read_text())
    assert [line.split(":")[0] for line in summary["skipped"]["six"]] == ["single-view"]
    assert [line.split(":")[0] for line in summary["skipped"]["one"]] == ["leave-one-camera-out"]
    pairs = {(d["one"]["protocol"], d["other"]["protocol"]) for d in summary["differences"]}
    assert ("leave-one-camera-out", "single-view") in pairs
    assert (out / "pictures" / "novel_sample_000010.png").is_file()


def test_every_column_is_filled_where_truth_has_a_surface(config, truth: Path) -> None:
    out = run(config("protocols=[novel]", f"truth={truth}"))
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert all(rows[0][name] for name in COLUMNS if name not in ("lpips", "depth_mm", "chamfer_mm"))
    score = read_scores(out / "scores.csv")[0]
    assert score.values["angle_deg"] == pytest.approx(40, abs=0.3)
    assert score.values["psnr_outline_db"] > score.values["psnr_white_db"]


def test_an_animal_at_another_size_than_in_training_is_told(
    config, gslrm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = shutil.copytree(gslrm, tmp_path / "weights")
    rig = Rig("monday", {})
    for unit_mm, told in ((UNIT_MM, False), (2 * UNIT_MM, True)):
        caplog.clear()
        TrainingData((TrainedSet(rig, (0,), (), (), (unit_mm, unit_mm)),)).save(weights)
        run(config(DIRECT, f"gslrm={weights}"), dry_run=True)
        assert ("2 of 2 samples show the animal at a size" in caplog.text) == told
        assert ("2 times as large" in caplog.text) == told


def test_a_left_out_camera_is_never_shown(config, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    load = module.load_models

    def spy(*args):
        models = load(*args)
        reconstruct = models.reconstruct

        def looked(batch):
            given.extend(views.view_ids for views in batch)
            return reconstruct(batch)

        object.__setattr__(models, "reconstruct", looked)
        return models

    monkeypatch.setattr(module, "load_models", spy)
    out = run(config("protocols=[leave-one-camera-out]", "limit=1"))
    measured = [score.view_id for score in read_scores(out / "scores.csv")]
    assert sorted(measured) == [0, 1, 2, 3]
    assert [set(ids) | {left} for ids, left in zip(given, measured, strict=True)] == [{0, 1, 2, 3}] * 4
    assert all(left not in ids for ids, left in zip(given, measured, strict=True))


def test_a_killed_evaluation_goes_on_with_the_same_scores(
    config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (run(config(DIRECT, f"output={tmp_path / 'whole'}")) / "scores.csv").read_text()
    measure, calls = module.measure_subject, []

    def dies(*args):
        calls.append(args[2].name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*args)

    monkeypatch.setattr(module, "measure_subject", dies)
    with pytest.raises(KeyboardInterrupt):
        run(config(DIRECT))
    out = run(config(DIRECT))
    assert calls == ["sample_000010", "sample_000020", "sample_000020"]
    assert (out / "scores.csv").read_text() == whole


def test_another_bootstrap_measures_nothing_again(config, monkeypatch: pytest.MonkeyPatch) -> None:
    run(config(DIRECT))
    monkeypatch.setattr(module, "load_models", lambda *_: pytest.fail("measured again"))
    run(config(DIRECT, "bootstrap.confidence=0.6"))


def test_scores_of_other_settings_are_refused_and_only_the_differences_told(config) -> None:
    run(config(DIRECT))
    expected = r"another 'direct' \(filter.min_opacity: then 0.0, now 0.1; seed: then 4, now 5\)\. Choose"
    with pytest.raises(ConfigError, match=expected):
        run(config(DIRECT, "seed=5", "filter.min_opacity=0.1"))


def test_more_pictures_are_made_of_finished_scores(config) -> None:
    run(config(DIRECT, "pictures=0"))
    out = run(config(DIRECT, "pictures=1"))
    assert len(list((out / "pictures").iterdir())) == 2


def test_a_given_size_is_that_of_what_is_measured(config, caplog: pytest.LogCaptureFixture) -> None:
    out = run(config(DIRECT, "image_size=16", "limit=1"))
    with Image.open(next((out / "pictures").glob("reconstruction*"))) as sheet:
        assert sheet.height == 2 * 16
    assert not caplog.records
    other = config(DIRECT, "methods.a.image_size=16", "limit=1", f"output={out.parent / 'other'}")
    with Image.open(next((run(other) / "pictures").glob("reconstruction*"))) as sheet:
        assert sheet.height == 2 * SIZE
    assert "a is shown 16 px and measured at 32 px" in caplog.text


def test_samples_are_measured_in_the_order_of_time(config, balls: Path) -> None:
    balls.write_text("sample_000020\nsample_000010\n")
    out = run(config("protocols=[reconstruction]"))
    assert [score.frame for score in read_scores(out / "scores.csv")] == [10] * 4 + [20] * 4


def test_a_protocol_that_fits_no_method_is_refused(config) -> None:
    with pytest.raises(ConfigError, match=r"none of.*single-view.*fits.*direct is shown several"):
        run(config("protocols=[single-view]"))


def test_truth_of_another_frame_is_refused(config, truth: Path) -> None:
    (truth / "sample_000010").rename(truth / "sample_000011")
    with pytest.raises(DataError, match="no sample called sample_000010"):
        run(config("protocols=[novel]", f"truth={truth}"))


def test_frames_that_were_trained_on_are_refused_or_marked(
    config, gslrm: Path, balls: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    for file in gslrm.iterdir():
        os.link(file, folder / file.name)
    TrainingData.of([read_sample(balls.parent / "sample_000010")], [0, 1]).save(folder)
    with pytest.raises(ConfigError, match=r"trained on 1 of the 2 samples.*sample_000010.*leaks.action=mark"):
        run(config(DIRECT, f"gslrm={folder}"))
    out = run(config(DIRECT, f"gslrm={folder}", "leaks.action=mark"))
    verdicts = {(s.sample, s.view_id): s.leak for s in read_scores(out / "scores.csv")}
    assert verdicts["sample_000010", 3] == "seen frame"
    assert verdicts["sample_000020", 0] == "seen camera"
    assert verdicts["sample_000020", 3] == "clean"


def test_weights_without_a_record_are_marked_unknown(config, capsys: pytest.CaptureFixture) -> None:
    out = run(config(DIRECT, "limit=1"))
    assert {score.leak for score in read_scores(out / "scores.csv")} == {"unknown"}
    assert "! direct: unknown" in capsys.readouterr().out


def test_trusted_weights_are_clean(config, gslrm: Path) -> None:
    out = run(config(DIRECT, f"leaks.trusted=[{gslrm / 'gslrm.safetensors'}]"))
    assert {score.leak for score in read_scores(out / "scores.csv")} == {"clean"}


def test_dry_run_writes_nothing(config, tmp_path: Path) -> None:
    run(config(DIRECT), dry_run=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["gslrm=nowhere"], "nowhere: no such file or folder"),
        (["data=nowhere"], "nowhere: no such file or folder"),
        (["truth=nowhere", "protocols=[novel]"], "nowhere: no such file or folder"),
        (["input_views=[0, 9]"], "input_views names [9]"),
        (["input_views=[0, 1]"], "leave-one-camera-out would show 1 of the views"),
        (["methods.a.mode=e2e"], "methods.a: mode e2e needs mvdiffusion"),
        (["methods.a.image_seize=64"], "methods.a: unknown key 'image_seize'"),
        (["methods.a/b={}"], "'a/b' cannot be a name"),
        (["protocols=[novel]"], "protocol novel needs truth"),
        (["leaks.trusted=[nowhere]"], "leaks.trusted: nowhere is not there"),
        (["leaks.trusted=[.]"], "leaks.trusted: . is a folder; expected a file of weights"),
    ],
)
def test_wrong_settings_end_with_one_clear_message(
    settings: list[str], message: str, gslrm: Path, balls: Path, tmp_path: Path
) -> None:
    usual = {"gslrm": gslrm, "data": balls, "output": tmp_path / "out", "device": "cpu"}
    usual |= dict(setting.split("=") for setting in settings)
    result = CliRunner().invoke(app, ["evaluate", *(f"{key}={value}" for key, value in usual.items())])
    assert result.exit_code == 2
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
