"""The script that makes the demo's weights, as small as it gets: what comes out can be loaded."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mouse_facelift.gslrm import load_gslrm
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline

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
