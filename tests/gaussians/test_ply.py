import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
from safetensors.torch import load_file

from mouse_facelift.errors import DataError
from mouse_facelift.gaussians import Gaussians
from mouse_facelift.gaussians.ply import COLUMNS, Layout, read_ply, write_ply

FIELDS = ("means", "quats", "scales", "opacities", "sh0")


def scene(count: int = 20) -> Gaussians:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=generator)

    return Gaussians(normal(3), normal(4), normal(3).exp() / 50, normal().sigmoid(), normal(1, 3))


def change_header(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def test_what_is_written_is_read_back(tmp_path: Path):
    scene().save_ply(tmp_path / "scene.ply")
    read = Gaussians.load_ply(str(tmp_path / "scene.ply"))
    for name in FIELDS:
        torch.testing.assert_close(getattr(read, name), getattr(scene(), name), atol=0, rtol=1e-6, msg=name)
    assert [file.name for file in tmp_path.iterdir()] == ["scene.ply"]


def test_file_is_the_standard_layout_before_activation(tmp_path: Path):
    gaussians = scene()
    write_ply(tmp_path / "scene.ply", gaussians)
    content = PlyData.read(tmp_path / "scene.ply")
    assert not content.text
    assert content.byte_order == "<"
    vertices = content["vertex"].data
    assert vertices.dtype == np.dtype([(name, "<f4") for name in COLUMNS])
    np.testing.assert_array_equal(vertices["y"], gaussians.means[:, 1])
    np.testing.assert_array_equal(vertices["f_dc_2"], gaussians.sh0[:, 0, 2])
    np.testing.assert_allclose(vertices["opacity"], torch.logit(gaussians.opacities), rtol=1e-5)
    np.testing.assert_allclose(vertices["scale_1"], gaussians.scales[:, 1].log(), rtol=1e-6)
    np.testing.assert_array_equal(vertices["rot_0"], gaussians.quats[:, 0])


def test_extreme_opacities_and_scales_stay_finite(tmp_path: Path):
    edge = scene(2)
    edge = Gaussians(edge.means, edge.quats, torch.zeros(2, 3), torch.tensor([0.0, 1.0]), edge.sh0)
    write_ply(tmp_path / "edge.ply", edge)
    read = read_ply(tmp_path / "edge.ply")
    torch.testing.assert_close(read.opacities, edge.opacities, atol=1e-6, rtol=0)
    torch.testing.assert_close(read.scales, edge.scales, atol=1e-6, rtol=0)


def test_empty_scene_survives(tmp_path: Path):
    write_ply(tmp_path / "empty.ply", scene(0))
    assert len(read_ply(tmp_path / "empty.ply")) == 0


def test_gradients_are_cut_on_writing(tmp_path: Path):
    gaussians = scene()
    gaussians.means.requires_grad_()
    write_ply(tmp_path / "scene.ply", gaussians)
    assert len(read_ply(tmp_path / "scene.ply")) == 20


def test_batch_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="one scene per file"):
        write_ply(tmp_path / "scene.ply", scene()[None])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["a point cloud", "an empty file", "text", "cut off", "NaN", "a list", "huge"]
)
def test_malformed_file_is_one_clear_error(tmp_path: Path, name: str):
    path = tmp_path / "scene.ply"
    write_ply(path, scene())
    content = path.read_bytes()
    if name == "a point cloud":
        points = np.zeros(3, [("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
        PlyData([PlyElement.describe(points, "vertex")]).write(str(path))
    elif name == "an empty file":
        path.write_bytes(b"")
    elif name == "text":
        path.write_bytes(b"\xff\xfe not a ply\n")
    elif name == "cut off":
        path.write_bytes(content[:-10])
    elif name == "NaN":
        path.write_bytes(content[:-4] + np.float32("nan").tobytes())
    elif name == "a list":
        change_header(path, b"property float x", b"property list uchar float x")
    elif name == "huge":
        change_header(path, b"element vertex 20", b"element vertex 9999999999999")
    with pytest.raises(DataError, match=r"scene\.ply"):
        read_ply(path)


def test_file_without_vertices_names_what_it_holds(tmp_path: Path):
    faces = np.zeros(1, [("a", "<i4")])
    PlyData([PlyElement.describe(faces, "face")]).write(str(tmp_path / "mesh.ply"))
    with pytest.raises(DataError, match="holds face, expected an element 'vertex'"):
        read_ply(tmp_path / "mesh.ply")


def test_missing_file_is_told(tmp_path: Path):
    with pytest.raises(DataError, match="no such PLY file"):
        read_ply(tmp_path / "none.ply")


def test_columns_may_come_in_any_order_type_and_company(tmp_path: Path):
    write_ply(tmp_path / "scene.ply", scene())
    plain = PlyData.read(tmp_path / "scene.ply")["vertex"].data
    names = ("nx", *reversed(COLUMNS), "f_rest_0")
    other = np.zeros(len(plain), [(name, ">f8") for name in names])
    for name in COLUMNS:
        other[name] = plain[name]
    PlyData([PlyElement.describe(other, "vertex")], byte_order=">").write(str(tmp_path / "other.ply"))
    read, expected = read_ply(tmp_path / "other.ply"), read_ply(tmp_path / "scene.ply")
    for name in FIELDS:
        torch.testing.assert_close(getattr(read, name), getattr(expected, name))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_colours_that_depend_on_the_view_are_written_channel_by_channel_and_read_back(
    tmp_path: Path, degree: int
):
    count = (degree + 1) ** 2 - 1
    rest = torch.randn(20, count, 3, generator=torch.Generator().manual_seed(1))
    replace(scene(), sh_rest=rest).save_ply(tmp_path / "scene.ply")
    vertices = PlyData.read(tmp_path / "scene.ply")["vertex"].data
    assert sum(name.startswith("f_rest_") for name in vertices.dtype.names) == 3 * count
    np.testing.assert_array_equal(vertices["f_rest_1"], rest[:, 1, 0])
    np.testing.assert_array_equal(vertices[f"f_rest_{count}"], rest[:, 0, 1])
    read = Gaussians.load_ply(tmp_path / "scene.ply")
    assert read.sh_degree == degree
    assert read.sh_rest.equal(rest)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_file_filled_up_at_its_end_keeps_its_degree(tmp_path: Path, degree: int):
    rest = torch.randn(20, (degree + 1) ** 2 - 1, 3, generator=torch.Generator().manual_seed(1))
    write_ply(tmp_path / "scene.ply", replace(scene(), sh_rest=rest), "published")
    assert len(PlyData.read(tmp_path / "scene.ply")["vertex"].data.dtype) == 62
    assert read_ply(tmp_path / "scene.ply").sh_rest.equal(rest)


def test_filling_of_each_channel_is_kept(tmp_path: Path):
    rest = torch.zeros(20, 15, 3)
    rest[:, :3] = torch.randn(20, 3, 3, generator=torch.Generator().manual_seed(1))
    write_ply(tmp_path / "scene.ply", replace(scene(), sh_rest=rest))
    assert read_ply(tmp_path / "scene.ply").sh_rest.equal(rest)


def test_odd_number_of_harmonics_is_refused(tmp_path: Path):
    write_ply(tmp_path / "scene.ply", replace(scene(), sh_rest=torch.ones(20, 3, 3)))
    change_header(tmp_path / "scene.ply", b"f_rest_8", b"f_best_8")
    with pytest.raises(DataError, match="has 8 properties f_rest_"):
        read_ply(tmp_path / "scene.ply")


def published_files(shared: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    folder = shared / "fixtures/facelift"
    files = json.loads((folder / "ply.json").read_text())["files"]
    assert files
    return ((folder / "ply" / name, facts) for name, facts in files.items())


@pytest.mark.parity
def test_published_files_are_read(shared: Path):
    published = load_file(shared / "fixtures/facelift/ply.safetensors")
    for path, facts in published_files(shared):
        read = read_ply(path)
        assert len(read) == facts["n"]
        kept = published.get(f"{path.stem}.kept_index", slice(facts["n"]))
        modifier = re.search(r"scaling_modifier_(\d+)p(\d+)", path.stem)
        scale = float(f"{modifier[1]}.{modifier[2]}") if modifier else 1.0
        torch.testing.assert_close(read.means, published["xyz"][kept])
        torch.testing.assert_close(read.quats, published["rotation"][kept])
        torch.testing.assert_close(read.scales, scale * published["act_scaling"][kept])
        torch.testing.assert_close(read.opacities, published["act_opacity"][kept, 0])
        harmonics = published.get(f"{path.stem}_features")
        torch.testing.assert_close(read.sh, published["features"][kept] if harmonics is None else harmonics)


@pytest.mark.parity
def test_published_files_are_written_byte_for_byte(shared: Path, tmp_path: Path):
    """Read and activated in float64, since float32 opacities do not hold their logits to the bit."""
    for path, facts in published_files(shared):
        padded = "f_rest_44:f4" in facts["properties"]
        layout: Layout = "published" if padded else "published_unpadded"
        write_ply(tmp_path / path.name, read_ply(path, torch.float64), layout)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parity
def test_files_read_again_are_the_published_values_before_activation(shared: Path):
    folder = shared / "fixtures/facelift"
    loaded = {
        key.removeprefix("loaded."): value
        for key, value in load_file(folder / "ply.safetensors").items()
        if key.startswith("loaded.")
    }
    names = ("xyz", "rotation", "scaling", "opacity", "features")
    for path, facts in published_files(shared):
        if facts["n"] != len(loaded["xyz"]):
            continue
        read = read_ply(path, torch.float64)
        raw = read.means, read.quats, read.log_scales, read.logit_opacities[:, None], read.sh
        if all(value.float().equal(loaded[name]) for name, value in zip(names, raw, strict=True)):
            return
    pytest.fail("no published file holds the values that were loaded from one")


def test_scene_with_nan_is_not_written(tmp_path: Path) -> None:
    n = 3
    opacities = torch.full((n,), 0.5)
    means = torch.zeros(n, 3)
    means[1, 2] = float("nan")
    scene = Gaussians(means, torch.ones(n, 4), torch.ones(n, 3), opacities, torch.zeros(n, 1, 3))
    with pytest.raises(DataError, match="holds NaN"):
        scene.save_ply(tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())
