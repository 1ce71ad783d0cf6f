"""`mfl demo`: every stage of the pipeline, small, on a recording that it makes itself.

Each stage is the command a user would type; only paths are filled in. A second call keeps what is finished.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..config import Config, dump_config, load_config
from ..errors import ConfigError
from ..files import write_json
from ..gslrm.config import TrainGSLRMConfig
from ..inference.config import InferConfig
from ..mvdiffusion.config import TrainMVDiffConfig
from ..preprocess.config import PreprocessConfig
from ..provenance import Run
from ..samples.format import read_list, read_sample, write_list
from ..training.logging import read_log
from .config import DemoConfig
from .recording import write_recording
from .summary import Row, measure_geometry, measure_novel_views, show

log = logging.getLogger(__name__)

AnyConfig = TypeVar("AnyConfig", bound=Config)


@dataclass(frozen=True)
class Places:
    """Where the demo puts things."""

    root: Path

    @property
    def recording(self) -> Path:
        """The synthetic recording."""
        return self.root / "recording"

    @property
    def samples(self) -> Path:
        """What preprocess writes."""
        return self.root / "samples"

    @property
    def held_out(self) -> Path:
        """List of the samples that are reconstructed."""
        return self.root / "held_out.txt"

    @property
    def mvdiffusion(self) -> Path:
        """The MVDiffusion run."""
        return self.root / "mvdiffusion"

    @property
    def gslrm(self) -> Path:
        """The GS-LRM run."""
        return self.root / "gslrm"

    def results(self, mode: str) -> Path:
        """What infer writes."""
        return self.root / mode


def run(config: DemoConfig, dry_run: bool = False) -> Path:
    """Run all stages, then print a table of what was made and measured.

    Args:
        config: The resolved configuration.
        dry_run: Read and check the stages' configurations, then return.

    Returns:
        The output folder, with `summary.json`.
    """
    places = Places(config.output)
    stages = _stages(config, places)
    if dry_run:
        return config.output
    rows: list[Row] = []
    record, started = Run("demo", config), time.perf_counter()
    for number, (title, stage) in enumerate(stages, start=1):
        log.info("%d/%d %s", number, len(stages), title)
        begin = time.perf_counter()
        measured = stage()
        rows += [Row(title, item, value, place) for item, value, place in measured]
        rows[-len(measured)] = rows[-len(measured)].lasting(time.perf_counter() - begin)
        record.lap(title)
    seconds = time.perf_counter() - started
    record.write(config.output)
    write_json(config.output / "summary.json", {"seconds": seconds, "rows": [row.as_json() for row in rows]})
    show(rows, seconds, config.output)
    return config.output


Measured = Sequence[tuple[str, str, Path]]


def _stages(config: DemoConfig, places: Places) -> list[tuple[str, Callable[[], Measured]]]:
    """Titles and functions. All configurations are read here, before anything runs."""
    lists = [
        f"data.train_list={places.samples / 'data_train.txt'}",
        f"data.val_list={places.samples / 'data_val.txt'}",
    ]
    preprocess = _stage_config(
        config,
        "preprocess",
        PreprocessConfig,
        [f"input.recording={places.recording}", f"output={places.samples}"],
    )
    mvdiff = _stage_config(
        config, "train_mvdiff", TrainMVDiffConfig, [*lists, f"output={places.mvdiffusion}"]
    )
    gslrm = _stage_config(config, "train_gslrm", TrainGSLRMConfig, [*lists, f"output={places.gslrm}"])
    # What an earlier call reconstructed with other weights is of no use.
    shared = [f"gslrm={places.gslrm}", f"input={places.held_out}", "overwrite=true"]
    direct = _stage_config(
        config, "infer", InferConfig, [*shared, "mode=direct", f"output={places.results('direct')}"]
    )
    e2e = _stage_config(
        config,
        "infer",
        InferConfig,
        [*shared, "mode=e2e", f"mvdiffusion={places.mvdiffusion}", f"output={places.results('e2e')}"],
    )
    return [
        ("recording", lambda: _record(config, places)),
        ("preprocess", lambda: _preprocess(preprocess, config.samples, places)),
        ("train-mvdiff", lambda: _train_mvdiff(mvdiff)),
        ("train-gslrm", lambda: _train_gslrm(gslrm)),
        ("infer --mode direct", lambda: _infer(direct, places)),
        ("infer --mode e2e", lambda: _infer(e2e, places)),
    ]


def _record(config: DemoConfig, places: Places) -> Measured:
    """Make the recording, or keep the one that these very settings made.

    Raises:
        ConfigError: other settings made it. What was trained on it would be taken for trained on a new one.
    """
    marker = places.recording / "recording.json"
    settings = dump_config(config.recording)
    if marker.is_file():
        if json.loads(marker.read_text(encoding="utf-8")) != settings:
            raise ConfigError(
                f"{places.root} holds a demo of another recording (its settings are in {marker}). Choose "
                "another output, or remove that folder."
            )
        log.info("%s: kept", places.recording)
    else:
        write_recording(places.recording, config.recording)
        write_json(marker, settings)
    size = sum(path.stat().st_size for path in places.recording.rglob("*") if path.is_file())
    made = config.recording
    return [
        (
            f"{made.frames} frames, 6 cameras, {made.width}x{made.height}",
            f"{size / 1e6:.1f} MB",
            places.recording,
        )
    ]


def _preprocess(config: PreprocessConfig, count: int, places: Places) -> Measured:
    from ..preprocess.run import run as preprocess

    preprocess(config)
    train, val = (read_list(places.samples / f"data_{part}.txt") for part in ("train", "val"))
    chosen = _with_truth(places.recording, val, count)
    write_list(places.held_out, chosen)
    report = places.samples / "quality.html"
    geometry = measure_geometry(places.recording, [read_sample(folder) for folder in chosen])
    return [
        ("samples, train / val", f"{len(train)} / {len(val)}", places.samples),
        ("centre to the true body centroid", f"{geometry.center_error_mm:.1f} mm", report),
        ("alpha against the true outline, IoU", f"{geometry.alpha_iou:.4f}", report),
    ]


def _train_mvdiff(config: TrainMVDiffConfig) -> Measured:
    from ..mvdiffusion.train import run as train

    train(config)
    return _losses(config.output, config.training.steps)


def _train_gslrm(config: TrainGSLRMConfig) -> Measured:
    from ..gslrm.train import run as train

    train(config)
    return _losses(config.output, config.training.steps)


def _infer(config: InferConfig, places: Places) -> Measured:
    from ..inference.run import run as infer

    infer(config)
    folders = read_list(places.held_out)
    means: dict[str, float] = json.loads((config.output / "metrics.json").read_text(encoding="utf-8"))["mean"]
    novel = measure_novel_views(places.recording, folders, config.output, config.image_size or 512)
    first = config.output / folders[0].name
    rows = [
        (name, _quality(means[f"{role}/psnr_animal_db"], means[f"{role}/iou"]), first / "comparison.png")
        for role, name in (("input", "at the cameras shown"), ("held_out", "at the rig's other cameras"))
        if f"{role}/iou" in means
    ]
    return [
        *rows,
        ("at four new cameras", _quality(novel.psnr_db, novel.iou), first / "novel_views.png"),
        ("true outline in one colour there", f"{novel.baseline_db:.2f} dB", first / "novel_views.png"),
        ("Gaussians of one sample", f"{novel.gaussians}", first / "gaussians.ply"),
        ("turntable", f"{config.turntable.frames} frames", first / "turntable.mp4"),
    ]


def _quality(psnr_db: float, iou: float) -> str:
    return f"{psnr_db:.2f} dB, IoU {iou:.3f}"


def _losses(folder: Path, steps: int) -> Measured:
    """Mean loss over the first and the last tenth of the logged steps."""
    losses = [line["loss"] for line in read_log(folder) if "loss" in line]
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    return [(f"loss over {steps} steps", f"{first:.4f} to {last:.4f}", folder)]


def _with_truth(recording: Path, folders: Sequence[Path], count: int) -> list[Path]:
    """Validation samples whose frames were also seen by the held-out cameras."""
    from .truth import truth_frames

    frames = truth_frames(recording)
    known = [folder for folder in folders if read_sample(folder).frame_index in frames]
    if not known:
        raise ConfigError(
            f"none of the {len(folders)} validation samples lies on a frame with true novel views; "
            "set recording.truth_every lower."
        )
    wanted = min(count, len(known))
    return [known[index * len(known) // wanted] for index in range(wanted)]


def _stage_config(config: DemoConfig, name: str, model: type[AnyConfig], paths: Sequence[str]) -> AnyConfig:
    folder = config.stages or find_configs() / "demo"
    return load_config(model, folder / f"{name}.yaml", [*paths, *getattr(config, name)])


def find_configs() -> Path:
    """The shipped `configs/`: inside the installed package, or beside it in a checkout.

    Raises:
        ConfigError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "demo").is_dir():
            return folder
    raise ConfigError(f"no configs/demo beside {package}; give their folder as stages=DIR.")
