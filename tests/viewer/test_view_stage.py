"""What is put into the scene, and what controls do to it."""

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from things_to_view import (
    TURN,
    Client,
    StandIn,
    cameras,
    cloud,
    make_result,
    make_sample,
    make_sequence,
    world_from_model,
)

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.viewer.config import START_VIEWS, ViewConfig
from mouse_facelift.viewer.contents import find_groups
from mouse_facelift.viewer.page import View
from mouse_facelift.viewer.placement import pane, viewpoint
from mouse_facelift.viewer.player import Player
from mouse_facelift.viewer.shown import read_moment
from mouse_facelift.viewer.splats import splat_arrays

ORIGIN = np.zeros(3)


def played(*paths: Path, **options: Any) -> tuple[Player, StandIn]:
    server = StandIn()
    config = ViewConfig(paths=paths, **options)
    return Player(server, find_groups(paths), config), server  # type: ignore[arg-type]


def scene_means(server: StandIn) -> np.ndarray:
    """Centres as they are seen."""
    node = server.scene.nodes["/gaussians/splats"]
    return node.centers * node.scale


def test_covariances_keep_their_shape_in_16_bits() -> None:
    scene = cloud(200)
    arrays = splat_arrays(scene, 100.0)
    for number in range(len(scene)):
        w, x, y, z = (scene.quats[number] / scene.quats[number].norm()).double().tolist()
        vector = np.array([x, y, z])
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        R = (w * w - vector @ vector) * np.eye(3) + 2 * np.outer(vector, vector) + 2 * w * cross
        expected = R @ np.diag(scene.scales[number].double().numpy() ** 2) @ R.T
        sent = arrays["covariances"][number].astype(np.float16).astype(float) / 100**2
        np.testing.assert_allclose(sent, expected, atol=1e-3 * np.trace(expected))
    assert arrays["rgbs"].dtype == arrays["opacities"].dtype == np.uint8
    np.testing.assert_allclose(arrays["opacities"][:, 0] / 255, scene.opacities, atol=0.5 / 255 + 1e-6)


@given(st.floats(0.5, 3), st.floats(2, 14), st.floats(2, 14), st.floats(0.1, 2), st.floats(0.5, 2))
def test_pane_is_where_the_camera_sees_its_picture(
    focal: float, cx: float, cy: float, depth: float, aspect: float
) -> None:
    K = np.array([[16 * focal, 0, cx], [0, 16 * focal * aspect, cy], [0, 0, 1]])
    camera = Camera(K, cameras()[1].w2c, 16, 12)
    middle, width, height, edges = pane(camera, depth)
    corners, depths = camera.project(edges[:4, 0])
    np.testing.assert_allclose(corners, [[0, 0], [16, 0], [16, 12], [0, 12]], atol=1e-6)
    np.testing.assert_allclose(depths, depth)
    np.testing.assert_allclose(camera.project(middle)[0], [8, 6], atol=1e-6)
    sides = np.linalg.norm(edges[:4, 1] - edges[:4, 0], axis=1)
    np.testing.assert_allclose(sides, [width, height, width, height])
    np.testing.assert_allclose(edges[4:, 1], np.broadcast_to(camera.center, (4, 3)), atol=1e-9)


@pytest.mark.parametrize("name", [name for name in START_VIEWS if name != "rig"])
def test_viewpoints_are_those_of_the_page(name: str) -> None:
    azimuth, elevation = START_VIEWS[name]
    expected = View(azimuth, elevation, 2.7).camera(8, 8).center
    np.testing.assert_allclose(viewpoint(ORIGIN, 2.7, azimuth, elevation), expected, atol=1e-9)


def test_lone_ply_is_shown_in_its_box_seen_from_the_corner(tmp_path: Path) -> None:
    cloud().save_ply(tmp_path / "a.ply")
    _, server = played(tmp_path / "a.ply")
    np.testing.assert_allclose(scene_means(server), cloud().means, atol=1e-5)
    box = server.scene.nodes["/box/edges"].points
    assert box.shape == (12, 2, 3)
    np.testing.assert_allclose(np.abs(box), 0.9)
    assert not server.scene.of("floor") and not server.scene.of("pictures")
    camera = server.initial_camera
    np.testing.assert_allclose(camera.position, viewpoint(ORIGIN, 2.7, 300, 20))
    np.testing.assert_allclose(camera.up, [0, 0, 1])
    assert not server.gui.nodes["moment"].visible


