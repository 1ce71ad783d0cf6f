"""How good are the demo's weights on mice and rigs that they have never seen?

Several synthetic recordings are made, each of another mouse in another rig, and prepared by `mfl preprocess`;
neither a mouse nor a rig is one of those that scripts/train_demo.py draws. `mfl evaluate` then measures:

- direct with six, five, four and three views, and e2e with one, at the recordings' four held-out cameras;
- direct with each camera left out in turn, at that camera (5 -> 1);
- e2e at the cameras whose views were not shown.

Intervals are over recordings: frames of one share their mouse and their rig.

    python scripts/studies/demo_weights.py [--weights checkpoints/demo] [--stage data|evaluate] [--quick]

What is finished in the output folder is kept. `--quick` is a smoke test with two small recordings.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from study_data import prepare, record, write_truths
from study_report import device_name, markdown_head, markdown_row, table, write_curves

from mouse_facelift.config import load_config
from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.evaluation.config import BootstrapConfig, EvaluateConfig
from mouse_facelift.evaluation.run import run as evaluate
from mouse_facelift.evaluation.scores import Score, read_scores, write_scores
from mouse_facelift.evaluation.summary import figures
from mouse_facelift.files import write_text
from mouse_facelift.pictures import write_png
from mouse_facelift.samples.format import write_list
from mouse_facelift.spacing import spread_evenly

STAGES = ("data", "evaluate")
FIRST_SEED = 7000
"""Of the recordings' mice and rigs."""
SHOWN = {6: (0, 1, 2, 3, 4, 5), 5: (0, 1, 2, 3, 4), 4: (0, 1, 3, 4), 3: (0, 2, 4)}
"""Cameras shown, as evenly around the animal as may be: drawn rigs are numbered around it."""
NOVEL, LEFT_OUT, SINGLE = "novel", "leave-one-camera-out", "single-view"
PICTURED = 3
"""Recordings to look at."""
EVALUATE = (
    "filter={floater_distance: null, box: [1.3, 1.3, 1.3]}",
    "diffusion={solver: unipc, steps: 20, guidance: 1}",
    "pictures=1",
)
METHODS = {
    "all": (
        *(f"methods.direct_{count}.input_views={list(shown)}" for count, shown in SHOWN.items()),
        "methods.e2e.mode=e2e",
        f"protocols=[{NOVEL}, {SINGLE}]",
    ),
    "left_out": ("methods.direct={}", f"protocols=[{LEFT_OUT}]"),
}
"""Evaluations of each recording."""
BOOTSTRAP = BootstrapConfig()


@dataclass(frozen=True)
class Target:
    """What is wanted, means over recordings.

    Attributes:
        row: Of the tables.
        iou: At least.
        psnr_db: PSNR of the animal, at least, in itself.
        gain_db: The same above the true outline in one colour; one of both is given.
    """

    row: str
    iou: float
    psnr_db: float = 0.0
    gain_db: float | None = None


TARGETS = (
    Target("direct, 6 views", iou=0.95, gain_db=1.5),
    Target("direct, 5 -> 1", iou=0.92, gain_db=0.0),
    Target("e2e, other views", iou=0.75, psnr_db=16.0),
)


@dataclass(frozen=True)
class Plan:
    """How large the study is.

    Attributes:
        output: Where everything goes.
        weights: Folder with `gslrm` and `mvdiffusion`.
        recordings: Mice, each in a rig of its own.
        frames: Of each recording, a second apart.
        size: Side of the samples' pictures.
        picture: Width and height of the recordings.
    """

    output: Path
    weights: Path
    recordings: int = 8
    frames: int = 10
    size: int = 128
    picture: tuple[int, int] = (576, 512)

    def quick(self) -> "Plan":
        """The same as a smoke test."""
        return replace(self, recordings=2, frames=2, picture=(288, 256))

    def folder(self, number: int) -> Path:
        """Of one recording, named after its seed."""
        return self.output / f"mouse_{FIRST_SEED + number}"


