"""Does pose conditioning earn its place? The same small MVDiffusion, trained once as `slot`, once as `pose`.

Both learn from random weights on recordings of several demo mice, each in a rig of its own, as one model for
several laboratories must: same data, seed, steps and initial weights, one VAE that is fitted first. Then both
make views of held-out moments:

- rig: cameras and reference of training;
- rig, far from the mean: the third of these moments whose cameras, re-aimed at the animal, differ most from
  the mean rig that slots stand for;
- rig, other reference: another camera's picture is given, the others are asked for;
- new cameras: four that no model has seen, between and above the rig's.

A slot model is told no camera: it gives its slot nearest in azimuth. Measured are PSNR in dB on pixels of the
animal and IoU of silhouettes, beside trivial predictions and the ceiling that the shared VAE sets.

    python scripts/studies/pose_vs_slot.py [--quick] [--steps 5000] [--size 64] [--json FILE] [KEY=VALUE ...]

For a GPU; `--quick` is a CPU smoke test of a minute, too short to learn. What is finished in the output
folder is kept: give another size or other settings another one; other steps may share it.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from mouse_facelift.config import load_config
from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.demo.recording import write_recording
from mouse_facelift.demo.run import find_configs
from mouse_facelift.demo.truth import novel_views
from mouse_facelift.files import write_json
from mouse_facelift.geometry.rays import CameraBatch, select_views
from mouse_facelift.mvdiffusion.config import ComponentSizes, SamplingConfig, StartConfig, TrainMVDiffConfig
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.pose import nearest_prompts, relative_azimuths_deg
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.mvdiffusion.start import fit_random_vae, start_pipeline
from mouse_facelift.mvdiffusion.task import SlotDataset
from mouse_facelift.mvdiffusion.train import run as train
from mouse_facelift.mvdiffusion.validation import view_scores
from mouse_facelift.pictures import contact_sheet, label, write_png
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.run import run as preprocess
from mouse_facelift.samples.datasets import SampleDataset, composite
from mouse_facelift.samples.format import read_list, write_list
from mouse_facelift.spacing import spread_evenly

SEED, TRUTH_EVERY = 777, 3
"""Every so many moments are seen by the new cameras too; of the held-out ones, these are measured."""
PICTURE = {"width": 288, "height": 256}
"""Of the recordings; animals are then about as large as in samples of 128 pixels."""
MODELS = {
    "slot": ["diffusion.conditioning=slot"],
    "pose": ["diffusion.conditioning=pose"],
}
OUTLINE = "true outline in the reference's mean colour"
SIZES = ComponentSizes(unet_channels=(64, 128, 128), head_channels=32, vae_channels=(32, 64, 64))
Views = dict[str, Tensor]
"""`rgba` [N, V, 4, S, S], `K` [N, V, 3, 3] and `w2c` [N, V, 4, 4] of N moments."""


@dataclass(frozen=True)
class Plan:
    """How large the study is.

    Attributes:
        mice: Recordings, each of another mouse in another rig.
        moments: Of each recording, a sixth of a second apart; a fifth is held out.
        size: Side of the model's pictures in pixels.
        steps: Updates of each model.
        batch_size: Moments per update, six views each.
        sizes: Of the networks.
        vae: Updates, learning rate and batch size of the VAE.
        sampling_steps: Of the solver.
        measured: At most so many held-out moments are measured.
    """

    mice: int = 8
    moments: int = 60
    size: int = 64
    steps: int = 5000
    batch_size: int = 32
    sizes: ComponentSizes = SIZES
    vae: tuple[int, float, int] = (1500, 2e-3, 12)
    sampling_steps: int = 20
    measured: int = 48

    def quick(self) -> "Plan":
        """The same as a smoke test."""
        smaller = replace(self, mice=2, moments=15, size=64, steps=40, batch_size=3, sizes=ComponentSizes())
        return replace(smaller, vae=(120, 4e-3, 3), sampling_steps=5, measured=4)


def main() -> None:
    """Read the command line, run the study, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/pose_vs_slot"))
    parser.add_argument("--steps", type=int, help=f"updates of each model, by default {Plan.steps}")
    parser.add_argument("--size", type=int, choices=(64, 128), help=f"of pictures, by default {Plan.size}")
    parser.add_argument("--quick", action="store_true", help="a smoke test on a CPU")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of both trainings, on top")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in ("steps", "size") if getattr(options, name)}
    plan = replace(Plan().quick() if options.quick else Plan(), **given)
    found = study(options.output, plan, options.settings)
    if options.json:
        write_json(options.json, found)
    print(table(found))


