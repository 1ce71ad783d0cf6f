"""The script that makes the demo's weights, as small as it gets: what comes out can be loaded."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from script_modules import import_script

from mouse_facelift.errors import DataError
from mouse_facelift.gslrm import load_gslrm
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.samples.training_data import TrainingData

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo_weights")
    command = [sys.executable, str(ROOT / "scripts" / "train_demo.py"), "--quick"]
    command += ["--output", str(folder), "--destination", str(folder / "made")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "made"


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


@pytest.mark.parametrize("model", ["gslrm", "mvdiffusion"])
def test_weights_say_what_they_were_trained_on(made: Path, model: str) -> None:
    record = TrainingData.load(made / model)
    assert record is not None and not record.unrecorded
    assert [data.rig.recording for data in record.sets] == ["herd 20, mouse 0000", "herd 20, mouse 0001"]
    assert all(data.view_ids == tuple(range(8)) for data in record.sets)
    assert all([sample.frame for sample in data.samples] == [0, 1] for data in record.sets)


def test_export_refuses_a_run_of_other_data(tmp_path: Path) -> None:
    script = import_script(".", "train_demo")
    runs = tmp_path / "runs"
    (runs / "gslrm").mkdir(parents=True)
    TrainingData(()).save(runs / "gslrm")
    plan = script.Plan(runs, tmp_path / "made", True, {})
    with pytest.raises(DataError, match="was trained on 0 samples, the herd has 4 for training"):
        script.export(plan)
    assert not (tmp_path / "made").exists()
