"""Can the tiny GS-LRM learn one sample? The first sanity check, on the synthetic recording, on a CPU.

Overfits configs/demo/train_gslrm.yaml to one demo sample and prints PSNR on pixels of the animal: on the six
input views, and from four cameras that training never saw, beside the trivial prediction to beat there: the
true outline filled with one mean colour.

    python scripts/benchmarks/overfit.py [--output outputs/overfit] [--steps 1200]
"""

import argparse
import json
import time
from pathlib import Path

import torch

from mouse_facelift.config import load_config
from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.demo.recording import write_recording
from mouse_facelift.demo.run import find_configs
from mouse_facelift.demo.summary import measure_novel_views
from mouse_facelift.gslrm.config import TrainGSLRMConfig
from mouse_facelift.gslrm.train import run as train
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.inference.run import run as infer
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.run import run as preprocess


def main() -> None:
    """Make a recording and its samples, train, reconstruct, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/overfit"))
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    output, stages = arguments.output, find_configs() / "demo"
    recording, samples = output / "recording", output / "samples"
    if not recording.is_dir():
        write_recording(recording, RecordingConfig(frames=6))
    preprocess(
        load_config(
            PreprocessConfig,
            stages / "preprocess.yaml",
            [f"input.recording={recording}", f"output={samples}", "split.val_share=0"],
        )
    )

    started = time.perf_counter()
    train(
        load_config(
            TrainGSLRMConfig,
            stages / "train_gslrm.yaml",
            [
                f"data.train_list={samples / 'data_train.txt'}",
                f"output={output / 'run'}",
                "overfit=1",
                f"training.steps={arguments.steps}",
                f"training.validate_every={arguments.steps}",
            ],
        )
    )
    seconds = time.perf_counter() - started

    settings = ["input=" + str(samples / "sample_000000"), f"gslrm={output / 'run'}", "turntable.frames=0"]
    config = load_config(
        InferConfig, stages / "infer.yaml", [*settings, f"output={output / 'direct'}", "overwrite=true"]
    )
    infer(config)
    means = json.loads((config.output / "metrics.json").read_text())["mean"]
    novel = measure_novel_views(
        recording, [samples / "sample_000000"], config.output, config.image_size or 512
    )
    print(f"{arguments.steps} steps in {seconds:.0f} s on {torch.get_num_threads()} threads")
    print(f"input views:      {means['input/psnr_animal_db']:.2f} dB, IoU {means['input/iou']:.3f}")
    print(f"four new cameras: {novel.psnr_db:.2f} dB, IoU {novel.iou:.3f}")
    print(f"  true outline in one colour there: {novel.baseline_db:.2f} dB")


if __name__ == "__main__":
    main()
