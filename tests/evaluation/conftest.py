"""A tiny random GS-LRM and samples of a ball with their truth, so that whole evaluations run in a second."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from one_ball import FURTHER, RIG, SIZE, UNIT_MM, ball_points, write_ball
from tiny_sizes import SIZES

from mouse_facelift.config import load_config
from mouse_facelift.evaluation.config import EvaluateConfig
from mouse_facelift.gslrm import GSLRM, GSLRMConfig, save_gslrm
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.samples.format import read_sample, write_list


@pytest.fixture(scope="session")
def gslrm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gslrm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_gslrm(GSLRM(GSLRMConfig(width=32, head_width=16, layers=1)), folder)
    return folder


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random MVDiffusion for the samples' rig, camera 2 its reference."""
    folder = tmp_path_factory.mktemp("rig")
    sample = read_sample(write_ball(folder / "sample", RIG, 0))
    random_pipeline(SIZES, Slots.rig([sample], SIZE, reference=2), seed=1).save(folder / "pipeline")
    return folder / "pipeline"


@pytest.fixture
def balls(tmp_path: Path) -> Path:
    """A list of two samples, frames 10 and 20."""
    folders = [write_ball(tmp_path / "data" / f"sample_{n:06d}", RIG, n) for n in (10, 20)]
    write_list(tmp_path / "data" / "data.txt", folders)
    return tmp_path / "data" / "data.txt"


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Further cameras of the same frames, with the surface of the ball."""
    for n in (10, 20):
        folder = write_ball(tmp_path / "truth" / f"sample_{n:06d}", FURTHER, n)
        np.savez(folder / "surface.npz", points_mm=UNIT_MM * ball_points(4000).astype(np.float32))
    return tmp_path / "truth"


@pytest.fixture
def config(gslrm: Path, balls: Path, tmp_path: Path) -> Callable[..., EvaluateConfig]:
    """Makes a small configuration; settings are as on the command line."""

    def make(*settings: str) -> EvaluateConfig:
        defaults = (
            f"gslrm={gslrm}",
            f"data={balls}",
            f"output={tmp_path / 'out'}",
            "filter.min_opacity=0",
            "bootstrap.resamples=100",
            "pictures=1",
            "device=cpu",
        )
        return load_config(EvaluateConfig, None, [*defaults, *settings])

    return make
