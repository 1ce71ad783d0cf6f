"""Samples and settings with which either trainer makes a step in a few hundredths of a second."""

from pathlib import Path

import numpy as np

from mouse_facelift.geometry import Camera
from mouse_facelift.samples.format import write_list, write_sample

SIZE, VIEWS = 32, 4

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
