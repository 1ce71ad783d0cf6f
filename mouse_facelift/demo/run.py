"""`mfl demo`: every stage of the pipeline, small, with trained weights, on a recording that it makes itself.

Each stage is the command a user would type; only paths are filled in. A second call keeps what is finished.
"""

import json
import logging
import time
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ..config import Config, dump_config, load_config
from ..errors import ConfigError
from ..evaluation.compare_config import CompareConfig
from ..files import write_json
from ..gslrm.config import TrainGSLRMConfig
from ..inference.config import InferConfig, ReconstructionConfig
from ..inference.models import Weights
from ..mvdiffusion.config import TrainMVDiffConfig
from ..preprocess.config import PreprocessConfig
from ..provenance import Run, check_maker, check_output
from . import stages
from .config import DemoConfig
from .places import Places
from .shipped import DemoWeights, find_configs, find_demo_weights
from .summary import Row, show

log = logging.getLogger(__name__)

COMMAND = "demo"

AnyConfig = TypeVar("AnyConfig", bound=Config)

Stage = tuple[str, Callable[[], stages.Measured]]
"""Title and what it does."""

OTHERS = {"recording": "another recording", "weights": "other weights", "version": "an older version"}
"""What makes an earlier demo another one."""


def run(config: DemoConfig, dry_run: bool = False) -> Path:
    """Run all stages, then print a table of what was made and measured.

    Args:
        config: The resolved configuration.
        dry_run: Read and check the stages' configurations and the weights, then return.

    Returns:
        The output folder, with `summary.json` and `compare/compare.html`.

    Raises:
        ConfigError: a stage's settings are wrong, or the output is of another demo.
        CheckpointError: there are no demo weights.
    """
    places, weights = Places(config.output), find_demo_weights(config.weights)
    check_output(config.output)
    check_maker(config.output, COMMAND)
    planned = _plan(config, places, weights)
    facts = _facts(config, weights)
    _check_facts(places, facts)
    if dry_run:
        return config.output
    write_json(places.marker, facts)
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
    """Show a finished demo's report in a browser, where there is one."""
    with suppress(webbrowser.Error):
        webbrowser.open(Places(output).page.resolve().as_uri())


def _plan(config: DemoConfig, places: Places, weights: DemoWeights) -> list[Stage]:
    """All configurations are read here, before anything runs."""
    samples = [
        f"data.train_list={places.samples / 'data_train.txt'}",
        f"data.val_list={places.samples / 'data_val.txt'}",
    ]
    gslrm, mvdiffusion = f"gslrm={weights.gslrm}", f"mvdiffusion={weights.mvdiffusion}"
    preprocess = _stage_config(
        config,
        "preprocess",
        PreprocessConfig,
        [f"input.recording={places.recording}", f"output={places.samples}"],
    )
    modes = {"direct": [gslrm], "e2e": [gslrm, mvdiffusion]}
    direct, e2e = (
        _stage_config(
            config,
            "infer",
            InferConfig,
            [*found, f"mode={mode}", f"input={places.held_out}", f"output={places.results(mode)}"],
        )
        for mode, found in modes.items()
    )
    measured = [f"data={places.held_out}", f"truth={places.truth}", f"output={places.comparison}"]
    compare = _stage_config(config, "compare", CompareConfig, [gslrm, mvdiffusion, *measured])
    mvdiff = _stage_config(
        config,
        "train_mvdiff",
        TrainMVDiffConfig,
        [*samples, f"start.path={weights.mvdiffusion}", f"output={places.tuned('mvdiffusion')}"],
    )
    model = f"model={json.dumps(dump_config(weights.model()))}"
    lrm = _stage_config(
        config,
        "train_gslrm",
        TrainGSLRMConfig,
        [*samples, model, f"start.weights={weights.gslrm}", f"output={places.tuned('gslrm')}"],
    )
    return [
        ("recording", lambda: stages.make_recording(config, places)),
        ("preprocess", lambda: stages.make_samples(preprocess, config.samples, places)),
        ("infer --mode direct", lambda: stages.reconstruct(direct)),
        ("infer --mode e2e", lambda: stages.reconstruct(e2e)),
        ("evaluate compare", lambda: stages.evaluate(compare, places)),
        ("train-mvdiff", lambda: stages.fine_tune_mvdiff(mvdiff, places)),
        ("train-gslrm", lambda: stages.fine_tune_gslrm(lrm, places)),
    ]


def _facts(config: DemoConfig, weights: DemoWeights) -> dict[str, Any]:
    """What all that lies in the output rests on."""
    both = ReconstructionConfig(mode="e2e", gslrm=weights.gslrm, mvdiffusion=weights.mvdiffusion)
    found = Weights.find(both).hashes.values()
    return {"recording": dump_config(config.recording), "weights": sorted(found)}


def _check_facts(places: Places, facts: dict[str, Any]) -> None:
    """Refuse a folder whose results rest on something else: they would be taken for those of now.

    Raises:
        ConfigError: it is one.
    """
    if places.marker.is_file():
        then = json.loads(places.marker.read_text(encoding="utf-8"))
        changed = [name for name, value in facts.items() if then.get(name) != value]
    else:
        changed = ["version"] if places.recording.exists() else []
    if changed:
        raise ConfigError(
            f"{places.root} holds a demo of {' and '.join(OTHERS[name] for name in changed)} (see "
            f"{places.marker}). Choose another output, or remove that folder."
        )


def _stage_config(config: DemoConfig, name: str, model: type[AnyConfig], paths: Sequence[str]) -> AnyConfig:
    folder = config.stages or find_configs() / "demo"
    return load_config(model, folder / f"{name}.yaml", [*paths, *getattr(config, name)])