def test_sample_shows_its_cameras_pictures_and_the_floor(tmp_path: Path) -> None:
    _, server = played(make_sample(tmp_path / "sample_000003", 3), background=0.0)
    pictures, expected = server.scene.of("pictures"), cameras()
    assert list(pictures) == ["/pictures/0", "/pictures/10", "/pictures/20"]
    for number, (node, camera) in enumerate(zip(pictures.values(), expected, strict=True)):
        w, x, y, z = node.wxyz
        forward = [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)]
        np.testing.assert_allclose(forward, camera.R[2], atol=1e-9)
        # Straight alpha over black: 50 n of 255, so transparent.
        assert np.unique(node.image) == round((50 * number) ** 2 / 255)
    assert server.scene.nodes["/cameras/10"].text == "camera 10"
    floor, matrix = server.scene.nodes["/floor/squares"], world_from_model(3)
    on_floor = matrix[:3, :3] @ floor.position + matrix[:3, 3]
    np.testing.assert_allclose(on_floor, [0, 0, 0], atol=1e-9)
    assert floor.section_size == pytest.approx(100 / 45)
    assert np.linalg.norm(server.initial_camera.position) > 2 * 3, "not behind the cameras"


def test_gaussians_of_the_rig_are_shown_in_mm_with_the_rig(tmp_path: Path) -> None:
    result = make_result(tmp_path / "out/sample_000004", 4, "rig")
    sample = make_sample(tmp_path / "data/sample_000004", 4)
    _, server = played(result, sample)
    matrix = world_from_model(4)
    in_mm = cloud(seed=4).means.numpy() @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(scene_means(server), in_mm, atol=1e-3)
    middle = server.scene.nodes["/box/edges"].points.reshape(-1, 3).mean(0)
    np.testing.assert_allclose(middle, matrix[:3, 3], atol=1e-3)
    for node, camera in zip(server.scene.of("pictures").values(), cameras(), strict=True):
        # On the way from the camera to the animal, in the rig.
        in_model = np.linalg.inv(matrix[:3, :3]) @ (node.position - matrix[:3, 3])
        pixel, depth = camera.project(in_model)
        np.testing.assert_allclose(pixel, [8, 8], atol=1e-6)
        assert 0 < depth < 3
    np.testing.assert_allclose(server.scene.nodes["/floor/squares"].position, [0, 0, 0])
    np.testing.assert_allclose(server.initial_camera.look_at, matrix[:3, 3])
    assert "millimetres" in server.gui.nodes["text"].content


@pytest.mark.parametrize(("stored", "shown"), [("model", "rig"), ("rig", "model")])
def test_frame_can_be_chosen(tmp_path: Path, stored: str, shown: str) -> None:
    (group,) = find_groups([make_result(tmp_path / "a", 2, stored)])
    seen = read_moment(group.moments[0], shown)  # type: ignore[arg-type]
    matrix = world_from_model(2) if shown == "rig" else np.eye(4)
    expected = cloud(seed=2).means.numpy() @ matrix[:3, :3].T + matrix[:3, 3]
    assert seen.gaussians is not None
    np.testing.assert_allclose(seen.gaussians.means, expected, atol=1e-4)


def test_frame_needs_the_way_there(tmp_path: Path) -> None:
    cloud().save_ply(tmp_path / "a.ply")
    with pytest.raises(DataError, match="world_from_model is not known, which frame=rig needs"):
        played(tmp_path / "a.ply", frame="rig")


def test_sample_of_another_place_is_refused(tmp_path: Path) -> None:
    result = make_result(tmp_path / "out/sample_000004", 4)
    with pytest.raises(DataError, match="another world_from_model than the result sample_000004"):
        played(result, make_sample(tmp_path / "data/sample_000004", 5))


def test_gaussians_of_an_unknown_unit_are_in_sight(tmp_path: Path) -> None:
    scene = cloud()
    far = type(scene)(300 * scene.means + 1000, scene.quats, 300 * scene.scales, scene.opacities, scene.sh0)
    far.save_ply(tmp_path / "a.ply")
    _, server = played(tmp_path / "a.ply")
    np.testing.assert_allclose(server.initial_camera.look_at, 3 * [1000], atol=30)
    assert 300 < np.linalg.norm(server.initial_camera.position - server.initial_camera.look_at) < 600


def test_only_the_most_important_gaussians_are_drawn_and_it_is_told(tmp_path: Path) -> None:
    cloud().save_ply(tmp_path / "a.ply")
    _, server = played(tmp_path / "a.ply", max_gaussians=20)
    assert len(scene_means(server)) == 20
    assert "30 of them not drawn" in server.gui.nodes["text"].content


def test_slider_changes_nodes_in_place(tmp_path: Path) -> None:
    player, server = played(make_sequence(tmp_path / "sequence", range(10, 14)))
    added = list(server.scene.added)
    server.gui.nodes["moment"].move(2, Client())
    player.settle()
    torch.testing.assert_close(torch.from_numpy(scene_means(server)), cloud(seed=12).means, atol=1e-4, rtol=0)
    assert "<b>frame 12</b>" in server.gui.nodes["text"].content
    assert server.scene.added == added


