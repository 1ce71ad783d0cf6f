"""Do foreground tokens learn as well as dense ones? Same model, data, seed and number of samples for both.

Trains a mid-size GS-LRM twice on the demo's synthetic recording, from random weights, and prints masked PSNR
and IoU on validation samples (moments that training left out), at input views and at held-out cameras, and
the time it took. For a GPU:

    python scripts/benchmarks/tokens.py [--output outputs/tokens] [--steps 1500] [--seeds 1]
    python scripts/benchmarks/tokens.py --tiny
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from mouse_facelift.config import load_config
from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.demo.recording import write_recording
from mouse_facelift.gslrm.config import TrainGSLRMConfig
from mouse_facelift.gslrm.train import run as train
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.run import run as preprocess

SETTINGS = (
    "model={width: 384, layers: 8, depth_anchor: hull, scale_bias: -4.3}",
    "views.input_views=4",
    "views.target_views=6",
    "views.targets=any",
    "optimizer.lr=4e-4",
    "optimizer.warmup_steps=100",
    "training.batch_size=4",
    "training.precision=bf16",
    "training.sample_cache=memory",
    "validation.samples=8",
)
TINY = (
    "model={width: 32, head_width: 16, layers: 1, depth_anchor: hull, scale_bias: -3.5}",
    "training.batch_size=1",
    "training.precision=fp32",
    "training.workers=0",
    "validation.samples=1",
)


def main() -> None:
    """Make the data, train twice per seed, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/tokens"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tiny", action="store_true", help="a small network and pictures: does it run?")
    options = parser.parse_args()
    size = 32 if options.tiny else 256
    samples = make_samples(options.output, size, options.tiny)
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{place}, {options.steps} steps")
    print("| tokens | seed | dB, inputs | IoU, inputs | dB, held out | IoU, held out | seconds |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for seed in range(options.seeds):
        for tokens in ("dense", "foreground"):
            output = options.output / f"{tokens}_{seed}"
            started = time.perf_counter()
            chosen = [
                f"data.train_list={samples / 'data_train.txt'}",
                f"data.val_list={samples / 'data_val.txt'}",
                f"output={output}",
                f"training.steps={options.steps}",
                f"training.validate_every={options.steps}",
                f"training.seed={seed}",
                f"model.tokens={tokens}",
                f"data.image_size={size}",
            ]
            sizes = [*SETTINGS, *(TINY if options.tiny else ())]
            train(load_config(TrainGSLRMConfig, None, [*sizes, *chosen]))
            seconds = time.perf_counter() - started
            found = last_validation(output)
            figures = [found[f"{name}_{kind}"] for kind in ("input", "held_out") for name in ("psnr", "iou")]
            print(
                f"| {tokens} | {seed} | {figures[0]:.2f} | {figures[1]:.3f} | {figures[2]:.2f} "
                f"| {figures[3]:.3f} | {seconds:.0f} |",
                flush=True,
            )


def make_samples(output: Path, size: int, tiny: bool) -> Path:
    """A recording of the demo mouse, prepared as GS-LRM samples."""
    recording, samples = output / "recording", output / "samples"
    if not recording.is_dir():
        full = {"frames": 24, "width": 144, "height": 128} if tiny else {"frames": 120, "threads": 8}
        write_recording(recording, RecordingConfig(**full))
    settings = [
        f"input.recording={recording}",
        f"output={samples}",
        f"size={size}",
        "selection={mode: interval, step: 1}",
        "split={val_share: 0.2, blocks: 2, guard_s: 0.15}",
    ]
    return preprocess(load_config(PreprocessConfig, None, settings))


def last_validation(run: Path) -> dict[str, Any]:
    """Figures of the last validation in a run's log."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {}
    for line in lines:
        found |= {key.split("/")[-1]: value for key, value in line.items() if "psnr" in key or "iou" in key}
    return found


if __name__ == "__main__":
    main()
