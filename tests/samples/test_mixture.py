"""Several data sets as one: parts, filled-up views, and which views serve what."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.samples.datasets import SampleDataset
from mouse_facelift.samples.format import CAMERAS_FILE, read_sample, write_sample
from mouse_facelift.samples.mixture import Mixture


def data_set(folder: Path, count: int, view_ids: list[int], inputs: list[int] | None = None) -> SampleDataset:
    rng = np.random.default_rng(len(view_ids))
    rig = [Camera.look_at((2.7, 0.1 * i, 0), (0, 0, 0), 30, 16) for i in range(len(view_ids))]
    metadata = {} if inputs is None else {"input_view_ids": inputs}
    folders = [folder / f"sample_{index:06d}" for index in range(count)]
    for path in folders:
        pictures = [rng.integers(1, 256, (16, 16, 4), np.uint8) for _ in view_ids]
        write_sample(path, pictures, rig, view_ids, metadata)
    return SampleDataset(folders, 16)


def test_data_sets_follow_one_another_with_their_shares(tmp_path: Path) -> None:
    few, many = data_set(tmp_path / "few", 2, [0, 1]), data_set(tmp_path / "many", 5, [0, 1])
    mixture = Mixture([few, many], [3, 1])
    assert len(mixture) == 7
    assert mixture.parts == [(2, 0.75), (5, 0.25)]
    for index in range(7):
        source, place = (few, index) if index < 2 else (many, index - 2)
        assert torch.equal(mixture[index]["rgba"], source.eight_bit(place)["rgba"])
        assert mixture[index]["may_show"].all() and mixture[index]["may_compare"].all()


def test_samples_with_fewer_views_are_filled_up_with_copies_that_serve_nothing(tmp_path: Path) -> None:
    two, four = data_set(tmp_path / "two", 1, [3, 1]), data_set(tmp_path / "four", 1, [0, 1, 2, 3])
    mixture = Mixture([two, four])
    batch = torch.utils.data.default_collate([mixture[0], mixture[1]])
    assert batch["rgba"].shape == (2, 4, 4, 16, 16) and batch["rgba"].dtype == torch.uint8
    assert (
        batch["may_show"].tolist() == batch["may_compare"].tolist() == [[True] * 2 + [False] * 2, [True] * 4]
    )
    for key in ("rgba", "K", "w2c", "view_ids"):
        source = two.eight_bit(0)[key]
        assert torch.equal(batch[key][0, :2], source)
        assert torch.equal(batch[key][0, 2:], source[[1, 1]])


def test_samples_say_which_views_are_inputs(tmp_path: Path) -> None:
    data = data_set(tmp_path, 2, [100, 0, 101, 1], inputs=[100, 101])
    assert read_sample(tmp_path / "sample_000000").input_view_ids == (100, 101)
    assert (data.input_positions, data.target_positions) == ((0, 2), (1, 3))
    item = Mixture([data])[1]
    assert item["may_show"].tolist() == [True, False, True, False]
    assert item["may_compare"].tolist() == [False, True, False, True]


@pytest.mark.parametrize("wrong", [[], [7], [0, 1], "0", [[0]], 0])
def test_inputs_that_cannot_be_are_refused(tmp_path: Path, wrong: object) -> None:
    data_set(tmp_path, 1, [0, 1])
    path = tmp_path / "sample_000000" / CAMERAS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"input_view_ids": wrong}))
    with pytest.raises(DataError, match="expected some of the views"):
        SampleDataset([tmp_path / "sample_000000"], 16)


def test_one_data_set_has_the_same_inputs_in_all_samples(tmp_path: Path) -> None:
    data_set(tmp_path, 1, [0, 1, 2], inputs=[0])
    folder = data_set(tmp_path / "other", 1, [0, 1, 2], inputs=[1]).samples[0].folder
    with pytest.raises(DataError, match=r"names the inputs \[1\], .* \[0\]"):
        SampleDataset([tmp_path / "sample_000000", folder], 16)
