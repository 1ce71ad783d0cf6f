"""Where training starts: published weights untouched, plain ones widened, earlier runs, the Hub."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from published import WEIGHTS, edit, write_published
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from mouse_facelift.errors import CheckpointError, DependencyError
from mouse_facelift.mvdiffusion.config import StartConfig
from mouse_facelift.mvdiffusion.factory import random_pipeline
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.prompts import save_prompt_embeds
from mouse_facelift.mvdiffusion.slots import FACELIFT_RELATIVE_DEG, Slots
from mouse_facelift.mvdiffusion.start import EXPORTED_FILES, PIPELINE_FILES, start_pipeline

SLOT = Slots.facelift(32)
POSE = replace(SLOT, mode="pose")
COMMIT = "3ebac9f8e2d791f02507b8aa61520e1ba379a115"


@pytest.fixture
def published(tmp_path: Path, tiny_pipeline: MVDiffusionPipeline) -> Path:
    return write_published(tmp_path / "published", tiny_pipeline)


def start(slots: Slots = SLOT, **settings: Any) -> MVDiffusionPipeline:
    return start_pipeline(StartConfig.model_validate(settings), slots, "sparse", seed=0)


def as_half(folder: Path, variant: str) -> None:
    """Round a component's weights to fp16 and give the file a variant's name."""
    (path,) = folder.glob("*.safetensors")
    halves = {key: value.half() for key, value in load_file(path).items()}
    save_file(halves, path.with_suffix(f".{variant}.safetensors"), {"format": "pt"})
    path.unlink()


def assert_untouched(pipeline: MVDiffusionPipeline, file: Path) -> None:
    before, after = load_file(file), pipeline.unet.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == torch.float32
        if name == "conv_in.weight":
            known = tensor.shape[1]
            assert torch.equal(after[name][:, :known], tensor.float())
            assert not after[name][:, known:].any()
        else:
            assert torch.equal(after[name], tensor.float()), name


@pytest.mark.parametrize("slots", [SLOT, POSE], ids=["slot", "pose"])
def test_facelift_weights_are_kept_to_the_bit_the_reference_half_included(
    published: Path, slots: Slots
) -> None:
    pipeline = start(slots, kind="facelift", path=published)
    assert_untouched(pipeline, published / "unet" / WEIGHTS)
    reference_half = load_file(published / "unet" / WEIGHTS)["conv_in.weight"][:, 4:8]
    assert torch.equal(pipeline.unet.conv_in.weight[:, 4:8], reference_half)
    assert reference_half.abs().min() > 0
    assert pipeline.unet.config.in_channels == (14 if slots is POSE else 8)
    assert pipeline.prompt_embeds.dtype == torch.float32


@pytest.mark.parity
@pytest.mark.parametrize("mode", ["facelift", "pose"])
def test_published_layout_is_kept_to_the_bit(shared: Path, tmp_path: Path, mode: str) -> None:
    folder = shared / "fixtures" / "facelift" / "tiny_pipeline"
    unet, vae, text = (
        json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae", "text_encoder")
    )
    size = unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
    slots = replace(Slots.facelift(size), mode=mode)
    prompts = tmp_path / "clr_embeds.pt"
    shape = len(slots), text["max_position_embeddings"], unet["cross_attention_dim"]
    torch.save(torch.randn(shape).half(), prompts)
    pipeline = start(slots, kind="facelift", path=folder, prompt_embeds=prompts)
    assert_untouched(pipeline, folder / "unet" / WEIGHTS)
    assert pipeline.unet.conv_in.weight[:, 4:8].abs().max() > 0


@pytest.mark.parametrize("slots", [SLOT, POSE], ids=["slot", "pose"])
def test_plain_unclip_is_widened_with_zeros(published: Path, slots: Slots) -> None:
    file = published / "unet" / WEIGHTS
    state = load_file(file)
    state["conv_in.weight"] = state["conv_in.weight"][:, :4].contiguous()
    save_file(state, file)
    edit(published / "unet" / "config.json", in_channels=4)
    assert_untouched(start(slots, kind="sd21unclip", path=published), file)
    with pytest.raises(CheckpointError, match=r"start\.kind=sd21unclip"):
        start(slots, kind="facelift", path=published)


def test_half_precision_files_become_full_precision_training_weights(published: Path) -> None:
    for part in ("unet", "vae", "image_encoder", "image_normalizer"):
        as_half(published / part, "fp16")
    pipeline = start(kind="facelift", path=published)
    assert_untouched(pipeline, published / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    frozen = pipeline.frozen
    for module in (frozen.vae, frozen.image_encoder, frozen.image_normalizer):
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    vae = load_file(published / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    assert all(torch.equal(frozen.vae.state_dict()[key], value.float()) for key, value in vae.items())


def test_random_start_is_a_function_of_the_seed(tiny_pipeline: MVDiffusionPipeline) -> None:
    first, second = start(kind="random"), start(kind="random")
    assert all(
        torch.equal(a, b) for a, b in zip(first.unet.parameters(), second.unet.parameters(), strict=True)
    )
    assert start(POSE, kind="random").unet.config.in_channels == 14


def test_exported_pipeline_is_a_start(tmp_path: Path, tiny_pipeline: MVDiffusionPipeline) -> None:
    tiny_pipeline.save(tmp_path / "exported")
    pipeline = start(kind="run", path=tmp_path / "exported")
    assert_untouched(pipeline, tmp_path / "exported" / "unet" / WEIGHTS)
    assert torch.equal(pipeline.prompt_embeds, tiny_pipeline.prompt_embeds)


def test_published_folder_is_no_run_of_ours(published: Path) -> None:
    with pytest.raises(CheckpointError, match=r"set start\.kind=facelift"):
        start(kind="run", path=published)


def test_run_with_other_views_is_refused_unless_poses_are_told(
    tmp_path: Path, tiny_pipeline: MVDiffusionPipeline
) -> None:
    tiny_pipeline.save(tmp_path / "six")
    four = Slots("rig", SLOT.view_ids[:4], SLOT.cameras[:4])
    with pytest.raises(CheckpointError, match=r"six was trained on 6 views .*, the data has 4"):
        start(four, kind="run", path=tmp_path / "six")
    pipeline = start(replace(four, mode="pose"), kind="run", path=tmp_path / "six")
    assert len(pipeline.slots) == 4
    assert len(pipeline.prompt_embeds) == len(pipeline.slots.prompt_azimuths_deg) == 6


def test_prompts_are_trained_only_if_asked(published: Path) -> None:
    settings = StartConfig(kind="facelift", path=published)
    for learned in (False, True):
        pipeline = start_pipeline(settings, SLOT, "sparse", 0, learned)
        assert pipeline.prompt_embeds.requires_grad is learned
        random = start_pipeline(StartConfig(kind="random"), SLOT, "sparse", 0, learned)
        assert random.prompt_embeds.requires_grad is learned


def test_directions_of_the_prompts_come_with_the_prompts(
    published: Path, tmp_path: Path, tiny_pipeline: MVDiffusionPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    data = Slots("pose", SLOT.view_ids, SLOT.cameras, (0.0, 60.0, 120.0, 180.0, 240.0, 300.0))

    def directions(**settings: Any) -> tuple[float, ...]:
        return start(data, kind="facelift", path=published, **settings).slots.prompt_azimuths_deg

    assert directions() == FACELIFT_RELATIVE_DEG
    noted = tmp_path / "noted.safetensors"
    save_prompt_embeds(noted, tiny_pipeline.prompt_embeds[:3], {"azimuths_deg": [0, 90, 270]})
    assert directions(prompt_embeds=noted) == (0, 90, 270)
    silent = tmp_path / "silent.safetensors"
    save_prompt_embeds(silent, tiny_pipeline.prompt_embeds)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert directions(prompt_embeds=silent) == data.prompt_azimuths_deg
    assert "does not say for which directions" in caplog.text
    assert "cameras [0, 1, 2, 3, 4, 5], at [0, 60, 120, -180, -120, -60] degrees" in caplog.text
    exported = random_pipeline(StartConfig(kind="random").sizes, replace(data, prompt_azimuths_deg=(0, 5)), 0)
    exported.save(tmp_path / "exported")
    again = start(data, kind="run", path=tmp_path / "exported")
    assert again.slots.prompt_azimuths_deg == (0, 5)


def test_slots_in_the_other_sense_than_their_prompts_are_told(
    published: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start(SLOT, kind="facelift", path=published)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    order = (0, 5, 4, 3, 2, 1)
    mirrored = Slots("rig", order, tuple(SLOT.cameras[index] for index in order))
    start(mirrored, kind="facelift", path=published)
    assert "was written for views at [0, -45, -90, -180, 90, 45] degrees" in caplog.text
    assert "the slots stand at [0, 45, 90, -180, -90, -45]. Set data.slot_order" in caplog.text


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("unet", "no unet"),
        ("unet/config.json", r"unet/config\.json"),
        (f"unet/{WEIGHTS}", "unet: no weights"),
        ("vae", "no vae"),
        (f"vae/{WEIGHTS}", "vae: no weights"),
        ("image_encoder", "no image_encoder"),
        ("image_encoder/model.safetensors", r"image_encoder: no weights; expected model\.safetensors"),
        ("image_normalizer", "no image_normalizer"),
        ("feature_extractor", "no feature_extractor"),
        ("image_noising_scheduler", "no image_noising_scheduler"),
        ("scheduler/scheduler_config.json", r"scheduler_config\.json"),
        ("clr_embeds.pt", r"no prompt embeddings; .* clr_embeds\.pt"),
        ("model_index.json", r"holds neither model_index\.json nor checkpoints"),
    ],
)
def test_whatever_is_missing_is_named(published: Path, missing: str, named: str) -> None:
    path = published / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=named):
        start(kind="facelift", path=published)


def test_file_is_no_folder(published: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file; expected a pipeline folder"):
        start(kind="facelift", path=published / "clr_embeds.pt")


@pytest.mark.parametrize("slots", [SLOT, POSE], ids=["slot", "pose"])
@pytest.mark.parametrize("content", [None, b"no tensors"])
def test_prompt_file_that_cannot_be_read_is_named(
    published: Path, tmp_path: Path, slots: Slots, content: bytes | None
) -> None:
    prompts = tmp_path / "texts.safetensors"
    if content is not None:
        prompts.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"texts\.safetensors"):
        start(slots, kind="facelift", path=published, prompt_embeds=prompts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "facelift"}, "needs path, the folder with its weights, or hub and revision"),
        ({"kind": "random", "path": "x"}, "takes no path and no hub"),
        ({"kind": "random", "hub": "a/b", "revision": COMMIT}, "takes no path and no hub"),
        ({"kind": "run", "hub": "a/b"}, "hub a/b needs revision"),
        ({"kind": "run", "hub": "a/b", "revision": "main"}, "'main' is not a full commit hash"),
        ({"kind": "run", "hub": "a/b", "revision": COMMIT[:8]}, "is not a full commit hash"),
        ({"kind": "run", "path": "x", "revision": COMMIT}, "belong to hub"),
        ({"kind": "facelift", "hub": "a/b", "revision": COMMIT}, "needs prompt_embeds"),
    ],
)
def test_settings_that_name_no_one_place_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StartConfig.model_validate(settings)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], list[str]]:
    """Puts a folder on a Hub that hands out copies; the list it gives fills with what is downloaded."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def serve(folder: Path, subfolder: str) -> list[str]:
        downloaded: list[str] = []
        prefix = f"{subfolder}/" if subfolder else ""
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        facts = SimpleNamespace(siblings=[SimpleNamespace(rfilename=prefix + name, size=1) for name in files])

        def snapshot_download(repo_id: str, *, revision: str, allow_patterns: list[str]) -> None:
            home = tmp_path / "cache" / f"models--{repo_id.replace('/', '--')}" / "snapshots" / revision
            for name in allow_patterns:
                (home / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / name.removeprefix(prefix), home / name)
            downloaded.extend(allow_patterns)

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: facts)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return downloaded

    return serve


