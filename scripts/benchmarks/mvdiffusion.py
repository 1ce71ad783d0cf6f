"""MVDiffusion on a GPU at production size: sampling and training, ours against the published design, one run.

    python scripts/benchmarks/mvdiffusion.py [--parts evaluation views training] [--quick] [--json FILE]
    python scripts/benchmarks/mvdiffusion.py --tiny

The baseline is the published design written plainly: eager fp16, a full set of keys for every view, 50 DDIM
steps; in training fp16 autocast, every block recomputed in the backward pass, VAE and CLIP encoding all
pictures of every step. Weights are random, sizes are SD 2.1-unCLIP's: 6 views of 512x512, guidance 3.
`difference` is the largest one to the published design's prediction, relative to its largest value. The
share of the peak counts the products that the result needs, once, whatever a case computes.
"""

import argparse
import gc
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bench import Bench
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from mvdiffusion_networks import (
    VIEWS,
    random_condition,
    random_denoiser,
    random_draws,
    random_frozen,
    random_views_pipeline,
)
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel
from torch.utils.flop_counter import FlopCounterMode

from mouse_facelift.attention_kernels import preferred_attention
from mouse_facelift.mvdiffusion.conditioning import Condition
from mouse_facelift.mvdiffusion.config import MVDiffOptimizerConfig, SamplingConfig
from mouse_facelift.mvdiffusion.denoiser import Denoiser
from mouse_facelift.mvdiffusion.encoding import encode_batch
from mouse_facelift.mvdiffusion.fast import FastDenoiser, fuse_projections, speed_up, speed_up_vae
from mouse_facelift.mvdiffusion.objective import Draws, diffusion_loss
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.training.optimizer import make_adamw
from mouse_facelift.training.schedule import averaging

GUIDANCE, SNR_GAMMA, DROP_RATE, EMA_DECAY = 3.0, 5.0, 0.05, 0.9999
FEW_STEPS = 20
WANTED = {"evaluation_ms": 26.0, "views_s": 0.6, "times": 1.5}
"""An evaluation; six views in few steps, VAE and CLIP included; training, times the published loop."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Measurements that make one table.

    Attributes:
        measure: Makes its rows.
        title: Of the first column, the cases.
        columns: What else a row shows, by the column's title.
    """

    measure: Callable[[Bench], Iterator[Row]]
    title: str
    columns: dict[str, Callable[[Row], str]]

    def print_table(self, bench: Bench, peak: float) -> list[Row]:
        """Measure, print row after row, and return them."""
        print(f"| {self.title} | {' | '.join(self.columns)} |")
        print("|---" * (1 + len(self.columns)) + "|", flush=True)
        rows = []
        for row in self.measure(bench):
            if "flop" in row:
                row["share"] = row.pop("flop") / (row["ms"] / 1e3) / peak
            rows.append(row)
            cells = (show(row) for show in self.columns.values())
            print(f"| {row['case']} | {' | '.join(cells)} |", flush=True)
            release()
        print()
        return rows


def main() -> None:
    """Run everything and print one table a part."""
    parts = all_parts()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="what to measure")
    parser.add_argument("--quick", action="store_true", help="fewer cases")
    parser.add_argument(
        "--tune", action="store_true", help="also with max-autotune, which takes many minutes"
    )
    parser.add_argument("--tiny", action="store_true", help="small networks, on any device: does it run?")
    parser.add_argument("--json", type=Path, help="write all figures here too")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.tiny:
        parser.error("this benchmark needs a CUDA device; see also --tiny")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = Bench(device, options.tiny, options.quick, options.tune)
    print(f"{bench.name}, torch {torch.__version__}")
    peak = bench.matmul_peak(bench.half)
    print(f"half-precision matmul peak, measured here: {peak / 1e12:.1f} TFLOP/s\n")
    rows = [row | {"part": name} for name in options.parts for row in parts[name].print_table(bench, peak)]
    if options.json:
        content = {"device": bench.name, "torch": torch.__version__, "peak": peak, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1))


