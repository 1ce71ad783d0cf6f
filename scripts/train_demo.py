"""Train the weights of checkpoints/demo: a small GS-LRM and a small MVDiffusion, on synthetic mice alone.

Many mice with shapes, coats, walks and rigs of their own are drawn first (mouse_facelift/demo/herd.py); then
both models train as `mfl train-gslrm` and `mfl train-mvdiff` with configs/demo/weights/. What is finished in
the output folder is kept, and trainings go on where they were.

    python scripts/train_demo.py [--stages data gslrm mvdiff export] [--minutes M] [--quick] [--output FOLDER]

For a GPU. Once `data` is done, `--stages gslrm` and `--stages mvdiff` may run at the same time, each on a
GPU of its own. With `--minutes` each trains for as many steps as fit into so many minutes; fitting the VAE,
encoding the pictures and validations come on top. `--quick` is a CPU smoke test of a minute, too short to
learn. `export` writes half-precision weights, what they were trained on and a model card to --destination.
"""

import argparse
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mouse_facelift.config import Config, describe, load_config
from mouse_facelift.demo.herd import Herd, training_data, write_herd
from mouse_facelift.demo.shipped import find_configs
from mouse_facelift.errors import ConfigError, DataError
from mouse_facelift.files import atomic_folder, write_json, write_text
from mouse_facelift.gslrm import GSLRM, load_gslrm, save_gslrm
from mouse_facelift.gslrm.config import TrainGSLRMConfig
from mouse_facelift.gslrm.train import run as train_gslrm
from mouse_facelift.mvdiffusion.config import TrainMVDiffConfig
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.train import run as train_mvdiff
from mouse_facelift.samples.format import read_list, write_list
from mouse_facelift.samples.training_data import FILE as RECORD
from mouse_facelift.samples.training_data import TrainingData
from mouse_facelift.spacing import spread_evenly
from mouse_facelift.training.checkpoints import Checkpoint, find_checkpoint
from mouse_facelift.training.logging import read_log

log = logging.getLogger("train_demo")

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
TRAININGS: dict[str, tuple[str, type[Config], Callable[..., Path]]] = {
    "gslrm": ("train_gslrm.yaml", TrainGSLRMConfig, train_gslrm),
    "mvdiff": ("train_mvdiff.yaml", TrainMVDiffConfig, train_mvdiff),
}
"""By model: its configuration's file and kind, and what trains it."""
PROBE_STEPS, PROBE_SAMPLES = 60, 256
"""Of the short training whose second half tells how fast steps are, with all of its samples in memory."""
MOST_MB = 30
"""What the repository has room for."""
CARD, FIGURES = "README.md", "training.json"
QUICK_TRAINING = (
    "training.steps=2",
    "training.batch_size=2",
    "training.workers=0",
    "training.precision=fp32",
)


@dataclass(frozen=True)
class Plan:
    """Where everything lies, and settings on top of the configurations.

    Attributes:
        output: Of the herd and of the trainings.
        destination: Of the exported weights.
        quick: Whether it is a smoke test.
        settings: By model, `key.sub=value`.
        minutes: How long each model's steps may take; None leaves their number to the configuration.
        mice: Of the herd, those held out included.
    """

    output: Path
    destination: Path
    quick: bool
    settings: Mapping[str, list[str]]
    minutes: float | None = None
    mice: int = HERD.mice

    @property
    def herd(self) -> Herd:
        """What the models learn from."""
        return QUICK_HERD if self.quick else replace(HERD, mice=self.mice)

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
    parser.add_argument("--minutes", type=float, metavar="M", help="of each training")
    parser.add_argument("--mice", type=int, default=HERD.mice, metavar="N", help="to draw and learn from")
    parser.add_argument("--quick", action="store_true", help="a smoke test on a CPU")
    parser.add_argument("--gslrm", nargs="*", default=[], metavar="KEY=VALUE", help="of its training, on top")
    parser.add_argument("--mvdiff", nargs="*", default=[], metavar="KEY=VALUE", help="likewise")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = {"gslrm": options.gslrm, "mvdiff": options.mvdiff}
    plan = Plan(options.output, options.destination, options.quick, settings, options.minutes, options.mice)
    if "export" in options.stages:
        # Not after hours of training.
        check_destination(plan.destination)
    stages: dict[str, Callable[[Plan], None]] = {
        "data": draw_herd,
        "gslrm": lambda plan: train(plan, "gslrm"),
        "mvdiff": lambda plan: train(plan, "mvdiff"),
        "export": export,
    }
    for stage in options.stages:
        started = time.perf_counter()
        stages[stage](plan)
        print(f"{stage}: {time.perf_counter() - started:.0f} s", flush=True)


