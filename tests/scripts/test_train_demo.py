"""The script that makes the demo's weights, as small as it gets: what comes out can be loaded."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from script_modules import import_script

from mouse_facelift.errors import ConfigError, DataError
from mouse_facelift.gslrm import load_gslrm
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.samples.format import write_list
from mouse_facelift.samples.training_data import TrainingData

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return import_script(".", "train_demo")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo_weights")
    command = [sys.executable, str(ROOT / "scripts" / "train_demo.py"), "--quick", "--output", str(folder)]
    command += ["--destination", str(folder / "made"), "--gslrm", "optimizer.lr=5.0e-4"]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def made(runs: Path) -> Path:
    return runs / "made"


def test_weights_are_whole_in_half_precision_and_have_a_card(made: Path) -> None:
    model = load_gslrm(made / "gslrm")
    assert model.config.depth_anchor == "hull" and model.config.tokens == "foreground"
    pipeline = MVDiffusionPipeline.load(made / "mvdiffusion", torch.device("cpu"))
    assert pipeline.slots.mode == "pose"
    largest = sum(file.stat().st_size for file in made.rglob("*.safetensors"))
    parameters = sum(
        p.numel() for part in (model, pipeline.unet, pipeline.frozen.vae) for p in part.parameters()
    )
    assert 2 * parameters < largest < 3 * parameters
    card = (made / "README.md").read_text()
    assert "psnr_held_out" in card and "2 mice" in card


def test_card_tells_the_command_with_the_settings_that_were_used(made: Path) -> None:
    card, figures = (made / "README.md").read_text(), json.loads((made / "training.json").read_text())
    assert "python scripts/train_demo.py --mice 3 --gslrm 'model.width=32'" in card
    assert "'optimizer.lr=0.0005'" in card and "'training.steps=2'" in card
    assert "data.train_list=" not in card
    for model in ("gslrm", "mvdiff"):
        assert figures[model]["step"] == 2 and figures[model]["metrics"]
        assert figures[model]["versions"]["torch"] == torch.__version__


def test_nothing_tells_of_the_machine_that_it_was_made_on(made: Path) -> None:
    texts = [file.read_text() for file in made.rglob("*") if file.suffix in (".json", ".md")]
    assert len(texts) > 8
    assert not [text for text in texts if str(made.parent) in text or str(ROOT) in text]


def test_second_export_takes_the_place_of_the_first(runs: Path, script: ModuleType, tmp_path: Path) -> None:
    plan = script.Plan(runs, tmp_path / "made", True, {})
    script.export(plan)
    (plan.destination / "gslrm" / "old.txt").touch()
    script.export(plan)
    assert not (plan.destination / "gslrm" / "old.txt").exists()
    assert (plan.destination / "README.md").read_text() == (runs / "made" / "README.md").read_text()


def test_export_replaces_no_folder_of_something_else(
    runs: Path, script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds something else than an export"):
        script.export(script.Plan(runs, tmp_path, True, {}))
    monkeypatch.setattr(sys, "argv", ["train_demo.py", "--quick", "--destination", str(tmp_path)])
    monkeypatch.setattr(script, "draw_herd", pytest.fail)
    with pytest.raises(ConfigError, match="holds something else than an export"):
        script.main()
    assert (tmp_path / "thesis.tex").exists()


def test_unfinished_training_is_told_on_the_card(
    runs: Path, script: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = script.find_checkpoint(runs / "gslrm")
    cut = replace(checkpoint, step=1, manifest={**checkpoint.manifest, "metrics": None})
    plan = script.Plan(runs, runs / "x", True, {})
    figures = script._figures(plan, "gslrm", cut)
    assert "step 1 of 2" in caplog.text and "not validated" in caplog.text
    assert "| gslrm | 1 of 2 |" in script.card(plan.herd, {"gslrm": figures})


def test_mice_of_another_herd_are_not_mixed_in(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "write_herd", lambda *_: None)
    script.draw_herd(script.Plan(tmp_path, tmp_path / "made", True, {}))
    script.draw_herd(script.Plan(tmp_path, tmp_path / "made", True, {}))
    with pytest.raises(ConfigError, match="holds the herd"):
        script.draw_herd(script.Plan(tmp_path, tmp_path / "made", False, {}))


def test_fewer_mice_can_be_drawn_but_not_none_to_learn_from(script: ModuleType, tmp_path: Path) -> None:
    assert len(script.Plan(tmp_path, tmp_path, False, {}, mice=20).herd.trained) == 12
    with pytest.raises(ConfigError, match="a herd of 8 mice, 8 of them held out"):
        script.draw_herd(script.Plan(tmp_path, tmp_path, False, {}, mice=8))


def test_minutes_become_steps_once_and_a_resumed_training_keeps_them(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [tmp_path / "herd" / f"sample_{number}" for number in range(600)]
    for sample in samples:
        sample.mkdir(parents=True)
    write_list(tmp_path / "herd" / "data_train.txt", samples)
    trained: list[tuple[Path, int]] = []

    def trainer(config: object) -> Path:
        output, steps = config.output, config.training.steps  # type: ignore[attr-defined]
        trained.append((output, steps))
        output.mkdir(exist_ok=True)
        # The first steps are slow, then each takes a quarter of a second.
        lines = [{"step": step, "loss": 1.0, "time": 100 + step / 4} for step in range(30, steps + 1, 10)]
        start = [{"step": 1, "loss": 1.0, "time": 0.0}]
        (output / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in start + lines))
        return output

    file, kind, _ = script.TRAININGS["gslrm"]
    monkeypatch.setitem(script.TRAININGS, "gslrm", (file, kind, trainer))
    plan = script.Plan(tmp_path, tmp_path / "made", False, {"gslrm": []}, minutes=3)
    # What an interrupted probe has left.
    (tmp_path / "gslrm_probe").mkdir()
    script.train(plan, "gslrm")
    script.train(plan, "gslrm")
    assert trained == [
        (tmp_path / "gslrm_probe", 60),
        (tmp_path / "gslrm", 720),
        (tmp_path / "gslrm", 720),
    ]
    assert not (tmp_path / "gslrm_probe").exists()
    with pytest.raises(ConfigError, match="begun for 3 minutes, not 5"):
        script.train(replace(plan, minutes=5), "gslrm")


@pytest.mark.parametrize("model", ["gslrm", "mvdiffusion"])
def test_weights_say_what_they_were_trained_on(made: Path, model: str) -> None:
    record = TrainingData.load(made / model)
    assert record is not None and not record.unrecorded
    assert [data.rig.recording for data in record.sets] == ["herd 20, mouse 0000", "herd 20, mouse 0001"]
    assert all(data.view_ids == tuple(range(8)) for data in record.sets)
    assert all([sample.frame for sample in data.samples] == [0, 1] for data in record.sets)


def test_export_refuses_a_run_of_other_data(script: ModuleType, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (runs / "gslrm").mkdir(parents=True)
    TrainingData(()).save(runs / "gslrm")
    plan = script.Plan(runs, tmp_path / "made", True, {})
    with pytest.raises(DataError, match="was trained on 0 samples, 0 of them among the 4 of the herd"):
        script.export(plan)
    assert not (tmp_path / "made").exists()
