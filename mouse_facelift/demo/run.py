"""`mfl demo`: every stage of the pipeline, small, with trained weights, on a recording that it makes itself.

Each stage is the command a user would type; only paths are filled in. A second call keeps what is finished.
"""

import json
import logging
import time
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..config import Config, dump_config, load_config
from ..evaluation.compare_config import CompareConfig
from ..files import free_bytes, write_json
from ..gslrm.config import TrainGSLRMConfig
from ..inference.config import InferConfig
from ..mvdiffusion.config import TrainMVDiffConfig
from ..preprocess.config import PreprocessConfig
from ..provenance import Run, check_maker, check_output
from ..words import data_size
from . import stages
from .config import DemoConfig
from .facts import facts_of, keep_facts
from .places import Places
from .shipped import DemoWeights, find_configs, find_demo_weights
from .summary import Row, show

log = logging.getLogger(__name__)

COMMAND = "demo"

ROOM_BYTES = 500 * 10**6
"""Of a whole demo; the checkpoints of its fine-tuning, which come last, are most of it."""

AnyConfig = TypeVar("AnyConfig", bound=Config)

Stage = tuple[str, Callable[[], stages.Measured]]
"""Title and what it does."""


@dataclass(frozen=True)
class Settings:
    """Of every stage, as its command takes them."""

    preprocess: PreprocessConfig
    direct: InferConfig
    e2e: InferConfig
    compare: CompareConfig
    train_mvdiff: TrainMVDiffConfig
    train_gslrm: TrainGSLRMConfig


def run(config: DemoConfig, dry_run: bool = False) -> Path:
    """Run all stages, then print a table of what was made and measured.

    Args:
        config: The resolved configuration.
        dry_run: Read and check the stages' configurations and the weights, then return.

    Returns:
        The output folder, with `summary.json` and `compare/compare.html`.

    Raises:
        ConfigError: a stage's settings are wrong, or the output is of another demo or of something else.
        CheckpointError: there are no demo weights.
    """
    places, weights = Places(config.output), find_demo_weights(config.weights)
    check_output(config.output)
    check_maker(config.output, COMMAND)
    _warn_of_full_disk(places)
    settings = _settings(config, places, weights)
    facts = facts_of({"recording": config.recording, **vars(settings)}, weights)
    keep_facts(places, {"samples": config.samples, **facts}, dry_run)
    if dry_run:
        log.info("%s: weights and the settings of all stages are in order", weights.folder)
        return config.output
    planned = _plan(config, places, settings)
    rows: list[Row] = []
    record, started = Run(COMMAND, config), time.perf_counter()
    record.write(config.output)
    for number, (title, stage) in enumerate(planned, start=1):
        log.info("%d/%d %s", number, len(planned), title)
        begin = time.perf_counter()
        measured = stage()
        rows += [Row(title, item, value, place) for item, value, place in measured]
        rows[-len(measured)] = rows[-len(measured)].lasting(time.perf_counter() - begin)
        record.lap(title)
    seconds = time.perf_counter() - started
    record.write(config.output)
    write_json(config.output / "summary.json", {"seconds": seconds, "rows": [row.as_json() for row in rows]})
    show(rows, seconds, config.output, places.page)
    return config.output


def open_report(output: Path) -> None:
    """Show a finished demo's report in a browser, at its 3D view; where there is none, say so."""
    page = Places(output).page.resolve()
    try:
        shown = webbrowser.open(f"{page.as_uri()}#view")
    except webbrowser.Error:
        shown = False
    if not shown:
        log.warning("no browser was found here; open %s where there is one", page)


def _warn_of_full_disk(places: Places) -> None:
    free = free_bytes(places.root)
    if free < ROOM_BYTES and not places.tunings.exists():
        log.warning(
            "%s has %s free, a whole demo takes up to %s", places.root, data_size(free), data_size(ROOM_BYTES)
        )


def _settings(config: DemoConfig, places: Places, weights: DemoWeights) -> Settings:
    """All configurations are read here, before anything runs."""
    samples = [
        f"data.train_list={places.samples / 'data_train.txt'}",
        f"data.val_list={places.samples / 'data_val.txt'}",
    ]
    gslrm, mvdiffusion = f"gslrm={weights.gslrm}", f"mvdiffusion={weights.mvdiffusion}"
    preprocess = [f"input.recording={places.recording}", f"output={places.samples}"]
    modes = {"direct": [gslrm], "e2e": [gslrm, mvdiffusion]}
    direct, e2e = (
        [*found, f"mode={mode}", f"input={places.held_out}", f"output={places.results(mode)}"]
        for mode, found in modes.items()
    )
    measured = [f"data={places.held_out}", f"truth={places.truth}", f"output={places.comparison}"]
    model = f"model={json.dumps(dump_config(weights.model()))}"
    mvdiff = [f"start.path={weights.mvdiffusion}", f"output={places.tuned('mvdiffusion')}"]
    lrm = [model, f"start.weights={weights.gslrm}", f"output={places.tuned('gslrm')}"]
    return Settings(
        _stage_config(config, "preprocess", PreprocessConfig, preprocess),
        _stage_config(config, "infer", InferConfig, direct),
        _stage_config(config, "infer", InferConfig, e2e),
        _stage_config(config, "compare", CompareConfig, [gslrm, mvdiffusion, *measured]),
        _stage_config(config, "train_mvdiff", TrainMVDiffConfig, [*samples, *mvdiff]),
        _stage_config(config, "train_gslrm", TrainGSLRMConfig, [*samples, *lrm]),
    )


def _plan(config: DemoConfig, places: Places, settings: Settings) -> list[Stage]:
    return [
        ("recording", lambda: stages.make_recording(config, places)),
        ("preprocess", lambda: stages.make_samples(settings.preprocess, config.samples, places)),
        ("infer --mode direct", lambda: stages.reconstruct(settings.direct)),
        ("infer --mode e2e", lambda: stages.reconstruct(settings.e2e)),
        ("evaluate compare", lambda: stages.evaluate(settings.compare, places)),
        ("train-mvdiff", lambda: stages.fine_tune_mvdiff(settings.train_mvdiff, places)),
        ("train-gslrm", lambda: stages.fine_tune_gslrm(settings.train_gslrm, places)),
    ]


def _stage_config(config: DemoConfig, name: str, model: type[AnyConfig], paths: Sequence[str]) -> AnyConfig:
    folder = config.stages or find_configs() / "demo"
    overrides = [*paths, *getattr(config, name)]
    return load_config(model, folder / f"{name}.yaml", overrides, overridden_by=f"the demo's {name}")
