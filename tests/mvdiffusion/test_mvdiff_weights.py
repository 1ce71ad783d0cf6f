"""Which file of a component is read."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mouse_facelift.errors import CheckpointError
from mouse_facelift.mvdiffusion.weights import TRANSFORMERS_STEMS, find_weights, read_state

STEM = "diffusion_pytorch_model"


def put(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        state = {"x": torch.full((1,), float(number))}
        save_file(state, folder / name) if name.endswith("safetensors") else torch.save(state, folder / name)


@pytest.mark.parametrize(
    ("names", "variant"),
    [
        ((f"{STEM}.safetensors",), None),
        ((f"{STEM}.safetensors", f"{STEM}.bin"), None),
        ((f"{STEM}.bin", f"{STEM}.fp16.safetensors"), None),
        ((f"{STEM}.safetensors", f"{STEM}.fp16.safetensors", f"{STEM}.fp16.bin"), None),
        ((f"{STEM}.fp16.safetensors",), "fp16"),
        ((f"{STEM}.fp16.bin",), "fp16"),
        ((f"{STEM}.fp16.safetensors", f"{STEM}.fp16.bin", "other.safetensors"), "fp16"),
    ],
)
def test_plain_name_goes_before_variants_and_safetensors_before_bin(
    tmp_path: Path, names: tuple[str, ...], variant: str | None
) -> None:
    put(tmp_path, *names)
    assert find_weights(tmp_path) == (tmp_path / names[0], variant)
    assert read_state(tmp_path)["x"] == 0


def test_several_variants_are_left_to_the_user(tmp_path: Path) -> None:
    put(tmp_path, f"{STEM}.fp16.safetensors", f"{STEM}.non_ema.safetensors")
    with pytest.raises(CheckpointError, match=r"variants fp16, non_ema.*which one is meant"):
        read_state(tmp_path)


def test_no_weights_say_what_was_expected(tmp_path: Path) -> None:
    put(tmp_path, "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"no weights; expected {STEM}\.safetensors or {STEM}\.bin"):
        find_weights(tmp_path)
    assert find_weights(tmp_path, TRANSFORMERS_STEMS)[1] is None


def test_transformers_names_have_two_stems(tmp_path: Path) -> None:
    put(tmp_path, "pytorch_model.fp16.bin")
    assert find_weights(tmp_path, TRANSFORMERS_STEMS) == (tmp_path / "pytorch_model.fp16.bin", "fp16")
    put(tmp_path, "model.fp16.safetensors")
    assert find_weights(tmp_path, TRANSFORMERS_STEMS)[0].name == "model.fp16.safetensors"
