"""Both trainers by two processes on the CPU: sharded they learn what they learn with whole copies."""

from pathlib import Path

import pytest
import torch
from forks import run_in_two
from tiny_trainers import GSLRM, MVDIFFUSION, write_samples
from two_processes import losses, tensors_of

TRAIN = """
import sys
from pathlib import Path

from mouse_facelift.config import load_config
from mouse_facelift.{room}.config import {config}
from mouse_facelift.{room}.train import run
from mouse_facelift.training import sharding

sharding.UNIT = (1, 20_000)
folder = Path(sys.argv[1])
for fsdp in ("false", "true"):
    for steps in (2, 4) if fsdp == "true" else (4,):
        lists = [f"data.train_list={{folder / 'list.txt'}}", f"output={{folder / fsdp}}"]
        more = [*lists, f"training.fsdp={{fsdp}}", f"training.steps={{steps}}"]
        run(load_config({config}, folder / "{room}.yaml", more))
"""


@pytest.mark.parametrize(
    ("room", "config"), [("gslrm", "TrainGSLRMConfig"), ("mvdiffusion", "TrainMVDiffConfig")]
)
def test_sharded_training_is_the_same_and_resumes(room: str, config: str, tmp_path: Path) -> None:
    path = write_samples(tmp_path)
    settings = GSLRM
    if room == "mvdiffusion":
        settings = MVDIFFUSION.replace("LIST", str(path))
    (tmp_path / f"{room}.yaml").write_text(settings)
    run_in_two(TRAIN.format(room=room, config=config), tmp_path)
    plain, sharded = tmp_path / "false", tmp_path / "true"
    assert len(losses(plain)) == 4
    assert losses(sharded) == pytest.approx(losses(plain), rel=1e-4)
    expected, found = tensors_of(plain), tensors_of(sharded)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        # AdamW divides by what is nearly 0 at first: rounding can become a good part of the learning rate.
        far = (found[name].float() - value.float()).abs()
        assert far.mean() < 2e-4 and far.max() < 4 * 4 * 2e-3, name
        assert torch.isfinite(found[name].float()).all()
