"""How should Gaussians be fitted to the shown views of one moment? Settings of `refine`, compared.

Frames of a synthetic recording become samples; from the visual hull of its six views each frame is fitted
with several settings and seen from four new cameras. From a network's result the same settings do the same
job with a better start.

    python scripts/studies/refinement.py [--size 256] [--frames 3] [--steps 100] [--quick] [KEY=VALUE,... ...]

Every KEY=VALUE,... is one more case: settings of `refine` on top of the defaults, without its prefix, such as
`opacity=0,rate_means=0.004`. On a CPU a case takes half a minute a frame at 256 pixels.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from study_data import WALK, prepare, record, write_truths
from study_report import device_name

from mouse_facelift.config import load_config
from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.files import write_text
from mouse_facelift.gaussians import Gaussians, render
from mouse_facelift.gaussians.hull_start import hull_start
from mouse_facelift.inference.config import RefineConfig
from mouse_facelift.inference.refine import refine
from mouse_facelift.metrics import outline_in_one_color, psnr, silhouette_iou
from mouse_facelift.samples.datasets import composite, load_sample
from mouse_facelift.samples.format import read_sample
from mouse_facelift.spacing import spread_evenly

BACKGROUND = 1.0


@dataclass(frozen=True)
class Views:
    """Pictures and cameras of one moment. rgba [V, 4, S, S], K [V, 3, 3], w2c [V, 4, 4]"""

    rgba: torch.Tensor
    K: torch.Tensor
    w2c: torch.Tensor

    @classmethod
    def load(cls, folder: Path, size: int, device: torch.device) -> "Views":
        """Those of a sample."""
        item = load_sample(read_sample(folder), size)
        return cls(*(item[name].to(device) for name in ("rgba", "K", "w2c")))

    @torch.no_grad()
    def judge(self, scene: Gaussians) -> tuple[float, float]:
        """PSNR on the animal, dB, and IoU; means over the views."""
        size = self.rgba.shape[-1]
        drawn = render(scene, self.K, self.w2c, size, size, BACKGROUND)
        alpha = self.rgba[:, 3:]
        found = psnr(drawn.rgb, composite(self.rgba, BACKGROUND), alpha)
        return float(found.nanmean()), float(silhouette_iou(drawn.alpha, alpha).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, fit, print and write one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("outputs/refinement"))
    parser.add_argument("--size", type=int, default=256, help="of the samples' pictures")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="a smoke test")
    parser.add_argument("cases", nargs="*", metavar="KEY=VALUE,...")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    size, frames, steps = (64, 1, 2) if options.quick else (options.size, options.frames, options.steps)
    cases = {case or "as by default": case.split(",") if case else [] for case in ["", *options.cases]}
    configs = {
        name: load_config(RefineConfig, None, [f"steps={steps}", *case]) for name, case in cases.items()
    }
    pairs = moments(options.output, size, frames, options.quick)
    text = compare(pairs, configs)
    write_text(options.output / "results.md", text)
    print(text)


def moments(output: Path, size: int, frames: int, quick: bool) -> list[tuple[Views, Views]]:
    """The shown and the new views of some frames."""
    length, picture = (4, {"width": 288, "height": 256}) if quick else (60, {})
    recording = record(
        output / "recording", RecordingConfig(seed=9000, rig_seed=3, frames=length, **WALK, **picture)
    )
    samples = prepare(recording, output / f"samples_{size}", size, ["split.val_share=0"])["train"]
    seen = [sample for sample in samples if (sample.frame_index or 0) % WALK["truth_every"] == 0]
    chosen = [seen[index] for index in spread_evenly(len(seen), frames)]
    truth = output / f"truth_{size}"
    write_truths(truth, recording, chosen, size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return [
        (Views.load(sample.folder, size, device), Views.load(truth / sample.folder.name, size, device))
        for sample in chosen
    ]


def compare(pairs: Sequence[tuple[Views, Views]], configs: dict[str, RefineConfig]) -> str:
    """One row for every case."""
    lines = [
        "| settings | steps | s a frame | shown, dB | new cameras, dB | IoU |",
        "|---|---|---|---|---|---|",
    ]
    starts = [hull_start(shown.rgba, shown.K, shown.w2c) for shown, _ in pairs]
    nothing = [
        (*new.judge(start), shown.judge(start)[0]) for (shown, new), start in zip(pairs, starts, strict=True)
    ]
    lines.append(_row("the visual hull", 0, 0.0, nothing))
    for name, config in configs.items():
        found, taken, begin = [], 0, time.perf_counter()
        for (shown, new), start in zip(pairs, starts, strict=True):
            pictures = torch.cat([composite(shown.rgba, BACKGROUND), shown.rgba[:, 3:]], dim=1)
            fitted, report = refine(start, pictures, shown.K, shown.w2c, BACKGROUND, config)
            taken += report.steps if report else 0
            found.append((*new.judge(fitted), shown.judge(fitted)[0]))
        seconds = (time.perf_counter() - begin) / len(pairs)
        lines.append(_row(name, taken / len(pairs), seconds, found))
        print(lines[-1], flush=True)
    outline = statistics.mean(
        float(psnr(outline_in_one_color(new.rgba), composite(new.rgba, BACKGROUND), new.rgba[:, 3:]).mean())
        for _, new in pairs
    )
    size = pairs[0][0].rgba.shape[-1]
    lines.append(
        f"\n{len(pairs)} frames, {size} px, {device_name()}. "
        f"The true outline in one colour at the new cameras: {outline:.2f} dB."
    )
    return "\n".join(lines) + "\n"


def _row(name: str, steps: float, seconds: float, found: Sequence[tuple[float, float, float]]) -> str:
    new, overlap, shown = (statistics.mean(values) for values in zip(*found, strict=True))
    return f"| {name} | {steps:.0f} | {seconds:.1f} | {shown:.2f} | {new:.2f} | {overlap:.4f} |"


if __name__ == "__main__":
    main()
