"""GS-LRM on a GPU at production size: forward and training step, ours against the published design, one run.

    python scripts/benchmarks/gslrm.py [--parts published dense foreground attention rendering] [--quick]
    python scripts/benchmarks/gslrm.py --tiny

The baseline is the published design written plainly: float32 weights under bf16 autocast, every patch a
token, every block recomputed in the backward pass, no compilation, no graphs. Weights are random, with
`scale_bias` lowered so that Gaussians are about two pixels wide, as trained ones are. The silhouette is a
disc; coverage is the share of patches that become tokens, margin included.
"""

import argparse
import gc
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from bench import Bench
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mouse_facelift.gaussians import Gaussians, render
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.rays import CameraBatch
from mouse_facelift.gslrm.config import GSLRMConfig
from mouse_facelift.gslrm.flash4 import attend, suits_flash4
from mouse_facelift.gslrm.graphs import GraphedBlocks
from mouse_facelift.gslrm.model import GSLRM
from mouse_facelift.metrics import ssim_map

VIEWS, TARGETS = 6, 8
SCALE_BIAS = -5.5
HALF = torch.bfloat16
WANTED_MS = {
    ("forward, ours, dense", 1.0): 155.0,
    ("training step, ours, dense", 1.0): 520.0,
    ("forward, ours, foreground", 0.1): 9.0,
    ("training step, ours, foreground", 0.1): 40.0,
    ("rendering 8 views, forward", None): 6.0,
    ("rendering 8 views, with gradients", None): 14.0,
}
"""At most so many a sample, by case and coverage; compiled or not."""
Row = dict[str, Any]
Make = Callable[[Bench, GSLRM, int, float], Callable[[], object]]


class PublishedDesign(GSLRM):
    """The same network without anything that makes it fast."""

    def _blocks(self, x: Tensor) -> Tensor:
        for block in self.transformer_layers:
            x = checkpoint(block, x, use_reentrant=False) if torch.is_grad_enabled() else block(x)
        return x


def main() -> None:
    """Run everything and print one table."""
    parts = {
        "published": published,
        "dense": dense,
        "foreground": foreground,
        "attention": one_attention,
        "rendering": rendering,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="what to measure")
    parser.add_argument("--quick", action="store_true", help="fewer cases")
    parser.add_argument("--tiny", action="store_true", help="a small network, on any device: does it run?")
    parser.add_argument("--json", type=Path, help="write all figures here too")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.tiny:
        parser.error("this benchmark needs a CUDA device; see also --tiny")
    bench = Bench(torch.device("cuda" if torch.cuda.is_available() else "cpu"), options.tiny, options.quick)
    print(f"{bench.name}, torch {torch.__version__}")
    peak = bench.matmul_peak(HALF)
    print(f"bf16 matmul peak, measured here: {peak / 1e12:.1f} TFLOP/s\n")
    print("| case | batch | coverage | tokens | ms a sample | wanted | samples/s | peak GB | share of peak |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    rows = []
    for row in (row for part in options.parts for row in parts[part](bench)):
        row["wanted"] = WANTED_MS.get((row["case"].removesuffix(", compiled"), row["coverage"]))
        row["share"] = row.pop("flop") / (row["ms"] / 1e3) / peak if "flop" in row else None
        rows.append(row)
        print(formatted(row), flush=True)
    if options.json:
        content = {"device": bench.name, "torch": torch.__version__, "peak": peak, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1))


def formatted(row: Row) -> str:
    """One line of the table."""
    coverage = f"{row['coverage']:.0%}" if row["coverage"] else ""
    wanted = f"at most {row['wanted']:g}" if row["wanted"] else ""
    share = f"{row['share']:.0%}" if row["share"] else ""
    return (
        f"| {row['case']} | {row['batch']} | {coverage} | {row['tokens'] or ''} | {row['ms']:.1f} "
        f"| {wanted} | {1e3 / row['ms']:.2f} | {row['gb']:.1f} | {share} |"
    )


def batches(bench: Bench) -> Sequence[int]:
    """Samples at once."""
    return (1, 4) if bench.quick or bench.tiny else (1, 2, 4)


def coverages(bench: Bench) -> Sequence[float]:
    """Shares of the patches that become tokens."""
    return (0.1, 1.0) if bench.quick or bench.tiny else (0.05, 0.1, 0.2, 1.0)


# Whole models


def published(bench: Bench) -> Iterator[Row]:
    """The baseline, with PyTorch's own attention also where FlashAttention-4 is installed."""
    plain = mock.patch("mouse_facelift.gslrm.attention.suits_flash4", return_value=False)
    with plain, built(bench, PublishedDesign(configured(bench))) as model:
        yield from measure(bench, "forward, published design", model, forward, 1.0)
        yield from measure(bench, "training step, published design", model, training_step, 1.0)


