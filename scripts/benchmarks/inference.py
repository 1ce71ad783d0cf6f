"""Inference at production size: direct, refinement, e2e, and a sequence from PNG files to finished results.

    python scripts/benchmarks/inference.py [--parts direct refine e2e sequence] [--frames N] [--json FILE]

Weights are random, with `scale_bias` lowered so that Gaussians are about two pixels wide, as trained ones
are; 6 views of 512x512. The silhouette is a disc so large that, with the ring around it, it needs a tenth of
the patches. `direct` begins with a sample in main memory and ends with filtered Gaussians on the device;
`e2e` begins with one picture there. `sequence` is per frame: its stages, one after the other, the slowest is
named; and then all of them as `mfl infer` runs them, reading and writing while the device computes.
"""

import argparse
import gc
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import Bench
from mvdiffusion_networks import VIEWS, random_views_pipeline

from mouse_facelift.files import atomic_folder
from mouse_facelift.geometry import Camera, Similarity
from mouse_facelift.gslrm.config import GSLRMConfig
from mouse_facelift.gslrm.graphs import GraphedBlocks
from mouse_facelift.gslrm.model import GSLRM
from mouse_facelift.inference.config import InferConfig, RefineConfig, SequenceConfig, TurntableConfig
from mouse_facelift.inference.direct import INFERENCE_DTYPE, Direct, reconstruct
from mouse_facelift.inference.drawing import draw_results
from mouse_facelift.inference.filter_cost import filter_cost_db
from mouse_facelift.inference.generation import BACKGROUND
from mouse_facelift.inference.inputs import Source, Views, find_sources
from mouse_facelift.inference.models import Models
from mouse_facelift.inference.opening import FileInput
from mouse_facelift.inference.output import OutputFolder
from mouse_facelift.inference.refine import refine
from mouse_facelift.inference.run import put_together, reconstruct_all
from mouse_facelift.inference.sequence import write_sequence
from mouse_facelift.inference.writing import write_results
from mouse_facelift.mvdiffusion.config import SamplingConfig
from mouse_facelift.mvdiffusion.fast import speed_up
from mouse_facelift.mvdiffusion.silhouettes import estimate_silhouettes
from mouse_facelift.provenance import Run
from mouse_facelift.samples.datasets import composite
from mouse_facelift.samples.format import write_sample

COVERAGE = 0.1
SCALE_BIAS = -5.5
MM_PER_UNIT = 60.0
OVERLAPPED = "sequence, as mfl infer runs it (overlapped)"
WANTED_MS = {"direct, dense": 250.0, "direct, foreground": 60.0}
Row = dict[str, Any]


def main() -> None:
    """Run everything and print one table."""
    parts = {"direct": direct, "refine": refinement, "e2e": end_to_end, "sequence": sequence}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="what to measure")
    parser.add_argument("--frames", type=int, default=20, help="length of the sequence")
    parser.add_argument("--tiny", action="store_true", help="small networks, on any device: does it run?")
    parser.add_argument("--json", type=Path, help="write all figures here too")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.tiny:
        parser.error("this benchmark needs a CUDA device; see also --tiny")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = Bench(device, options.tiny)
    print(f"{bench.name}, torch {torch.__version__}\n")
    print("| case | ms a sample | wanted | peak GB | Gaussians |")
    print("|---|---|---|---|---|", flush=True)
    rows = []
    for part in options.parts:
        run = partial(sequence, frames=options.frames) if part == "sequence" else parts[part]
        for row in run(bench):
            rows.append(row)
            wanted = WANTED_MS.get(row["case"])
            print(
                f"| {row['case']} | {row['ms']:.1f} | {f'at most {wanted:.0f}' if wanted else ''} "
                f"| {row.get('gb', 0):.1f} | {row.get('gaussians', '')} |",
                flush=True,
            )
    stage_ms = {row["case"]: row["ms"] for row in rows if row.get("stage")}
    if stage_ms:
        slowest, total = max(stage_ms, key=stage_ms.__getitem__), sum(stage_ms.values())
        print(
            f"\none after the other {1e3 / total:.2f} frames/s; bottleneck: {slowest}, "
            f"{stage_ms[slowest] / total:.0%} of the time"
        )
        together = next(row["ms"] for row in rows if row["case"] == OVERLAPPED)
        print(f"overlapped, as mfl infer runs it, {1e3 / together:.2f} frames/s")
    if options.json:
        options.json.write_text(json.dumps({"device": bench.name, "rows": rows}, indent=1) + "\n")


