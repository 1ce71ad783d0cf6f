import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mouse_facelift.errors import CheckpointError, ConfigError, DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.gslrm import load_gslrm
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.inference.e2e import EndToEnd, choose_reference, estimate_silhouettes, slot_cameras
from mouse_facelift.inference.inputs import Views, find_sources
from mouse_facelift.inference.run import run
from mouse_facelift.mvdiffusion.slots import FACELIFT_NAMES, Slots

Make = Callable[..., InferConfig]
CPU = torch.device("cpu")


@pytest.fixture
def e2e(config: Make, rig_pipeline: Path) -> Make:
    return lambda *settings: config("mode=e2e", f"mvdiffusion={rig_pipeline}", *settings)


@pytest.fixture
def views(balls: Path) -> Views:
    return find_sources(balls, limit=1)[0].read(None, 0.6)


def azimuths(w2c: torch.Tensor) -> np.ndarray:
    K = np.diag([10.0, 10.0, 1.0])
    return np.array([Camera(K, matrix.double().numpy(), 32, 32).azimuth_deg for matrix in w2c])


def replace_pictures(sample: Path, but: int) -> None:
    """Make every view of a sample a full green square, except one."""
    for path in (sample / "images").iterdir():
        if path.name != f"cam_{but:03d}.png":
            Image.new("RGBA", (32, 32), (0, 255, 0, 255)).save(path)


def test_e2e_writes_generated_views_under_their_camera_ids(e2e: Make, balls: Path) -> None:
    out = run(e2e(f"input={balls}")) / "sample_000001"
    assert {path.name for path in (out / "views").iterdir()} == {
        f"cam_{view:03d}.png" for view in (0, 1, 2, 3, 7)
    }
    assert (out / "gaussians.ply").is_file() and (out / "turntable.mp4").is_file()
    rows = json.loads((out / "metrics.json").read_text())["views"]
    assert [row["view_id"] for row in rows if row["role"] == "input"] == [2]


def test_e2e_sees_no_picture_but_the_reference(e2e: Make, balls: Path, tmp_path: Path) -> None:
    sample = balls.parent / "sample_000000"
    before = run(e2e(f"input={sample}"))
    replace_pictures(sample, but=2)
    after = run(e2e(f"input={sample}", f"output={tmp_path / 'after'}"))
    for name in ("gaussians.ply", "views/cam_007.png", "turntable.mp4"):
        path = Path("sample_000000") / name
        assert (before / path).read_bytes() == (after / path).read_bytes()
    scores = [json.loads((out / "sample_000000" / "metrics.json").read_text()) for out in (before, after)]
    assert scores[0]["mean"] != scores[1]["mean"]


def test_e2e_sees_the_reference(e2e: Make, balls: Path) -> None:
    sample = balls.parent / "sample_000000"
    before = (run(e2e(f"input={sample}")) / "sample_000000" / "gaussians.ply").read_bytes()
    replace_pictures(sample, but=1)
    after = (run(e2e(f"input={sample}", "overwrite=true")) / "sample_000000" / "gaussians.ply").read_bytes()
    assert before != after


def test_seed_decides_the_noise(e2e: Make, balls: Path, tmp_path: Path) -> None:
    results = [
        run(e2e(f"input={balls}", "limit=1", f"seed={seed}", f"output={tmp_path / name}"))
        for name, seed in (("a", 4), ("b", 4), ("c", 5))
    ]
    a, b, c = ((out / "sample_000000" / "views" / "cam_000.png").read_bytes() for out in results)
    assert a == b != c


def test_lone_picture_gets_results_but_no_metrics(e2e: Make, balls: Path, tmp_path: Path) -> None:
    picture = balls.parent / "sample_000000" / "images" / "cam_002.png"
    out = run(e2e(f"input={picture}"))
    assert {path.name for path in (out / "cam_002").iterdir()} == {"gaussians.ply", "turntable.mp4", "views"}
    assert len(list((out / "cam_002" / "views").iterdir())) == 5
    assert not (out / "metrics.json").exists()
    assert json.loads((out / "run.json").read_text())["inputs"].keys() == {str(picture)}


