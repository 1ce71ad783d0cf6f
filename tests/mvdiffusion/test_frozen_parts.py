"""Frozen parts that are damaged or of another model: one message that names the folder, and nothing else."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mouse_facelift.errors import CheckpointError
from mouse_facelift.mvdiffusion.frozen import FrozenParts
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline

VAE, CLIP = Path("vae/diffusion_pytorch_model.safetensors"), Path("image_encoder/model.safetensors")
AS_PICKLE = {VAE: "diffusion_pytorch_model.bin", CLIP: "pytorch_model.bin"}


class Evil:
    """Would make a folder if it were unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def folder(tmp_path: Path, tiny_pipeline: MVDiffusionPipeline) -> Path:
    (tmp_path / "parts").mkdir()
    tiny_pipeline.frozen.save(tmp_path / "parts")
    return tmp_path / "parts"


@pytest.fixture
def refusal(folder: Path, capfd: pytest.CaptureFixture) -> Callable[[], str]:
    """What loading the folder is refused with; the libraries may not print anything of their own."""

    def load() -> str:
        capfd.readouterr()
        with pytest.raises(CheckpointError) as caught:
            FrozenParts.load(folder)
        printed = capfd.readouterr()
        assert (printed.out, printed.err) == ("", "")
        return str(caught.value)

    return load


def test_saved_parts_do_not_tell_where_they_were_read_from(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    FrozenParts.load(folder).save(tmp_path / "again")
    for file in (tmp_path / "again").rglob("*.json"):
        assert str(tmp_path) not in file.read_text()


@pytest.mark.parametrize("file", [VAE, CLIP])
def test_damaged_safetensors_are_named(folder: Path, refusal: Callable[[], str], file: Path) -> None:
    content = (folder / file).read_bytes()
    for damaged in (content[: len(content) // 2], b"not what you want" * 9, b""):
        (folder / file).write_bytes(damaged)
        assert refusal().startswith(f"{folder / file}: not readable as weights")


@pytest.mark.parametrize("file", [VAE, CLIP])
def test_pickled_weights_are_read_but_never_run(
    folder: Path, refusal: Callable[[], str], tmp_path: Path, file: Path
) -> None:
    pickled = (folder / file).with_name(AS_PICKLE[file])
    (folder / file).unlink()
    torch.save({"weight": Evil(tmp_path / "ran")}, pickled)
    assert "could run code and was not run" in refusal()
    pickled.write_bytes(b"junkjunk" * 9)
    assert f"{pickled}: not readable as weights" in refusal()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", [VAE, CLIP])
def test_pickled_weights_are_the_same_weights(
    folder: Path, file: Path, tiny_pipeline: MVDiffusionPipeline, capfd: pytest.CaptureFixture
) -> None:
    network = getattr(tiny_pipeline.frozen, file.parts[0])
    (folder / file).unlink()
    torch.save(network.state_dict(), (folder / file).with_name(AS_PICKLE[file]))
    capfd.readouterr()
    loaded = getattr(FrozenParts.load(folder), file.parts[0]).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())
    assert capfd.readouterr().err == ""


def test_image_encoder_of_an_older_library_is_read(
    folder: Path, tiny_pipeline: MVDiffusionPipeline, capfd: pytest.CaptureFixture
) -> None:
    """As published: fp16, with the position numbers that older versions stored."""
    state = {key: value.half() for key, value in load_file(folder / CLIP).items()}
    positions = {"vision_model.embeddings.position_ids": torch.arange(17)[None]}
    save_file({**state, **positions}, folder / CLIP, {"format": "pt"})
    capfd.readouterr()
    loaded = FrozenParts.load(folder).image_encoder.state_dict()
    assert capfd.readouterr().err == ""
    for key, value in tiny_pipeline.frozen.image_encoder.state_dict().items():
        assert torch.equal(loaded[key], value.half().float())


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("vae", {"block_out_channels": [8, 8, 8]}, r"vae: does not fit config.json"),
        ("vae", {"down_block_types": ["Foo"] * 3}, r"vae: does not fit config.json \(Foo does not exist"),
        ("image_encoder", {"hidden_size": 32}, r"do not fit config.json: {'mismatched_keys'"),
        ("image_encoder", {"num_hidden_layers": 2}, r"do not fit config.json: {'missing_keys'"),
        ("image_encoder", {"hidden_act": "foo"}, r"image_encoder: config.json is of no CLIP model"),
        ("image_encoder", {"image_size": "x"}, r"image_encoder: config.json is of no CLIP model"),
        ("scheduler", {"beta_schedule": "foo"}, r"scheduler_config.json: not a DDIMScheduler"),
        ("image_noising_scheduler", {"beta_schedule": "foo"}, r"not a DDPMScheduler"),
        ("scheduler", {"prediction_type": "epsilon"}, r"parts: the scheduler's prediction_type"),
        ("feature_extractor", {"image_mean": [1, 2]}, r"hold 2 and 3 numbers, expected 3"),
    ],
)
def test_config_of_another_model_is_refused(
    folder: Path, refusal: Callable[[], str], part: str, changes: dict, message: str
) -> None:
    (path,) = (path for path in (folder / part).glob("*config.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    told = refusal()
    assert re.search(message, told), told