def dense(bench: Bench) -> Iterator[Row]:
    """Ours with every patch a token."""
    config = configured(bench)
    with built(bench, GSLRM(config)) as model:
        yield from measure(bench, "training step, ours, dense", model, training_step, 1.0)
        model.hold_weights(HALF)
        yield from measure(bench, "forward, ours, dense", model, forward, 1.0)
        if bench.compiles:
            model.compile_blocks()
            yield from measure(bench, "forward, ours, dense, compiled", model, forward, 1.0)
    if bench.compiles:
        with built(bench, GSLRM(config)) as model:
            model.compile_blocks()
            yield from measure(bench, "training step, ours, dense, compiled", model, training_step, 1.0)


def foreground(bench: Bench) -> Iterator[Row]:
    """Ours with tokens where the animal is; compiled cases, which take minutes, only at 5 to 20 %."""
    config = configured(bench).model_copy(update={"tokens": "foreground", "depth_anchor": "hull"})
    for coverage in coverages(bench):
        compiles = bench.compiles and coverage < 1
        with built(bench, GSLRM(config)) as model:
            yield from measure(bench, "training step, ours, foreground", model, training_step, coverage)
            model.hold_weights(HALF)
            model.graphs = GraphedBlocks()
            yield from measure(bench, "forward, ours, foreground", model, forward, coverage)
            if compiles:
                model.compile_blocks()
                yield from measure(
                    bench, "forward, ours, foreground, compiled", model, forward, coverage, (1,)
                )
        if compiles:
            with built(bench, GSLRM(config)) as model:
                model.compile_blocks()
                name = "training step, ours, foreground, compiled"
                yield from measure(bench, name, model, training_step, coverage, (1, 4))


def measure(
    bench: Bench, case: str, model: GSLRM, make: Make, coverage: float, sizes: Sequence[int] = ()
) -> Iterator[Row]:
    """Time one case at all batch sizes that fit; figures are per sample."""
    tokens = tokens_of(model, *inputs(bench, 1, coverage))
    flop = (1 if make is forward else 3) * matmul_flop(model, tokens)
    for batch in sizes or batches(bench):
        try:
            ms, gb = bench.timed(make(bench, model, batch, coverage))
        except torch.OutOfMemoryError:
            print(f"{case}, batch {batch}, coverage {coverage:.0%}: does not fit", file=sys.stderr)
            return
        finally:
            release()
        row = {"case": case, "batch": batch, "coverage": coverage, "tokens": tokens, "flop": flop}
        yield row | {"ms": ms / batch, "gb": gb}


def forward(bench: Bench, model: GSLRM, batch: int, coverage: float) -> Callable[[], Gaussians]:
    """Images to Gaussians, as in inference."""
    images, cameras = inputs(bench, batch, coverage)
    model.eval()
    if model.graphs is not None:
        # Buffers of another batch's graph would count as memory.
        model.graphs = GraphedBlocks()

    def run() -> Gaussians:
        with torch.no_grad(), torch.autocast(bench.device.type, HALF):
            return model(images, cameras)

    return run


def training_step(bench: Bench, model: GSLRM, batch: int, coverage: float) -> Callable[[], None]:
    """Images to Gaussians to eight pictures, L2, SSIM and silhouette loss, gradients."""
    images, cameras = inputs(bench, batch, coverage)
    size, targets = bench.size, ring(bench, TARGETS, batch)
    truth = torch.rand(batch, TARGETS, 4, size, size, device=bench.device)
    model.train()

    def run() -> None:
        with torch.autocast(bench.device.type, HALF):
            gaussians = model(images, cameras)
        drawn = render(gaussians, targets.K, targets.w2c, size, size)
        loss = F.mse_loss(drawn.rgb, truth[:, :, :3]) + F.mse_loss(drawn.alpha, truth[:, :, 3:])
        (loss + 0.2 * (1 - ssim_map(drawn.rgb, truth[:, :, :3]).mean())).backward()
        for parameter in model.parameters():
            parameter.grad = None

    return run


# Parts of them