def test_lone_picture_stands_in_the_slots_own_frame(rig_pipeline: Path) -> None:
    slots = Slots.load(rig_pipeline / "slots.json")
    cameras = slot_cameras(slots, Views(torch.ones(1, 4, 32, 32), (0,)), 0)
    assert cameras.view_ids == slots.view_ids
    np.testing.assert_allclose(cameras.w2c, slots.w2c, atol=1e-6)
    np.testing.assert_allclose(cameras.K, slots.K, rtol=1e-6)


def test_rig_slots_take_the_cameras_of_the_sample(rig_pipeline: Path, views: Views) -> None:
    slots = Slots.load(rig_pipeline / "slots.json")
    cameras = slot_cameras(slots, views, views.position(2))
    assert cameras.view_ids == slots.view_ids
    assert cameras.view_ids[0] == 2
    assert views.K is not None and views.w2c is not None
    for index, view_id in enumerate(cameras.view_ids):
        assert torch.equal(cameras.w2c[index], views.w2c[views.position(view_id)])
        assert torch.equal(cameras.K[index], views.K[views.position(view_id)])


def test_rig_slots_at_another_size_scale_the_intrinsics(rig_pipeline: Path, balls: Path) -> None:
    slots = Slots.load(rig_pipeline / "slots.json")
    source = find_sources(balls, limit=1)[0]
    large, own = (slot_cameras(slots, source.read(size, 0.6), 2) for size in (64, 32))
    torch.testing.assert_close(large.K, own.K)


def test_rig_slots_need_every_camera(rig_pipeline: Path, write_ball: Callable, tmp_path: Path) -> None:
    folder = write_ball(tmp_path / "sample_000000", view_ids=[0, 1, 2, 3])
    slots = Slots.load(rig_pipeline / "slots.json")
    with pytest.raises(DataError, match=r"has cameras \[0, 1, 2, 3\].*also need \[7\]"):
        slot_cameras(slots, find_sources(folder)[0].read(None, 0.6), 2)


def test_facelift_slots_are_turned_to_the_reference(views: Views) -> None:
    slots = Slots.facelift(32)
    reference = views.position(7)
    cameras = slot_cameras(slots, views, reference)
    assert views.w2c is not None
    shown = azimuths(views.w2c[[reference]])[0]
    relative = (azimuths(cameras.w2c) - shown + 180) % 360 - 180
    assert slots.names == FACELIFT_NAMES
    expected = {"front": 0, "front_right": -45, "right": -90, "back": 180, "left": 90, "front_left": 45}
    for name, angle in zip(slots.names, relative, strict=True):
        assert (angle - expected[name] + 180) % 360 - 180 == pytest.approx(0, abs=1e-3), name
    centers = -(cameras.w2c[:, :3, :3].mT @ cameras.w2c[:, :3, 3:])[..., 0]
    torch.testing.assert_close(centers.norm(dim=1), torch.full((6,), 2.7))
    torch.testing.assert_close(centers[:, 2], torch.zeros(6), atol=1e-6, rtol=0)


def test_facelift_slots_go_with_any_reference(config: Make, facelift_pipeline: Path, balls: Path) -> None:
    settings = config(
        "mode=e2e", f"mvdiffusion={facelift_pipeline}", f"input={balls}", "limit=1", "reference_view=3"
    )
    out = run(settings) / "sample_000000"
    assert [path.name for path in sorted((out / "views").iterdir())] == [f"cam_00{n}.png" for n in range(6)]
    roles = {row["view_id"]: row["role"] for row in json.loads((out / "metrics.json").read_text())["views"]}
    assert [view for view, role in roles.items() if role == "input"] == [3]


