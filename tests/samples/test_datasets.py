from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.samples import datasets
from mouse_facelift.samples.datasets import (
    EightBitSamples,
    MemorySource,
    SampleDataset,
    as_floats,
    composite,
    resize_rgba,
)
from mouse_facelift.samples.format import write_sample


def make_samples(folder: Path, count: int, view_ids: list[int], size: int = 32) -> list[Path]:
    rng = np.random.default_rng(0)
    rig = [Camera.look_at((2.7, 0.1 * i, 0), (0, 0, 0), 30, size) for i in range(len(view_ids))]
    folders = [folder / f"sample_{index:06d}" for index in range(count)]
    for path in folders:
        pictures = [rng.integers(0, 256, (size, size, 4), np.uint8) for _ in view_ids]
        write_sample(path, pictures, rig, view_ids)
    return folders


def test_item_has_pictures_and_cameras_at_the_asked_size(tmp_path: Path) -> None:
    dataset = SampleDataset(make_samples(tmp_path, 2, [3, 1]), image_size=16)
    item = dataset[1]
    assert item["id"] == "sample_000001"
    assert item["rgba"].shape == (2, 4, 16, 16)
    assert item["view_ids"].tolist() == [3, 1]
    assert item["K"][0].tolist() == [[15, 0, 8], [0, 15, 8], [0, 0, 1]]


def test_camera_id_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sample_000000: views \[3, 1, 3\] hold a camera id twice"):
        SampleDataset(make_samples(tmp_path, 1, [3, 1, 3]), image_size=16)


def test_picture_that_is_not_square_is_named(tmp_path: Path) -> None:
    rig = [Camera(np.array([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]]), np.eye(4), 32, 24)] * 2
    write_sample(tmp_path / "sample_000000", [np.full((24, 32, 4), 255, np.uint8)] * 2, rig, [0, 1])
    dataset = SampleDataset([tmp_path / "sample_000000"], image_size=16)
    with pytest.raises(DataError, match=r"cam_000\.png: picture is 32x24, expected a square one"):
        dataset[0]


def test_resizing_averages_colours_by_alpha_so_no_background_bleeds_in() -> None:
    picture = np.zeros((4, 4, 4), np.uint8)
    picture[:, :2] = (200, 100, 50, 255)
    picture[:, 2:] = (255, 255, 255, 0)
    picture[1::2, 0] = (200, 100, 50, 0)
    small = resize_rgba(picture, 2)
    assert small[0, 0].tolist() == [200, 100, 50, 191]
    assert small[0, 1].tolist() == [255, 255, 255, 0]


@given(x=st.integers(4, 27), y=st.integers(4, 27), factor=st.sampled_from([2, 4]))
def test_a_dot_lands_where_the_resized_camera_sees_it(x: int, y: int, factor: int) -> None:
    camera = Camera.look_at((3, 0.2, 0.4), (0, 0, 0), 40, 32)
    picture = np.zeros((32, 32, 4), np.uint8)
    picture[y, x] = 255
    size = 32 // factor
    weights = resize_rgba(picture, size)[..., 3].astype(float)
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
    found = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
    ray = np.linalg.inv(camera.K) @ (x + 0.5, y + 0.5, 1)
    expected, _ = camera.resized(size, size)[0].project(camera.center + camera.R.T @ ray)
    assert np.abs(found - expected).max() <= 0.5 * (1 - 1 / factor) + 1e-6


def test_composite_lays_straight_colours_over_the_background() -> None:
    rgba = torch.tensor([0.2, 0.4, 0.6, 0.25])[:, None, None]
    assert torch.allclose(composite(rgba, 1.0).flatten(), torch.tensor([0.8, 0.85, 0.9]))


def test_samples_with_other_views_are_refused(tmp_path: Path) -> None:
    folders = make_samples(tmp_path / "a", 1, [0, 1]) + make_samples(tmp_path / "b", 1, [1, 0])
    with pytest.raises(DataError, match=r"views \[1, 0\].*\[0, 1\]"):
        SampleDataset(folders, 32)


def test_view_without_animal_is_an_error_with_its_file(tmp_path: Path) -> None:
    camera = Camera.look_at((3, 0, 0), (0, 0, 0), 8, 8)
    write_sample(tmp_path / "s", [np.zeros((8, 8, 4), np.uint8)], [camera], [0])
    with pytest.raises(DataError, match=r"cam_000\.png: alpha is 0 everywhere"):
        SampleDataset([tmp_path / "s"], 8)[0]


def test_pictures_kept_in_memory_are_decoded_once_and_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = SampleDataset(make_samples(tmp_path, 1, [0, 1]), 16)
    decoded = dataset[0]["rgba"]
    dataset.source = MemorySource(dataset)
    assert torch.equal(dataset[0]["rgba"], decoded)
    monkeypatch.setattr(datasets, "load_pictures", None)
    assert torch.equal(dataset[0]["rgba"], decoded)


def test_eight_bit_items_become_the_same_floats(tmp_path: Path) -> None:
    dataset = SampleDataset(make_samples(tmp_path, 1, [0]), 32)
    item, stored = dataset[0], EightBitSamples(dataset)[0]
    assert stored["rgba"].dtype == torch.uint8 and stored["rgba"].is_contiguous()
    floats = as_floats(stored)
    assert floats["id"] == item["id"]
    assert all(torch.equal(floats[key], item[key]) for key in ("rgba", "K", "w2c", "view_ids"))
    assert torch.equal((floats["rgba"] * 255).round().to(torch.uint8), stored["rgba"])


def test_every_eight_bit_number_becomes_the_nearest_float() -> None:
    numbers = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(as_floats({"x": numbers})["x"], (numbers.double() / 255).float())
