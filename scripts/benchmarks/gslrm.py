"""GS-LRM on a GPU at production size: forward and training step, ours against the published design, one run.

    python scripts/benchmarks/gslrm.py [--quick] [--json FILE]

The baseline is the published design written plainly: float32 weights under bf16 autocast, every patch a
token, every block recomputed in the backward pass, no padding, no compilation, no graphs. Weights are random,
with `scale_bias` lowered so that Gaussians are about two pixels wide, as trained ones are. The silhouette is
a disc; coverage is the share of patches that become tokens, margin included.
"""

import argparse
import gc
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mouse_facelift.gaussians import Gaussians, render
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.rays import CameraBatch
from mouse_facelift.gslrm.attention import ALIGNMENT
from mouse_facelift.gslrm.attention import _padded_attention as padded_attention
from mouse_facelift.gslrm.config import GSLRMConfig
from mouse_facelift.gslrm.flash4 import attend, flash4_for
from mouse_facelift.gslrm.graphs import GraphedBlocks
from mouse_facelift.gslrm.model import GSLRM
from mouse_facelift.metrics import ssim_map

SIZE, VIEWS, TARGETS = 512, 6, 8
SCALE_BIAS = -5.5
DEVICE, HALF = "cuda", torch.bfloat16


class PublishedDesign(GSLRM):
    """The same network without anything that makes it fast."""

    def _blocks(self, x: Tensor, padding: int) -> Tensor:
        x = x[:, : x.shape[1] - padding]
        for block in self.transformer_layers:
            x = checkpoint(block, x, use_reentrant=False) if torch.is_grad_enabled() else block(x)
        return F.pad(x, (0, 0, 0, padding))


