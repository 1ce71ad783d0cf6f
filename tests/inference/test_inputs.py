from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mouse_facelift.errors import DataError
from mouse_facelift.inference.inputs import find_sources
from mouse_facelift.inference.lone_picture import frame_picture
from mouse_facelift.samples.format import write_list


def save_rectangle(path: Path, size: tuple[int, int], box: tuple[int, int, int, int]) -> Path:
    """A picture [w, h] that is red inside box (left, top, right, bottom) and transparent green elsewhere."""
    pixels = np.zeros((size[1], size[0], 4), np.uint8)
    pixels[..., 1] = 255
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(path)
    return path


def test_a_list_a_sample_and_a_folder_of_samples_are_found(balls: Path) -> None:
    names = ["sample_000000", "sample_000001"]
    assert [source.name for source in find_sources(balls)] == names
    assert [source.name for source in find_sources(balls.parent)] == names
    assert [source.name for source in find_sources(balls.parent / names[1])] == names[1:]
    assert [source.name for source in find_sources(balls, limit=1)] == names[:1]


def test_what_a_killed_preprocess_left_is_no_sample(balls: Path) -> None:
    (balls.parent / "sample_000001").rename(balls.parent / ".sample_000001.x1y2")
    assert [source.name for source in find_sources(balls.parent)] == ["sample_000000"]


def test_two_samples_of_one_name_are_refused(write_ball: Callable[..., Path], tmp_path: Path) -> None:
    folders = [write_ball(tmp_path / day / "sample_000000", view_ids=[0]) for day in ("a", "b")]
    write_list(tmp_path / "data.txt", folders)
    with pytest.raises(DataError, match="2 samples called sample_000000"):
        find_sources(tmp_path / "data.txt")


def test_folder_without_samples_and_path_to_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no samples"):
        find_sources(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        find_sources(tmp_path / "nothing")


def test_video_given_as_input_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "0.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42\xff\xfe")
    with pytest.raises(DataError, match="not a text file"):
        find_sources(tmp_path / "0.mp4")


@pytest.mark.parametrize("name", ["mouse.png", "mouse.JPG"])
def test_picture_without_alpha_says_so(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / name)
    (source,) = find_sources(tmp_path / name)
    assert source.is_picture
    with pytest.raises(
        DataError, match=r"no alpha channel \(mode RGB\).* Save it as RGBA .* or give mask=FILE"
    ):
        source.read(32, 0.6)


@pytest.mark.parametrize(("box", "alpha"), [((0, 0, 0, 0), 0), ((0, 0, 20, 20), 255)])
def test_alpha_that_shows_no_animal_says_so(
    tmp_path: Path, box: tuple[int, int, int, int], alpha: int
) -> None:
    path = save_rectangle(tmp_path / "mouse.png", (20, 20), box)
    with pytest.raises(DataError, match=f"alpha is {alpha} everywhere"):
        frame_picture(path, 32, 0.6)


@pytest.mark.parametrize(
    ("size", "box"),
    [((300, 200), (200, 20, 280, 60)), ((30, 40), (3, 5, 13, 25)), ((64, 64), (16, 16, 48, 48))],
    ids=["shrunk", "enlarged", "kept"],
)
def test_animal_of_a_picture_is_centred_and_fills_its_share(
    tmp_path: Path, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    rgba = frame_picture(save_rectangle(tmp_path / "mouse.png", size, box), 64, 0.5)
    assert rgba.shape == (4, 64, 64)
    longer = max(box[2] - box[0], box[3] - box[1])
    expected = np.array([box[2] - box[0], box[3] - box[1]]) * 32 / longer
    alpha = rgba[3].numpy()
    grid = np.arange(64) + 0.5
    assert alpha.sum() == pytest.approx(expected.prod(), rel=0.06)
    assert (alpha.sum(0) @ grid) / alpha.sum() == pytest.approx(32, abs=0.1)
    assert (alpha.sum(1) @ grid) / alpha.sum() == pytest.approx(32, abs=0.1)
    columns, rows = np.flatnonzero((alpha > 0.5).any(0)), np.flatnonzero((alpha > 0.5).any(1))
    assert [columns.size, rows.size] == pytest.approx(expected, abs=1.01)


def test_transparent_colours_do_not_bleed_into_the_animal(tmp_path: Path) -> None:
    rgba = frame_picture(save_rectangle(tmp_path / "mouse.png", (300, 200), (200, 20, 280, 60)), 32, 0.6)
    shown = rgba[:3, rgba[3] > 0.05].numpy()
    assert shown[0] == pytest.approx(1, abs=0.01)
    assert shown[1:].max() < 0.01


def test_sample_is_read_at_its_own_size_or_the_wanted_one(balls: Path) -> None:
    source = find_sources(balls, limit=1)[0]
    own, small = source.read(None, 0.6), source.read(16, 0.6)
    assert own.view_ids == (0, 1, 2, 3, 7)
    assert own.rgba.shape == (5, 4, 32, 32)
    assert small.rgba.shape == (5, 4, 16, 16)
    assert own.K is not None and small.K is not None
    assert (own.K[:, :2] / 2).allclose(small.K[:, :2])


def test_view_that_does_not_exist_is_named(balls: Path) -> None:
    views = find_sources(balls, limit=1)[0].read(None, 0.6)
    assert views.position(7) == 4
    with pytest.raises(DataError, match=r"no view 5; the sample has views \[0, 1, 2, 3, 7\]"):
        views.position(5)
