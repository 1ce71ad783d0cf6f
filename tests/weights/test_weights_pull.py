"""Published weights: pinned, compared with the Hub's checksums, in the place where inference takes them."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mouse_facelift.cli import app
from mouse_facelift.errors import CheckpointError, ConfigError, DependencyError
from mouse_facelift.weights import pull as pulling
from mouse_facelift.weights.published import FACELIFT, SD21UNCLIP
from mouse_facelift.weights.pull import STAGING, pull
from mouse_facelift.weights.record import RECORD
from mouse_facelift.weights.verify import verify

CHECKPOINT = "gslrm/ckpt_0000000000021125.pt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "facelift"


def test_pulled_weights_are_what_infer_takes(fake_hub, folder: Path, tmp_path: Path) -> None:
    pull(FACELIFT, folder, accepted=True)
    picture = np.full((32, 32, 4), 255, np.uint8)
    picture[..., 3] = 0
    picture[8:24, 10:22] = (90, 60, 50, 255)
    Image.fromarray(picture).save(tmp_path / "mouse.png")
    weights = [f"gslrm={folder / 'gslrm'}", f"mvdiffusion={folder / 'mvdiffusion'}"]
    small = ["diffusion.steps=1", "turntable.frames=0", "device=cpu"]
    places = [f"input={tmp_path / 'mouse.png'}", f"output={tmp_path / 'out'}"]
    done = CliRunner().invoke(app, ["infer", "--mode", "e2e", *weights, *places, *small])
    assert done.exit_code == 0, done.stderr
    assert list((tmp_path / "out").rglob("gaussians.ply"))


def test_only_what_is_read_is_fetched_and_nothing_is_left_over(fake_hub, folder: Path, caplog) -> None:
    caplog.set_level("INFO")
    pull(FACELIFT, folder, accepted=True)
    count = len(fake_hub.downloaded)
    assert re.search(rf"{count} of {count} files to be fetched, [\d.]+ [kMG]?B", caplog.text)
    assert "README.md" not in fake_hub.downloaded
    assert not [name for name in fake_hub.downloaded if "ckpt_0000000000000100" in name]
    assert {path.name for path in folder.iterdir()} == {"gslrm", "mvdiffusion", RECORD}


def test_record_says_where_every_file_is_from_and_who_accepted_what(fake_hub, folder: Path) -> None:
    pull(FACELIFT, folder, accepted=True)
    record = json.loads((folder / RECORD).read_text())
    assert record["revision"] == FACELIFT.revision and record["licence"] == "Adobe Research License"
    assert record["accepted"].endswith("Z")
    assert record["files"][CHECKPOINT]["checked_by"] == "sha256"
    assert record["files"]["mvdiffusion/unet/config.json"]["checked_by"] == "git blob"
    made = record["files"]["mvdiffusion/prompt_embeds.safetensors"]
    assert made["source"] is None and made["checked_by"] == "none"
    assert verify(FACELIFT, folder).hashed == len(record["files"])


def test_without_the_licence_nothing_is_asked_of_the_hub(folder: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(pulling, "list_files", lambda *_: pytest.fail("the Hub was asked"))
    with pytest.raises(ConfigError, match=r"nothing was downloaded: .*--accept-licence"):
        pull(FACELIFT, folder, accepted=False)
    assert "non-commercial research only" in caplog.text
    assert not folder.exists()


def test_second_pull_fetches_nothing_and_keeps_the_prompts(fake_hub, folder: Path) -> None:
    pull(FACELIFT, folder, accepted=True)
    fake_hub.downloaded.clear()
    pull(FACELIFT, folder, accepted=True)
    assert fake_hub.downloaded == []
    assert "mvdiffusion/prompt_embeds.safetensors" in json.loads((folder / RECORD).read_text())["files"]


def test_interrupted_pull_goes_on_with_what_is_missing(fake_hub, folder: Path) -> None:
    def stop(path: Path) -> None:
        if len(fake_hub.downloaded) == 4:
            raise KeyboardInterrupt

    fake_hub.damage = stop
    with pytest.raises(KeyboardInterrupt):
        pull(FACELIFT, folder, accepted=True)
    assert (folder / STAGING).is_dir() and not (folder / RECORD).exists()
    fake_hub.damage = lambda path: None
    before = set(fake_hub.downloaded[:3])
    fake_hub.downloaded.clear()
    pull(FACELIFT, folder, accepted=True)
    assert before.isdisjoint(fake_hub.downloaded)
    assert not (folder / STAGING).exists()


def test_bytes_that_the_hub_does_not_describe_never_get_their_name(fake_hub, folder: Path) -> None:
    def flip(path: Path) -> None:
        if path.suffix == ".pt":
            content = bytearray(path.read_bytes())
            content[-100] ^= 1
            path.write_bytes(content)

    fake_hub.damage = flip
    with pytest.raises(CheckpointError, match=r"ckpt_0000000000021125\.pt: came with .* thrown away"):
        pull(FACELIFT, folder, accepted=True)
    assert not list(folder.rglob("*.pt"))


def test_damaged_small_file_is_found_by_gits_checksum(fake_hub, folder: Path) -> None:
    fake_hub.damage = lambda path: (
        path.write_text(path.read_text().swapcase()) if path.suffix == ".json" else None
    )
    with pytest.raises(CheckpointError, match="thrown away"):
        pull(FACELIFT, folder, accepted=True)


def test_file_that_was_pulled_and_damaged_is_fetched_again(fake_hub, folder: Path) -> None:
    pull(FACELIFT, folder, accepted=True)
    fake_hub.downloaded.clear()
    (folder / CHECKPOINT).write_bytes(b"damaged")
    pull(FACELIFT, folder, accepted=True)
    assert fake_hub.downloaded == [CHECKPOINT]
    assert verify(FACELIFT, folder).recorded


def test_file_of_somebody_else_is_not_replaced(fake_hub, folder: Path) -> None:
    (folder / "gslrm").mkdir(parents=True)
    (folder / CHECKPOINT).write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"ckpt_0000000000021125\.pt: exists and is not the published file"):
        pull(FACELIFT, folder, accepted=True)
    assert (folder / CHECKPOINT).read_bytes() == b"mine"
    assert fake_hub.downloaded == []


def test_record_that_is_garbled_is_made_anew_once_deleted(fake_hub, folder: Path) -> None:
    pull(FACELIFT, folder, accepted=True)
    (folder / RECORD).write_text("{")
    with pytest.raises(CheckpointError, match="Delete it and pull again"):
        pull(FACELIFT, folder, accepted=True)
    (folder / RECORD).unlink()
    fake_hub.downloaded.clear()
    pull(FACELIFT, folder, accepted=True)
    assert fake_hub.downloaded == [] and verify(FACELIFT, folder).recorded


def test_disk_that_fills_up_is_told_and_keeps_what_has_come(fake_hub, folder: Path) -> None:
    def fill(path: Path) -> None:
        if len(fake_hub.downloaded) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    fake_hub.damage = fill
    full = CliRunner().invoke(app, ["weights", "pull", "--to", str(folder), "--accept-licence"])
    assert full.exit_code == 2 and "error: No space left on device: " in full.stderr
    assert len([path for place in ("gslrm", "mvdiffusion") for path in (folder / place).rglob("*.*")]) == 2
    assert not (folder / RECORD).exists()


def test_other_files_in_the_folder_are_left_alone(fake_hub, folder: Path) -> None:
    (folder / "mvdiffusion").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "mvdiffusion" / "notes.txt").write_text("mine")
    pull(FACELIFT, folder, accepted=True)
    assert (folder / "notes.txt").read_text() == (folder / "mvdiffusion" / "notes.txt").read_text() == "mine"
    assert "mvdiffusion/notes.txt" not in json.loads((folder / RECORD).read_text())["files"]
    assert verify(FACELIFT, folder).recorded


def test_disk_is_asked_before_the_first_byte(fake_hub, folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(pulling, "free_bytes", lambda path: 1000)
    with pytest.raises(ConfigError, match="are to be fetched and 1 kB are free there"):
        pull(FACELIFT, folder, accepted=True)
    assert fake_hub.downloaded == [] and not folder.exists()


def test_dry_run_fetches_nothing_and_needs_no_acceptance(fake_hub, folder: Path, caplog) -> None:
    caplog.set_level("INFO")
    pull(FACELIFT, folder, accepted=False, dry_run=True)
    assert f"{folder / CHECKPOINT}: would be fetched" in caplog.text
    assert fake_hub.downloaded == [] and not folder.exists()


def test_repository_without_a_needed_file_is_refused_by_name(fake_hub, folder: Path) -> None:
    (fake_hub.folder / FACELIFT.pipeline / "vae" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no mvdiffusion/vae/config\.json"):
        pull(FACELIFT, folder, accepted=True)
    assert fake_hub.downloaded == []


def test_weights_under_their_older_name_will_do(fake_hub, folder: Path) -> None:
    encoder = fake_hub.folder / FACELIFT.pipeline / "image_encoder"
    (encoder / "model.safetensors").rename(encoder / "pytorch_model.bin")
    shutil.copy(encoder / "config.json", encoder / "unrelated.json")
    pull(FACELIFT, folder, accepted=True)
    assert (folder / "mvdiffusion/image_encoder/pytorch_model.bin").is_file()
    assert not (folder / "mvdiffusion/image_encoder/unrelated.json").exists()


def test_of_two_formats_only_the_one_without_code_is_fetched(fake_hub, folder: Path) -> None:
    unet = fake_hub.folder / FACELIFT.pipeline / "unet"
    (unet / "diffusion_pytorch_model.bin").write_bytes(b"the same as a pickle")
    pull(FACELIFT, folder, accepted=True)
    assert not [name for name in fake_hub.downloaded if name.endswith(".bin")]


def test_published_prompts_are_kept_where_the_user_has_put_them(fake_hub, folder: Path) -> None:
    prompts = folder / "mvdiffusion" / "clr_embeds.pt"
    prompts.parent.mkdir(parents=True)
    prompts.write_bytes(b"from the code repository")
    pull(FACELIFT, folder, accepted=True)
    assert not (folder / "mvdiffusion" / "prompt_embeds.safetensors").exists()


def test_pipeline_without_text_encoder_says_that_only_the_prompts_are_missing(fake_hub, folder: Path) -> None:
    shutil.rmtree(fake_hub.folder / FACELIFT.pipeline / "text_encoder")
    with pytest.raises(CheckpointError, match=r"clr_embeds\.pt into the folder.* All else is in place"):
        pull(FACELIFT, folder, accepted=True)
    assert (folder / RECORD).is_file()


def test_without_a_network_every_file_and_its_place_is_named(folder: Path, monkeypatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", offline)
    with pytest.raises(DependencyError) as caught:
        pull(FACELIFT, folder, accepted=True)
    message = str(caught.value)
    for part in (
        f"hf download {FACELIFT.repo_id} --revision {FACELIFT.revision}",
        f"DIR/mvdiffusion/pipeckpts/*  ->  {folder / 'mvdiffusion'}/",
        f"DIR/gslrm/*  ->  {folder / 'gslrm'}/",
        "mvdiffusion/unet/diffusion_pytorch_model.safetensors",
        f"mfl prompts text={folder / 'mvdiffusion'}",
        f"mfl weights verify facelift --to {folder}",
    ):
        assert part in message
    assert not folder.exists()


def test_plain_stable_diffusion_lies_at_the_top_of_its_repository() -> None:
    assert SD21UNCLIP.local_name("unet/config.json") == "mvdiffusion/unet/config.json"
    assert SD21UNCLIP.local_name("sd21-unclip-h.ckpt") is None
    assert SD21UNCLIP.local_name("../unet/config.json") is None


def test_command_line(fake_hub, folder: Path) -> None:
    call = CliRunner().invoke
    asked = call(app, ["weights", "pull", "--to", str(folder)])
    assert asked.exit_code == 2 and "error: nothing was downloaded" in asked.stderr
    done = call(app, ["weights", "pull", "--to", str(folder), "--accept-licence"])
    assert done.exit_code == 0, done.stderr
    checked = call(app, ["weights", "verify", "--to", str(folder)])
    assert checked.exit_code == 0 and "files with the recorded checksums" in checked.stdout
    (folder / CHECKPOINT).write_bytes(b"")
    assert call(app, ["weights", "verify", "--to", str(folder)]).exit_code == 2
    refused = call(app, ["weights", "pull", "gpt"])
    assert refused.exit_code == 2 and refused.stderr.startswith("error: weights 'gpt' are not known")
    # What makes no sense together is no option: verify has no licence to accept.
    for wrong in (["push"], ["verify", "--accept-licence"]):
        refused = call(app, ["weights", *wrong])
        assert refused.exit_code == 2 and "No such" in refused.stderr
