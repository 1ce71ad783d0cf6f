"""Training throughput on 1, 2 and 4 GPUs: both trainers at production size, run by `mfl train-... --gpus N`.

    python scripts/benchmarks/scaling.py [--gpus 1 2 4] [--trainers gslrm mvdiff] [--steps 80] [--json FILE]
    python scripts/benchmarks/scaling.py --tiny

Whole runs on samples made here (six views, see loader.py): random weights, data loading, logging and all.
What is counted are the samples a second that the log gives for stretches of ten steps, the first three left
out; the median of them. The batch of each GPU stays the same. `--tiny` takes processes on the CPU, to see
that it works.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from loader import make_samples

from mouse_facelift.samples.format import write_list
from mouse_facelift.training.logging import read_log

WANTED = {1: 1.0, 2: 1.9, 4: 3.7}
"""Times the throughput of one GPU."""
STRETCH, LEFT_OUT = 10, 3
TRAINING = (
    f"training.log_every={STRETCH}",
    "training.validate_every=1000000",
    "training.checkpoint_every=1000000",
    "training.sample_cache=disk",
)
PRODUCTION = {
    "gslrm": (
        "data.image_size=512",
        # Gaussians about two pixels wide, as trained ones are.
        "model={tokens: foreground, depth_anchor: hull, scale_bias: -5.5}",
        "views={input_views: 6, target_views: 6, targets: any}",
        "validation.samples=1",
        "training.batch_size=4",
        "training.precision=bf16",
    ),
    "mvdiff": (
        "data.image_size=512",
        "diffusion.conditioning=pose",
        "start={kind: random, vae_steps: 1, sizes: {unet_channels: [320, 640, 1280, 1280], unet_layers: 2, "
        "head_channels: 64, vae_channels: [128, 256, 512, 512], prompt_width: 1024, clip_size: 224, "
        "clip_width: 1280, clip_layers: 32, embed_width: 1024}}",
        "validation={samples: 1, sampling: {steps: 1}}",
        "cache.latents=true",
        "training.sample_cache=none",
        "training.batch_size=4",
        "training.ema_decay=0.9999",
        "training.precision=bf16",
    ),
}
TINY = {
    "gslrm": (
        "data.image_size=32",
        "model={width: 32, head_width: 32, layers: 1, scale_bias: -3.5}",
        "views={input_views: 3, target_views: 1}",
        "validation.samples=1",
        "training.batch_size=1",
    ),
    "mvdiff": (
        "data.image_size=32",
        "start={kind: random, vae_steps: 1, sizes: {unet_channels: [16, 16], head_channels: 8, "
        "vae_channels: [8, 16, 16], prompt_width: 8, clip_width: 16, clip_layers: 1}}",
        "validation={samples: 1, sampling: {steps: 1}}",
        "training.batch_size=1",
    ),
}


def main() -> None:
    """Run every case and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, nargs="+", help="those of 1, 2, 4 that there are, if left out")
    parser.add_argument("--trainers", nargs="+", choices=list(PRODUCTION), default=list(PRODUCTION))
    parser.add_argument("--steps", type=int, default=80, help="of every run")
    parser.add_argument("--workers", type=int, default=4, help="data loading processes of each GPU")
    parser.add_argument("--tiny", action="store_true", help="on the CPU, tiny, to see that it works")
    parser.add_argument("--json", type=Path, help="write all figures here too")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of all trainings, on top")
    options = parser.parse_args()
    there = 2 if options.tiny else torch.cuda.device_count()
    if not there:
        parser.error("this benchmark needs CUDA devices, or --tiny")
    name = "CPU" if options.tiny else torch.cuda.get_device_name()
    gpus = options.gpus or [count for count in WANTED if count <= there]
    print(f"{there} x {name}, torch {torch.__version__}\n")
    print("| trainer | GPUs | samples a step | samples/s | times one GPU | wanted |")
    print("|---|---|---|---|---|---|", flush=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        samples = make_samples(Path(folder), 4 if options.tiny else 64, 32 if options.tiny else 512, 0.1)
        write_list(Path(folder, "list.txt"), [sample.folder for sample in samples.samples])
        for trainer in options.trainers:
            for count in gpus:
                row = measure(trainer, count, Path(folder), options)
                first = next((r for r in rows if r["trainer"] == trainer), row)
                row["times"] = row["rate"] / first["rate"] * first["gpus"]
                rows.append(row)
                wanted = f"{WANTED[count]:.1f}" if count in WANTED else ""
                print(
                    f"| {trainer} | {count} | {row['samples']} | {row['rate']:.2f} | {row['times']:.2f} "
                    f"| {wanted} |",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps({"device": name, "rows": rows}, indent=1))


def measure(trainer: str, gpus: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and read the throughput from the log."""
    output, size = folder / f"{trainer}_{gpus}", TINY if options.tiny else PRODUCTION
    lists = ["data.train_list", *(["data.val_list"] if trainer == "mvdiff" else [])]
    settings = [
        *(f"{key}={folder / 'list.txt'}" for key in lists),
        # All runs have the same weights, so what one has encoded serves the others.
        *([f"cache.folder={folder / 'latents'}"] if trainer == "mvdiff" else []),
        *(f"output={output}", f"training.steps={options.steps}", f"training.workers={options.workers}"),
        *(*TRAINING, *size[trainer], *options.settings),
    ]
    command = [sys.executable, "-m", "mouse_facelift", f"train-{trainer}", "--gpus", str(gpus), *settings]
    environment = os.environ | ({"ACCELERATE_USE_CPU": "true"} if options.tiny else {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    lines = [line for line in read_log(output) if "samples_per_s" in line]
    rates = [line["samples_per_s"] for line in lines if line["step"] > LEFT_OUT * STRETCH]
    batch = json.loads((output / "run.json").read_text())["config"]["training"]["batch_size"]
    memory = max(line.get("gpu_memory_gib", 0.0) for line in lines)
    return {
        "trainer": trainer,
        "gpus": gpus,
        "samples": batch * gpus,
        "rate": statistics.median(rates),
        "spread": [min(rates), max(rates)],
        "gpu_memory_gib": memory,
    }


if __name__ == "__main__":
    main()
