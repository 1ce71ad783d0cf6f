"""What does each way of preparing pictures and cameras cost? The same small GS-LRM learns from each of them.

One synthetic recording becomes samples of the same frames in several ways:

- lookat: cameras re-aimed at the animal, pictures warped with them, focal length by distance (the default);
- fixed: the same with one focal length for all (`geometry.focal=fixed`);
- crop: squares of the original pictures with their tracked K (`geometry.virtual_camera=crop`);
- old: the pictures of crop, but the cameras beside them say a field of view of 50 degrees, the principal
  point in the middle and a mean distance of 2.7, as was once written without warping the pictures.

One model learns from each, with the same seed, steps and settings, and is then shown the six views of
held-out frames. Its Gaussians go through the sample's world_from_model into the rig's frame and are seen
there from four new cameras, the same true pictures for all. The frame of old fits nothing; `old_aligned`
takes its Gaussians through the similarity that fits best between where true points seem to be and where they
are, frame by frame, which its user could not know. The data itself is measured too: see wrong_cameras.py.

    python scripts/studies/recipes.py [--quick] [--stage data|train|evaluate] [--only RECIPE] [KEY=VALUE ...]

Finished parts in the output folder are kept; its `recording/` is needed by the stage data alone. `--only`,
once or more, names the recipes to train, so that several GPUs can share the work. `--quick` is a CPU smoke
test, too short to learn. KEY=VALUE are settings of all trainings, such as model.depth_anchor=origin.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from study_data import HELD_OUT, StudyPlan, check_alike, prepare, write_truths
from study_report import (
    COLUMNS,
    cell,
    device_name,
    markdown_head,
    markdown_row,
    table,
    training_curve,
    write_curves,
)
from torch import Tensor
from wrong_cameras import camera_errors, overwrite_cameras

from mouse_facelift.config import load_config
from mouse_facelift.errors import ConfigError
from mouse_facelift.evaluation.bootstrap import estimate, paired
from mouse_facelift.evaluation.config import BootstrapConfig, Protocol
from mouse_facelift.evaluation.measure import Measure
from mouse_facelift.evaluation.protocols import ROLES
from mouse_facelift.evaluation.scores import Score, write_scores
from mouse_facelift.evaluation.sheets import sheet
from mouse_facelift.evaluation.subjects import Subject
from mouse_facelift.files import write_json, write_text
from mouse_facelift.gaussians.similarity import transformed
from mouse_facelift.geometry.cameras import Array
from mouse_facelift.gslrm.config import TrainGSLRMConfig
from mouse_facelift.gslrm.train import run as train
from mouse_facelift.inference.config import ReconstructionConfig
from mouse_facelift.inference.models import Weights, choose_device, load_models
from mouse_facelift.pictures import write_png
from mouse_facelift.preprocess.normalize import HALF_FIELD
from mouse_facelift.samples.datasets import composite
from mouse_facelift.samples.format import Sample, read_list, read_sample, write_list
from mouse_facelift.spacing import spread_evenly
from mouse_facelift.training.checkpoints import checkpoint_folder

PREPARED: dict[str, tuple[str, ...]] = {
    "lookat": (),
    "fixed": ("geometry.focal=fixed",),
    "crop": ("geometry.virtual_camera=crop",),
}
"""Recipes that `mfl preprocess` knows, with their settings."""
OURS, MADE_OLD, OLD, ALIGNED = "lookat", "crop", "old", "old_aligned"
"""The recipe in whose frame the truth lies; the one whose cameras are overwritten; what comes of it."""
RECIPES = (*PREPARED, OLD)
STAGES = ("data", "train", "evaluate")
BACKGROUND = 1.0
RECONSTRUCTION = "filter={floater_distance: null, box: [1.3, 1.3, 1.3]}"
BOOTSTRAP = BootstrapConfig(block=2)
"""Frames with truth are a third of a second apart: neighbours are alike."""
PICTURES = 3
"""Frames to look at."""
GAPS = ("psnr_animal_db", "iou")
"""Figures whose differences are told."""
DATA = {
    "written_px": "true points to their pixels, px",
    "best_px": "the same of the shape that fits best, px",
    "alpha_iou": "alpha against true masks, IoU",
}
"""Figures of the data, see `CameraErrors`, and their headings."""

TRAINING = (
    "model={patch_size: 4, width: 192, head_width: 64, layers: 8, depth_anchor: hull, tokens: foreground}",
    "model.gradient_checkpointing=false",
    "views={input_views: [4, 6], target_views: 6, targets: any}",
    "augment={yaw: true, scale: [0.85, 1.0]}",
    "loss={ssim: 0.1, alpha: 0.3}",
    "optimizer={lr: 1e-3, warmup_steps: 100}",
    "training={batch_size: 4, ema_decay: 0.995, workers: 6, sample_cache: memory, keep_best: 0}",
    "validation={samples: 4, input_views: 6}",
)


class Plan(StudyPlan):
    """Places of this study."""

    def run(self, recipe: str) -> Path:
        """Folder of a training."""
        return self.output / f"gslrm_{recipe}"

    def checkpoint(self, recipe: str) -> Path:
        """What is measured of it."""
        return checkpoint_folder(self.run(recipe), self.steps)

    def list_file(self, recipe: str, part: str) -> Path:
        """List of a recipe's samples: `train`, or `test`: those held out that have truth."""
        return self.output / "samples" / f"{recipe}_{part}.txt"

    def samples(self, recipe: str, part: str) -> Sequence[Sample]:
        """The same samples."""
        return [read_sample(folder) for folder in read_list(self.list_file(recipe, part))]


