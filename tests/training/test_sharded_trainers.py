"""Both trainers by two processes on the CPU: sharded they learn what they learn with whole copies."""

from pathlib import Path

import numpy as np
import pytest
import torch
from forks import run_in_two
from two_processes import losses, tensors_of

from mouse_facelift.geometry import Camera
from mouse_facelift.samples.format import write_list, write_sample

SIZE, VIEWS = 32, 4

TRAIN = """
import functools
import sys
from pathlib import Path

from mouse_facelift.config import load_config
from mouse_facelift.{room}.config import {config}
from mouse_facelift.{room}.train import run
from mouse_facelift.training import loop

loop.shard = functools.partial(loop.shard, unit=(1, 20_000))
folder = Path(sys.argv[1])
for fsdp in ("false", "true"):
    for steps in (2, 4) if fsdp == "true" else (4,):
        lists = [f"data.train_list={{folder / 'list.txt'}}", f"output={{folder / fsdp}}"]
        more = [*lists, f"training.fsdp={{fsdp}}", f"training.steps={{steps}}"]
        run(load_config({config}, folder / "{room}.yaml", more))
"""

GSLRM = """
data: {image_size: 32}
model: {width: 64, head_width: 32, layers: 2, scale_bias: -3.5, tokens: foreground}
views: {input_views: 3, target_views: 2}
validation: {samples: 1, input_views: 3}
optimizer: {lr: 2.0e-3, warmup_steps: 0, schedule: constant}
training: {batch_size: 1, workers: 0, log_every: 1, ema_decay: 0.9}
"""

MVDIFFUSION = """
data: {val_list: LIST, image_size: 32}
start:
  kind: random
  vae_steps: 2
  sizes: {unet_channels: [16, 16], head_channels: 8, vae_channels: [8, 16, 16], clip_width: 16}
diffusion: {learned_prompts: true}
validation: {samples: 1, sampling: {steps: 2}}
optimizer: {lr: 1.0e-3, warmup_steps: 0}
training: {batch_size: 1, workers: 0, log_every: 1, ema_decay: 0.9, precision: fp32}
"""


def write_samples(folder: Path) -> Path:
    """Noise in a box, of another size in each sample."""
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, VIEWS, endpoint=False)
    rig = [
        Camera.look_at((2.7 * np.cos(a), 2.7 * np.sin(a), 0), (0, 0, 0), 1.07 * SIZE, SIZE) for a in angles
    ]
    folders = []
    for number in range(4):
        pictures = np.full((VIEWS, SIZE, SIZE, 4), (255, 255, 255, 0), np.uint8)
        part = pictures[:, 8:20, 8 : 14 + 3 * number]
        part[:] = rng.integers(0, 255, part.shape)
        part[..., 3] = 255
        folders.append(write_sample(folder / f"s{number}", list(pictures), rig, range(VIEWS)).folder)
    write_list(folder / "list.txt", folders)
    return folder / "list.txt"


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