def main() -> None:
    """Read the command line, run the stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=Path("checkpoints/demo"))
    parser.add_argument("--output", type=Path, default=Path("outputs/demo_weights_study"))
    parser.add_argument("--stage", choices=STAGES, help="all if left out")
    parser.add_argument("--size", type=int, default=Plan.size, help="of samples, by default %(default)s")
    parser.add_argument("--recordings", type=int, help=f"by default {Plan.recordings}")
    parser.add_argument("--quick", action="store_true", help="a smoke test on a CPU")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    plan = Plan(options.output, options.weights, size=options.size)
    plan = plan.quick() if options.quick else plan
    plan = replace(plan, recordings=options.recordings or plan.recordings)
    study(plan, (options.stage,) if options.stage else STAGES)


def study(plan: Plan, stages: Sequence[str] = STAGES) -> None:
    """Run stages of the study."""
    if "data" in stages:
        for number in range(plan.recordings):
            make_mouse(plan, number)
    if "evaluate" in stages:
        measure(plan)


def make_mouse(plan: Plan, number: int) -> None:
    """One recording, its samples, and their truth."""
    folder, seed, (width, height) = plan.folder(number), FIRST_SEED + number, plan.picture
    config = RecordingConfig(
        seed=seed, rig_seed=seed, frames=plan.frames, fps=1, truth_every=1, width=width, height=height
    )
    recording = record(folder / "recording", config)
    settings = ["selection={mode: interval, step: 1}", "geometry.fit_to=body", "split.val_share=0"]
    samples = prepare(recording, folder / "samples", plan.size, settings)
    known = write_truths(folder / "truth", recording, samples["train"], plan.size, surface=False)
    write_list(folder / "test.txt", [sample.folder for sample in known])


def measure(plan: Plan) -> None:
    """Evaluate every recording; writes scores, `results.md`, pictures and curves."""
    scores: list[Score] = []
    for number in range(plan.recordings):
        for part in METHODS:
            found = read_scores(evaluate(evaluation_config(plan, number, part)) / "scores.csv")
            scores += [replace(score, sample=f"{plan.folder(number).name}/{score.sample}") for score in found]
    write_scores(plan.output / "scores.csv", scores)
    # All frames of a recording count as one: recordings are drawn again for the intervals.
    scores = [replace(score, sample=score.sample.split("/")[0]) for score in scores]
    for protocol in (NOVEL, SINGLE):
        write_pictures(plan, protocol)
    write_views_curve(plan, scores)
    text = fragment(plan, scores)
    write_text(plan.output / "results.md", text)
    print(text)


def evaluation_config(plan: Plan, number: int, part: str) -> EvaluateConfig:
    """Of one recording: the views `left_out`, or `all` else."""
    folder = plan.folder(number)
    settings = [
        *EVALUATE,
        *METHODS[part],
        f"gslrm={plan.weights / 'gslrm'}",
        f"data={folder / 'test.txt'}",
        f"output={folder / part}",
    ]
    if part == "all":
        settings += [f"methods.e2e.mvdiffusion={plan.weights / 'mvdiffusion'}", f"truth={folder / 'truth'}"]
    return load_config(EvaluateConfig, None, settings)


def write_pictures(plan: Plan, protocol: str) -> None:
    """One frame of some recordings: the truth, and what each method shows below it."""
    sheets = []
    for number in spread_evenly(plan.recordings, PICTURED):
        file = next((plan.folder(number) / "all" / "pictures").glob(f"{protocol}_*.png"))
        with Image.open(file) as picture:
            sheets.append(torch.from_numpy(np.array(picture.convert("RGB"))).movedim(-1, 0).float() / 255)
    write_png(plan.output / f"pictures_{protocol}.png", torch.cat(sheets, dim=-2))


def write_views_curve(plan: Plan, scores: Sequence[Score]) -> None:
    """PSNR at the held-out cameras by the number of views shown; one is e2e."""
    counts = {1: "e2e", **{count: f"direct_{count}" for count in sorted(SHOWN)}}
    curves = {
        title: [
            (count, figures(chosen(scores, method, NOVEL), BOOTSTRAP)[name]["mean"])
            for count, method in counts.items()
        ]
        for name, title in (("psnr_animal_db", "demo weights"), ("psnr_outline_db", "outline in one colour"))
    }
    write_curves(plan.output / "curves.png", curves, "views shown (1: e2e)", "PSNR of the animal, dB")


def fragment(plan: Plan, scores: Sequence[Score]) -> str:
    """The figures as Markdown for docs/results.md."""
    novel = {
        **{f"direct, {count} views": chosen(scores, f"direct_{count}", NOVEL) for count in SHOWN},
        "e2e, 1 view": chosen(scores, "e2e", NOVEL),
    }
    others = {
        "direct, 5 -> 1": chosen(scores, "direct", LEFT_OUT),
        "e2e, other views": chosen(scores, "e2e", SINGLE),
    }
    frames = len({(score.sample, score.frame) for score in scores})
    return "\n\n".join(
        [
            table(novel, BOOTSTRAP, "held-out cameras"),
            table(others, BOOTSTRAP, "the rig's other cameras"),
            targets({**novel, **others}),
            f"{device_name()}; {plan.recordings} recordings of other mice in other rigs, {frames} frames, "
            f"samples of {plan.size} px; intervals over recordings.\n",
        ]
    )


def targets(rows: Mapping[str, Sequence[Score]]) -> str:
    """What is wanted and what was reached, as a table."""
    lines = markdown_head(["target", "wanted", "reached", "wanted", "reached"])
    for target in TARGETS:
        found = figures(rows[target.row], BOOTSTRAP)
        psnr, iou = found["psnr_animal_db"]["mean"], found["iou"]["mean"]
        if target.gain_db is None:
            wanted, reached = f"{target.psnr_db:.1f} dB", psnr - target.psnr_db
        else:
            outline = found["psnr_outline_db"]["mean"]
            wanted = f"outline {outline:.2f} dB + {target.gain_db:.1f} dB"
            reached = psnr - outline - target.gain_db
        lines.append(
            markdown_row(
                [
                    target.row,
                    wanted,
                    f"{psnr:.2f} dB: {_verdict(reached, 2)}",
                    f"IoU {target.iou:.2f}",
                    f"{iou:.3f}: {_verdict(iou - target.iou, 3)}",
                ]
            )
        )
    return "\n".join(lines)


def _verdict(margin: float, digits: int) -> str:
    return "yes" if margin >= 0 else f"missed by {-margin:.{digits}f}"


def chosen(scores: Sequence[Score], method: str, protocol: str) -> list[Score]:
    """The rows of a method and a protocol."""
    return [score for score in scores if (score.method, score.protocol) == (method, protocol)]


if __name__ == "__main__":
    main()