def draw_herd(plan: Plan) -> None:
    """Samples of all mice. Mice of another herd in the same folder would be kept, and mixed in.

    Raises:
        ConfigError: the folder is of another herd.
    """
    folder = plan.output / "herd"
    marker, now = folder / "herd.json", asdict(plan.herd)
    if marker.is_file() and (then := json.loads(marker.read_text(encoding="utf-8"))) != now:
        raise ConfigError(f"{folder} holds the herd {then}, not {now}. Choose another --output.")
    write_json(marker, now)
    write_herd(folder, plan.herd)


def train(plan: Plan, model: str) -> None:
    """Train a model, or go on where its training was."""
    steps = [] if plan.minutes is None else steps_within(plan, model)
    _train(model, [*plan.overrides(model), *steps])


def _train(model: str, overrides: list[str]) -> Path:
    file, kind, trainer = TRAININGS[model]
    return trainer(load_config(kind, find_configs() / "demo" / "weights" / file, overrides))


def steps_within(plan: Plan, model: str) -> list[str]:
    """Overrides for as many steps as fit into the minutes. A resumed training keeps what was measured first.

    Raises:
        ConfigError: the training was begun with other minutes, for which its learning rate is falling.
    """
    file = plan.output / f"{model}_steps.json"
    if not file.is_file():
        seconds = _seconds_per_step(plan, model)
        steps = max(1, int(60 * (plan.minutes or 0) / seconds))
        write_json(file, {"minutes": plan.minutes, "steps": steps, "seconds_per_step": seconds})
    found = json.loads(file.read_text(encoding="utf-8"))
    if found["minutes"] != plan.minutes:
        raise ConfigError(
            f"{file}: this training was begun for {found['minutes']} minutes, not {plan.minutes}. Go on with "
            "these, or choose another --output."
        )
    steps, part = found["steps"], max(1, found["steps"] // 4)
    return [
        f"training.{key}={value}"
        for key, value in (("steps", steps), ("validate_every", part), ("checkpoint_every", part))
    ]


def _seconds_per_step(plan: Plan, model: str) -> float:
    probe, some = plan.output / f"{model}_probe", plan.output / f"{model}_probe.txt"
    samples = read_list(plan.output / "herd" / "data_train.txt")
    write_list(some, [samples[index] for index in spread_evenly(len(samples), PROBE_SAMPLES)])
    # What is left of an interrupted probe would be resumed, and not timed from the beginning.
    shutil.rmtree(probe, ignore_errors=True)
    overrides = [
        *plan.overrides(model),
        *(f"data.train_list={some}", f"output={probe}", "validation.samples=1"),
        *(f"training.{key}={PROBE_STEPS}" for key in ("steps", "validate_every", "checkpoint_every")),
        "training.log_every=10",
        *(["start.vae_steps=20"] if model == "mvdiff" else []),
    ]
    _train(model, overrides)
    times = {line["step"]: line["time"] for line in read_log(probe) if "loss" in line}
    shutil.rmtree(probe)
    some.unlink()
    half = PROBE_STEPS // 2
    return float(times[PROBE_STEPS] - times[half]) / half


def check_destination(folder: Path) -> None:
    """Refuse to replace what is no earlier export.

    Raises:
        ConfigError: the folder holds something else, which would be deleted.
    """
    if folder.exists() and not (folder / FIGURES).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise ConfigError(
            f"--destination {folder} holds something else than an export; it would be replaced."
        )


def export(plan: Plan) -> None:
    """Half-precision weights of both models, what they were trained on, and what they are.

    Raises:
        ConfigError: the destination holds something else.
        DataError: a model was trained on something else.
    """
    check_destination(plan.destination)
    for model in TRAININGS:
        _check_seen(plan.output / model, plan.herd)
    # Named once: a training that goes on might write newer ones meanwhile.
    newest = {model: find_checkpoint(plan.output / model) for model in TRAININGS}
    figures = {model: _figures(plan, model, checkpoint) for model, checkpoint in newest.items()}
    with atomic_folder(plan.destination) as temporary:
        pipeline = MVDiffusionPipeline.load(newest["mvdiff"].folder, torch.device("cpu"))
        write_weights(temporary, load_gslrm(newest["gslrm"].folder), pipeline, plan.herd)
        write_json(temporary / FIGURES, {"herd": asdict(plan.herd), **figures})
        write_text(temporary / CARD, card(plan.herd, figures))
    size = sum(file.stat().st_size for file in plan.destination.rglob("*") if file.is_file()) / 1e6
    print(f"{plan.destination}: {size:.1f} MB")
    if size > MOST_MB:
        log.warning("that is more than the %d MB that the repository has room for", MOST_MB)


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
    found = TrainingData.load(run) or TrainingData(())
    seen = {(data.rig.recording, sample.frame) for data in found.sets for sample in data.samples}
    expected = {(herd.recording(number), moment) for number in herd.trained for moment in range(herd.moments)}
    if seen != expected or found.unrecorded:
        raise DataError(
            f"{run}: was trained on {len(seen)} samples, {len(seen & expected)} of them among the "
            f"{len(expected)} of the herd for training. Train on the herd alone, in another output."
        )


def _figures(plan: Plan, model: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """How weights came about, and what the validation after their very step measured."""
    run = json.loads((plan.output / model / "run.json").read_text(encoding="utf-8"))
    metrics, planned = checkpoint.manifest["metrics"], run["config"]["training"]["steps"]
    if checkpoint.step < planned:
        log.warning("%s: step %d of %d; `--stages %s` goes on", model, checkpoint.step, planned, model)
    if metrics is None:
        log.warning("%s: step %d was not validated, so the card has no figures", model, checkpoint.step)
    return {
        "step": checkpoint.step,
        "metrics": metrics or {},
        "command": " ".join([_command(plan.herd), *_settings(model, run["config"])]),
        "versions": run["versions"],
        "git_revision": run["git_revision"],
        "config": dict(_portable(run["config"], Path(run["config"]["output"]).parent)),
    }


def _command(herd: Herd) -> str:
    return "python scripts/train_demo.py" + (f" --mice {herd.mice}" if herd.mice != HERD.mice else "")


def _settings(model: str, config: Mapping[str, Any]) -> list[str]:
    """Settings by which a training differs from its shipped configuration, as the command line takes them."""
    file, kind, _ = TRAININGS[model]
    places = ["data.train_list=x", "data.val_list=x", "output=x"]
    shipped = load_config(kind, find_configs() / "demo" / "weights" / file, places).model_dump(mode="json")
    keys = [field.key for field in describe(kind) if "Path" not in field.type]
    changed = [key for key in keys if _value(config, key) != _value(shipped, key)]
    return (
        [f"--{model}", *(f"'{key}={json.dumps(_value(config, key))}'" for key in changed)] if changed else []
    )


def _value(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value


def _portable(config: Mapping[str, Any], root: Path) -> Iterator[tuple[str, Any]]:
    """A configuration without the places of the machine that it ran on: its paths begin at `root`."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield key, dict(_portable(value, root))
        elif isinstance(value, str) and Path(value).is_relative_to(root):
            yield key, Path(value).relative_to(root).as_posix()
        else:
            yield key, value


def card(herd: Herd, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The model card."""
    lines = [
        "# Demo weights",
        "",
        "Small models for `mfl demo`, trained on drawn mice alone: no real animal, no other data.",
        "They show that the pipeline works and are of no use for real recordings. Apache-2.0, as the code.",
        "",
        f"- Data: {len(herd.trained)} mice of `mouse_facelift/demo/herd.py` (seed {herd.seed}), "
        f"{herd.moments} moments each,",
        f"  seen by a rig's six cameras and {herd.extra_views} others, {herd.size} pixels. Validation: "
        f"{herd.held_out} more.",
        "  What `mfl evaluate` must know of it: `training_data.json`.",
        "- Configuration: `configs/demo/weights/`, with the settings below; `training.json` has every key.",
        "",
        "| model | steps | on | by mouse-facelift | validation on unseen mice |",
        "|---|---|---|---|---|",
    ]
    for model, found in figures.items():
        shown = ", ".join(
            f"{key} {value:.3f}"
            for key, value in found["metrics"].items()
            if isinstance(value, float) and "camera" not in key
        )
        planned, versions = found["config"]["training"]["steps"], found["versions"]
        steps = f"{found['step']}" if found["step"] == planned else f"{found['step']} of {planned}"
        revision = f" ({found['git_revision']})" if found["git_revision"] else ""
        made = f"{versions['mouse-facelift']}{revision}"
        lines.append(f"| {model} | {steps} | {versions.get('gpu', 'CPU')} | {made} | {shown or 'none'} |")
    commands = dict.fromkeys(found["command"] for found in figures.values())
    told = "Commands (`--stages data` and `--stages export` need neither `--gslrm` nor `--mvdiff`):"
    lines += ["", told, "", "```", *commands, "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