def all_parts() -> dict[str, Part]:
    """What can be measured, by name."""
    objects = {"objects": lambda row: str(row["objects"])}
    memory = {"peak GB": lambda row: f"{row['gb']:.1f}"}
    share = {"share of peak": lambda row: f"{row['share']:.0%}"}
    wanted = {"wanted": lambda row: row.get("wanted", "")}
    return {
        "evaluation": Part(
            evaluations,
            "one evaluation",
            {
                "ms": lambda row: f"{row['ms']:.1f}",
                **wanted,
                **memory,
                **share,
                "difference": lambda row: f"{row['difference']:.4f}",
            },
        ),
        "views": Part(
            six_views,
            "six views from one picture, VAE and CLIP included",
            {**objects, "s an object": lambda row: f"{row['ms'] / 1e3:.2f}", **wanted, **memory},
        ),
        "training": Part(
            training_steps,
            "training step, one object = six views",
            {
                **objects,
                "ms an object": lambda row: f"{row['ms']:.1f}",
                "objects/s": lambda row: f"{1e3 / row['ms']:.2f}",
                **memory,
                **share,
                "times the published loop": lambda row: f"{row['times']:.1f}",
                **wanted,
            },
        ),
    }


# One evaluation of the UNet: one object with guidance, 12 pictures


def evaluations(bench: Bench) -> Iterator[Row]:
    """The published design, then ours with one thing after another."""
    inputs = evaluation_inputs(bench)
    flop = evaluation_flop(bench)
    reference: Tensor | None = None
    for case, make in evaluation_cases(bench):
        model = make()
        with torch.no_grad():
            ms, gb = bench.timed(lambda model=model: model(*inputs))
            found = model(*inputs).float().clone()
        reference = found if reference is None else reference
        difference = float((found - reference).abs().max() / reference.abs().max())
        yield {
            "case": case,
            "objects": 1,
            "ms": ms,
            "gb": gb,
            "flop": flop,
            "difference": difference,
            **({} if case.startswith("published") else {"wanted": f"at most {WANTED['evaluation_ms']:g}"}),
        }
        del model
        torch._dynamo.reset()
        release()


def evaluation_cases(bench: Bench) -> Iterator[tuple[str, Callable[[], Callable[..., Tensor]]]]:
    """Names, and functions that build a model; each adds to the one before."""

    def plain() -> Denoiser:
        return random_denoiser(bench, bench.half)

    def fused() -> Denoiser:
        denoiser = plain()
        fuse_projections(denoiser.unet)
        return denoiser

    def fast(**choices: Any) -> FastDenoiser:
        return speed_up(plain(), **choices)

    yield "published design", lambda: as_published(plain())
    yield "published design, cuDNN's attention", lambda: preferring(as_published(plain()))
    yield "ours, plain", plain
    yield "+ cuDNN's attention", lambda: preferring(plain())
    yield "+ fused projections", lambda: preferring(fused())
    # Adds that what stays constant is computed once.
    yield "ours, eager", fast
    yield "+ channels-last", lambda: fast(channels_last=True)
    if not bench.compiles:
        return
    yield "published design, compiled", lambda: compiled(as_published(plain()))
    yield "ours, compiled", lambda: fast(compile=True)
    if not bench.quick:
        yield "ours, compiled, not channels-last", lambda: fast(compile=True, channels_last=False)
    yield "ours, compiled, CUDA graph", lambda: fast(compile=True, graphs=True)
    if bench.tune:
        yield "ours, compiled and tuned", lambda: fast(compile=True, tune=True)
        yield "ours, compiled and tuned, CUDA graph", lambda: fast(compile=True, tune=True, graphs=True)


def evaluation_inputs(bench: Bench) -> tuple[Tensor, Tensor, Condition]:
    """One object, without and with its conditions."""
    condition = random_condition(bench, 1, bench.half).with_unconditional()
    noisy = torch.randn(condition.latents.shape, device=bench.device, dtype=bench.half)
    return noisy, torch.full((2,), 500, device=bench.device), condition


def evaluation_flop(bench: Bench) -> float:
    """Of the products that one evaluation needs: no doubled keys."""
    denoiser = random_denoiser(bench, bench.half)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        denoiser(*evaluation_inputs(bench))
    return float(counter.get_total_flops())


# Six views from one picture, VAE and CLIP included


