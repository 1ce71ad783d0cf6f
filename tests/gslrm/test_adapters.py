"""What learns, and adapters as plain weights."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mouse_facelift.config import load_config
from mouse_facelift.errors import ConfigError, DependencyError
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.rays import CameraBatch
from mouse_facelift.gslrm import GSLRM, GSLRMConfig, TrainGSLRMConfig, load_gslrm, save_gslrm
from mouse_facelift.gslrm.adapters import choose_parts, merged_state, trained_share
from mouse_facelift.gslrm.config import PartsConfig

TINY = GSLRMConfig(patch_size=4, width=32, head_width=16, layers=3, gradient_checkpointing=False)


def tiny() -> GSLRM:
    torch.manual_seed(0)
    return GSLRM(TINY)


def means(model: GSLRM) -> torch.Tensor:
    images = torch.rand(1, 3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    rig = [
        Camera.look_at((2.7 * np.cos(a), 2.7 * np.sin(a), 0.4), (0, 0, 0), 8.6, 8) for a in (0.0, 2.0, 4.0)
    ]
    K = torch.tensor(np.stack([camera.K for camera in rig])).float()[None]
    w2c = torch.tensor(np.stack([camera.w2c for camera in rig])).float()[None]
    with torch.no_grad():
        gaussians = model(images, CameraBatch(K, w2c))
    return torch.cat([gaussians.means, gaussians.rgb, gaussians.scales], -1)


def learning(model: GSLRM) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def adapted(**parts: object) -> GSLRM:
    """A model with adapters that have learned something."""
    model = tiny()
    choose_parts(model, PartsConfig(train="lora", lora_rank=4, **parts))
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def test_all_leaves_everything_to_learn() -> None:
    model = tiny()
    choose_parts(model, PartsConfig())
    assert learning(model) == set(dict(model.named_parameters()))


@pytest.mark.parametrize("heads", [True, False])
def test_last_blocks_learn_and_the_heads_if_asked(heads: bool) -> None:
    model = tiny()
    choose_parts(model, PartsConfig(train="last_blocks", last_blocks=2, heads=heads))
    places = ("transformer_layers.1.", "transformer_layers.2.")
    if heads:
        places += ("gaussian_upsampler.", "pixel_gaussian_decoder.")
    assert learning(model) == {name for name, _ in model.named_parameters() if name.startswith(places)}


@pytest.mark.parametrize(
    ("targets", "layers"),
    [(["to_qkv"], 1), (["fc"], 1), (["mlp"], 2), (["to_qkv", "fc", "mlp"], 4)],
)
def test_adapters_alone_learn_at_their_targets(targets: list[str], layers: int) -> None:
    model = tiny()
    choose_parts(model, PartsConfig(train="lora", lora_targets=targets, heads=False))
    assert len(learning(model)) == 2 * layers * TINY.layers
    assert all(".lora_" in name and name.startswith("transformer_layers.") for name in learning(model))


def test_heads_learn_beside_adapters() -> None:
    names = learning(adapted())
    assert {name.split(".")[0] for name in names} == {
        "transformer_layers",
        "gaussian_upsampler",
        "pixel_gaussian_decoder",
    }


def test_new_adapters_change_nothing() -> None:
    plain, model = tiny().eval(), tiny()
    choose_parts(model, PartsConfig(train="lora"))
    assert torch.equal(means(model.eval()), means(plain))


def test_every_adapter_takes_part_in_the_prediction() -> None:
    model, before = adapted(), means(adapted())
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            kept = layer.lora_B["default"].weight.data.clone()
            layer.lora_B["default"].weight.data.zero_()
            assert not torch.equal(means(model), before), name
            layer.lora_B["default"].weight.data.copy_(kept)


@pytest.mark.parametrize("alpha", [1.0, 16.0])
def test_merged_weights_are_a_plain_model_of_the_same_prediction(alpha: float) -> None:
    model, plain = adapted(lora_alpha=alpha), tiny().eval()
    before = means(plain)
    state = merged_state(model)
    assert list(state) == list(plain.state_dict())
    plain.load_state_dict(state)
    assert (means(plain) - before).abs().max() > 1e-3
    torch.testing.assert_close(means(plain), means(model), rtol=0, atol=2e-6)


def test_merging_leaves_the_adapted_model_as_it_is() -> None:
    model = adapted()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merged_state(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_saved_adapters_load_as_plain_weights(tmp_path: Path) -> None:
    model = adapted()
    save_gslrm(model, tmp_path)
    loaded = load_gslrm(tmp_path)
    assert loaded.config == TINY
    torch.testing.assert_close(means(loaded), means(model), rtol=0, atol=2e-6)


def test_trained_share_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with torch.device("meta"), caplog.at_level(logging.INFO):
        choose_parts(GSLRM(GSLRMConfig()), PartsConfig(train="last_blocks"))
        assert trained_share(GSLRM(GSLRMConfig())) == "303.6 of 303.6 M parameters (100.0 %)"
    assert "51.3 of 303.6 M parameters (16.9 %) are trained" in caplog.text


def test_missing_peft_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(DependencyError, match=r"parts.train=lora needs peft.*pip install .*\[lora\]"):
        choose_parts(tiny(), PartsConfig(train="lora"))
    choose_parts(tiny(), PartsConfig(train="last_blocks"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["parts.train=lora"], "start.weights is null"),
        (["parts.train=last_blocks", "start.weights=w.pt", "parts.last_blocks=25"], "model.layers is 24"),
        (["parts.lora_targets=[qkv]"], "parts.lora_targets.0: found 'qkv'"),
        (["parts.lora_targets=[]"], "at least 1 item"),
    ],
)
def test_parts_that_cannot_learn_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(TrainGSLRMConfig, None, ["data.train_list=list.txt", "output=out", *settings])


def test_rank_and_scale_have_ranges() -> None:
    for wrong in ({"lora_rank": 0}, {"lora_alpha": 0}, {"last_blocks": 0}):
        with pytest.raises(ValidationError):
            PartsConfig(**wrong)
