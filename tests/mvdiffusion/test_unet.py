"""Reading, widening and writing the UNet."""

import copy
import json
from pathlib import Path

import pytest
import torch

from mouse_facelift.errors import CheckpointError
from mouse_facelift.mvdiffusion.attention import MultiViewAttnProcessor
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.unet import MultiViewUNet, widen_conv_in

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def saved(tiny_pipeline: MVDiffusionPipeline, tmp_path: Path) -> Path:
    tiny_pipeline.unet.save_pretrained(tmp_path / "unet")
    return tmp_path / "unet"


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_bin(folder: Path, state: dict) -> None:
    (folder / WEIGHTS).unlink()
    torch.save(state, folder / "diffusion_pytorch_model.bin")


def same_weights(a: MultiViewUNet, b: MultiViewUNet) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_saved_unet_is_read_back_exactly(saved: Path, tiny_pipeline: MVDiffusionPipeline) -> None:
    tiny_pipeline.unet.set_views(4, "dense")
    tiny_pipeline.unet.save_pretrained(saved)
    unet = MultiViewUNet.from_pretrained(saved)
    assert same_weights(unet, tiny_pipeline.unet)
    assert (unet.num_views, unet.attention) == (4, "dense")
    processors = {name: p for name, p in unet.attn_processors.items() if "attn1" in name}
    assert processors
    assert all((p.num_views, p.mode) == (4, "dense") for p in processors.values())


def test_multi_view_processor_sits_on_self_attention_only(tiny_pipeline: MVDiffusionPipeline) -> None:
    for name, processor in tiny_pipeline.unet.attn_processors.items():
        assert isinstance(processor, MultiViewAttnProcessor) == ("attn1" in name)


def test_averaged_copy_keeps_views_and_attention(tiny_pipeline: MVDiffusionPipeline) -> None:
    clone = copy.deepcopy(tiny_pipeline.unet)
    assert (clone.num_views, clone.attention) == (6, "sparse")


def test_published_block_names_and_harmless_keys_are_understood(
    saved: Path, tiny_pipeline: MVDiffusionPipeline
) -> None:
    edit_config(
        saved,
        _class_name="UNetMV2DConditionModel",
        down_block_types=["CrossAttnDownBlockMV2D", "DownBlock2D"],
        mid_block_type="UNetMidBlockMV2DCrossAttn",
        up_block_types=["UpBlock2D", "CrossAttnUpBlockMV2D"],
        selfattn_block="custom",
        cd_attention_mid=False,
        addition_channels=[1280],
        decay=0.9999,
    )
    assert same_weights(MultiViewUNet.from_pretrained(saved), tiny_pipeline.unet)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"selfattn_block": "self_rowwise"}, "selfattn_block is 'self_rowwise'"),
        ({"cd_attention_mid": True}, "cd_attention_mid is True"),
        ({"camera_embedding": 12}, "unknown key 'camera_embedding'"),
    ],
)
def test_config_of_another_model_is_refused(saved: Path, change: dict, message: str) -> None:
    edit_config(saved, **change)
    with pytest.raises(CheckpointError, match=message):
        MultiViewUNet.from_pretrained(saved)


def test_bin_weights_are_read(saved: Path, tiny_pipeline: MVDiffusionPipeline) -> None:
    write_bin(saved, tiny_pipeline.unet.state_dict())
    assert same_weights(MultiViewUNet.from_pretrained(saved), tiny_pipeline.unet)


def test_pickled_code_is_never_run(saved: Path, tmp_path: Path) -> None:
    write_bin(saved, {"conv_in.weight": Bomb(tmp_path / "exploded")})
    with pytest.raises(CheckpointError, match="was not run"):
        MultiViewUNet.from_pretrained(saved)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("damage", ["missing", "unexpected", "shape"])