def six_views(bench: Bench) -> Iterator[Row]:
    """Whole calls of the pipeline."""
    published = SamplingConfig(steps=3 if bench.tiny else 50, guidance=GUIDANCE)
    few = [
        SamplingConfig(solver=solver, steps=2 if bench.tiny else FEW_STEPS, guidance=GUIDANCE)
        for solver in ("unipc", "dpmpp")
    ]
    pipeline = random_views_pipeline(bench)
    as_published(pipeline.denoiser)
    yield measure_views(bench, "published design", pipeline, published, 1)
    del pipeline
    release()
    pipeline = random_views_pipeline(bench)
    pipeline.denoiser = speed_up(pipeline.denoiser)
    for sampling in (published, *few):
        yield measure_views(bench, "ours, eager", pipeline, sampling, 1)
    del pipeline
    release()
    if not bench.compiles:
        return
    torch._dynamo.reset()
    pipeline = random_views_pipeline(bench)
    pipeline.denoiser = speed_up(pipeline.denoiser, compile=True, tune=bench.tune, graphs=True)
    speed_up_vae(pipeline.frozen.vae)
    for sampling in (published, *few):
        yield measure_views(bench, "ours, compiled, CUDA graph", pipeline, sampling, 1)
    for objects in () if bench.quick else (2, 4):
        yield measure_views(bench, "ours, compiled, CUDA graph", pipeline, few[0], objects)


def measure_views(
    bench: Bench, case: str, pipeline: MVDiffusionPipeline, sampling: SamplingConfig, objects: int
) -> Row:
    """Time calls; milliseconds per object."""
    images = torch.rand(objects, 3, bench.size, bench.size, device=bench.device)

    def run() -> Tensor:
        generators = [torch.Generator(bench.device).manual_seed(seed) for seed in range(objects)]
        return pipeline(images, generators=generators, sampling=sampling)

    ms, gb = bench.timed(run)
    row = {"objects": objects, "ms": ms / objects, "gb": gb}
    wanted = {"wanted": f"at most {WANTED['views_s']:g}"} if sampling.steps == FEW_STEPS else {}
    return {"case": f"{case}, {sampling.steps} steps of {sampling.solver}", **row, **wanted}


# Training steps: loss, gradients, AdamW, average


def training_steps(bench: Bench) -> Iterator[Row]:
    """The published loop, then ours: the same work, then on cached latents, then without recomputing."""
    batches = (1,) if bench.quick or bench.tiny else (1, 2, 4)
    flop = 3 * evaluation_flop(bench) / 2
    cases: dict[str, Callable[[int], Callable[[], None]]] = {
        "published loop": lambda objects: published_loop(bench, objects),
        "ours, pictures encoded in every step": lambda objects: our_loop(bench, objects, encodes=True),
        "ours, cached latents, recomputed blocks": lambda objects: our_loop(bench, objects, recomputes=True),
        "ours, cached latents": lambda objects: our_loop(bench, objects),
    }
    published: dict[int, float] = {}
    for case, make in cases.items():
        for objects in batches:
            ms, gb = bench.timed(make(objects))
            row = {"case": case, "objects": objects, "ms": ms / objects, "gb": gb, "flop": flop}
            wanted = {"wanted": f"at least {WANTED['times']:g}"} if published.get(objects) else {}
            row["times"] = published.setdefault(objects, row["ms"]) / row["ms"]
            yield row | wanted
            release()


