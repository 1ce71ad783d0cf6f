"""The study of pose conditioning, as small as it gets: it runs, and both models start alike."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from script_modules import import_script

from mouse_facelift.geometry import Camera
from mouse_facelift.mvdiffusion.config import ComponentSizes
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.slots import Slots

CASES = ["rig", "rig, far from the mean", "rig, other reference", "new cameras"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return import_script("studies", "pose_vs_slot")


@pytest.fixture(scope="module")
def studied(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two updates at 32 pixels, of one mouse."""
    output = tmp_path_factory.mktemp("study")
    sizes = ComponentSizes(unet_channels=(16, 32), vae_channels=(8, 16), clip_layers=1)
    plan = script.Plan(
        mice=1,
        moments=8,
        size=32,
        steps=2,
        batch_size=2,
        sizes=sizes,
        vae=(2, 1e-3, 2),
        sampling_steps=2,
        measured=2,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "PICTURE", {"width": 144, "height": 128})
        patch.setattr(script, "TRUTH_EVERY", 1)
        return output, script.study(output, plan)


def test_every_case_is_measured_and_drawn(script: ModuleType, studied: tuple[Path, dict[str, Any]]) -> None:
    output, found = studied
    assert list(found["cases"]) == CASES
    for case in found["cases"].values():
        gain = case["psnr"]["pose"] - case["psnr"]["slot"]
        assert case["gain"]["psnr"][0] == pytest.approx(gain, abs=1e-4)
        assert all(0 <= overlap <= 1 for overlap in case["iou"].values())
        assert case["iou"]["reference repeated"] > 0.2
        assert {"slot", "pose", script.OUTLINE, "truth through VAE"} <= case["psnr"].keys()
    assert [case["views"] for case in found["cases"].values()] == [5, 5, 5, 4]
    lines = script.table(found).splitlines()
    assert all(line.count("|") == lines[0].count("|") for line in lines[: 2 + len(CASES)])
    with Image.open(output / "new_cameras.png") as grid:
        assert grid.size == (5 * 32, 2 * 3 * 32)


def test_both_models_share_their_vae_and_their_initial_weights(
    studied: tuple[Path, dict[str, Any]],
) -> None:
    output, _ = studied
    start, slot, pose = (MVDiffusionPipeline.load(output / name) for name in ("start", "slot_2", "pose_2"))
    for model in (slot, pose):
        for name, value in start.frozen.vae.state_dict().items():
            assert torch.equal(model.frozen.vae.state_dict()[name], value)
        assert torch.equal(model.prompt_embeds, start.prompt_embeds)
    assert (slot.slots.mode, pose.slots.mode) == ("rig", "pose")
    assert not torch.equal(slot.unet.conv_in.weight, pose.unet.conv_in.weight[:, :8])


def test_slot_model_gives_the_slot_nearest_to_each_camera_seen_from_the_reference(script: ModuleType) -> None:
    def standing(*azimuths: float) -> tuple[Camera, ...]:
        angles = torch.deg2rad(torch.tensor(azimuths, dtype=torch.float64))
        return tuple(
            Camera.look_at((2 * a.cos().item(), 2 * a.sin().item(), 0.5), (0, 0, 0), 40, 32) for a in angles
        )

    class NumberedSlots:
        """Stands in for a pipeline: the picture of slot k has brightness k."""

        slots = Slots("rig", (0, 1, 2, 3), standing(0, 90, 180, 270))

        def __call__(self, images: torch.Tensor, **_: object) -> torch.Tensor:
            return torch.arange(4.0)[None, :, None, None, None].expand(len(images), 4, 3, 2, 2)

    cameras = Slots("rig", (0, 1, 2, 3), standing(100, 180, 110, 0)).camera_batch
    plan = script.Plan(sampling_steps=1)
    made = script.sampled(NumberedSlots(), torch.zeros(1, 3, 32, 32), cameras, plan)
    assert made[0, :, 0, 0, 0].tolist() == [0, 1, 0, 3]