def one_attention(bench: Bench) -> Iterator[Row]:
    """Attention of one block at full length, by PyTorch and, where it is installed, by FlashAttention-4."""
    config = configured(bench)
    tokens = VIEWS * (bench.size // config.patch_size) ** 2 + config.free_gaussians
    shape = 1, config.width // config.head_width, tokens, config.head_width
    heads = [torch.randn(shape, device=bench.device, dtype=HALF, requires_grad=True) for _ in range(3)]
    ways: dict[str, Callable[..., Tensor]] = {"PyTorch": F.scaled_dot_product_attention}
    if suits_flash4(bench.device, HALF, tokens, config.head_width):
        ways["FlashAttention-4"] = attend
    for name, way in ways.items():
        for learn in (False, True):

            def run(way: Callable[..., Tensor] = way, learn: bool = learn) -> None:
                with torch.set_grad_enabled(learn):
                    out = way(*heads)
                if learn:
                    out.backward(out.detach())

            ms, gb = bench.timed(run)
            case = f"attention of one block, {name}, {'with gradients' if learn else 'forward'}"
            flop = (3.5 if learn else 1) * 4 * tokens**2 * config.width
            row = {"case": case, "batch": 1, "coverage": 1.0, "tokens": tokens}
            yield row | {"ms": ms, "gb": gb, "flop": flop}


def rendering(bench: Bench) -> Iterator[Row]:
    """Drawing as many Gaussians as a dense model predicts into eight views, two pixels wide each."""
    count = VIEWS * bench.size**2 + 2
    generator = torch.Generator(bench.device).manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, device=bench.device, generator=generator)

    parts = (
        1.2 * random(1, count, 3) - 0.6,
        F.normalize(random(1, count, 4) - 0.5, dim=-1),
        torch.full((1, count, 3), float(np.exp(SCALE_BIAS)), device=bench.device),
        torch.full((1, count), 0.12, device=bench.device),
        random(1, count, 1, 3),
    )
    cameras = ring(bench, TARGETS, 1)
    for name, learn in (("rendering 8 views, forward", False), ("rendering 8 views, with gradients", True)):
        leaves = [part.clone().requires_grad_(learn) for part in parts]

        def draw(leaves: list[Tensor] = leaves, learn: bool = learn) -> None:
            means, quats, scales, opacities, sh0 = leaves
            scene = Gaussians(means, quats, scales, opacities, sh0)
            drawn = render(scene, cameras.K, cameras.w2c, bench.size, bench.size)
            if learn:
                (drawn.rgb.mean() + drawn.alpha.mean()).backward()

        ms, gb = bench.timed(draw)
        yield {"case": name, "batch": 1, "coverage": None, "tokens": None, "ms": ms, "gb": gb}


# What they are made of, and given


def configured(bench: Bench) -> GSLRMConfig:
    """The published sizes, or tiny ones."""
    sizes = {"width": 32, "head_width": 16, "layers": 1} if bench.tiny else {}
    return GSLRMConfig(scale_bias=SCALE_BIAS, **sizes)


@contextmanager
def built(bench: Bench, model: GSLRM) -> Iterator[GSLRM]:
    """A model on the device, gone afterwards."""
    torch._dynamo.reset()
    yield model.to(bench.device)
    del model
    release()


def release() -> None:
    """Give the GPU's memory back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def matmul_flop(model: GSLRM, tokens: int) -> float:
    """Of one forward pass: 12 width^2 weights a block, and attention's two products."""
    width = model.config.width
    return model.config.layers * (2 * 12 * width**2 * tokens + 4 * tokens**2 * width)


def tokens_of(model: GSLRM, images: Tensor, cameras: CameraBatch) -> int:
    """Tokens of a sample, the free ones included."""
    kept = model._kept_patches(images)
    patches = VIEWS * (images.shape[-1] // model.config.patch_size) ** 2 if kept is None else kept.shape[1]
    return patches + model.config.free_gaussians


def inputs(bench: Bench, batch: int, coverage: float) -> tuple[Tensor, CameraBatch]:
    """Noise in a disc so large that it needs that share of the patches. [B, V, 4, H, W]"""
    size = bench.size
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    # The patches that a disc touches, and the ring around them, reach about two patches beyond it.
    radius = np.sqrt(coverage / np.pi) * size - 1.6 * GSLRMConfig().patch_size if coverage < 1 else size
    radius = max(radius, size / 16)
    disc = ((x - size / 2) ** 2 + (y - size / 2) ** 2 < radius**2).float().to(bench.device)
    colour = torch.rand(batch, VIEWS, 3, size, size, device=bench.device)
    alpha = disc.expand(batch, VIEWS, 1, size, size)
    return torch.cat([colour, alpha], dim=2), ring(bench, VIEWS, batch)


def ring(bench: Bench, views: int, batch: int) -> CameraBatch:
    """Cameras around the origin, as in the published data."""
    cameras = []
    for angle in np.linspace(0, 2 * np.pi, views, endpoint=False):
        center = 2.7 * np.array([np.cos(angle), np.sin(angle), 0.3])
        cameras.append(Camera.look_at(center, (0, 0, 0), 548.99 * bench.size / 512, bench.size))
    K, w2c = (
        torch.tensor(np.stack(values), dtype=torch.float32, device=bench.device).expand(batch, -1, -1, -1)
        for values in ([camera.K for camera in cameras], [camera.w2c for camera in cameras])
    )
    return CameraBatch(K.contiguous(), w2c.contiguous())


if __name__ == "__main__":
    main()