def main() -> None:
    """Read the command line, run the stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=STAGES, help="all if left out")
    parser.add_argument("--only", choices=RECIPES, action="append", help="train this one; may be repeated")
    plan, options = Plan.of_command_line(parser, Path("outputs/recipes"))
    study(plan, (options.stage,) if options.stage else STAGES, options.only or RECIPES)


def study(plan: Plan, stages: Sequence[str] = STAGES, recipes: Sequence[str] = RECIPES) -> None:
    """Run stages of the study; `recipes` are those to train."""
    if "data" in stages:
        make_data(plan)
    if "train" in stages:
        for recipe in recipes:
            train(training_config(plan, recipe))
    if "evaluate" in stages:
        measure(plan)


def make_data(plan: Plan) -> None:
    """The recording, its samples by all recipes, the truth, and how far pictures and cameras agree."""
    plan.record()
    found = {
        recipe: prepare(plan.recording, plan.output / "samples" / recipe, plan.size, [*HELD_OUT, *settings])
        for recipe, settings in PREPARED.items()
    }
    held_out = write_truths(plan.truth, plan.recording, found[OURS]["val"], plan.size)
    wanted = {"train": _frames(found[OURS]["train"]), "test": _frames(held_out)}
    for part, source in (("train", "train"), ("test", "val")):
        shared = set(wanted[part]).intersection(*(_frames(parts[source]) for parts in found.values()))
        for recipe, parts in found.items():
            chosen = [sample for sample in parts[source] if sample.frame_index in shared]
            write_list(plan.list_file(recipe, part), [sample.folder for sample in chosen])
    train_samples, test_samples = (plan.samples(MADE_OLD, part) for part in wanted)
    old = overwrite_cameras(plan.output / "samples" / OLD, [*train_samples, *test_samples])
    count = len(train_samples)
    for part, copies in (("train", old[:count]), ("test", old[count:])):
        write_list(plan.list_file(OLD, part), [sample.folder for sample in copies])
    write_json(plan.output / "data.json", {recipe: data_errors(plan, recipe) for recipe in RECIPES})


def _frames(samples: Sequence[Sample]) -> list[int | None]:
    return [sample.frame_index for sample in samples]


def data_errors(plan: Plan, recipe: str) -> dict[str, Any]:
    """`CameraErrors` of the test samples by frame, JSON-ready."""
    sound = plan.samples(MADE_OLD if recipe == OLD else recipe, "test")
    found = {}
    for sample, made_by in zip(plan.samples(recipe, "test"), sound, strict=True):
        errors = camera_errors(plan.recording, sample, made_by)
        found[str(sample.frame_index)] = {
            **asdict(errors),
            "world_from_model": errors.world_from_model.tolist(),
        }
    return found


def training_config(plan: Plan, recipe: str) -> TrainGSLRMConfig:
    """All recipes share everything but their samples."""
    # Gaussians start a little larger than a pixel.
    start = math.log(2 * HALF_FIELD / plan.size) + 0.3
    own = [
        f"model.scale_bias={start:.2f}",
        f"model.scale_max={start + 2.6:.2f}",
        f"data.train_list={plan.list_file(recipe, 'train')}",
        f"data.val_list={plan.list_file(recipe, 'test')}",
        f"data.image_size={plan.size}",
        f"training.steps={plan.steps}",
        f"training.validate_every={plan.steps}",
        f"training.checkpoint_every={plan.steps}",
        f"output={plan.run(recipe)}",
    ]
    return load_config(TrainGSLRMConfig, None, [*TRAINING, *own, *plan.settings])


def measure(plan: Plan) -> None:
    """Scores, curves and pictures of all recipes that were trained; writes `results.md`.

    Raises:
        ConfigError: none was trained for so many steps, or they differ in more than their samples.
    """
    trained = [recipe for recipe in RECIPES if plan.checkpoint(recipe).is_dir()]
    if not trained:
        raise ConfigError(
            f"{plan.output}: no recipe has been trained for {plan.steps} steps. Run --stage train, or give "
            "the --steps of the training."
        )
    check_alike([plan.run(recipe) for recipe in trained], ("data.train_list", "data.val_list", "output"))
    scores: list[Score] = []
    pictures: list[dict[str, Tensor]] = [{} for _ in plan.samples(OURS, "test")]
    for recipe in trained:
        scores += measure_recipe(plan, recipe, pictures)
    write_scores(plan.output / "scores.csv", scores)
    chosen = [pictures[index] for index in spread_evenly(len(pictures), PICTURES)]
    write_png(plan.output / "pictures.png", torch.cat([sheet(list(rows.items())) for rows in chosen], dim=-2))
    curves = {recipe: training_curve(plan.run(recipe)) for recipe in trained}
    write_curves(plan.output / "curves.png", curves, "training step", "PSNR of the animal in training, dB")
    text = fragment(plan, scores)
    write_text(plan.output / "results.md", text)
    print(text)


@torch.no_grad()
def measure_recipe(plan: Plan, recipe: str, pictures: Sequence[dict[str, Tensor]]) -> list[Score]:
    """A model's scores at the new cameras, and at its own inputs in its own frame.

    Args:
        plan: Of the study.
        recipe: What it was trained on.
        pictures: Of each test frame, strips by name; what the new cameras see is added, and the truth.
    """
    settings = [f"gslrm={plan.checkpoint(recipe)}", RECONSTRUCTION]
    weights = Weights.find(load_config(ReconstructionConfig, None, settings))
    models = load_models(weights, choose_device("auto"))
    scores: list[Score] = []
    tests = zip(plan.samples(recipe, "test"), plan.samples(OURS, "test"), pictures, strict=True)
    for sample, ours, strips in tests:
        views = Subject(sample).read(plan.size)
        gaussians = next(models.reconstruct([views])).gaussians
        rows, _ = Measure(views, BACKGROUND)(gaussians, views.view_ids, views.view_ids)
        scores += _scores(recipe, "reconstruction", ours, views.view_ids, rows)
        common = Subject(ours, read_sample(plan.truth / ours.folder.resolve().name))
        seen = common.read_all()
        truth = Measure(seen, BACKGROUND, common.surface())
        for name, world_from_model in _worlds(plan, recipe, sample).items():
            moved = transformed(gaussians, np.linalg.inv(np.array(ours.world_from_model)) @ world_from_model)
            rows, rgb = truth(moved, common.view_ids, common.further_ids)
            scores += _scores(name, "novel", ours, common.further_ids, rows)
            real = composite(seen.rgba[len(common.view_ids) :], BACKGROUND)
            strips |= {"truth": torch.cat(list(real), dim=-1), name: torch.cat(list(rgb.cpu()), dim=-1)}
    return scores


def _worlds(plan: Plan, recipe: str, sample: Sample) -> dict[str, Array]:
    """Ways from a sample's frame to the rig's millimetres, by name. [4, 4] each"""
    worlds = {recipe: np.array(sample.world_from_model)}
    if recipe == OLD:
        errors = json.loads((plan.output / "data.json").read_text(encoding="utf-8"))[OLD]
        worlds[ALIGNED] = np.array(errors[str(sample.frame_index)]["world_from_model"])
    return worlds


def _scores(
    name: str, protocol: Protocol, sample: Sample, view_ids: Sequence[int], rows: Sequence[Mapping[str, Any]]
) -> list[Score]:
    frame = f"frame{sample.frame_index:04d}"
    return [
        # Held-out frames of the recording that was trained on; the new cameras were never trained on.
        Score(name, protocol, frame, sample.frame_index, view_id, ROLES[protocol], "clean", row)
        for view_id, row in zip(view_ids, rows, strict=True)
    ]


def fragment(plan: Plan, scores: Sequence[Score]) -> str:
    """The figures as Markdown for docs/results.md."""
    errors = json.loads((plan.output / "data.json").read_text(encoding="utf-8"))
    novel, own = (
        {
            name: [score for score in scores if (score.method, score.protocol) == (name, protocol)]
            for name in dict.fromkeys(score.method for score in scores if score.protocol == protocol)
        }
        for protocol in ("novel", "reconstruction")
    )
    parts = [
        _data_table(errors),
        table(novel, BOOTSTRAP, "new cameras, common truth"),
        _gap_table(novel),
        table(own, BOOTSTRAP, "own inputs again (flatters)"),
        f"{device_name()}; {plan.steps} steps each, samples of {plan.size} px, {len(errors[OURS])} held-out "
        "frames.\n",
    ]
    return "\n\n".join(parts)


def _data_table(errors: Mapping[str, Mapping[str, Any]]) -> str:
    """Means of `data_errors` by recipe."""
    lines = markdown_head(["the data", *DATA.values()])
    for recipe, frames in errors.items():
        means = (np.mean([frame[name] for frame in frames.values()]) for name in DATA)
        lines.append(markdown_row([recipe, *(f"{mean:.3f}" for mean in means)]))
    return "\n".join(lines)


def _gap_table(novel: Mapping[str, Sequence[Score]]) -> str:
    """How much better ours is, frame by frame and camera by camera."""
    lines = markdown_head([f"{OURS} minus", *(COLUMNS[name][0] for name in GAPS)])
    for recipe, rows in novel.items():
        if recipe != OURS:
            cells = (_gap(novel.get(OURS, ()), rows, name) for name in GAPS)
            lines.append(markdown_row([recipe, *cells]))
    return "\n".join(lines)


def _gap(ours: Sequence[Score], others: Sequence[Score], name: str) -> str:
    found = estimate(paired(ours, others, lambda score: score.values.get(name)), BOOTSTRAP)
    return cell(asdict(found) if found else None, COLUMNS[name][1])


if __name__ == "__main__":
    main()
