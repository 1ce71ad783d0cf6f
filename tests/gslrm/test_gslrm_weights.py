"""Loading and saving GS-LRM weights."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mouse_facelift.errors import CheckpointError
from mouse_facelift.gslrm import GSLRM, GSLRMConfig, load_gslrm, save_gslrm
from mouse_facelift.training.checkpoints import write_checkpoint

TINY = GSLRMConfig(patch_size=4, width=64, head_width=16, layers=2, free_gaussians=3, scale_bias=-4)


@pytest.fixture
def model() -> GSLRM:
    torch.manual_seed(0)
    return GSLRM(TINY)


def same_weights(a: GSLRM, b: GSLRM) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def save_published(model: GSLRM, path: Path, **extra: torch.Tensor) -> None:
    torch.save({"model": {**model.state_dict(), **extra}, "fwdbwd_pass_step": 3}, path)


def test_saved_folder_comes_back_with_its_config(model: GSLRM, tmp_path: Path) -> None:
    save_gslrm(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gslrm.json", "gslrm.safetensors"]
    for path in (tmp_path, str(tmp_path / "gslrm.safetensors")):
        loaded = load_gslrm(path)
        assert loaded.config == TINY
        assert same_weights(loaded, model)
        assert not loaded.training
        assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_published_file_tells_its_sizes_and_loses_the_loss_network(
    model: GSLRM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"conv{i}.{kind}" for i in range(1, 17) for kind in ("weight", "bias")]
    vgg = {f"loss_calculator.perceptual_loss_module.net.{name}": torch.zeros(3) for name in names}
    save_published(model, tmp_path / "model.pt", **vgg)
    with caplog.at_level(logging.INFO):
        loaded = load_gslrm(tmp_path / "model.pt")
    assert same_weights(loaded, model)
    kept = len(model.state_dict())
    assert f"left out 32 tensors of the training loss (loss_calculator.*), kept {kept}" in caplog.text
    assert loaded.config == GSLRMConfig(patch_size=4, width=64, head_width=64, layers=2, free_gaussians=3)
    assert "how wide an attention head is" in caplog.text
    assert load_gslrm(tmp_path / "model.pt", config=TINY).config == TINY


def test_bare_state_dict_and_half_precision_files_load(model: GSLRM, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    assert same_weights(load_gslrm(tmp_path / "bare.pt"), model)
    halves = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(halves, tmp_path / "half.safetensors")
    assert all(
        value.dtype == torch.float32 for value in load_gslrm(tmp_path / "half.safetensors").parameters()
    )


def test_folder_of_published_files_gives_the_newest_by_number(
    model: GSLRM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_published(model, tmp_path / "ckpt_12.pt")
    save_published(GSLRM(TINY), tmp_path / "ckpt_9.pt")
    with caplog.at_level(logging.INFO):
        assert same_weights(load_gslrm(tmp_path), model)
    assert "ckpt_12.pt" in caplog.text


def test_run_folder_gives_its_newest_complete_checkpoint(model: GSLRM, tmp_path: Path) -> None:
    def write(step: int, weights: GSLRM) -> None:
        def fill(folder: Path) -> None:
            (folder / "weights").mkdir()
            save_gslrm(weights, folder / "weights")

        write_checkpoint(tmp_path, step, fill, {})

    write(10, GSLRM(TINY))
    write(20, model)
    write(30, GSLRM(TINY))
    (tmp_path / "checkpoints" / "step_00000030" / "manifest.json").unlink()
    assert same_weights(load_gslrm(tmp_path), model)
    assert same_weights(load_gslrm(tmp_path / "checkpoints" / "step_00000020"), model)


def test_config_that_contradicts_the_training_is_refused(model: GSLRM, tmp_path: Path) -> None:
    save_gslrm(model, tmp_path)
    harmless = TINY.model_copy(update={"gradient_checkpointing": False, "tokens": "foreground"})
    assert load_gslrm(tmp_path, config=harmless).config == harmless
    with pytest.raises(CheckpointError, match=r"scale_bias -4.0, not -2.3"):
        load_gslrm(tmp_path, config=TINY.model_copy(update={"scale_bias": -2.3}))


def test_weights_copied_without_their_constants_are_refused(model: GSLRM, tmp_path: Path) -> None:
    save_gslrm(model, tmp_path)
    (tmp_path / "gslrm.json").unlink()
    with pytest.raises(CheckpointError, match=r"gslrm\.json is not beside it"):
        load_gslrm(tmp_path / "gslrm.safetensors")
    assert load_gslrm(tmp_path, config=model.config).config == model.config


def test_other_constants_than_the_published_ones_are_told(
    model: GSLRM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = GSLRMConfig(patch_size=4, width=64, head_width=16, layers=2, free_gaussians=3)
    save_published(model, tmp_path / "ckpt_0000000000000003.pt")
    for changes, told in (({"tokens": "foreground"}, False), ({"depth_anchor": "hull"}, True)):
        caplog.clear()
        load_gslrm(tmp_path, config=plain.model_copy(update=changes))
        assert ("depth_anchor hull (published: origin)" in caplog.text) == told
        assert bool(caplog.records) == told or "newest" in caplog.text


def test_size_of_the_trainings_pictures_goes_with_the_weights(model: GSLRM, tmp_path: Path) -> None:
    save_gslrm(model, tmp_path / "trained", image_size=64)
    loaded = load_gslrm(tmp_path / "trained")
    save_gslrm(loaded, tmp_path / "copy")
    assert load_gslrm(tmp_path / "copy").image_size == 64
    save_gslrm(model, tmp_path / "untold")
    assert load_gslrm(tmp_path / "untold").image_size is None


def test_missing_unexpected_and_misshapen_tensors_are_listed(model: GSLRM, tmp_path: Path) -> None:
    state = model.state_dict()
    del state["transformer_layers.1.attn.fc.weight"]
    state["view_type_embeddings"] = torch.zeros(2, 64)
    state["pixel_gaussian_decoder.0.weight"] = torch.zeros(7)
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError) as caught:
        load_gslrm(tmp_path / "odd.pt")
    message = str(caught.value)
    assert "missing transformer_layers.1.attn.fc.weight" in message
    assert "unexpected view_type_embeddings" in message
    assert "pixel_gaussian_decoder.0.weight is (7,), expected (64,)" in message


def test_all_faults_of_a_renamed_model_are_counted(model: GSLRM, tmp_path: Path) -> None:
    keep = ("patch_embedder", "gaussian_")
    state = {
        name if name.startswith(keep) else f"module.{name}": value
        for name, value in model.state_dict().items()
    }
    torch.save(state, tmp_path / "renamed.pt")
    with pytest.raises(CheckpointError, match=r"unexpected module\.|missing .*; and \d+ more") as caught:
        load_gslrm(tmp_path / "renamed.pt", config=TINY)
    renamed = sum(name.startswith("module.") for name in state)
    assert str(caught.value).count(";") == 20
    assert f"and {2 * renamed - 20} more" in str(caught.value)


def test_other_models_are_refused(tmp_path: Path) -> None:
    torch.save({"conv_in.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: not the weights of a GS-LRM"):
        load_gslrm(tmp_path / "other.pt")


@pytest.mark.parametrize("name", ["missing.pt", "missing_folder"])
def test_missing_paths_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{name}: no such file or folder"):
        load_gslrm(tmp_path / name)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    nothing = r"holds neither gslrm\.safetensors nor ckpt_\*\.pt nor checkpoints"
    with pytest.raises(CheckpointError, match=f"{nothing};"):
        load_gslrm(tmp_path)
    (tmp_path / "gslrm").mkdir()
    (tmp_path / "gslrm" / "gslrm.safetensors").touch()
    with pytest.raises(CheckpointError, match=rf"{nothing} \({tmp_path}/gslrm does\);"):
        load_gslrm(tmp_path)
    (tmp_path / "model_index.json").touch()
    with pytest.raises(CheckpointError, match=rf"{nothing} \(it is an MVDiffusion pipeline\);"):
        load_gslrm(tmp_path)


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors", "text.pt"])
def test_damaged_files_are_refused(name: str, model: GSLRM, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "cut.pt":
        save_published(model, path)
    elif name == "cut.safetensors":
        save_file(model.state_dict(), path)
    else:
        path.write_text("version https://git-lfs.github.com/spec/v1")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="not readable as weights"):
        load_gslrm(path)


def test_pickles_with_code_are_not_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="not readable as weights"):
        load_gslrm(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


def test_damaged_config_is_refused(model: GSLRM, tmp_path: Path) -> None:
    save_gslrm(model, tmp_path)
    (tmp_path / "gslrm.json").write_text(json.dumps({"widht": 3}))
    with pytest.raises(CheckpointError, match=r"gslrm\.json: not a GS-LRM configuration"):
        load_gslrm(tmp_path)