def test_cameras_that_are_gone_are_taken_away(tmp_path: Path) -> None:
    make_sample(tmp_path / "sample_000000", views=4)
    make_sample(tmp_path / "sample_000001", views=2)
    player, server = played(tmp_path)
    server.gui.nodes["moment"].move(1, Client())
    player.settle()
    assert list(server.scene.of("pictures")) == ["/pictures/0", "/pictures/10"]
    assert set(server.scene.of("cameras")) == {"/cameras/0", "/cameras/10", "/cameras/edges"}
    assert server.scene.nodes["/cameras/edges"].points.shape == (16, 2, 3)


def test_another_method_keeps_the_sample(tmp_path: Path) -> None:
    for method, frames in (("direct", (1, 2, 3)), ("e2e", (2, 3))):
        for frame in frames:
            make_result(tmp_path / method / f"sample_{frame:06d}", frame)
    player, server = played(tmp_path)
    server.gui.nodes["moment"].move(2, Client())
    server.gui.nodes["show"].move("e2e", Client())
    player.settle()
    assert server.gui.nodes["moment"].value == 1
    assert "<b>sample_000003</b>" in server.gui.nodes["text"].content


def test_playing_keeps_the_pace_and_begins_again_after_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    player, server = played(make_sequence(tmp_path / "sequence", range(4)), fps=10)
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    server.gui.nodes["play"].move(True, Client())
    player.settle()
    shown = []
    for clock.now in (100.11, 100.32, 100.45):
        player._advance()
        shown += re.findall("<b>(.*)</b>", server.gui.nodes["text"].content)
    assert shown == ["frame 1", "frame 3", "frame 0"]
    assert player._until_next() == pytest.approx(0.05)


def test_damaged_moment_is_told_and_others_go_on(tmp_path: Path) -> None:
    for frame in range(2):
        make_result(tmp_path / f"sample_{frame:06d}", frame)
    (tmp_path / "sample_000001/gaussians.ply").write_bytes(b"ply\n")
    player, server = played(tmp_path)
    for value, text in ((1, "cannot be shown"), (0, "50 Gaussians")):
        server.gui.nodes["moment"].move(value, Client())
        player.settle()
        assert text in server.gui.nodes["text"].content


def test_names_of_folders_are_text_and_not_markup(tmp_path: Path) -> None:
    _, server = played(make_result(tmp_path / "a <b onclick='x'> {1}"))
    assert "<b>a &lt;b onclick=&#x27;x&#x27;&gt; {1}</b>" in server.gui.nodes["text"].content


def test_empty_scene_is_shown_as_nothing(tmp_path: Path) -> None:
    make_result(tmp_path / "a", 0)
    make_result(tmp_path / "b", 1)
    cloud(0).save_ply(tmp_path / "b/gaussians.ply")
    player, server = played(tmp_path)
    server.gui.nodes["moment"].move(1, Client())
    player.settle()
    assert not server.scene.of("gaussians")


def test_click_on_a_picture_looks_through_its_camera(tmp_path: Path) -> None:
    _, server = played(make_sample(tmp_path / "sample_000003", 3))
    client, camera = Client(), cameras()[1]
    server.scene.nodes["/pictures/10"].clicked(SimpleNamespace(client=client))
    np.testing.assert_allclose(client.camera.position, camera.center)
    np.testing.assert_allclose(client.camera.look_at, ORIGIN, atol=1e-9)
    np.testing.assert_allclose(client.camera.up_direction, -camera.R[1])
    assert np.tan(client.camera.fov / 2) == pytest.approx(8 / camera.K[1, 1])


def test_button_moves_only_the_one_who_pressed_it(tmp_path: Path) -> None:
    player, server = played(make_sequence(tmp_path / "sequence", range(2)), frame="rig")
    server.clients = {0: Client(), 1: Client()}
    buttons = server.gui.nodes["view"]
    buttons.value = "top"
    buttons.clicked(SimpleNamespace(client=server.clients[0]))
    player.settle()
    position = server.clients[0].camera.position
    np.testing.assert_allclose(position, world_from_model(0)[:3, 3] + [0, 0, 2.7 * 45], atol=0.5)
    assert not vars(server.clients[1].camera)


def test_layers_can_be_hidden(tmp_path: Path) -> None:
    _, server = played(make_sample(tmp_path / "sample_000003", 3))
    server.gui.nodes["pictures"].move(False, Client())
    assert not server.scene.nodes["/pictures"].visible
    assert server.scene.nodes["/cameras"].visible


def test_matrix_of_the_tests_is_no_plain_scaling() -> None:
    assert not np.allclose(world_from_model()[:3, :3], 45 * np.eye(3))
    np.testing.assert_allclose(TURN @ TURN.T, np.eye(3))
