import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mouse_facelift.errors import ConfigError
from mouse_facelift.gaussians import Gaussians, render
from mouse_facelift.geometry import Camera, Similarity
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.inference.renders import DEPTH_STEPS, alpha_levels, depth_levels
from mouse_facelift.inference.run import run
from mouse_facelift.samples.format import read_sample

Make = Callable[..., InferConfig]


def read_ply_independently(path: Path) -> Gaussians:
    """A reader of 3D Gaussian splatting files that shares nothing with the writer."""
    content = path.read_bytes()
    header, _, body = content.partition(b"end_header\n")
    assert b"format binary_little_endian 1.0" in header
    count = int(re.search(rb"element vertex (\d+)", header)[1])
    names = re.findall(rb"property float (\w+)", header)
    row = struct.Struct(f"<{len(names)}f")
    assert len(body) == count * row.size
    table = np.array([row.unpack_from(body, row.size * index) for index in range(count)])
    column = {name.decode(): torch.tensor(table[:, i], dtype=torch.float32) for i, name in enumerate(names)}

    def columns(prefix: str, number: int) -> torch.Tensor:
        return torch.stack([column[f"{prefix}{i}"] for i in range(number)], dim=-1)

    return Gaussians(
        torch.stack([column[axis] for axis in "xyz"], dim=-1),
        columns("rot_", 4),
        columns("scale_", 3).exp(),
        1 / (1 + (-column["opacity"]).exp()),
        columns("f_dc_", 3)[:, None],
    )


def seen(gaussians: Gaussians, camera: Camera) -> np.ndarray:
    K, w2c = (torch.from_numpy(matrix)[None].float() for matrix in (camera.K, camera.w2c))
    rgb = render(gaussians, K, w2c, camera.width, camera.height, 1.0).rgb[0]
    return rgb.clamp(0, 1).movedim(0, -1).numpy()


def tell_the_rig(folder: Path) -> Similarity:
    """Give a sample the way to a rig in mm that stands upside down."""
    turn = np.array([[0.6, 0.8, 0], [0.8, -0.6, 0], [0, 0, -1.0]])
    change = Similarity(0.0105, turn, np.array([55.0, 40.0, 25.0]))
    path = folder / "opencv_cameras.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "world_from_model": change.world_from_model.tolist()}))
    return change


def rig_camera(camera: Camera, change: Similarity) -> Camera:
    """The same camera in the rig's frame."""
    R = camera.R @ change.rotation
    center = change.world_from_model[:3, :3] @ camera.center + change.center
    return Camera.from_rt(camera.K, R, -R @ center, camera.width, camera.height)


@pytest.mark.parametrize("frame", ["model", "rig"])
def test_ply_read_by_another_reader_looks_like_the_renders(config: Make, balls: Path, frame: str) -> None:
    folder = balls.parent / "sample_000000"
    change = tell_the_rig(folder)
    out = run(config(f"input={folder}", f"output_frame={frame}")) / "sample_000000"
    gaussians = read_ply_independently(out / "gaussians.ply")
    assert len(gaussians) > 20
    for view in read_sample(folder).views:
        camera = view.camera if frame == "model" else rig_camera(view.camera, change)
        picture = np.asarray(Image.open(out / f"render_cam_{view.view_id:03d}.png"), float) / 255
        assert np.abs(seen(gaussians, camera) - picture).max() < 0.004
        assert np.ptp(picture) > 0.1


def test_rig_frame_needs_the_way_there(config: Make, balls: Path) -> None:
    with pytest.raises(ConfigError, match=r"output_frame=rig, but .*sample_000000 has no world_from_model"):
        run(config(f"input={balls}", "output_frame=rig"))


def test_depth_and_alpha_are_what_the_render_covers(config: Make, balls: Path) -> None:
    out = run(config(f"input={balls}", "limit=1")) / "sample_000000"
    view = read_sample(balls.parent / "sample_000000").views[0]
    K, w2c = (torch.from_numpy(matrix)[None].float() for matrix in (view.camera.K, view.camera.w2c))
    expected = render(Gaussians.load_ply(out / "gaussians.ply"), K, w2c, 32, 32)
    levels = np.asarray(Image.open(out / "depth_cam_000.png"))
    alpha = np.asarray(Image.open(out / "alpha_cam_000.png"))
    assert levels.dtype == np.uint16 or levels.dtype == np.int32
    assert alpha.dtype == np.uint8
    covered = expected.alpha[0, 0].numpy() > 0.5
    assert 0 < covered.sum() < covered.size
    assert not levels[~covered].any()
    steps = json.loads((out / "metrics.json").read_text())["depth"]["depth_steps"]
    np.testing.assert_allclose(levels[covered] / steps, expected.depth[0, 0].numpy()[covered], atol=0.001)
    np.testing.assert_allclose(alpha / 255, expected.alpha[0, 0].numpy(), atol=0.003)


def test_depth_beyond_the_scale_is_the_largest_level_and_not_wrapped() -> None:
    depth = torch.tensor([0.0, 2.7, 15.9, 400.0, 2.7]).view(1, 1, 1, 5)
    levels = depth_levels(depth, torch.tensor([1.0, 1.0, 1.0, 1.0, 0.5]).view(1, 1, 1, 5))
    assert levels.dtype == np.uint16
    assert levels[0, 0].tolist() == [1, round(2.7 * DEPTH_STEPS), round(15.9 * DEPTH_STEPS), 65535, 0]


def test_alpha_is_rounded() -> None:
    assert alpha_levels(torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3))[0, 0].tolist() == [0, 128, 255]


def test_pictures_that_nobody_wants_are_not_written(config: Make, balls: Path) -> None:
    switched_off = ("named_views=false", "depth=false", "alpha=false", "turntable.frames=0")
    out = run(config(f"input={balls}", "limit=1", *switched_off)) / "sample_000000"
    renders = {f"render_cam_{view:03d}.png" for view in (0, 1, 2, 3, 7)}
    assert {path.name for path in out.glob("*.png")} == {"comparison.png", *renders}
    assert not (out / "turntable.mp4").exists()
    assert "depth" not in json.loads((out / "metrics.json").read_text())


def test_named_views_have_their_size_and_differ(config: Make, balls: Path) -> None:
    out = run(config(f"input={balls}", "limit=1", "named_view_size=24")) / "sample_000000"
    pictures = [np.asarray(Image.open(path), float) for path in sorted(out.glob("novel_*.png"))]
    assert [picture.shape for picture in pictures] == 6 * [(24, 24, 3)]
    assert min(np.abs(a - b).max() for i, a in enumerate(pictures) for b in pictures[:i]) > 10
