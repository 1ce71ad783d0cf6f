"""What can be wrong with the start of `mfl train-mvdiff`: exit code 2, one message, nothing written."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result
from huggingface_hub import constants
from published import WEIGHTS, write_published
from typer.testing import CliRunner

from mouse_facelift.cli import app
from mouse_facelift.mvdiffusion.config import ComponentSizes
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.mvdiffusion.unet import MultiViewUNet
from mouse_facelift.training.checkpoints import write_checkpoint

SIX = Slots.facelift(32)
COMMIT = "3ebac9f8e2d791f02507b8aa61520e1ba379a115"
Train = Callable[..., Result]


@pytest.fixture
def published(tmp_path: Path, tiny_pipeline: MVDiffusionPipeline) -> Path:
    return write_published(tmp_path / "published", tiny_pipeline)


@pytest.fixture
def train(tmp_path: Path, write_samples: Callable[..., Path], published: Path) -> Train:
    """Runs the command on four cameras, with FaceLift's six prompts where nothing else is said."""
    samples = write_samples(tmp_path / "data", 1)

    def run(*settings: str) -> Result:
        fixed = [
            f"data.train_list={samples}",
            f"data.val_list={samples}",
            "data.image_size=32",
            f"output={tmp_path / 'out'}",
        ]
        return CliRunner().invoke(app, ["train-mvdiff", *fixed, *settings])

    return run


def refusal(result: Result, tmp_path: Path) -> str:
    """The one message; nothing else may have happened."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert result.stderr.splitlines()[-1] == errors[0]
    assert not (tmp_path / "out").exists()
    return errors[0]


def test_dry_run_from_the_published_folder_is_fine(train: Train, published: Path, tmp_path: Path) -> None:
    result = train(f"start.path={published}", "--dry-run")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_wrong_checkpoint_path(train: Train, tmp_path: Path, flags: list[str]) -> None:
    message = refusal(train(f"start.path={tmp_path / 'absent'}", *flags), tmp_path)
    assert f"{tmp_path / 'absent'}: no such folder; expected a run" in message


@pytest.mark.parametrize(
    ("embeds", "message"),
    [
        (torch.ones(6, 77, 768), r"(6, 77, 768), expected (6, 77, 8)"),
        (torch.ones(6, 77, 8).index_fill(0, torch.tensor([2]), torch.nan), "hold NaN or infinity"),
        (torch.ones(6, 77, 8).index_fill(0, torch.tensor([1, 5]), 0), "views [1, 5] are zero"),
        (torch.ones(4, 77, 8), "expected (6, 77, 8)"),
    ],
)
def test_prompt_file_of_another_model_or_of_nothing(
    train: Train, published: Path, tmp_path: Path, embeds: torch.Tensor, message: str
) -> None:
    torch.save(embeds, published / "clr_embeds.pt")
    told = refusal(train(f"start.path={published}"), tmp_path)
    assert message in told and "clr_embeds.pt" in told


def test_missing_prompt_file(train: Train, published: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent.pt"
    assert str(absent) in refusal(train(f"start.path={published}", f"start.prompt_embeds={absent}"), tmp_path)


def test_pipeline_without_vae(train: Train, published: Path, tmp_path: Path) -> None:
    shutil.rmtree(published / "vae")
    assert f"{published}: no vae; expected" in refusal(train(f"start.path={published}"), tmp_path)


def test_weights_in_two_variants_and_none_plain(train: Train, published: Path, tmp_path: Path) -> None:
    plain = published / "unet" / WEIGHTS
    for variant in ("fp16", "non_ema"):
        shutil.copy(plain, plain.with_suffix(f".{variant}.safetensors"))
    plain.unlink()
    assert "variants fp16, non_ema" in refusal(train(f"start.path={published}"), tmp_path)


def test_run_of_another_view_count(train: Train, tmp_path: Path) -> None:
    run = tmp_path / "six"
    random_pipeline(ComponentSizes(), SIX, 0).save(run)
    settings = ["start.kind=run", f"start.path={run}", "diffusion.conditioning=slot"]
    assert "was trained on 6 views" in refusal(train(*settings), tmp_path)


def test_run_with_poses_cannot_go_on_without(train: Train, tmp_path: Path) -> None:
    run = tmp_path / "posed"
    random_pipeline(ComponentSizes(), replace(SIX, mode="pose"), 0).save(run)
    settings = ["start.kind=run", f"start.path={run}", "diffusion.conditioning=slot"]
    assert "Set diffusion.conditioning=pose" in refusal(train(*settings), tmp_path)


def test_gslrm_run_as_start(train: Train, tmp_path: Path) -> None:
    run = tmp_path / "gslrm"
    write_checkpoint(run, 3, lambda folder: (folder / "weights").mkdir(), {"command": "train-gslrm"})
    message = refusal(train("start.kind=run", f"start.path={run}"), tmp_path)
    assert "holds no UNet, it was written by train-gslrm. Give a run of train-mvdiff" in message


def test_gslrm_file_as_start(train: Train, tmp_path: Path) -> None:
    file = tmp_path / "ckpt_0000000000021125.pt"
    torch.save({"model": {}}, file)
    assert "is a file; expected a pipeline folder" in refusal(train(f"start.path={file}"), tmp_path)


def test_hub_out_of_reach(
    train: Train, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    settings = ["start.hub=wlyu/OpenFaceLift", f"start.prompt_embeds={published / 'clr_embeds.pt'}"]
    message = refusal(train(*settings, f"start.revision={COMMIT}"), tmp_path)
    assert "By hand: put model_index.json" in message and "start.path=checkpoints/OpenFaceLift" in message
    assert "not a full commit hash" in refusal(train(*settings, "start.revision=main"), tmp_path)
    assert "needs revision" in refusal(train(*settings), tmp_path)


def test_8bit_momenta_without_the_library(
    train: Train, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    monkeypatch.setattr("mouse_facelift.training.optimizer.find_spec", lambda name: None)
    message = refusal(train(f"start.path={published}", "optimizer.kind=adamw_8bit"), tmp_path)
    assert "pip install 'mouse-facelift[adam8bit]'" in message


def test_frozen_part_of_a_run_is_no_start(
    train: Train, tiny_pipeline: MVDiffusionPipeline, tmp_path: Path
) -> None:
    part = tmp_path / "run" / "pipeline"
    tiny_pipeline.save(part)
    shutil.rmtree(part / "unet")
    message = refusal(train("start.kind=run", f"start.path={part}"), tmp_path)
    assert "no unet" in message and "give the run itself" in message


def test_folder_of_samples_is_no_start(train: Train, tmp_path: Path) -> None:
    (tmp_path / "data" / "manifest.json").write_text("{}")
    message = refusal(train("start.kind=run", f"start.path={tmp_path / 'data'}"), tmp_path)
    assert "holds neither model_index.json nor checkpoints" in message


@pytest.mark.parametrize("missing", ["vae", "scheduler", "clr_embeds.pt"])
def test_what_is_missing_is_told_before_the_unet_is_read(
    train: Train, published: Path, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = published / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.setattr(MultiViewUNet, "from_pretrained", lambda *_, **__: pytest.fail("the UNet was read"))
    assert missing in refusal(train(f"start.path={published}"), tmp_path)
    if path.suffix:
        torch.save(torch.ones(6, 77, 768), path)
        assert "(6, 77, 768), expected (6, 77, 8)" in refusal(train(f"start.path={published}"), tmp_path)
