"""How good are direct and e2e on a recording with ground truth? Both models learn briefly, then are measured.

The recording is in the layout of the `mouse_capture` data set: videos, masks and `ground_truth/` with a
split, pictures of further cameras and the animal's mesh. Models learn from its `train` frames and are
measured on its `test` frames, which are all more than a few frames away from them:

- data: all frames of the split become samples; the test frames get truth samples with the further cameras,
  re-aimed by the same exact warp, and points of the true surface (`surface.npz`);
- gslrm, mvdiff: a mid-size GS-LRM and a small MVDiffusion that is told its cameras, for some minutes each;
- fit: what needs no training, as a comparison: Gaussians on the visual hull, fitted to each frame's views;
- evaluate: all protocols on the test frames: direct, direct with 100 steps of fitting to the shown views,
  and e2e; writes scores, pictures, and `results.md`.

    python scripts/studies/capture.py [--recording DIR] [--stage data|gslrm|mvdiff|fit|evaluate] [--minutes 4]

Without --stage all run, one after the other. What is finished in the output folder is kept, so the stages can
run on different machines. `--quick` is a CPU smoke test of a few minutes, too short to learn.
"""

import argparse
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from study_report import cell, device_name, markdown_head, markdown_row

from mouse_facelift.config import load_config
from mouse_facelift.evaluation.config import EvaluateConfig
from mouse_facelift.evaluation.run import find_all, measure_subject
from mouse_facelift.evaluation.run import run as evaluate
from mouse_facelift.evaluation.scores import Score, read_scores, write_scores
from mouse_facelift.evaluation.summary import summarize
from mouse_facelift.evaluation.truth import even_points, write_truth_sample
from mouse_facelift.files import write_text
from mouse_facelift.gaussians.filters import filter_gaussians
from mouse_facelift.gaussians.hull_start import hull_start
from mouse_facelift.geometry import Camera
from mouse_facelift.gslrm.config import TrainGSLRMConfig
from mouse_facelift.gslrm.train import run as train_gslrm
from mouse_facelift.inference.config import RefineConfig
from mouse_facelift.inference.inputs import Views
from mouse_facelift.inference.models import Models, choose_device
from mouse_facelift.inference.refine import refine
from mouse_facelift.inference.results import Reconstruction
from mouse_facelift.mvdiffusion.config import TrainMVDiffConfig
from mouse_facelift.mvdiffusion.train import run as train_mvdiff
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.normalize import HALF_FIELD
from mouse_facelift.preprocess.run import run as preprocess
from mouse_facelift.preprocess.warp import View
from mouse_facelift.progress import track
from mouse_facelift.samples.datasets import composite
from mouse_facelift.samples.format import Sample, read_list, read_rgba, read_sample, write_list
from mouse_facelift.training.logging import read_log

STAGES = ("data", "gslrm", "mvdiff", "fit", "evaluate")
PROBE_STEPS = 60
"""A training this long tells how many steps fit into the given minutes."""

GSLRM = (
    "model.width=512",
    "model.layers=8",
    "model.depth_anchor=hull",
    "model.tokens=foreground",
    "model.gradient_checkpointing=false",
    "views.input_views=[3, 6]",
    "views.target_views=4",
    "views.targets=any",
    "loss.outside=1",
    "augment={yaw: true, scale: [0.85, 1.0]}",
    "optimizer.lr=4e-4",
    "optimizer.warmup_steps=100",
    "training.batch_size=8",
    "training.ema_decay=0.995",
    "training.workers=8",
    "training.sample_cache=memory",
    "validation={samples: 4, input_views: 5}",
)
MVDIFF = (
    "data.background=white",
    "diffusion.conditioning=pose",
    "diffusion.gradient_checkpointing=false",
    "start={kind: random, vae_steps: 1500, vae_lr: 2e-3, vae_batch_size: 12}",
    "start.sizes={unet_channels: [64, 128, 128], head_channels: 32, vae_channels: [32, 64, 64]}",
    "cache.latents=true",
    "optimizer={lr: 1e-3, schedule: cosine, warmup_steps: 50}",
    "training={batch_size: 16, ema_decay: 0.995, workers: 8}",
    "validation={samples: 2, sampling: {solver: unipc, steps: 20, guidance: 1}}",
)
EVALUATE = (
    "protocols=[reconstruction, leave-one-camera-out, single-view, novel]",
    "methods.direct={}",
    "methods.direct_refined.refine.steps=100",
    "methods.e2e.mode=e2e",
    "methods.e2e.diffusion={solver: unipc, steps: 20, guidance: 1}",
    "filter={floater_distance: null, box: [1.3, 1.3, 1.3]}",
    "leaks.guard_frames=5",
    "pictures=6",
)
FITTED = "hull_fitted"
FITTING = RefineConfig(steps=1000, tolerance=0.002)
"""From scratch takes more steps than after a network."""
QUICK_STEPS = 3