def study(output: Path, plan: Plan, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Make data, train both models, measure; all of it, and a grid to look at per case, lies in `output`.

    Returns:
        JSON-ready: `device`, `steps`, `size`, `seconds` of every stage, and `cases`, see `measure`.
    """
    seconds: dict[str, float] = {}
    started, device = time.perf_counter(), "cuda" if torch.cuda.is_available() else "cpu"

    def lap(stage: str) -> None:
        seconds[stage] = time.perf_counter() - started - sum(seconds.values())

    lists = make_samples(output, plan)
    lap("data")
    start = make_start(output / "start", lists["train"], plan)
    lap("VAE")
    runs = {model: output / f"{model}_{plan.steps}" for model in MODELS}
    for model, own in MODELS.items():
        train(training_config(runs[model], lists, start, plan, [*own, *settings]))
        lap(model)
    pipelines = {model: MVDiffusionPipeline.load(run, device) for model, run in runs.items()}
    cases = {}
    for case, views in held_out_cases(lists["val"], pipelines["slot"].slots, plan).items():
        predictions = predict(pipelines, views, plan)
        cases[case] = measure(predictions, views)
        write_grid(output / f"{case.replace(', ', '_').replace(' ', '_')}.png", predictions, views)
    lap("measuring")
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return {"device": name, "steps": plan.steps, "size": plan.size, "seconds": seconds, "cases": cases}


def make_samples(output: Path, plan: Plan) -> dict[str, Path]:
    """Record and preprocess all mice, side by side; returns the lists of training and held-out samples."""
    folders = [output / f"mouse_{seed}" for seed in range(plan.mice)]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        each = pool.map if plan.mice > 1 else map
        list(each(make_mouse, folders, range(plan.mice), [plan] * plan.mice))
    lists = {part: output / f"{part}.txt" for part in ("train", "val")}
    for part, path in lists.items():
        write_list(path, [s for f in folders for s in read_list(f / "samples" / f"data_{part}.txt")])
    return lists


def make_mouse(folder: Path, seed: int, plan: Plan) -> None:
    """The recording of one mouse, and its samples."""
    recording, threads = folder / "recording", max(1, (os.cpu_count() or 1) // plan.mice)
    if not recording.is_dir():
        length = {"frames": plan.moments, "fps": 6, "truth_every": TRUTH_EVERY}
        write_recording(
            recording, RecordingConfig(seed=seed, rig_seed=seed, threads=threads, **length, **PICTURE)
        )
    settings = [f"input.recording={recording}", f"output={folder / 'samples'}", f"size={plan.size}"]
    settings += [f"workers={threads}", "split={val_share: 0.2, blocks: 2, guard_s: 0.2}"]
    preprocess(load_config(PreprocessConfig, find_configs() / "demo" / "preprocess.yaml", settings))


def make_start(folder: Path, train_list: Path, plan: Plan) -> Path:
    """A pipeline of random weights with a fitted VAE; `pose` adds channels for rays that start at 0."""
    if not folder.is_dir():
        data, (steps, lr, batch) = SampleDataset.from_list(train_list, plan.size), plan.vae
        start = StartConfig(kind="random", sizes=plan.sizes, vae_steps=steps, vae_lr=lr, vae_batch_size=batch)
        pipeline = start_pipeline(start, Slots.rig(data.samples, plan.size), "sparse", SEED)
        fit_random_vae(pipeline, data, "white", start, SEED)
        pipeline.save(folder)
    return folder


def training_config(
    output: Path, lists: Mapping[str, Path], start: Path, plan: Plan, settings: Sequence[str]
) -> TrainMVDiffConfig:
    """What both models share, and `settings` on top."""
    shared = [
        f"data={{train_list: {lists['train']}, val_list: {lists['val']}, background: white}}",
        f"data.image_size={plan.size}",
        f"start={{kind: run, path: {start}}}",
        f"cache={{latents: true, folder: {start.parent / 'latents'}}}",
        "diffusion={condition_drop_rate: 0, gradient_checkpointing: false}",
        "optimizer={lr: 1e-3, schedule: cosine, warmup_steps: 50}",
        f"training={{steps: {plan.steps}, batch_size: {plan.batch_size}, seed: {SEED}, ema_decay: 0.999}}",
        f"training.workers={4 if torch.cuda.is_available() else 0}",
        f"training.validate_every={-(-plan.steps // 4)}",
        f"validation.sampling={{solver: unipc, steps: {plan.sampling_steps}, guidance: 1}}",
        f"output={output}",
    ]
    return load_config(TrainMVDiffConfig, None, [*shared, *settings])


def held_out_cases(val_list: Path, slots: Slots, plan: Plan) -> dict[str, Views]:
    """Every case's moments; their first view is the reference."""
    data = SampleDataset.from_list(val_list, plan.size)
    known = [i for i, sample in enumerate(data.samples) if (sample.frame_index or 0) % TRUTH_EVERY == 0]
    chosen = [known[place] for place in spread_evenly(len(known), plan.measured)]
    rig, samples = _stacked([SlotDataset(data, slots)[i] for i in chosen]), [data.samples[i] for i in chosen]
    new = _stacked([vars(novel_views(s.folder.parents[1] / "recording", s, plan.size)) for s in samples])
    moments, views = rig["K"].shape[:2]
    off = relative_azimuths_deg(rig["w2c"]) - torch.tensor(slots.prompt_azimuths_deg)
    far = ((off + 180) % 360 - 180).abs().mean(1).argsort(descending=True)[: -(-moments // 3)]
    turned = (torch.arange(views) + 1 + torch.arange(moments)[:, None] % (views - 1)) % views
    return {
        "rig": rig,
        "rig, far from the mean": {key: values[far] for key, values in rig.items()},
        "rig, other reference": {key: select_views(values, turned) for key, values in rig.items()},
        "new cameras": {key: torch.cat([rig[key][:, :1], values], 1) for key, values in new.items()},
    }


def _stacked(items: Sequence[Mapping[str, Tensor]]) -> Views:
    return {key: torch.stack([item[key] for item in items]) for key in ("rgba", "K", "w2c")}


@torch.no_grad()
def predict(pipelines: Mapping[str, MVDiffusionPipeline], views: Views, plan: Plan) -> dict[str, Tensor]:
    """What models and trivial predictions make of the references: pictures by name. [N, V, 3, S, S] each"""
    real, cameras = composite(views["rgba"], 1.0), CameraBatch(views["K"], views["w2c"])
    made = {name: sampled(pipeline, real[:, 0], cameras, plan) for name, pipeline in pipelines.items()}
    frozen = pipelines["slot"].frozen
    rebuilt = [frozen.decode(frozen.encode(pictures.to(frozen.vae.device))).cpu() for pictures in real]
    return made | {
        "reference repeated": real[:, :1].expand_as(real),
        "truth through VAE": torch.stack(rebuilt),
    }


def sampled(pipeline: MVDiffusionPipeline, images: Tensor, cameras: CameraBatch, plan: Plan) -> Tensor:
    """Views at the cameras, or of the slots nearest to them in azimuth. [N, V, 3, S, S]"""
    generators = [Generator().manual_seed(number) for number in range(len(images))]
    sampling = SamplingConfig(solver="unipc", steps=plan.sampling_steps, guidance=1)
    if pipeline.slots.mode == "pose":
        return pipeline(images, generators=generators, sampling=sampling, cameras=cameras).cpu()
    nearest = nearest_prompts(relative_azimuths_deg(cameras.w2c), pipeline.slots.prompt_azimuths_deg)
    return select_views(pipeline(images, generators=generators, sampling=sampling).cpu(), nearest)


def measure(predictions: Mapping[str, Tensor], views: Views) -> dict[str, Any]:
    """`psnr` on pixels of the animal in dB and `iou` by prediction, means over all views but the reference.

    `gain` is that of pose over slot, with its standard error over moments; `gain_by_view` that of each view.
    """
    scores: dict[str, dict[str, Tensor]] = {"psnr": {}, "iou": {}}
    for name, made in predictions.items():
        pairs = zip(made, views["rgba"], strict=True)
        found = [view_scores(picture, rgba) for picture, rgba in pairs]
        novel = {key: torch.stack([each[key][1:] for each in found]) for key in found[0]}
        scores["psnr"][name], scores["iou"][name] = novel["psnr_animal"], novel["iou"]
    scores["psnr"][OUTLINE] = novel["psnr_outline"]
    count, asked = views["K"].shape[0], views["K"].shape[1] - 1
    figures: dict[str, Any] = {"moments": count, "views": asked, "gain": {}, "gain_by_view": {}}
    for score, values in scores.items():
        figures[score] = {name: float(each.nanmean()) for name, each in values.items()}
        more = values["pose"] - values["slot"]
        error = float(more.nanmean(1).std(unbiased=count > 1)) / count**0.5
        figures["gain"][score] = [float(more.nanmean()), error]
        figures["gain_by_view"][score] = more.nanmean(0).tolist()
    return figures


def table(found: Mapping[str, Any]) -> str:
    """The figures as Markdown: PSNR and IoU."""
    names = list(next(iter(found["cases"].values()))["psnr"])
    lines = [f"| moments x views | {' | '.join(names)} | pose - slot |", "|---" * (2 + len(names)) + "|"]
    for title, case in found["cases"].items():
        psnr, iou, gain = case["psnr"], case["iou"], case["gain"]
        cells = [f"{psnr[name]:.2f} dB" + (f", {iou[name]:.3f}" if name in iou else "") for name in names]
        more = "{:+.2f} ± {:.2f} dB, ".format(*gain["psnr"]) + "{:+.3f} ± {:.3f}".format(*gain["iou"])
        lines.append(f"| {title}, {case['moments']} x {case['views']} | {' | '.join(cells)} | {more} |")
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in found["seconds"].items())
    return "\n".join([*lines, f"\n{found['device']}, {found['steps']} steps, {found['size']} px; {seconds}"])


def write_grid(path: Path, predictions: Mapping[str, Tensor], views: Views) -> None:
    """Draw some moments, three rows each: reference and true views, then what slot and pose made of it."""
    real, rows = composite(views["rgba"], 1.0), []
    for moment in spread_evenly(len(real), 3):
        rows.append(real[moment])
        for name in MODELS:
            rows.append(torch.cat([label(name, *real.shape[-2:])[None], predictions[name][moment, 1:]]))
    write_png(path, contact_sheet(*rows))


if __name__ == "__main__":
    main()
