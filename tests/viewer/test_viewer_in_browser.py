"""The page's own renderer against ours, in a real browser."""

from pathlib import Path

import numpy as np
import pytest
import torch
from headless_browser import NO_WEBGL, console, elements, screenshot
from numpy.typing import NDArray

from mouse_facelift.demo.animal import MousePose, MouseShape
from mouse_facelift.demo.mouse import mouse_mesh
from mouse_facelift.gaussians import Gaussians, render
from mouse_facelift.gaussians.harmonics import SH_C0
from mouse_facelift.pictures import to_uint8
from mouse_facelift.viewer import Scene, View, pack, splat_viewer, write_viewer

SIDE = 256
GREY = 0.6


def balls(angle: float = 0.0) -> Gaussians:
    """Long, flat and round ones in plain colours, one before the other."""
    colors = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.9], [0.9, 0.9, 0.1]])
    return Gaussians(
        means=torch.tensor([[-0.3, 0.0, 0.0], [0.3, 0.2, 0.1], [0.0, -0.4, 0.2], [0.1, 0.3, -0.3]]),
        quats=torch.tensor([[1.0, 0, 0, angle], [1, 0.5, 0.2, angle], [0.3, 1, 0, 0.4], [0, 0, 1, 1]]),
        scales=torch.tensor([[0.3, 0.05, 0.05], [0.2, 0.2, 0.01], [0.1, 0.1, 0.1], [0.004, 0.3, 0.02]]),
        opacities=torch.tensor([0.9, 0.6, 1.0, 0.8]),
        sh0=((colors - 0.5) / SH_C0)[:, None],
    )


def mouse() -> Gaussians:
    """The demo's mouse with a flat Gaussian at each vertex of its skin; it looks along -y."""
    mesh = mouse_mesh(MouseShape(), MousePose.standing(heading_rad=-np.pi / 2))
    means = torch.from_numpy((mesh.vertices - mesh.vertices.mean(0)) / 80).float()
    normals = torch.from_numpy(mesh.normals).float()
    # The turn that takes z to the normal, halfway between no turn and twice as much.
    half = normals + torch.tensor([0.0, 0.0, 1.0])
    quats = torch.stack([half[:, 2], -half[:, 1], half[:, 0], torch.zeros(len(half))], -1)
    column, row = mesh.uv.round().astype(int).T
    colors = torch.from_numpy(mesh.texture[row, column]).float()
    return Gaussians(
        means=means,
        quats=quats,
        scales=torch.tensor([0.012, 0.012, 0.002]).expand(len(means), 3),
        opacities=torch.full((len(means),), 0.85),
        sh0=((colors - 0.5) / SH_C0)[:, None],
    )


def ours(gaussians: Gaussians, view: View, width: int = SIDE, height: int = SIDE) -> NDArray[np.uint8]:
    camera = view.camera(width, height)
    K, w2c = (torch.from_numpy(matrix).float()[None] for matrix in (camera.K, camera.w2c))
    return to_uint8(render(gaussians, K, w2c, width, height, GREY, backend="torch").rgb[0])


def psnr_db(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    error = np.mean(((one.astype(float) - other) / 255) ** 2)
    return float(-10 * np.log10(error + 1e-12))


def assert_same(shown: NDArray[np.uint8], expected: NDArray[np.uint8], least_db: float = 50) -> None:
    blank = np.full_like(expected, round(255 * GREY))
    assert psnr_db(expected, blank) < 30, "the expected picture is blank itself"
    assert psnr_db(shown, expected) > least_db


def act(page: Path, script: str) -> None:
    """Do something on the page, as a reader would."""
    page.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))


WAIT = "setInterval(() => { for (let i = 0; i < 1e7; i++); }, 100);"
"""The browser's clock does not wait for workers, but it does wait for work."""

CLICK = "[...document.querySelectorAll('button')].find((b) => b.textContent === '{}').click();"


@pytest.mark.parametrize(
    ("scene", "view"),
    [
        (balls(), View()),
        (balls(), View(30, -90, 2.0, focal=0.8, target=(0.1, 0.0, 0.2))),
        (mouse(), View(300, 20)),
        (mouse(), View(270, 0, 0.9)),
    ],
    ids=["balls", "balls from below", "mouse", "mouse so near that it fills the picture"],
)
def test_page_draws_what_our_renderer_draws(tmp_path: Path, scene: Gaussians, view: View) -> None:
    page = tmp_path / "view.html"
    write_viewer(page, [Scene("a", [pack(scene)])], "a", view=view, background=GREY, controls=False)
    assert_same(screenshot(page, SIDE, SIDE), ours(scene, view))


def test_scenes_stand_side_by_side_under_one_camera(tmp_path: Path) -> None:
    page = tmp_path / "view.html"
    scenes = [Scene("balls", [pack(balls())]), Scene("mouse", [pack(mouse())])]
    write_viewer(page, scenes, "two", background=GREY, controls=False, side_by_side=True)
    shown = screenshot(page, 2 * SIDE, SIDE)
    below_names = slice(40, SIDE)
    assert_same(shown[below_names, :SIDE], ours(balls(), View())[below_names])
    assert_same(shown[below_names, SIDE:], ours(mouse(), View())[below_names])