QUICK_GSLRM = (
    "model.width=64",
    "model.head_width=32",
    "model.layers=2",
    "training.batch_size=1",
    "training.workers=0",
)
QUICK_MVDIFF = (
    "start={kind: random, vae_steps: 60, vae_lr: 4e-3, vae_batch_size: 3}",
    "training={batch_size: 2, workers: 0}",
    "validation.sampling.steps=2",
)


@dataclass(frozen=True)
class Plan:
    """How large the study is.

    Attributes:
        recording: The recording.
        output: Where everything goes.
        size: Side of the samples and of GS-LRM's pictures.
        diffusion_size: Side of MVDiffusion's pictures.
        every: Every so manieth training frame is used.
        minutes: Of each training.
        quick: A smoke test.
    """

    recording: Path
    output: Path
    size: int
    diffusion_size: int
    every: int
    minutes: float
    quick: bool

    @property
    def lists(self) -> dict[str, Path]:
        """List files of the samples by part of the split."""
        return {part: self.output / "samples" / f"{part}.txt" for part in ("train", "test")}

    @property
    def truth(self) -> Path:
        """Folder of the truth samples."""
        return self.output / "truth"


def main() -> None:
    """Read the command line, run the stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = Path(os.environ.get("MFL_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    parser.add_argument("--recording", type=Path, default=shared / "data" / "mouse_capture")
    parser.add_argument("--output", type=Path, default=Path("outputs/capture"))
    parser.add_argument("--stage", choices=STAGES, help="all if left out")
    parser.add_argument("--size", type=int, help="of samples and of GS-LRM's pictures, by default 512")
    parser.add_argument("--diffusion-size", type=int, help="of MVDiffusion's pictures, by default 128")
    parser.add_argument("--every", type=int, help="use every so manieth training frame, by default all")
    parser.add_argument("--minutes", type=float, default=4.0, help="of each training")
    parser.add_argument("--quick", action="store_true", help="a smoke test on a CPU")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    size, diffusion_size, every = (64, 64, 29) if options.quick else (512, 128, 1)
    plan = Plan(
        options.recording,
        options.output,
        options.size or size,
        options.diffusion_size or diffusion_size,
        options.every or every,
        options.minutes,
        options.quick,
    )
    study(plan, (options.stage,) if options.stage else STAGES)


def study(plan: Plan, stages: Sequence[str] = STAGES) -> None:
    """Run stages of the study."""
    work: dict[str, Callable[[Plan], None]] = {
        "data": make_data,
        "gslrm": learn_gslrm,
        "mvdiff": learn_mvdiff,
        "fit": fit_frames,
        "evaluate": measure,
    }
    for stage in stages:
        work[stage](plan)


def make_data(plan: Plan) -> None:
    """Samples of the split's frames, their lists, and the truth of the test frames."""
    truth = plan.recording / "ground_truth"
    split: dict[str, list[int]] = json.loads((truth / "split.json").read_text(encoding="utf-8"))
    parts = {"train": split["train"][:: plan.every], "test": split["test"]}
    frames = sorted(parts["train"] + parts["test"])
    settings = [
        f"input.recording={plan.recording}",
        f"output={plan.output / 'samples'}",
        f"size={plan.size}",
        f"selection={{mode: list, frames: {frames}}}",
        "split.val_share=0",
    ]
    samples = preprocess(load_config(PreprocessConfig, None, settings))
    found = {read_sample(folder).frame_index: folder for folder in read_list(samples / "data_train.txt")}
    for part, wanted in parts.items():
        write_list(plan.lists[part], [found[frame] for frame in wanted])
    surface = Mesh.read(truth)
    for frame in parts["test"]:
        write_truth(plan, read_sample(found[frame]), surface)
    total = sum(file.stat().st_size for file in plan.output.rglob("*") if file.is_file())
    print(
        f"{len(frames)} samples of {plan.size} px and the truth of {len(parts['test'])}: "
        f"{total / 2**20:.1f} MiB"
    )


