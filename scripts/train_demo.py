"""Train the weights of checkpoints/demo: a small GS-LRM and a small MVDiffusion, on synthetic mice alone.

Many mice with shapes, coats, walks and rigs of their own are drawn first (mouse_facelift/demo/herd.py); then
both models train as `mfl train-gslrm` and `mfl train-mvdiff` with configs/demo/weights/. What is finished in
the output folder is kept, and trainings go on where they were.

    python scripts/train_demo.py [--stages data gslrm mvdiff export] [--quick] [--output FOLDER]

For a GPU; `--quick` is a CPU smoke test of a minute, too short to learn. `export` writes half-precision
weights, what they were trained on and a model card to --destination.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mouse_facelift import __version__
from mouse_facelift.config import load_config
from mouse_facelift.demo.finetuning import last_validation
from mouse_facelift.demo.herd import Herd, training_data, write_herd
from mouse_facelift.demo.shipped import find_configs
from mouse_facelift.errors import DataError
from mouse_facelift.files import atomic_folder, write_json, write_text
from mouse_facelift.gslrm import GSLRM, load_gslrm, save_gslrm
from mouse_facelift.gslrm.config import TrainGSLRMConfig
from mouse_facelift.gslrm.train import run as train_gslrm
from mouse_facelift.mvdiffusion.config import TrainMVDiffConfig
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.train import run as train_mvdiff
from mouse_facelift.samples.training_data import FILE as RECORD
from mouse_facelift.samples.training_data import TrainingData
from mouse_facelift.training.checkpoints import find_checkpoint

STAGES = ("data", "gslrm", "mvdiff", "export")
HERD = Herd(mice=640, moments=24, size=128, held_out=8, seed=20)
QUICK_HERD = Herd(mice=3, moments=2, size=128, held_out=1, seed=20)
QUICK = {
    "gslrm": ("model.width=32", "model.head_width=16", "model.layers=1", "validation.samples=1"),
    "mvdiff": (
        "start.sizes={unet_channels: [16, 16], head_channels: 8, vae_channels: [8, 16, 16], clip_width: 16}",
        "start.vae_steps=3",
        "validation={samples: 1, sampling: {solver: unipc, steps: 2, guidance: 1}}",
    ),
}
QUICK_TRAINING = (
    "training.steps=2",
    "training.batch_size=2",
    "training.workers=0",
    "training.precision=fp32",
)


@dataclass(frozen=True)
class Plan:
    """Where everything lies, and settings on top of the configurations."""

    output: Path
    destination: Path
    quick: bool
    settings: dict[str, list[str]]

    @property
    def herd(self) -> Herd:
        """What the models learn from."""
        return QUICK_HERD if self.quick else HERD

    @property
    def lists(self) -> list[str]:
        """Overrides that name the data."""
        herd = self.output / "herd"
        return [f"data.train_list={herd / 'data_train.txt'}", f"data.val_list={herd / 'data_val.txt'}"]

    def overrides(self, model: str) -> list[str]:
        """Of one training."""
        quick = [*QUICK[model], *QUICK_TRAINING] if self.quick else []
        return [*self.lists, f"output={self.output / model}", *quick, *self.settings[model]]


def main() -> None:
    """Read the command line and run the stages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo_weights"))
    parser.add_argument("--destination", type=Path, default=Path("checkpoints/demo"))
    parser.add_argument("--quick", action="store_true", help="a smoke test on a CPU")
    parser.add_argument("--gslrm", nargs="*", default=[], metavar="KEY=VALUE", help="of its training, on top")
    parser.add_argument("--mvdiff", nargs="*", default=[], metavar="KEY=VALUE", help="likewise")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = {"gslrm": options.gslrm, "mvdiff": options.mvdiff}
    plan = Plan(options.output, options.destination, options.quick, settings)
    stages: dict[str, Callable[[Plan], None]] = {
        "data": draw_herd,
        "gslrm": lambda plan: _train(plan, "gslrm"),
        "mvdiff": lambda plan: _train(plan, "mvdiff"),
        "export": export,
    }
    for stage in options.stages:
        started = time.perf_counter()
        stages[stage](plan)
        print(f"{stage}: {time.perf_counter() - started:.0f} s", flush=True)


