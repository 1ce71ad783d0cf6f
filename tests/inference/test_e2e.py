import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import Decoder
from PIL import Image

from mouse_facelift.errors import CheckpointError, ConfigError, DataError, DependencyError
from mouse_facelift.gaussians.turntable import NAMED_VIEWS
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.rays import CameraBatch
from mouse_facelift.gslrm import load_gslrm
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.inference.e2e import EndToEnd
from mouse_facelift.inference.generation import choose_reference, slot_cameras
from mouse_facelift.inference.inputs import Views, find_sources
from mouse_facelift.inference.run import run
from mouse_facelift.mvdiffusion.slots import FACELIFT_NAMES, Slots
from mouse_facelift.mvdiffusion.unet import MultiViewUNet
from mouse_facelift.samples.format import write_list

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


def read_rgb(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


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


def test_lone_picture_gets_results_but_no_figures_of_cameras(e2e: Make, balls: Path, tmp_path: Path) -> None:
    picture = balls.parent / "sample_000000" / "images" / "cam_002.png"
    out = run(e2e(f"input={picture}"))
    novel = {f"novel_{side}.png" for side in NAMED_VIEWS}
    promised = {"gaussians.ply", "turntable.mp4", "view.html", "views", "metrics.json"} | novel
    assert {path.name for path in (out / "cam_002").iterdir()} == promised
    assert len(list((out / "cam_002" / "views").iterdir())) == 5
    metrics = json.loads((out / "cam_002" / "metrics.json").read_text())
    assert metrics["gaussians"] > 0 and metrics["filter"]["psnr_cost_db"] is None
    assert metrics["views"] == [] and metrics["mean"] == {}
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
        choose_reference(slots, None, find_sources(folder)[0].read(None, 0.6).view_ids)


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
    slots, there = Slots.load(rig_pipeline / "slots.json"), (0, 1, 2, 3, 7)
    assert choose_reference(slots, None, there) == choose_reference(slots, 2, there) == 2
    with pytest.raises(ConfigError, match=r"reference_view=0, .* trained with camera 2"):
        choose_reference(slots, 0, there)
    assert choose_reference(Slots.facelift(32), 3, there) == 3
    assert choose_reference(replace(slots, mode="pose"), 0, there) == 0


@pytest.mark.parametrize("model", ["pose_pipeline", "facelift_pipeline"])
def test_other_rig_without_the_camera_of_training_is_shown_from_its_first_view(
    config: Make,
    write_ball: Callable,
    tmp_path: Path,
    model: str,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = write_ball(tmp_path / "sample_000000", view_ids=[7, 3, 1])
    settings = config("mode=e2e", f"mvdiffusion={request.getfixturevalue(model)}", f"input={folder}")
    out = run(settings) / "sample_000000"
    rows = json.loads((out / "metrics.json").read_text())["views"]
    assert [row["view_id"] for row in rows if row["role"] == "input"] == [7]
    assert "1 of 1 samples have no camera" in caplog.text and "camera 7 of sample_000000" in caplog.text


def test_compiled_model_makes_the_same_views(e2e: Make, balls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(MultiViewUNet, "compile", lambda self, **options: compiled.append("unet"))
    monkeypatch.setattr(Decoder, "compile", lambda self, **options: compiled.append("decoder"))
    plain = run(e2e(f"input={balls}", "limit=1")) / "sample_000000" / "views" / "cam_003.png"
    before = read_rgb(plain)
    run(e2e(f"input={balls}", "limit=1", "compile=true", "overwrite=true"))
    assert compiled == ["unet", "decoder"]
    assert np.abs(read_rgb(plain).astype(int) - before).max() <= 1


def test_reference_is_shown_in_full_whatever_gslrm_gets(
    e2e: Make, balls: Path, gslrm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[torch.Tensor] = []
    generate = EndToEnd._generate
    monkeypatch.setattr(
        EndToEnd,
        "_generate",
        lambda self, requests: shown.append(requests[0].picture) or generate(self, requests),
    )
    for name, size in (("full", 32), ("small", 16)):
        out = run(e2e(f"input={balls}", "limit=1", f"image_size={size}", f"output={balls.parent / name}"))
        assert read_rgb(out / "sample_000000" / "render_cam_000.png").shape == (size, size, 3)
    assert torch.equal(*shown)


@pytest.mark.parametrize("reference", [0, 7])
def test_pose_model_makes_the_sample_own_views_from_any_reference(
    config: Make, pose_pipeline: Path, balls: Path, reference: int
) -> None:
    settings = ("mode=e2e", f"mvdiffusion={pose_pipeline}", f"input={balls}", "limit=1")
    out = run(config(*settings, f"reference_view={reference}")) / "sample_000000"
    assert {path.name for path in (out / "views").iterdir()} == {
        f"cam_00{view}.png" for view in (0, 1, 2, 3, 7)
    }
    rows = json.loads((out / "metrics.json").read_text())["views"]
    assert [row["view_id"] for row in rows if row["role"] == "input"] == [reference]


def test_pose_model_and_gslrm_get_the_exact_cameras_of_the_sample(
    config: Make, pose_pipeline: Path, gslrm: Path, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config("mode=e2e", f"mvdiffusion={pose_pipeline}", "input=x", "image_size=16")
    model = load_gslrm(gslrm)
    end_to_end = EndToEnd(settings, model, CPU)
    told: list[CameraBatch] = []
    rays = Slots.rays
    monkeypatch.setattr(
        Slots, "rays", lambda self, cameras, side: told.append(cameras) or rays(self, cameras, side)
    )
    given: list[CameraBatch] = []
    model.register_forward_pre_hook(lambda module, inputs: given.append(inputs[1]))
    # A camera of this very sample that is not where the training's stood.
    assert views.K is not None and views.w2c is not None
    views.w2c[4, 2, 3] += 0.5
    result = end_to_end(views)
    assert result.generated_ids == (2, 1, 7, 3, 0)
    order = [views.position(view_id) for view_id in result.generated_ids]
    assert torch.equal(told[0].w2c[0], views.w2c[order])
    assert torch.equal(told[0].K[0], views.K[order])
    assert torch.equal(given[0].w2c[0], views.w2c[order])
    torch.testing.assert_close(given[0].K[0, :, :2], views.K[order][:, :2] / 2)


@pytest.mark.parametrize("reference", [2, 7])
def test_order_in_which_views_are_listed_does_not_matter_to_a_pose_model(
    config: Make, pose_pipeline: Path, gslrm: Path, views: Views, reference: int
) -> None:
    settings = ("mode=e2e", f"mvdiffusion={pose_pipeline}", "input=x", f"reference_view={reference}")
    end_to_end = EndToEnd(config(*settings), load_gslrm(gslrm), CPU)
    assert views.K is not None and views.w2c is not None
    first = views.position(reference)
    order = [first, *(index for index in (4, 1, 0, 3, 2) if index != first)]
    ids = tuple(views.view_ids[index] for index in order)
    listed_first = Views(views.rgba[order], ids, views.K[order], views.w2c[order])
    a, b = end_to_end(views), end_to_end(listed_first)
    assert a.generated_ids == b.generated_ids
    assert a.generated is not None and b.generated is not None
    assert torch.equal(a.generated, b.generated)
    assert torch.equal(a.gaussians.means, b.gaussians.means)


def test_samples_made_together_are_those_made_one_by_one(
    config: Make, pose_pipeline: Path, write_ball: Callable, tmp_path: Path
) -> None:
    ids = ([0, 1, 2, 3], [0, 2, 7], [0, 1, 2, 7])
    folders = [
        write_ball(tmp_path / f"sample_{i:06d}", shift=0.1 * i, view_ids=view_ids)
        for i, view_ids in enumerate(ids)
    ]
    write_list(tmp_path / "all.txt", folders)
    settings = ("mode=e2e", f"mvdiffusion={pose_pipeline}", f"input={tmp_path / 'all.txt'}")
    alone, together = (
        run(config(*settings, f"batch_size={size}", f"output={tmp_path / str(size)}")) for size in (1, 3)
    )
    for folder, view_ids in zip(folders, ids, strict=True):
        for view in view_ids:
            name = Path(folder.name, "views", f"cam_{view:03d}.png")
            assert np.abs(read_rgb(alone / name).astype(int) - read_rgb(together / name)).max() <= 1


def test_of_samples_made_together_the_one_at_fault_is_told_after_those_before_it(
    config: Make, rig_pipeline: Path, gslrm: Path, views: Views
) -> None:
    settings = config("mode=e2e", f"mvdiffusion={rig_pipeline}", "input=unused")
    blind = replace(views, view_ids=(10, 11, 12, 13, 17))
    results = EndToEnd(settings, load_gslrm(gslrm), CPU).together([views, blind, views])
    assert next(results).shown_ids == (2,)
    with pytest.raises(DataError, match=r"has cameras \[10, 11, 12, 13, 17\]"):
        next(results)


def test_pose_model_is_told_of_a_lone_picture_what_it_stored(
    config: Make, pose_pipeline: Path, balls: Path
) -> None:
    picture = balls.parent / "sample_000000" / "images" / "cam_002.png"
    out = run(config("mode=e2e", f"mvdiffusion={pose_pipeline}", f"input={picture}"))
    assert len(list((out / "cam_002" / "views").iterdir())) == 5


def test_pose_model_needs_two_cameras(
    config: Make, pose_pipeline: Path, write_ball: Callable, tmp_path: Path
) -> None:
    folder = write_ball(tmp_path / "sample_000000", view_ids=[2])
    with pytest.raises(DataError, match=r"sample_000000: has one camera, .* Give the picture instead"):
        run(config("mode=e2e", f"mvdiffusion={pose_pipeline}", f"input={folder}"))


def test_mvdiffusion_is_shown_white_behind_the_animal(
    e2e: Make, views: Views, gslrm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_to_end = EndToEnd(e2e("input=x"), load_gslrm(gslrm), CPU)
    generate, seen = end_to_end._generate, []
    monkeypatch.setattr(
        end_to_end, "_generate", lambda asked: seen.append(asked[0].picture) or generate(asked)
    )
    views.rgba[:, :3] *= views.rgba[:, 3:]
    result = end_to_end(views)
    assert result.shown_ids == (2,)
    (picture,) = seen
    outside = views.rgba[2, 3] == 0
    assert (picture[:, outside] == 1).all()
    assert torch.equal(picture[:, ~outside], views.rgba[2, :3, ~outside])


def test_hull_anchor_gets_silhouettes_of_the_generated_views(
    e2e: Make, views: Views, hull_gslrm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_gslrm(hull_gslrm)
    end_to_end = EndToEnd(e2e("input=x", "image_size=16"), model, CPU)
    made = torch.ones(5, 3, 32, 32)
    made[:, :, 8:24, 12:20] = 0.4
    monkeypatch.setattr(end_to_end, "_generate", lambda requests: [made])
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    end_to_end(views)
    expected = torch.zeros(16, 16)
    expected[4:12, 6:10] = 1
    assert seen[0].shape == (1, 5, 4, 16, 16)
    assert torch.equal(seen[0][0, :, 3] > 0.5, (expected > 0.5).expand(5, 16, 16))


def test_wrong_e2e_inputs_are_refused(
    e2e: Make, config: Make, balls: Path, gslrm: Path, tmp_path: Path
) -> None:
    picture = balls.parent / "sample_000000" / "images" / "cam_000.png"
    Image.new("RGB", (32, 32)).save(tmp_path / "plain.png")
    cases: list[tuple[InferConfig, type[Exception], str]] = [
        (e2e(f"input={balls}", "reference_view=0"), ConfigError, "trained with camera 2"),
        (e2e(f"input={picture}", "reference_view=2"), ConfigError, "a lone picture has none"),
        (e2e(f"input={tmp_path / 'plain.png'}"), DataError, r"plain\.png: has no alpha .*mask=FILE"),
        (config("mode=e2e", f"mvdiffusion={gslrm}", f"input={balls}"), CheckpointError, "model_index.json"),
        (config("mode=e2e", "mvdiffusion=nowhere", f"input={balls}"), CheckpointError, "nowhere"),
    ]
    for settings, error, message in cases:
        with pytest.raises(error, match=message):
            run(settings)
        assert not settings.output.exists()


@pytest.mark.parametrize(
    ("model", "setting", "message"),
    [
        ("rig_pipeline", "seed=4", r"sample_000001: has cameras \[1, 7\], .* also need \[2, 3, 0\]"),
        ("pose_pipeline", "reference_view=9", r"sample_000000: has no view 9 .* only \[0, 1, 2, 3, 7\]"),
        ("pose_pipeline", "reference_view=2", r"sample_000001: has no view 2 .* only \[1, 7\]"),
        ("facelift_pipeline", "reference_view=0", r"sample_000001: has no view 0 .* only \[1, 7\]"),
    ],
)
def test_cameras_that_a_sample_lacks_are_named_before_anything_is_loaded_or_written(
    config: Make,
    balls: Path,
    write_ball: Callable,
    model: str,
    setting: str,
    message: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_ball(balls.parent / "sample_000001", view_ids=[1, 7])
    monkeypatch.setattr("mouse_facelift.inference.run.load_models", lambda *_: pytest.fail("loaded"))
    settings = config("mode=e2e", f"mvdiffusion={request.getfixturevalue(model)}", f"input={balls}", setting)
    with pytest.raises((DataError, ConfigError), match=message):
        run(settings)
    assert not settings.output.exists()


def test_failure_at_the_first_sample_leaves_nothing(e2e: Make, balls: Path) -> None:
    settings = e2e(f"input={balls}", "image_size=17")
    with pytest.raises(DataError, match="patch size"):
        run(settings)
    assert not settings.output.exists()


def test_machine_that_cannot_compile_says_what_to_do(
    e2e: Make, balls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_: object, **__: object) -> None:
        raise torch._dynamo.exc.TorchDynamoException("InvalidCxxCompiler: none found\n\nmuch more")

    monkeypatch.setattr(MultiViewUNet, "forward", no_compiler)
    monkeypatch.setattr(MultiViewUNet, "compile", lambda self, **options: None)
    settings = e2e(f"input={balls}", "compile=true")
    with pytest.raises(DependencyError, match=r"cannot compile here \(InvalidCxxCompiler: none found\)"):
        run(settings)
    assert not settings.output.exists()