def write_truth(plan: Plan, sample: Sample, mesh: "Mesh") -> None:
    """The further cameras' pictures as a sample in the frame of `sample`, with the true surface."""
    folder, frame = plan.truth / sample.folder.resolve().name, sample.frame_index
    if folder.is_dir() or frame is None:
        return
    views = {}
    for view_id, camera in further_cameras(plan.recording).items():
        name = f"frame{frame:04d}_cam{view_id}.png"
        rgba = read_rgba(plan.recording / "ground_truth" / "novel_views" / name)
        views[view_id] = View(rgba[..., :3].copy(), rgba[..., 3].astype(np.float32) / np.float32(255), camera)
    points = even_points(mesh.vertices(frame), mesh.rest["faces"], frame)
    write_truth_sample(folder, sample, views, plan.size, points)


def further_cameras(recording: Path) -> dict[int, Camera]:
    """The held-out cameras by id, millimetres; their pixel centres lie at whole numbers in the file."""
    content = json.loads((recording / "ground_truth" / "cameras.json").read_text(encoding="utf-8"))
    cameras = {}
    for entry in content["cameras"]:
        if entry["role"] != "input":
            K = np.array(entry["K"], float)
            K[:2, 2] += 0.5
            cameras[int(entry["id"])] = Camera.from_rt(
                K, entry["R"], entry["T"], entry["width"], entry["height"]
            )
    return cameras


@dataclass(frozen=True)
class Mesh:
    """The animal's mesh and its poses: linear blend skinning of a rest mesh, millimetres.

    Attributes:
        rest: Arrays of `mesh.npz`.
        pose: Arrays of `pose.npz`.
    """

    rest: dict[str, NDArray[Any]]
    pose: dict[str, NDArray[Any]]

    @classmethod
    def read(cls, truth: Path) -> "Mesh":
        """Read both files of a folder `ground_truth`."""
        found = []
        for name in ("mesh.npz", "pose.npz"):
            with np.load(truth / name, allow_pickle=False) as content:
                found.append(dict(content))
        return cls(*found)

    def vertices(self, frame: int) -> NDArray[np.float64]:
        """Vertices in the rig's world. [M, 3]"""
        rest, size = self.rest, float(self.rest["scale_mm"])
        turns = rotations(self.pose["rotvec"][frame].astype(float))
        # A point moves with a joint: turned about the joint's rest place, carried to where the joint is.
        carried = self.pose["joints_mm"][frame] - size * np.einsum("jab,jb->ja", turns, rest["rest_joints"])
        vertex, joint, weight = rest["w_vertex"], rest["w_joint"], rest["w_value"].astype(float)
        moved = size * np.einsum("nab,nb->na", turns[joint], rest["rest_vertices"][vertex]) + carried[joint]
        result = np.zeros(rest["rest_vertices"].shape)
        np.add.at(result, vertex, weight[:, None] * moved)
        # The recording's animal does not sink into the floor.
        result[:, 2] = result[:, 2].clip(0.05)
        return result


