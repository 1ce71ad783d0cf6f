"""Can the tiny GS-LRM learn one sample? The first sanity check, on the synthetic recording, on a CPU.

Overfits overfit.yaml to one demo sample and prints PSNR on pixels of the animal: on the six
input views, and from four cameras that training never saw, beside the trivial prediction to beat there: the
true outline filled with one mean colour. (`mfl train-gslrm --overfit 1` does this to any data, but holds some
of its cameras out.)

    python scripts/benchmarks/overfit.py [--output FOLDER] [--steps 1200] [--production] [KEY=VALUE ...]

With `--production`, for a GPU: the published size (24 blocks of width 1024) on six views of 512x512 pixels,
with foreground tokens and hull-anchored depth.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from mouse_facelift.config import load_config
from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.demo.recording import write_recording
from mouse_facelift.demo.shipped import find_configs
from mouse_facelift.demo.truth import novel_views
from mouse_facelift.gaussians import Gaussians, render
from mouse_facelift.gslrm.config import TrainGSLRMConfig
from mouse_facelift.gslrm.train import run as train
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.inference.run import run as infer
from mouse_facelift.metrics import outline_in_one_color, psnr, silhouette_iou
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.run import run as preprocess
from mouse_facelift.samples.datasets import composite
from mouse_facelift.samples.format import read_sample, write_list

PRODUCTION = (
    "data.image_size=512",
    "model={tokens: foreground, depth_anchor: hull, scale_bias: -5.0, scale_max: -2.4}",
    "optimizer.lr=2e-4",
    "optimizer.warmup_steps=100",
    "training.precision=bf16",
    "training.batch_size=1",
    "views.input_views=6",
    "views.target_views=6",
    "loss.ssim=0.2",
)


def main() -> None:
    """Make a recording and its samples, train, reconstruct, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/overfit"))
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--production", action="store_true", help="the published size, on a GPU")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of the training, on top")
    arguments = parser.parse_args()
    size, settings = (512, PRODUCTION) if arguments.production else (128, ())
    output, stages = arguments.output, find_configs() / "demo"
    recording, samples = output / "recording", output / "samples"
    if not recording.is_dir():
        full = {"width": 1152, "height": 1024} if arguments.production else {}
        write_recording(recording, RecordingConfig(frames=6, **full))
    preprocess(
        load_config(
            PreprocessConfig,
            stages / "preprocess.yaml",
            [f"input.recording={recording}", f"output={samples}", "split.val_share=0", f"size={size}"],
        )
    )

    one = samples / "one.txt"
    write_list(one, [samples / "sample_000000"])
    started = time.perf_counter()
    train(
        load_config(
            TrainGSLRMConfig,
            Path(__file__).with_suffix(".yaml"),
            [
                f"data.train_list={one}",
                f"output={output / 'run'}",
                f"training.steps={arguments.steps}",
                f"training.validate_every={arguments.steps}",
                *settings,
                *arguments.settings,
            ],
        )
    )
    seconds = time.perf_counter() - started

    chosen = ["input=" + str(samples / "sample_000000"), f"gslrm={output / 'run'}", "turntable.frames=0"]
    chosen += [f"image_size={512 if arguments.production else 64}", f"output={output / 'direct'}"]
    config = load_config(InferConfig, stages / "infer.yaml", [*chosen, "overwrite=true"])
    infer(config)
    means = json.loads((config.output / "metrics.json").read_text())["mean"]
    decibels, iou, trivial = novel_figures(recording, samples / "sample_000000", config)
    gpu = torch.cuda.is_available()
    where = torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} threads"
    print(f"{arguments.steps} steps in {seconds:.0f} s on {where}")
    print(f"input views:      {means['input/psnr_animal_db']:.2f} dB, IoU {means['input/iou']:.3f}")
    print(f"four new cameras: {decibels:.2f} dB, IoU {iou:.3f}")
    print(f"  true outline in one colour there: {trivial:.2f} dB")


@torch.no_grad()
def novel_figures(recording: Path, sample: Path, config: InferConfig) -> tuple[float, float, float]:
    """At the held-out cameras: PSNR in dB, IoU, and the PSNR of the true outline in one colour."""
    size = config.image_size or 512
    truth = novel_views(recording, read_sample(sample), size)
    gaussians = Gaussians.load_ply(config.output / sample.name / "gaussians.ply")
    picture = render(gaussians, truth.K, truth.w2c, size, size)
    real, alpha = composite(truth.rgba, 1.0), truth.rgba[:, 3:]
    return (
        float(psnr(picture.rgb, real, alpha).mean()),
        float(silhouette_iou(picture.alpha, alpha).mean()),
        float(psnr(outline_in_one_color(truth.rgba), real, alpha).mean()),
    )


if __name__ == "__main__":
    main()