def draw_herd(plan: Plan) -> None:
    """Samples of all mice."""
    write_herd(plan.output / "herd", plan.herd)


def _train(plan: Plan, model: str) -> None:
    stages = find_configs() / "demo" / "weights"
    if model == "gslrm":
        file = stages / "train_gslrm.yaml"
        train_gslrm(load_config(TrainGSLRMConfig, file, plan.overrides(model)))
    else:
        file = stages / "train_mvdiff.yaml"
        train_mvdiff(load_config(TrainMVDiffConfig, file, plan.overrides(model)))


def export(plan: Plan) -> None:
    """Half-precision weights of both models, what they were trained on, and what they are."""
    for model in QUICK:
        _check_seen(plan.output / model, plan.herd)
    with atomic_folder(plan.destination) as temporary:
        pipeline = MVDiffusionPipeline.load(plan.output / "mvdiff", torch.device("cpu"))
        write_weights(temporary, load_gslrm(plan.output / "gslrm"), pipeline, plan.herd)
        write_json(temporary / "training.json", {model: _figures(plan.output / model) for model in QUICK})
        (temporary / "README.md").write_text(card(plan, temporary), encoding="utf-8")


def write_weights(folder: Path, model: GSLRM, pipeline: MVDiffusionPipeline, herd: Herd) -> None:
    """Write both models in half precision, each with the herd's record, into an existing folder."""
    (folder / "gslrm").mkdir()
    save_gslrm(model.half(), folder / "gslrm")
    pipeline.to(torch.device("cpu"), torch.float16).save(folder / "mvdiffusion")
    write_record(folder, herd)


def write_record(folder: Path, herd: Herd) -> None:
    """Write beside both models' weights what they were trained on, for `mfl evaluate`.

    On one line: of thousands of samples, blanks would be a large part.
    """
    for model in ("gslrm", "mvdiffusion"):
        training_data(herd).save(folder / model)
        record = folder / model / RECORD
        content = json.loads(record.read_text(encoding="utf-8"))
        write_text(record, json.dumps(content, separators=(",", ":")) + "\n")


def _check_seen(run: Path, herd: Herd) -> None:
    """What is exported is the herd's record, so it must be what the run was trained on.

    Raises:
        DataError: it is not.
    """
    seen = TrainingData.load(run) or TrainingData(())
    count, expected = sum(len(data.samples) for data in seen.sets), len(herd.trained) * herd.moments
    if count != expected or seen.unrecorded:
        raise DataError(
            f"{run}: was trained on {count} samples, the herd has {expected} for training. Train on the herd "
            "alone, in another output."
        )


def _figures(run: Path) -> dict[str, Any]:
    """Configuration, steps and the last validation of a training."""
    config = json.loads((run / "run.json").read_text(encoding="utf-8"))["config"]
    return {"step": find_checkpoint(run).step, "metrics": last_validation(run), "config": config}


def card(plan: Plan, folder: Path) -> str:
    """The model card."""
    herd = plan.herd
    figures = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    lines = [
        "# Demo weights",
        "",
        "Small models for `mfl demo`, trained on drawn mice alone: no real animal, no other data.",
        "They show that the pipeline works and are of no use for real recordings. Apache-2.0, as the code.",
        "",
        f"- Data: {herd.mice - herd.held_out} mice of `mouse_facelift/demo/herd.py` (seed {herd.seed}), "
        f"{herd.moments} moments each,",
        f"  seen by a rig's six cameras and {herd.extra_views} others, {herd.size} pixels. Validation: "
        f"{herd.held_out} more mice.",
        "  What `mfl evaluate` must know of it: `training_data.json`.",
        "- Command: `python scripts/train_demo.py`, with configs/demo/weights/; `training.json` has what was",
        "  run.",
        f"- Made by mouse-facelift {__version__} on {device}.",
        "",
        "| model | steps | validation on unseen mice |",
        "|---|---|---|",
    ]
    for model, found in figures.items():
        shown = ", ".join(
            f"{key} {value:.3f}"
            for key, value in found["metrics"].items()
            if isinstance(value, float) and "camera" not in key
        )
        lines.append(f"| {model} | {found['step']} | {shown} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
