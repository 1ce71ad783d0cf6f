"""The demo's trained weights, and stand-ins: random, as small as it gets, written as the real ones are."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tiny_sizes import SIZES

from mouse_facelift.demo.shipped import DemoWeights, find_demo_weights
from mouse_facelift.gslrm import GSLRM, GSLRMConfig
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.slots import Slots

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "train_demo.py"
TINY = GSLRMConfig(
    patch_size=4,
    width=32,
    head_width=16,
    layers=1,
    scale_bias=-3.0,
    scale_max=-2.0,
    depth_anchor="hull",
    depth_range=1.2,
    tokens="foreground",
    gradient_checkpointing=False,
)


@pytest.fixture(scope="session")
def train_demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_demo", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def demo_weights(train_demo: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GSLRM(TINY)
    model.image_size = 64
    pipeline = random_pipeline(SIZES, replace(Slots.facelift(32), mode="pose"), seed=0)
    train_demo.write_weights(folder, model, pipeline, train_demo.QUICK_HERD)
    return folder


@pytest.fixture(scope="session")
def shipped() -> DemoWeights:
    """The weights that come with the repository."""
    if not (ROOT / "checkpoints" / "demo").exists():
        pytest.skip("checkpoints/demo is not in this checkout")
    return find_demo_weights()