def main() -> None:
    """Run everything and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases")
    parser.add_argument("--json", type=Path, help="write all figures here too")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this benchmark needs a CUDA device")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    peak = matmul_peak()
    print(f"bf16 matmul peak, 8192^3, measured here: {peak / 1e12:.0f} TFLOP/s\n")
    print("| case | batch | coverage | tokens | ms a sample | samples/s | peak GB | share of peak |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    rows = []
    for row in cases(options.quick):
        row["share"] = row.pop("flop") / (row["ms"] / 1e3) / peak if "flop" in row else None
        rows.append(row)
        share = f"{row['share']:.0%}" if row["share"] else ""
        print(
            f"| {row['case']} | {row['batch']} | {row['coverage']:.0%} | {row['tokens'] or ''} "
            f"| {row['ms']:.1f} | {1e3 / row['ms']:.2f} | {row['gb']:.1f} | {share} |",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps({"gpu": torch.cuda.get_device_name(), "rows": rows}, indent=1))


def cases(quick: bool) -> Iterator[dict[str, Any]]:
    """Every measurement."""
    config = GSLRMConfig(scale_bias=SCALE_BIAS)
    # PyTorch's own attention, also where FlashAttention-4 is installed.
    plain = mock.patch("mouse_facelift.gslrm.attention.flash4_for", return_value=None)
    with plain, built(PublishedDesign(config)) as model:
        yield measure("forward, published design", model, forward, 1, 1.0)
        yield measure("training step, published design", model, training_step, 1, 1.0)
    with built(GSLRM(config)) as model:
        yield measure("training step, ours, dense", model, training_step, 1, 1.0)
        model.hold_weights(HALF)
        yield measure("forward, ours, dense", model, forward, 1, 1.0)
        model.compile_blocks()
        yield measure("forward, ours, dense, compiled", model, forward, 1, 1.0)
    with built(GSLRM(config)) as model:
        model.compile_blocks()
        for batch in (1,) if quick else (1, 2, 4):
            yield measure("training step, ours, dense, compiled", model, training_step, batch, 1.0)
    sparse = config.model_copy(update={"tokens": "foreground", "depth_anchor": "hull"})
    for coverage in (0.1,) if quick else (0.05, 0.1, 0.2, 1.0):
        with built(GSLRM(sparse)) as model:
            model.hold_weights(HALF)
            model.graphs = GraphedBlocks()
            yield measure("forward, ours, foreground", model, forward, 1, coverage)
            model.compile_blocks()
            model.graphs = GraphedBlocks()
            yield measure("forward, ours, foreground, compiled", model, forward, 1, coverage)
        with built(GSLRM(sparse)) as model:
            for batch in (1, 4) if quick else (1, 2, 4):
                if coverage < 1 or batch == 1:
                    yield measure("training step, ours, foreground", model, training_step, batch, coverage)
            model.compile_blocks()
            for batch in (1, 4):
                if coverage < 1:
                    yield measure(
                        "training step, ours, foreground, compiled", model, training_step, batch, coverage
                    )
    yield from one_attention(config)
    yield from rendering()


def one_attention(config: GSLRMConfig) -> Iterator[dict[str, Any]]:
    """Attention of one block at full length, by PyTorch and, where it is installed, by FlashAttention-4."""
    tokens = VIEWS * (SIZE // config.patch_size) ** 2 + config.free_gaussians
    padding = -tokens % ALIGNMENT
    shape = 1, config.width // config.head_width, tokens, config.head_width
    heads = [torch.randn(shape, device=DEVICE, dtype=HALF) for _ in range(3)]
    padded = [F.pad(x, (0, 0, 0, padding)).requires_grad_() for x in heads]
    heads = [x.requires_grad_() for x in heads]
    kernel = flash4_for(heads[0].device, HALF, tokens, config.head_width)
    ways: dict[str, Callable[[], Tensor]] = {"PyTorch, padded": lambda: padded_attention(*padded, padding)[0]}
    if kernel is not None:
        ways["FlashAttention-4"] = lambda: attend(kernel, *heads)
    for name, way in ways.items():
        for learn in (False, True):

            def run(way: Callable[[], Tensor] = way, learn: bool = learn) -> None:
                with torch.set_grad_enabled(learn):
                    out = way()
                if learn:
                    out.backward(out.detach())

            ms, gb = timed(run)
            case = f"attention of one block, {name}, {'with gradients' if learn else 'forward'}"
            flop = (3.5 if learn else 1) * 4 * tokens**2 * config.width
            yield {
                "case": case,
                "batch": 1,
                "coverage": 1.0,
                "tokens": tokens,
                "ms": ms,
                "gb": gb,
                "flop": flop,
            }


def rendering() -> Iterator[dict[str, Any]]:
    """Drawing as many Gaussians as a dense model predicts into eight views, two pixels wide each."""
    count = VIEWS * SIZE**2 + 2
    generator = torch.Generator(DEVICE).manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, device=DEVICE, generator=generator)

    parts = (
        1.2 * random(1, count, 3) - 0.6,
        F.normalize(random(1, count, 4) - 0.5, dim=-1),
        torch.full((1, count, 3), float(np.exp(SCALE_BIAS)), device=DEVICE),
        torch.full((1, count), 0.12, device=DEVICE),
        random(1, count, 1, 3),
    )
    cameras = ring(TARGETS, 1)
    for name, learn in (("rendering 8 views, forward", False), ("rendering 8 views, with gradients", True)):
        leaves = [part.clone().requires_grad_(learn) for part in parts]

        def draw(leaves: list[Tensor] = leaves, learn: bool = learn) -> None:
            means, quats, scales, opacities, sh0 = leaves
            drawn = render(
                Gaussians(means, quats, scales, opacities, sh0), cameras.K, cameras.w2c, SIZE, SIZE
            )
            if learn:
                (drawn.rgb.mean() + drawn.alpha.mean()).backward()

        ms, gb = timed(draw)
        yield {"case": name, "batch": 1, "coverage": 1.0, "tokens": None, "ms": ms, "gb": gb}


def forward(model: GSLRM, batch: int, coverage: float) -> Callable[[], object]:
    """Images to Gaussians, as in inference."""
    images, cameras = inputs(batch, coverage)
    model.eval()

    def run() -> Gaussians:
        with torch.no_grad(), torch.autocast("cuda", HALF):
            return model(images, cameras)

    return run


def training_step(model: GSLRM, batch: int, coverage: float) -> Callable[[], None]:
    """Images to Gaussians to eight pictures, L2, SSIM and silhouette loss, gradients."""
    images, cameras = inputs(batch, coverage)
    targets, truth = ring(TARGETS, batch), torch.rand(batch, TARGETS, 4, SIZE, SIZE, device=DEVICE)
    model.train()

    def run() -> None:
        with torch.autocast("cuda", HALF):
            gaussians = model(images, cameras)
        drawn = render(gaussians, targets.K, targets.w2c, SIZE, SIZE)
        loss = F.mse_loss(drawn.rgb, truth[:, :, :3]) + F.mse_loss(drawn.alpha, truth[:, :, 3:])
        (loss + 0.2 * (1 - ssim_map(drawn.rgb, truth[:, :, :3]).mean())).backward()
        for parameter in model.parameters():
            parameter.grad = None

    return run


def measure(
    case: str, model: GSLRM, make: Callable[..., Callable[[], Any]], batch: int, coverage: float
) -> dict[str, Any]:
    """Time one case; figures are per sample."""
    run = make(model, batch, coverage)
    tokens = tokens_of(model, *inputs(1, coverage))
    ms, gb = timed(run)
    passes = 1 if make is forward else 3
    flop = passes * matmul_flop(model, tokens)
    return {
        "case": case,
        "batch": batch,
        "coverage": coverage,
        "tokens": tokens,
        "ms": ms / batch,
        "gb": gb,
        "flop": flop,
    }


def timed(run: Callable[[], object], warm: int = 3, repeats: int = 5) -> tuple[float, float]:
    """Median milliseconds, and the most memory that was allocated, in GB."""
    for _ in range(warm):
        run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times), torch.cuda.max_memory_allocated() / 1e9


def matmul_peak() -> float:
    """FLOP/s of a large bf16 product."""
    a = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    ms, _ = timed(lambda: a @ a)
    return 2 * 8192**3 / (ms / 1e3)


def matmul_flop(model: GSLRM, tokens: int) -> float:
    """Of one forward pass: 12 width^2 weights a block, and attention's two products."""
    width = model.config.width
    return model.config.layers * (2 * 12 * width**2 * tokens + 4 * tokens**2 * width)


