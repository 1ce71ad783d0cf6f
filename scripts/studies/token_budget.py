"""Do foreground tokens learn as well as dense ones, from as many samples and in as many seconds?

One mid-size GS-LRM learns from a synthetic recording with dense tokens, then with foreground tokens: same
seed, data, settings and number of samples. The second training then goes on until it has taken as many
seconds as the first, told by the median of each one's time per step; validation and checkpoints do not count.
The learning rate is constant after its warm-up and the averaged weights are measured, so that the longer
training is the shorter one's continuation. Measured are held-out frames, seen from four new cameras.

    python scripts/studies/token_budget.py [--quick] [--stage data|train|evaluate] [KEY=VALUE ...]

For a GPU; finished parts in the output folder are kept, and its `recording/` is needed by the stage data
alone. `--quick` is a CPU smoke test, too short to learn. KEY=VALUE are settings of all trainings.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from study_data import HELD_OUT, StudyPlan, check_alike, prepare, settings_of, write_truths
from study_report import device_name, step_seconds, table, training_curve, write_curves

from mouse_facelift.config import load_config
from mouse_facelift.evaluation.config import EvaluateConfig
from mouse_facelift.evaluation.run import run as evaluate
from mouse_facelift.evaluation.scores import read_scores
from mouse_facelift.files import write_json, write_text
from mouse_facelift.gslrm.config import TrainGSLRMConfig
from mouse_facelift.gslrm.train import run as train
from mouse_facelift.samples.format import write_list
from mouse_facelift.training.checkpoints import checkpoint_folder

STAGES = ("data", "train", "evaluate")
DENSE, FOREGROUND = "dense", "foreground"
"""Values of `model.tokens`."""
SAMPLES, SECONDS = "as_many_samples", "as_many_seconds"
TITLES = {DENSE: "dense", SAMPLES: "foreground, as many samples", SECONDS: "foreground, as many seconds"}
"""What is measured, and how the table calls it."""
EVALUATE = (
    "protocols=[novel]",
    "filter={floater_distance: null, box: [1.3, 1.3, 1.3]}",
    # Frames with truth are a third of a second apart: neighbours are alike.
    "bootstrap.block=2",
    "pictures=2",
)
BY_TOKENS = (
    *("model.tokens", "output"),
    *(f"training.{name}" for name in ("steps", "validate_every", "checkpoint_every")),
)
"""In what trainings differ."""
TRAINING = (
    "model={width: 384, layers: 8, depth_anchor: hull, scale_bias: -4.3, gradient_checkpointing: false}",
    "views={input_views: [4, 6], target_views: 6, targets: any}",
    "optimizer={lr: 4e-4, schedule: constant, warmup_steps: 100}",
    "training={batch_size: 4, ema_decay: 0.995, workers: 6, sample_cache: memory, keep_best: 0}",
    "validation={samples: 4, input_views: 6}",
)


@dataclass(frozen=True)
class Plan(StudyPlan):
    """Places of this study."""

    size: int = 256
    steps: int = 1200

    @property
    def train_list(self) -> Path:
        """Samples to learn from."""
        return self.output / "samples" / "data_train.txt"

    @property
    def test_list(self) -> Path:
        """Held-out samples that have truth."""
        return self.output / "samples" / "test.txt"

    def run(self, tokens: str) -> Path:
        """Folder of a training."""
        return self.output / f"gslrm_{tokens}"

    def checkpoint(self, method: str) -> Path:
        """The checkpoint that is measured."""
        tokens = DENSE if method == DENSE else FOREGROUND
        steps = self.more_steps if method == SECONDS else self.steps
        return checkpoint_folder(self.run(tokens), steps)

    @property
    def more_steps_file(self) -> Path:
        """Holds `more_steps`; of other `steps` there is another file."""
        return self.output / f"more_steps_than_{self.steps}.json"

    @property
    def more_steps(self) -> int:
        """Steps of foreground tokens that take as long as those of dense ones."""
        return int(json.loads(self.more_steps_file.read_text(encoding="utf-8")))


def main() -> None:
    """Read the command line, run the stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=STAGES, help="all if left out")
    plan, options = Plan.of_command_line(parser, Path("outputs/token_budget"))
    study(plan, (options.stage,) if options.stage else STAGES)