def direct(bench: Bench) -> Iterator[Row]:
    """From a sample in memory to filtered Gaussians on the device."""
    views = disc(bench)
    for tokens in ("dense", "foreground"):
        with model_of(bench, tokens) as model:
            run = Direct(settings(), model)
            ms, gb = bench.timed(lambda run=run: run(views))
            yield {"case": f"direct, {tokens}", "ms": ms, "gb": gb, "gaussians": len(run(views).gaussians)}


def refinement(bench: Bench) -> Iterator[Row]:
    """Steps of test-time refinement on what `direct, foreground` predicts; no early stop."""
    views, steps = disc(bench), 10 if bench.tiny else 100
    with model_of(bench, "foreground") as model:
        start = Direct(settings(), model)(views).gaussians
    pictures = torch.cat([composite(views.rgba, 1.0), views.rgba[:, 3:]], dim=1)
    config = RefineConfig(steps=steps, tolerance=0, patience=steps)
    ms, gb = bench.timed(lambda: refine(start, pictures, views.K, views.w2c, 1.0, config))
    yield {"case": f"refine, {steps} steps", "ms": ms, "gb": gb, "gaussians": len(start)}


def end_to_end(bench: Bench) -> Iterator[Row]:
    """From one picture in memory to Gaussians: MVDiffusion, silhouettes, GS-LRM."""
    sampling = SamplingConfig(solver="dpmpp", steps=2 if bench.tiny else 20)
    pipeline, views = random_views_pipeline(bench), disc(bench)
    pipeline.denoiser = speed_up(pipeline.denoiser)
    picture = composite(views.rgba[:1], BACKGROUND)
    name = f"e2e, {sampling.steps} steps of {sampling.solver}"

    def make() -> torch.Tensor:
        generators = [torch.Generator().manual_seed(0)]
        return pipeline(picture.to(bench.device), generators=generators, sampling=sampling)[0]

    ms, gb = bench.timed(make)
    yield {"case": f"{name}: views", "ms": ms, "gb": gb}
    # Random networks make noise, in which there is nothing to outline: the disc stands for it.
    made = picture.expand(VIEWS, -1, -1, -1).to(bench.device)
    ms, _ = bench.timed(lambda: estimate_silhouettes(made, BACKGROUND))
    yield {"case": f"{name}: silhouettes", "ms": ms}
    with model_of(bench, "dense") as model:

        def whole() -> int:
            make()
            pictures = torch.cat([made, estimate_silhouettes(made, BACKGROUND)], dim=1)
            return len(reconstruct(model, pictures, views.K, views.w2c))

        ms, gb = bench.timed(whole)
        yield {"case": f"{name}: all, dense", "ms": ms, "gb": gb, "gaussians": whole()}


def sequence(bench: Bench, frames: int) -> Iterator[Row]:
    """From PNG files to finished results and the sequence, foreground tokens; milliseconds a frame."""
    frames = 3 if bench.tiny else frames
    with tempfile.TemporaryDirectory() as name, model_of(bench, "foreground") as model:
        folder = Path(name)
        write_disc_samples(bench, folder / "samples", frames)
        config = settings(folder / "samples", folder / "results", bench)
        run = Direct(config, model)
        run(disc(bench))
        sources = find_sources(folder / "samples")
        for stage, total in stages(config, sources, run, bench.device).items():
            yield {"case": f"sequence, {stage}", "ms": 1e3 * total / frames, "stage": True}
        config = config.model_copy(update={"output": folder / "overlapped"})
        seconds = overlapped_seconds(config, sources, run, bench.device)
        yield {"case": OVERLAPPED, "ms": 1e3 * seconds / frames}


def stages(
    config: InferConfig, sources: Sequence[Source], run: Direct, device: torch.device
) -> dict[str, float]:
    """Seconds by stage, one after the other."""
    clock = Clock(device)
    for source in sources:
        with clock("decoding"):
            views = source.read(None, 1.0)
        with clock("reconstruction"):
            result = run(views)
        with clock("cost of the filters"):
            # Of the filtered Gaussians the command has it from the metrics.
            filter_cost_db(views, result, config.background, torch.zeros(VIEWS, device=device))
        with clock("PLY"):
            result.gaussians.save_ply(config.output.parent / "once_more.ply")
        place = config.output / source.name
        with clock("pictures and metrics"), atomic_folder(place) as temporary:
            write_results(temporary, draw_results(views, result, config), config, source.name)
    by_name = {source.name: source for source in sources}
    with clock("videos, compact file, flicker"):
        write_sequence(
            config,
            [config.output / source.name for source in sources],
            lambda names: (by_name[name].read(None, 1.0) for name in names),
            device,
        )
    seconds = clock.seconds
    seconds["pictures and metrics"] -= seconds["PLY"] + seconds["cost of the filters"]
    return seconds


