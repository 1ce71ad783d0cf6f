"""The configuration of GS-LRM and of its training."""

from pathlib import Path

import pytest

from mouse_facelift.config import describe, load_config
from mouse_facelift.errors import ConfigError
from mouse_facelift.gslrm import GSLRMConfig, TrainGSLRMConfig

EXAMPLE = Path(__file__).resolve().parents[2] / "configs" / "train_gslrm.yaml"
REQUIRED = ["data.train_list=list.txt", "output=out"]


def test_example_file_trains_the_published_model() -> None:
    config = load_config(TrainGSLRMConfig, EXAMPLE)
    assert config.model == GSLRMConfig()
    assert config.start.weights is not None


def test_every_key_is_described() -> None:
    assert all(field.description.endswith(".") for field in describe(TrainGSLRMConfig))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.head_width=60", "width 1024 is not a multiple of head_width 60"),
        ("data.image_size=100", "image_size 100 is not a multiple of model.patch_size 8"),
        ("loss={l2: 0, ssim: 0, alpha: 0}", "at least one must be positive"),
        ("views.input_view=3", "did you mean 'views.input_views'"),
    ],
)
def test_values_that_cannot_work_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(TrainGSLRMConfig, None, [*REQUIRED, override])


@pytest.mark.parametrize("term", ["points=0.1", "warmup_points_steps=10"])
@pytest.mark.parametrize("model", ["tokens=foreground", "depth_anchor=hull"])
def test_depths_are_spread_about_the_origin_only_where_all_are_measured_from_it(
    term: str, model: str
) -> None:
    with pytest.raises(ConfigError, match=r"loss\.points spreads the depths"):
        load_config(TrainGSLRMConfig, None, [*REQUIRED, f"loss.{term}", f"model.{model}"])