def study(plan: Plan, stages: Sequence[str] = STAGES) -> None:
    """Run stages of the study."""
    if "data" in stages:
        make_data(plan)
    if "train" in stages:
        learn(plan)
    if "evaluate" in stages:
        measure(plan)


def make_data(plan: Plan) -> None:
    """The recording, its samples, and the truth of held-out ones."""
    recording = plan.record()
    samples = prepare(recording, plan.train_list.parent, plan.size, HELD_OUT)
    known = write_truths(plan.truth, recording, samples["val"], plan.size)
    write_list(plan.test_list, [sample.folder for sample in known])


def learn(plan: Plan) -> None:
    """Train dense, then foreground for as many samples, then foreground further for as many seconds."""
    train(training_config(plan, DENSE, plan.steps))
    if not plan.checkpoint(SAMPLES).is_dir():
        train(training_config(plan, FOREGROUND, plan.steps))
    if not plan.more_steps_file.is_file():
        faster = step_seconds(plan.run(DENSE)) / step_seconds(plan.run(FOREGROUND))
        write_json(plan.more_steps_file, max(plan.steps, round(faster * plan.steps)))
    train(training_config(plan, FOREGROUND, plan.more_steps))


def training_config(plan: Plan, tokens: str, steps: int) -> TrainGSLRMConfig:
    """All trainings share everything but tokens and length."""
    own = [
        f"model.tokens={tokens}",
        f"data.train_list={plan.train_list}",
        f"data.val_list={plan.test_list}",
        f"data.image_size={plan.size}",
        f"training.steps={steps}",
        f"training.validate_every={steps}",
        f"training.checkpoint_every={steps}",
        f"output={plan.run(tokens)}",
    ]
    return load_config(TrainGSLRMConfig, None, [*TRAINING, *own, *plan.settings])


def measure(plan: Plan) -> None:
    """Evaluate all three at the new cameras; writes `results.md`, and curves over seconds.

    Raises:
        ConfigError: trainings differ in more than tokens and length.
    """
    check_alike([plan.run(DENSE), plan.run(FOREGROUND)], BY_TOKENS)
    settings = [
        *EVALUATE,
        f"gslrm={plan.checkpoint(DENSE)}",
        *(f"methods.{method}.gslrm={plan.checkpoint(method)}" for method in TITLES),
        f"image_size={plan.size}",
        f"data={plan.test_list}",
        f"truth={plan.output / 'truth'}",
        f"output={plan.output / 'evaluation'}",
    ]
    config = load_config(EvaluateConfig, None, settings)
    scores = read_scores(evaluate(config) / "scores.csv")
    rates = {tokens: step_seconds(plan.run(tokens)) for tokens in (DENSE, FOREGROUND)}
    rows = {}
    for method, title in TITLES.items():
        steps = plan.more_steps if method == SECONDS else plan.steps
        seconds = steps * rates[DENSE if method == DENSE else FOREGROUND]
        rows[f"{title}: {steps} steps, {seconds:.0f} s"] = [s for s in scores if s.method == method]
    curves = {
        tokens: [(rate * step, psnr) for step, psnr in training_curve(plan.run(tokens))]
        for tokens, rate in rates.items()
    }
    write_curves(
        plan.output / "curves.png", curves, "seconds of training", "PSNR of the animal in training, dB"
    )
    batch = settings_of(plan.run(DENSE))["training"]["batch_size"]
    frames = len({score.sample for score in scores})
    text = (
        f"{table(rows, config.bootstrap, 'tokens')}\n\n{device_name()}; samples of {plan.size} px, {batch} a "
        f"step; four new cameras at {frames} held-out frames.\n"
    )
    write_text(plan.output / "results.md", text)
    print(text)


if __name__ == "__main__":
    main()
