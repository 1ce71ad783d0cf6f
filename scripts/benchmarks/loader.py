"""How many samples a second the data loading of training delivers, beside what the fastest step needs.

    python scripts/benchmarks/loader.py [--samples 48] [--seconds 4] [--workers 0 2 4] [--tiny] [--json FILE]

Samples of six views of 512 x 512 pixels are made by this script: a textured ellipse on white. The loader is
the one of the training loop, with its order, batches of two and, on a CUDA machine, pinned memory, the
transfer and the conversion to floats there.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from mouse_facelift.geometry import Camera
from mouse_facelift.samples.datasets import EightBitSamples, MemorySource, SampleDataset, as_floats
from mouse_facelift.samples.format import write_sample
from mouse_facelift.training.config import TrainingConfig
from mouse_facelift.training.data import cache_pictures
from mouse_facelift.training.loading import load_batches
from mouse_facelift.training.sampler import StepSampler

FASTEST_STEP_MS = 24.5
"""A sample in a GS-LRM step with foreground tokens on an H200, 5 % coverage, batch 4: docs/benchmarks.md."""
WANTED = 3
"""A loader so many times as fast never keeps a GPU waiting."""
BATCH, VIEWS = 2, 6


def main() -> None:
    """Make samples, load them in every way, print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=48, help="made, and loaded again and again")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--coverage", type=float, default=0.1, help="share of the pictures that is animal")
    parser.add_argument("--tiny", action="store_true", help="small pictures and short, to see that it runs")
    parser.add_argument("--json", type=Path, help="write all figures here too")
    options = parser.parse_args()
    if options.tiny:
        options.samples, options.seconds, options.workers = 4, 0.2, [0, 1]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "no GPU"
    needed = 1e3 / FASTEST_STEP_MS
    print(f"{len(os.sched_getaffinity(0))} cores, {name}, torch {torch.__version__}")
    print(f"fastest training step: {needed:.0f} samples/s; wanted: {WANTED * needed:.0f} samples/s\n")
    print("| pictures from | workers | samples/s | of the fastest step | first batch s | MB a sample |")
    print("|---|---|---|---|---|---|", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        samples = make_samples(Path(folder), options.samples, 64 if options.tiny else 512, options.coverage)
        for source in ("PNG files", "memory", "disk cache"):
            disk = use(source, samples, Path(folder))
            for workers in options.workers:
                row = {
                    "source": source,
                    "workers": workers,
                    **measure(samples, source, workers, options, device),
                }
                rows.append(row | {"mb": disk})
                print(
                    f"| {source} | {workers} | {row['rate']:.0f} | {row['rate'] / needed:.1f} x "
                    f"| {row['first_s']:.2f} | {disk:.2f} |",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps({"device": name, "needed": needed, "rows": rows}, indent=1))


def make_samples(folder: Path, count: int, size: int, coverage: float) -> SampleDataset:
    """Write samples: an ellipse with fine and coarse texture, elsewhere white with alpha 0."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size - 0.5
    longer = np.sqrt(2 * coverage / np.pi)
    alpha = 255 * ((x / longer) ** 2 + (2 * y / longer) ** 2 < 1).astype(np.uint8)
    rig = [
        Camera.look_at((2.7 * np.cos(a), 2.7 * np.sin(a), 0.4), (0, 0, 0), 1.07 * size, size)
        for a in np.linspace(0, 2 * np.pi, VIEWS, endpoint=False)
    ]
    folders = []
    for number in range(count):
        pictures = []
        for _ in rig:
            coarse = cv2.resize(rng.integers(40, 200, (9, 9, 3), np.uint8), (size, size))
            fine = rng.normal(0, 3, (size, size, 3))
            rgb = np.where(alpha[..., None] > 0, (coarse + fine).clip(0, 255), 255)
            pictures.append(np.dstack([rgb, alpha]).astype(np.uint8))
        folders.append(write_sample(folder / f"sample_{number:06d}", pictures, rig, range(VIEWS)).folder)
    return SampleDataset(folders, size)


def use(source: str, samples: SampleDataset, folder: Path) -> float:
    """Let the pictures come from there; megabytes that a sample takes on disk."""
    places = [view.file for sample in samples.samples for view in sample.views]
    samples.source = MemorySource(samples) if source == "memory" else None
    if source == "disk cache":
        cache_pictures(samples, folder / "cache")
        places = list((folder / "cache").glob("*.safetensors"))
    return sum(place.stat().st_size for place in places) / len(samples) / 1e6


def measure(
    samples: SampleDataset, source: str, workers: int, options: argparse.Namespace, device: torch.device
) -> dict[str, float]:
    """Samples a second once running, and seconds to the first batch."""
    sampler = StepSampler(len(samples), BATCH, passes=10**9)
    begin, pinned = time.perf_counter(), device.type == "cuda"
    batches = load_batches(EightBitSamples(samples), sampler, TrainingConfig(workers=workers), pinned)
    deliver(batches, 1, device)
    first = time.perf_counter() - begin
    # Until every process has seen nearly every sample.
    seen = 4 * len(samples) * max(1, workers) // BATCH if source == "memory" else 2 + 2 * workers
    deliver(batches, seen, device)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < options.seconds:
        count += deliver(batches, 4, device)
    return {"rate": count / (time.perf_counter() - begin), "first_s": first}


def deliver(batches: Iterator[dict[str, Any]], count: int, device: torch.device) -> int:
    """Take batches to the device as training does; how many samples they were."""
    done = 0
    for batch in islice(batches, count):
        moved = {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
        if device.type == "cuda":
            as_floats(moved)
        done += len(batch["id"])
    if device.type == "cuda":
        torch.cuda.synchronize()
    return done


if __name__ == "__main__":
    main()