def test_buttons_and_slider_change_view_scene_and_frame(tmp_path: Path) -> None:
    page = tmp_path / "view.html"
    scenes = [Scene("still", [pack(mouse())]), Scene("moving", [pack(balls()), pack(balls(0.7))])]
    write_viewer(page, scenes, "two", background=GREY)
    slide = "const s = document.querySelector('input'); s.value = 1; s.dispatchEvent(new Event('input'));"
    act(page, CLICK.format("moving") + CLICK.format("back") + slide)
    shown = screenshot(page, 2 * SIDE, 2 * SIDE)
    # The bar's height is the browser's affair, so the canvas tells its own.
    height = 2 * SIDE - _bar_height(page, 2 * SIDE)
    expected = ours(balls(0.7), View(90, 0), 2 * SIDE, height)
    assert_same(shown[40:height], expected[40:])


def _bar_height(page: Path, width: int) -> int:
    act(page, "document.title = document.querySelector('.bar').offsetHeight;")
    return int(_title(page, width))


def _title(page: Path, width: int) -> str:
    return elements(page, f"--window-size={width},{width}").split("<title>")[1].split("<")[0]


def test_keys_turn_and_depths_are_sorted_again(tmp_path: Path) -> None:
    page = tmp_path / "view.html"
    view = View(300, 0)
    write_viewer(page, [Scene("a", [pack(balls())])], "a", view=view, background=GREY, controls=False)
    press = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));"
    act(page, f"for (let i = 0; i < 36; i++) {press} {WAIT}")
    assert_same(screenshot(page, SIDE, SIDE), ours(balls(), View(120, 0)))


def test_view_sorts_by_itself_where_workers_are_forbidden(tmp_path: Path) -> None:
    page = tmp_path / "view.html"
    write_viewer(page, [Scene("a", [pack(balls())])], "a", background=GREY)
    page.write_text(page.read_text().replace("worker-src blob:", "worker-src data:"))
    act(page, CLICK.format("top") + "document.querySelector('.bar').remove();" + WAIT)
    assert_same(screenshot(page, SIDE, SIDE), ours(balls(), View(270, 90)))


def test_element_works_in_any_page(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    parts = [
        splat_viewer([Scene("a", [pack(scene)])], background=GREY, controls=False, height=f"{SIDE}px")
        for scene in (mouse(), balls())
    ]
    page.write_text(f"<!doctype html><body style='margin: 0'>{''.join(parts)}</body>")
    shown = screenshot(page, SIDE, 2 * SIDE)
    assert_same(shown[:SIDE], ours(mouse(), View()))
    assert_same(shown[SIDE:], ours(balls(), View()))


@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_gaussians_larger_than_everything_fill_the_picture(tmp_path: Path, scale: float) -> None:
    scene = balls()
    scene.scales[:] = scale
    page = tmp_path / "view.html"
    write_viewer(page, [Scene("a", [pack(scene)])], "a", background=GREY, controls=False)
    shown = screenshot(page, SIDE, SIDE).reshape(-1, 3)
    assert np.ptp(shown, axis=0).max() <= 1 and np.abs(shown[0] - 255 * GREY).max() > 30


def test_scene_without_gaussians_is_the_background(tmp_path: Path) -> None:
    page = tmp_path / "view.html"
    write_viewer(page, [Scene("a", [pack(balls()[:0])])], "a", background=GREY, controls=False)
    assert (screenshot(page, SIDE, SIDE) == round(255 * GREY)).all()


def test_low_view_keeps_half_of_its_height_for_the_picture(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    viewer = splat_viewer([Scene("a", [pack(balls())])], height="100px")
    page.write_text(f"<!doctype html><body style='margin: 0'>{viewer}</body>")
    act(page, "document.title = document.querySelector('canvas').offsetHeight;")
    assert _title(page, 300) == "50"


def test_names_are_text_and_no_markup_in_the_browser(tmp_path: Path) -> None:
    page = tmp_path / "view.html"
    name = "</script><img src=x>&amp;"
    scenes = [Scene(name, [pack(balls())] * 2), Scene("b", [pack(balls())])]
    write_viewer(page, scenes, f"</title>{name}", side_by_side=True)
    count = "document.querySelectorAll('img').length"
    act(page, f"document.title = [{count}, document.querySelector('button').textContent.length];")
    assert _title(page, SIDE) == f"0,{len(name)}"


def test_browser_has_nothing_to_complain_about(tmp_path: Path) -> None:
    page = tmp_path / "view.html"
    write_viewer(page, [Scene("a", [pack(balls())])], "a")
    act(page, "console.log('heard');")
    said = console(page)
    assert [line for line in said if "heard" in line]
    assert [line for line in said if "heard" not in line] == []


def test_without_webgl_the_page_says_so(tmp_path: Path) -> None:
    page = tmp_path / "view.html"
    write_viewer(page, [Scene("a", [pack(balls())])], "a")
    assert '<p class="message">This browser cannot draw the 3D view' in elements(page, webgl=NO_WEBGL)