def published_loop(bench: Bench, objects: int) -> Callable[[], None]:
    """fp32 weights under fp16 autocast; every step encodes the targets, and the reference once per view."""
    frozen = random_frozen(bench).to(bench.device, bench.half)
    denoiser = as_published(random_denoiser(bench, torch.float32)).train()
    denoiser.unet.enable_gradient_checkpointing()
    parameters = [p for p in denoiser.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    average = EMAModel(parameters, decay=EMA_DECAY)
    scaler = torch.amp.GradScaler(bench.device.type, enabled=bench.device.type == "cuda")
    pictures = torch.rand(objects, VIEWS, 3, bench.size, bench.size, device=bench.device)

    def step() -> None:
        draws, told = random_draws(bench, objects), random_condition(bench, objects, torch.float32)
        with autocast(bench, torch.float16):
            flat = pictures.flatten(0, 1).to(bench.half)
            latents = frozen.encode(flat, draws.posterior.flatten(0, 1)).view_as(draws.posterior)
            references = frozen.encode(flat).view_as(latents)
            embeds = frozen.image_embeds(flat, eight_bit=False).view_as(draws.embed)
            labels = frozen.class_labels(embeds, draws.embed)
            condition = Condition(references, labels, told.prompt_index).dropped(draws.drop, DROP_RATE)
            schedule = frozen.scheduler.alphas_cumprod
            loss = diffusion_loss(denoiser, latents, condition, draws, schedule, SNR_GAMMA)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        clip_grad_norm_(parameters, 1.0)
        scaler.step(optimizer)
        scaler.update()
        average.step(parameters)
        optimizer.zero_grad()

    return step


def our_loop(
    bench: Bench, objects: int, recomputes: bool = False, encodes: bool = False
) -> Callable[[], None]:
    """fp32 weights under bf16 autocast; pictures were encoded before, or are in every step."""
    schedule = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod
    denoiser = random_denoiser(bench, torch.float32).train()
    if recomputes:
        denoiser.unet.enable_gradient_checkpointing()
    optimizer = make_adamw(denoiser, MVDiffOptimizerConfig(), fused=bench.device.type == "cuda")
    average = AveragedModel(denoiser, multi_avg_fn=averaging(EMA_DECAY))
    read = encoding(bench, objects) if encodes else cached(bench, objects)

    def step() -> None:
        draws = random_draws(bench, objects)
        with autocast(bench, torch.bfloat16):
            latents, told = read(draws)
            condition = told.dropped(draws.drop, DROP_RATE)
            loss = diffusion_loss(denoiser, latents, condition, draws, schedule, SNR_GAMMA)
        loss.backward()
        clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(denoiser)
        optimizer.zero_grad()

    return step


def cached(bench: Bench, objects: int) -> Callable[[Draws], tuple[Tensor, Condition]]:
    """Latents [B, V, 4, h, w] and conditions that were there before."""
    latents = random_condition(bench, objects, torch.float32).latents
    return lambda draws: (latents, random_condition(bench, objects, torch.float32))


def encoding(bench: Bench, objects: int) -> Callable[[Draws], tuple[Tensor, Condition]]:
    """The same of pictures, as training without a cache makes them: the reference once, all views once."""
    frozen = random_frozen(bench).to(bench.device)
    pictures = torch.rand(objects, VIEWS, 4, bench.size, bench.size, device=bench.device)
    white = torch.ones(objects, device=bench.device)

    def read(draws: Draws) -> tuple[Tensor, Condition]:
        encoded = encode_batch(frozen, pictures, white)
        prompts = random_condition(bench, objects, torch.float32).prompt_index
        reference = encoded.reference[:, None].expand_as(encoded.mean)
        labels = frozen.class_labels(encoded.embeds[:, None].expand_as(draws.embed), draws.embed)
        return encoded.sample(draws.posterior), Condition(reference, labels, prompts)

    return read


def autocast(bench: Bench, dtype: torch.dtype) -> Any:
    """Half precision on a GPU, nothing elsewhere."""
    return torch.autocast("cuda", dtype) if bench.device.type == "cuda" else nullcontext()


# The published attention


class PublishedAttention:
    """`attn1` as published: queries, keys and values apart, and a full set of keys for every view."""

    num_views = VIEWS

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[B*V, L, C] -> [B*V, L, C]"""
        heads = []
        for project in (attn.to_q, attn.to_k, attn.to_v):
            tokens = project(hidden_states)
            if project is not attn.to_q:
                views = tokens.unflatten(0, (-1, VIEWS))
                tokens = torch.cat([views[:, :1].expand_as(views).flatten(0, 1), tokens], dim=1)
            heads.append(tokens.unflatten(-1, (attn.heads, -1)).transpose(1, 2))
        attended = F.scaled_dot_product_attention(*heads).transpose(1, 2)
        return attn.to_out[1](attn.to_out[0](attended.flatten(2)))


def as_published(denoiser: Denoiser) -> Denoiser:
    """Put the published attention on a UNet."""
    for name, module in denoiser.unet.named_modules():
        if name.endswith(".attn1"):
            module.set_processor(PublishedAttention())
    return denoiser


def preferring(denoiser: Denoiser) -> Callable[..., Tensor]:
    """The denoiser with the attention kernels that we prefer."""

    def run(*inputs: Any) -> Tensor:
        with preferred_attention(inputs[0].device):
            return denoiser(*inputs)

    return run


def compiled(denoiser: Denoiser) -> Denoiser:
    """Plain torch.compile."""
    denoiser.unet.compile()
    return denoiser


def release() -> None:
    """Give the GPU's memory back."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