def overlapped_seconds(
    config: InferConfig, sources: Sequence[Source], run: Direct, device: torch.device
) -> float:
    """Seconds of the very path of the command, without the loading of weights."""
    inputs, models = FileInput(sources), Models(partial(map, run), None, None)
    output, record = OutputFolder(config, {}, sources), Run("infer", config)
    start = time.perf_counter()
    reconstruct_all(config, inputs, sources, models, output, record)
    put_together(config, inputs, sources, output, models, device)
    return time.perf_counter() - start


class Clock:
    """Sums of seconds by stage."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block, with what it leaves to the device."""
        start = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds[stage] += time.perf_counter() - start


@contextmanager
def model_of(bench: Bench, tokens: str) -> Iterator[GSLRM]:
    """GS-LRM as `mfl infer` loads it, gone afterwards."""
    anchor = "hull" if tokens == "foreground" else "origin"
    sizes = {"width": 32, "head_width": 16, "layers": 1} if bench.tiny else {}
    torch.manual_seed(0)
    with bench.device:
        config = GSLRMConfig(scale_bias=SCALE_BIAS, tokens=tokens, depth_anchor=anchor, **sizes)
        model = GSLRM(config).eval()
    if bench.device.type == "cuda":
        model.hold_weights(INFERENCE_DTYPE)
        model.graphs = GraphedBlocks()
    yield model
    del model
    gc.collect()
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()


def settings(
    samples: Path = Path("unused"), output: Path = Path("unused"), bench: Bench | None = None
) -> InferConfig:
    """As by default, without the turntable of every sample, and with a sequence."""
    size = 32 if bench and bench.tiny else 512
    return InferConfig(
        gslrm=Path("random"),
        input=samples,
        output=output,
        named_view_size=size,
        turntable=TurntableConfig(frames=0),
        sequence=SequenceConfig(enabled=True, size=size),
    )


def disc(bench: Bench, seed: int = 0) -> Views:
    """A sample in main memory: noise in a disc."""
    rgba = torch.from_numpy(_disc_pictures(bench, seed)).permute(0, 3, 1, 2).float() / 255
    cameras = _ring(bench.size)
    K, w2c = (
        torch.from_numpy(np.stack(values)).float()
        for values in ([camera.K for camera in cameras], [camera.w2c for camera in cameras])
    )
    return Views(rgba, tuple(range(VIEWS)), K, w2c)


def write_disc_samples(bench: Bench, folder: Path, frames: int) -> None:
    """The same on disk, as frames of an animal that walks along x."""
    for frame in range(frames):
        center = np.array([float(frame), 0.0, 20.0])
        matrix = Similarity(1 / MM_PER_UNIT, np.eye(3), center).world_from_model
        write_sample(
            folder / f"sample_{frame:06d}",
            list(_disc_pictures(bench, frame)),
            _ring(bench.size),
            list(range(VIEWS)),
            {"frame_index": frame, "world_from_model": matrix.tolist()},
        )


def _disc_pictures(bench: Bench, seed: int) -> np.ndarray:
    """Coarse noise, which PNG compresses as it does fur. [V, S, S, 4] uint8"""
    size, generator = bench.size, np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] + 0.5
    # The patches that a disc touches, and the ring around them, reach about two patches beyond it.
    radius = max(np.sqrt(COVERAGE / np.pi) * size - 1.6 * GSLRMConfig().patch_size, size / 6)
    inside = np.hypot(rows - size / 2, columns - size / 2) < radius
    coarse = generator.integers(0, 256, (VIEWS, size // 4, size // 4, 3), np.uint8)
    color = coarse.repeat(4, axis=1).repeat(4, axis=2)
    alpha = np.broadcast_to(255 * inside[None, ..., None], (VIEWS, size, size, 1)).astype(np.uint8)
    return np.concatenate([np.where(inside[None, ..., None], color, 255), alpha], axis=-1).astype(np.uint8)


def _ring(size: int) -> list[Camera]:
    """Cameras around the origin, as in the published data."""
    cameras = []
    for angle in np.linspace(0, 2 * np.pi, VIEWS, endpoint=False):
        center = 2.7 * np.array([np.cos(angle), np.sin(angle), 0.3])
        cameras.append(Camera.look_at(center, (0, 0, 0), 548.99 * size / 512, size))
    return cameras


if __name__ == "__main__":
    main()
