"""What the views mean: canonical directions, or a rig's cameras around the ring."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.errors import CheckpointError, DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.mvdiffusion.slots import FACELIFT_RELATIVE_DEG, Slots, mean_camera, rig_order
from mouse_facelift.samples.format import read_list, read_sample

ring = st.lists(st.integers(0, 359), min_size=2, max_size=8, unique=True)


@given(ring, st.data(), st.booleans(), st.integers(0, 360))
def test_order_starts_at_the_reference_and_goes_round_once(
    azimuths: list[int], data: st.DataObject, clockwise: bool, turn: int
) -> None:
    reference = data.draw(st.integers(0, len(azimuths) - 1))
    order = rig_order(azimuths, reference, clockwise)
    assert order[0] == reference
    assert sorted(order) == list(range(len(azimuths)))
    sign = -1 if clockwise else 1
    steps = [sign * (azimuths[b] - azimuths[a]) % 360 for a, b in pairwise(order)]
    assert sum(steps) < 360
    turned = [(azimuth + turn) % 360 for azimuth in azimuths]
    assert rig_order(turned, reference, clockwise) == rig_order(azimuths, reference, clockwise)


def test_facelift_slots_are_the_published_cameras() -> None:
    slots = Slots.facelift(512)
    assert slots.names == ("front", "front_right", "right", "back", "left", "front_left")
    np.testing.assert_allclose(
        [camera.azimuth_deg for camera in slots.cameras], [270, 225, 180, 90, 0, 315], atol=1e-9
    )
    np.testing.assert_allclose([np.linalg.norm(camera.center) for camera in slots.cameras], 2.7)
    np.testing.assert_allclose(slots.K[0], [[548.9937744, 0, 256], [0, 548.9937744, 256], [0, 0, 1]])


def test_facelift_slots_run_clockwise() -> None:
    azimuths = [camera.azimuth_deg for camera in Slots.facelift(64).cameras]
    assert rig_order(azimuths, 0, clockwise=True) == list(range(6))


@pytest.mark.parametrize(
    ("reference", "clockwise", "expected"),
    [("first", False, (0, 2, 1, 3)), (1, False, (1, 3, 0, 2)), (1, True, (1, 2, 0, 3))],
)
def test_rig_slots_follow_azimuth_not_camera_id(
    write_samples: Callable[..., Path], tmp_path: Path, reference: int, clockwise: bool, expected: tuple
) -> None:
    samples = [read_sample(folder) for folder in read_list(write_samples(tmp_path, 2))]
    slots = Slots.rig(samples, 64, reference, clockwise)
    assert slots.view_ids == expected
    assert slots.image_size == 64
    by_id = {view.view_id: view.camera for view in samples[0].views}
    for view_id, camera in zip(slots.view_ids, slots.cameras, strict=True):
        np.testing.assert_allclose(camera.w2c, by_id[view_id].w2c, atol=1e-12)
        np.testing.assert_allclose(camera.K[:2], 2 * by_id[view_id].K[:2])


def test_pose_slots_are_the_mean_rig_around_the_ring(
    write_samples: Callable[..., Path], tmp_path: Path
) -> None:
    samples = [read_sample(folder) for folder in read_list(write_samples(tmp_path, 2))]
    slots = Slots.pose(samples, 64, 1)
    assert (slots.mode, slots.view_ids) == ("pose", (1, 3, 0, 2))
    np.testing.assert_allclose(slots.prompt_azimuths_deg, [0, 110, 170, 260])
    slots.save(tmp_path / "slots.json")
    read = Slots.load(tmp_path / "slots.json")
    assert (read.mode, read.prompt_azimuths_deg) == ("pose", slots.prompt_azimuths_deg)
    np.testing.assert_array_equal(read.w2c, slots.w2c)


def test_views_of_slots_take_their_own_prompts_and_posed_ones_the_nearest() -> None:
    slots = Slots.facelift(32)
    mirrored = torch.from_numpy(slots.w2c[[0, 5, 4, 3, 2, 1]])[None]
    assert slots.prompt_index(mirrored).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert replace(slots, mode="pose").prompt_index(mirrored).tolist() == [[0, 5, 4, 3, 2, 1]]
    assert slots.rays(slots.camera_batch, 4) is None


def test_slots_without_the_meaning_of_their_prompts(tmp_path: Path) -> None:
    """Rows of slot models are their slots'; with poses nobody can know."""
    path = tmp_path / "slots.json"
    for mode in ("facelift", "pose"):
        replace(Slots.facelift(64), mode=mode).save(path)
        content = json.loads(path.read_text())
        del content["prompt_azimuths_deg"]
        path.write_text(json.dumps(content))
        if mode == "pose":
            with pytest.raises(CheckpointError, match=r"slots\.json: mode pose without prompt_azimuths_deg"):
                Slots.load(path)
        else:
            found = np.array(Slots.load(path).prompt_azimuths_deg)
            np.testing.assert_allclose(found, np.array(FACELIFT_RELATIVE_DEG) % 360, atol=1e-9)


def test_unknown_reference_view_is_named(write_samples: Callable[..., Path], tmp_path: Path) -> None:
    samples = [read_sample(folder) for folder in read_list(write_samples(tmp_path, 1))]
    with pytest.raises(DataError, match=r"sample_000000: has no view 9 .* only \[0, 1, 2, 3\]"):
        Slots.rig(samples, 32, 9)


def test_mean_of_two_cameras_lies_between_them() -> None:
    def camera(angle: float) -> Camera:
        return Camera.look_at((2 * np.cos(angle), 2 * np.sin(angle), 0), (0, 0, 0), 50, 32)

    mean = mean_camera([camera(0.4), camera(0.6)])
    np.testing.assert_allclose(mean.R, camera(0.5).R, atol=1e-12)
    assert mean.azimuth_deg == pytest.approx(np.degrees(0.5))


def test_slots_file_is_read_back(tmp_path: Path) -> None:
    slots = Slots.facelift(64)
    slots.save(tmp_path / "slots.json")
    read = Slots.load(tmp_path / "slots.json")
    assert (read.mode, read.view_ids, read.image_size) == ("facelift", slots.view_ids, 64)
    assert np.array_equal(read.K, slots.K)
    assert np.array_equal(read.w2c, slots.w2c)


def test_malformed_slots_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "slots.json").write_text('{"mode": "rig", "image_size": 64, "cameras": [], "view_ids": []}')
    with pytest.raises(CheckpointError, match=r"slots\.json"):
        Slots.load(tmp_path / "slots.json")


def test_samples_elsewhere_cannot_fill_facelift_slots(
    write_samples: Callable[..., Path], tmp_path: Path
) -> None:
    canonical = dict(enumerate([290.0, 245, 200, 110, 20, 335]))
    slots = Slots.facelift(32)
    turned = [read_sample(f) for f in read_list(write_samples(tmp_path / "turned", 1, canonical))]
    slots.check_samples(turned)
    even = dict(enumerate([270.0, 210, 150, 90, 30, 330]))
    other = [read_sample(f) for f in read_list(write_samples(tmp_path / "even", 1, even))]
    with pytest.raises(DataError, match=r"data\.slots=rig"):
        slots.check_samples(other)