def test_weights_must_fit_to_the_key(saved: Path, tiny_pipeline: MVDiffusionPipeline, damage: str) -> None:
    state = dict(tiny_pipeline.unet.state_dict())
    if damage == "missing":
        del state["conv_out.bias"]
    elif damage == "unexpected":
        state["conv_out.extra"] = torch.zeros(1)
    else:
        state["conv_out.bias"] = torch.zeros(5)
    write_bin(saved, state)
    with pytest.raises(CheckpointError, match="conv_out"):
        MultiViewUNet.from_pretrained(saved)


def test_missing_and_truncated_weights_are_named(saved: Path) -> None:
    content = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=WEIGHTS):
        MultiViewUNet.from_pretrained(saved)
    (saved / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        MultiViewUNet.from_pretrained(saved)


def test_plain_unclip_unet_gets_zero_channels_for_the_reference(
    saved: Path, tiny_pipeline: MVDiffusionPipeline
) -> None:
    state = dict(tiny_pipeline.unet.state_dict())
    plain = state["conv_in.weight"][:, :4].clone()
    write_bin(saved, state | {"conv_in.weight": plain})
    edit_config(saved, in_channels=4)
    with pytest.raises(CheckpointError, match=r"start\.kind=sd21unclip"):
        MultiViewUNet.from_pretrained(saved)
    unet = MultiViewUNet.from_pretrained(saved, widen=True)
    assert torch.equal(unet.conv_in.weight[:, :4], plain)
    assert not unet.conv_in.weight[:, 4:].any()
    assert unet.config.in_channels == 8


def test_learned_reference_channels_are_never_zeroed(saved: Path, tiny_pipeline: MVDiffusionPipeline) -> None:
    unet = MultiViewUNet.from_pretrained(saved, widen=True)
    assert torch.equal(unet.conv_in.weight, tiny_pipeline.unet.conv_in.weight)
    assert unet.conv_in.weight[:, 4:].abs().min() > 0


def test_other_numbers_of_input_channels_are_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="9 input channels"):
        widen_conv_in({"conv_in.weight": torch.zeros(16, 9, 3, 3)}, 14)
    edit_config(saved, in_channels=9)
    with pytest.raises(CheckpointError, match="takes 9 input channels"):
        MultiViewUNet.from_pretrained(saved, widen=True)


@pytest.mark.parametrize("plain", [True, False])
def test_rays_get_zero_channels_and_the_others_are_untouched(
    saved: Path, tiny_pipeline: MVDiffusionPipeline, plain: bool
) -> None:
    state = dict(tiny_pipeline.unet.state_dict())
    found = state["conv_in.weight"][:, : 4 if plain else 8].clone()
    write_bin(saved, state | {"conv_in.weight": found})
    edit_config(saved, in_channels=found.shape[1])
    unet = MultiViewUNet.from_pretrained(saved, widen=plain, pose=True)
    assert torch.equal(unet.conv_in.weight[:, : found.shape[1]], found)
    assert not unet.conv_in.weight[:, found.shape[1] :].any()
    assert unet.has_pose
    unet.save_pretrained(saved)
    assert json.loads((saved / "config.json").read_text())["in_channels"] == 14


def test_rays_cannot_be_taken_away_again(saved: Path) -> None:
    pose = MultiViewUNet.from_pretrained(saved, pose=True)
    pose.save_pretrained(saved)
    assert same_weights(MultiViewUNet.from_pretrained(saved), pose)
    with pytest.raises(CheckpointError, match=r"trained with diffusion\.conditioning=pose"):
        MultiViewUNet.from_pretrained(saved, pose=False)


def test_attention_learns_the_number_of_views_without_a_change_of_the_config(
    tiny_pipeline: MVDiffusionPipeline,
) -> None:
    unet = tiny_pipeline.unet
    unet.attend_across(3)
    counts = {p.num_views for name, p in unet.attn_processors.items() if "attn1" in name}
    assert counts == {3}
    assert unet.num_views == 6


class Bomb:
    """A pickle that would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)