def tokens_of(model: GSLRM, images: Tensor, cameras: CameraBatch) -> int:
    """Tokens of a sample, the free ones included."""
    kept = model._kept_patches(images)
    patches = VIEWS * (SIZE // model.config.patch_size) ** 2 if kept is None else kept.shape[1]
    return patches + model.config.free_gaussians


def inputs(batch: int, coverage: float) -> tuple[Tensor, CameraBatch]:
    """Noise in a disc so large that it needs that share of the patches. [B, V, 4, H, W]"""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    # The patches that a disc touches, and the ring around them, reach about two patches beyond it.
    radius = np.sqrt(coverage / np.pi) * SIZE - 1.6 * GSLRMConfig().patch_size if coverage < 1 else SIZE
    disc = ((x - SIZE / 2) ** 2 + (y - SIZE / 2) ** 2 < radius**2).float().to(DEVICE)
    colour = torch.rand(batch, VIEWS, 3, SIZE, SIZE, device=DEVICE)
    alpha = disc.expand(batch, VIEWS, 1, SIZE, SIZE)
    return torch.cat([colour, alpha], dim=2), ring(VIEWS, batch)


def ring(views: int, batch: int) -> CameraBatch:
    """Cameras around the origin, as in the published data."""
    cameras = []
    for angle in np.linspace(0, 2 * np.pi, views, endpoint=False):
        center = 2.7 * np.array([np.cos(angle), np.sin(angle), 0.3])
        cameras.append(Camera.look_at(center, (0, 0, 0), 548.99, SIZE))
    K, w2c = (
        torch.tensor(np.stack(values), dtype=torch.float32, device=DEVICE).expand(batch, -1, -1, -1)
        for values in ([camera.K for camera in cameras], [camera.w2c for camera in cameras])
    )
    return CameraBatch(K.contiguous(), w2c.contiguous())


@contextmanager
def built(model: GSLRM) -> Iterator[GSLRM]:
    """A model on the GPU, gone afterwards."""
    torch._dynamo.reset()
    yield model.to(DEVICE)
    del model
    gc.collect()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