def rotations(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rodrigues' formula. Axis times angle [N, 3] -> [N, 3, 3]"""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = (vectors / np.maximum(angle[:, 0], 1e-12)).T
    none = np.zeros_like(x)
    cross = np.stack([none, -z, y, z, none, -x, -y, x, none], axis=1).reshape(-1, 3, 3)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def learn_gslrm(plan: Plan) -> None:
    """Train GS-LRM for the given minutes."""

    def train(output: Path, steps: int, probe: bool) -> Path:
        # Gaussians start a little larger than a pixel.
        start = math.log(2 * HALF_FIELD / plan.size) + 0.3
        scales = [f"model.scale_bias={start:.2f}", f"model.scale_max={start + 2.6:.2f}"]
        settings = [
            *GSLRM,
            *scales,
            *(QUICK_GSLRM if plan.quick else ()),
            *_shared(plan, output, steps, plan.size),
        ]
        return train_gslrm(load_config(TrainGSLRMConfig, None, settings))

    _train_for(plan, "gslrm", train)


def learn_mvdiff(plan: Plan) -> None:
    """Train MVDiffusion for the given minutes."""

    def train(output: Path, steps: int, probe: bool) -> Path:
        shared = _shared(plan, output, steps, plan.diffusion_size)
        shared += ["start.vae_steps=20"] if probe else []
        settings = [*MVDIFF, *(QUICK_MVDIFF if plan.quick else ()), *shared]
        return train_mvdiff(load_config(TrainMVDiffConfig, None, settings))

    _train_for(plan, "mvdiff", train)


def _shared(plan: Plan, output: Path, steps: int, size: int) -> list[str]:
    """Settings of both trainings. Validation looks at test frames, but nothing is chosen by it."""
    return [
        f"data.train_list={plan.lists['train']}",
        f"data.val_list={plan.lists['test']}",
        f"data.image_size={size}",
        f"training.steps={steps}",
        f"training.validate_every={steps}",
        f"training.checkpoint_every={steps}",
        "training.keep_best=0",
        f"output={output}",
    ]


def _train_for(plan: Plan, name: str, train: Callable[[Path, int, bool], Path]) -> None:
    """Train for as many steps as fit into the minutes, which a short training tells first."""
    output = plan.output / name
    steps_file = plan.output / f"{name}_steps.json"
    if not steps_file.is_file():
        steps = 8
        if not plan.quick:
            # Minutes count the steps alone: not the start, nor fitting the VAE, which come before.
            shutil.rmtree(plan.output / f"{name}_probe", ignore_errors=True)
            probe = train(plan.output / f"{name}_probe", PROBE_STEPS, True)
            times = {line["step"]: line["time"] for line in read_log(probe) if "loss" in line}
            half = PROBE_STEPS // 2
            steps = max(PROBE_STEPS, round(60 * plan.minutes * half / (times[PROBE_STEPS] - times[half])))
            shutil.rmtree(probe)
        write_text(steps_file, json.dumps({"steps": steps, "minutes": plan.minutes}) + "\n")
    train(output, _length(plan, name)["steps"], False)


def _length(plan: Plan, name: str) -> dict[str, Any]:
    """Steps and minutes of a training."""
    found: dict[str, Any] = json.loads((plan.output / f"{name}_steps.json").read_text(encoding="utf-8"))
    return found


def fit_frames(plan: Plan) -> None:
    """Fit each frame without a model, and measure."""
    config = load_config(EvaluateConfig, None, _measuring(plan))
    write_scores(plan.output / "fitted.csv", fit_each_frame(plan, config))


def measure(plan: Plan) -> None:
    """Evaluate both models, and write `results.md`."""
    config = load_config(EvaluateConfig, None, _measuring(plan))
    scores = read_scores(evaluate(config) / "scores.csv") + read_scores(plan.output / "fitted.csv")
    write_scores(plan.output / "scores.csv", scores)
    text = fragment(plan, summarize(scores, config.bootstrap, {}))
    write_text(plan.output / "results.md", text)
    print(text)


def _measuring(plan: Plan) -> list[str]:
    """Settings of the evaluation."""
    return [
        *EVALUATE,
        *((f"methods.direct_refined.refine.steps={QUICK_STEPS}",) if plan.quick else ()),
        f"gslrm={plan.output / 'gslrm'}",
        f"methods.e2e.mvdiffusion={plan.output / 'mvdiff'}",
        f"image_size={plan.size}",
        f"data={plan.lists['test']}",
        f"truth={plan.truth}",
        f"output={plan.output / 'evaluation'}",
    ]


def fit_each_frame(plan: Plan, config: EvaluateConfig) -> list[Score]:
    """Scores of per-frame optimisation: Gaussians on the visual hull, fitted to the shown views alone."""
    device = choose_device(config.device)
    fitting = FITTING.model_copy(update={"steps": QUICK_STEPS}) if plan.quick else FITTING

    def fit(views: Views) -> Reconstruction:
        assert views.K is not None and views.w2c is not None
        rgba, K, w2c = (each.to(device) for each in (views.rgba, views.K, views.w2c))
        kept, report = filter_gaussians(hull_start(rgba, K, w2c), config.filter)
        pictures = torch.cat([composite(rgba, config.background), rgba[:, 3:]], dim=1)
        fitted, done = refine(kept, pictures, K, w2c, config.background, fitting)
        return Reconstruction(fitted, report, views.view_ids, refinement=done)

    models = Models(lambda batch: map(fit, batch), None, None)
    subjects, methods = find_all(config)
    # One fit a frame; leaving out one camera after the other would be six more.
    protocols = [each for each in config.protocols if each in ("reconstruction", "novel")]
    method = replace(methods[0], name=FITTED, protocols=protocols)
    # Nothing was trained, so nothing was seen.
    scores = [
        replace(score, leak="clean")
        for subject in track(subjects, FITTED)
        for score in measure_subject(method, models, subject)
    ]
    return sorted(scores, key=lambda score: [str(each) for each in protocols].index(score.protocol))


COLUMNS = {
    "psnr_animal_db": ("PSNR animal, dB", 2),
    "psnr_outline_db": ("one-colour outline, dB", 2),
    "ssim_animal": ("SSIM animal", 3),
    "iou": ("IoU", 3),
    "boundary_px": ("outline, px", 2),
    "depth_mm": ("depth, mm", 2),
    "chamfer_mm": ("Chamfer, mm", 2),
}
"""Figures of the table, their headings and digits."""
TRIVIAL = {
    "psnr_white_db": "all white",
    "psnr_outline_db": "the true outline in one mean colour",
    "psnr_shift_db": "the truth moved by one pixel",
}


def fragment(plan: Plan, summary: dict[str, Any]) -> str:
    """The figures as Markdown for docs/results.md."""
    headings = [heading for heading, _ in COLUMNS.values()]
    lines = markdown_head(["method", "protocol", *headings])
    for group in summary["groups"]:
        cells = [cell(group["metrics"].get(name), digits) for name, (_, digits) in COLUMNS.items()]
        flag = " (inputs, flatters)" if group["role"] == "input" else ""
        lines.append(markdown_row([group["method"], group["protocol"] + flag, *cells]))
    novel = next(group["metrics"] for group in summary["groups"] if group["protocol"] == "novel")
    trivial = ", ".join(f"{name} {cell(novel[key], 2)} dB" for key, name in TRIVIAL.items())
    lines.append(f"\nTrivial predictions at the novel cameras, same pixels: {trivial}.")
    for difference in summary["differences"]:
        if difference["one"]["method"] != "direct":
            continue
        gap = difference["metrics"]["psnr_animal_db"]
        lines.append(
            f"\n{difference['one']['method']} minus {difference['other']['method']}, "
            f"{difference['role']} cameras: {cell(gap, 2)} dB."
        )
    lengths = []
    for name, model in (("gslrm", "GS-LRM"), ("mvdiff", "MVDiffusion")):
        length = _length(plan, name)
        lengths.append(f"{length['steps']} steps of {model} in {length['minutes']:g} minutes")
    lines.append(
        f"\n{device_name()}; samples of {plan.size} px, MVDiffusion of {plan.diffusion_size} px; "
        f"{', '.join(lengths)}{' (a smoke test)' if plan.quick else ''}."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