def test_hub_gives_just_the_files_that_are_read(published: Path, hub: Callable) -> None:
    for extra in ("text_encoder/model.safetensors", "tokenizer/vocab.json", "unet/a.fp16.safetensors"):
        (published / extra).parent.mkdir(exist_ok=True)
        (published / extra).write_text("not needed")
    downloaded = hub(published, "mvdiffusion/pipeckpts")
    settings = {"hub": "wlyu/OpenFaceLift", "revision": COMMIT, "subfolder": "mvdiffusion/pipeckpts"}
    prompts = published / "clr_embeds.pt"
    first = start(kind="facelift", prompt_embeds=prompts, **settings)
    assert_untouched(first, published / "unet" / WEIGHTS)
    assert downloaded == [f"mvdiffusion/pipeckpts/{name}" for name in PIPELINE_FILES]
    start(kind="facelift", prompt_embeds=prompts, **settings)
    assert len(downloaded) == len(PIPELINE_FILES)


def test_exported_pipeline_comes_from_the_hub_with_its_slots(
    tmp_path: Path, tiny_pipeline: MVDiffusionPipeline, hub: Callable
) -> None:
    tiny_pipeline.save(tmp_path / "exported")
    downloaded = hub(tmp_path / "exported", "")
    pipeline = start(kind="run", hub="me/mice", revision=COMMIT)
    assert downloaded == list(EXPORTED_FILES)
    assert torch.equal(pipeline.prompt_embeds, tiny_pipeline.prompt_embeds)


def test_local_folder_goes_before_the_hub(published: Path, hub: Callable) -> None:
    downloaded = hub(published, "")
    settings = {"hub": "a/b", "revision": COMMIT, "prompt_embeds": published / "clr_embeds.pt"}
    start(kind="facelift", path=published, **settings)
    assert not downloaded
    with pytest.raises(CheckpointError, match=r"absent: no such folder; .* start\.path=null"):
        start(kind="facelift", path=published / "absent", **settings)


def test_hub_out_of_reach_says_what_to_put_where(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    settings = {"hub": "wlyu/OpenFaceLift", "revision": COMMIT, "subfolder": "mvdiffusion/pipeckpts"}
    with pytest.raises(DependencyError) as caught:
        start(kind="facelift", prompt_embeds=published / "clr_embeds.pt", **settings)
    message = str(caught.value)
    assert all(name in message for name in PIPELINE_FILES)
    assert "start.path=checkpoints/OpenFaceLift/mvdiffusion/pipeckpts." in message