def test_reference_of_rig_slots_is_that_of_the_training(rig_pipeline: Path) -> None:
    slots = Slots.load(rig_pipeline / "slots.json")
    assert choose_reference(slots, None) == choose_reference(slots, 2) == 2
    with pytest.raises(ConfigError, match=r"reference_view=0, .* trained with camera 2"):
        choose_reference(slots, 0)
    assert choose_reference(Slots.facelift(32), 3) == 3


def test_mvdiffusion_is_shown_white_behind_the_animal(
    e2e: Make, views: Views, gslrm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_to_end = EndToEnd(e2e("input=x"), load_gslrm(gslrm), CPU)
    generate, seen = end_to_end._generate, []
    monkeypatch.setattr(end_to_end, "_generate", lambda picture: seen.append(picture) or generate(picture))
    views.rgba[:, :3] *= views.rgba[:, 3:]
    result = end_to_end(views)
    assert result.shown_ids == (2,)
    (picture,) = seen
    outside = views.rgba[2, 3] == 0
    assert (picture[0, :, outside] == 1).all()
    assert torch.equal(picture[0, :, ~outside], views.rgba[2, :3, ~outside])


def test_hull_anchor_gets_silhouettes_of_the_generated_views(
    e2e: Make, views: Views, hull_gslrm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_gslrm(hull_gslrm)
    end_to_end = EndToEnd(e2e("input=x", "image_size=16"), model, CPU)
    made = torch.ones(5, 3, 32, 32)
    made[:, :, 8:24, 12:20] = 0.4
    monkeypatch.setattr(end_to_end, "_generate", lambda picture: made)
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    end_to_end(views)
    expected = torch.zeros(16, 16)
    expected[4:12, 6:10] = 1
    assert seen[0].shape == (1, 5, 4, 16, 16)
    assert torch.equal(seen[0][0, :, 3] > 0.5, (expected > 0.5).expand(5, 16, 16))


def test_silhouettes_are_soft_and_forgive_noise() -> None:
    distances = torch.tensor([0.0, 0.015, 0.06, 0.10, 0.8])
    pictures = torch.ones(2, 3, 1, 5)
    pictures[:, 1] -= distances
    expected = torch.tensor([0, 0, 0.5, 1, 1]).expand(2, 1, 1, 5)
    torch.testing.assert_close(estimate_silhouettes(pictures, 1.0), expected)
    torch.testing.assert_close(estimate_silhouettes(1 - pictures, 0.0), expected)


def test_wrong_e2e_inputs_are_refused(
    e2e: Make, config: Make, balls: Path, gslrm: Path, tmp_path: Path
) -> None:
    picture = balls.parent / "sample_000000" / "images" / "cam_000.png"
    Image.new("RGB", (32, 32)).save(tmp_path / "plain.png")
    cases: list[tuple[InferConfig, type[Exception], str]] = [
        (e2e(f"input={balls}", "reference_view=0"), ConfigError, "trained with camera 2"),
        (e2e(f"input={picture}", "reference_view=2"), ConfigError, "a lone picture has none"),
        (e2e(f"input={tmp_path / 'plain.png'}"), DataError, r"plain\.png: has mode RGB, expected RGBA"),
        (config("mode=e2e", f"mvdiffusion={gslrm}", f"input={balls}"), CheckpointError, "model_index.json"),
        (config("mode=e2e", "mvdiffusion=nowhere", f"input={balls}"), CheckpointError, "nowhere"),
    ]
    for settings, error, message in cases:
        with pytest.raises(error, match=message):
            run(settings)
        assert not settings.output.exists()


def test_facelift_reference_that_a_sample_lacks_is_named(
    config: Make, facelift_pipeline: Path, write_ball: Callable, tmp_path: Path
) -> None:
    folder = write_ball(tmp_path / "sample_000000", view_ids=[1, 2])
    settings = config("mode=e2e", f"mvdiffusion={facelift_pipeline}", f"input={folder}")
    with pytest.raises(DataError, match=r"sample_000000: there is no view 0; .* \[1, 2\]"):
        run(settings)
