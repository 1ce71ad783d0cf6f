"""Samples drawn straight at their cameras: as true as those of a recording."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mouse_facelift.demo.animal import MouseShape
from mouse_facelift.demo.config import DemoConfig
from mouse_facelift.demo.herd import (
    LEAST_WALK_SEED,
    Herd,
    _write_mouse,
    draw_animal,
    training_data,
    write_herd,
)
from mouse_facelift.demo.rig import held_out_rig, random_rig
from mouse_facelift.evaluation.leaks import LeakGuard
from mouse_facelift.samples.format import Sample, read_list, read_rgba, read_sample
from mouse_facelift.samples.training_data import SAME_PLACE_MM, TrainingData

HERD = Herd(mice=2, moments=2, size=64, extra_views=2, held_out=1, seed=3)


@pytest.fixture(scope="module")
def mouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("herd") / "mouse_0001"
    _write_mouse(folder, 1, HERD)
    return folder


def samples(mouse: Path) -> list[Sample]:
    return [read_sample(folder) for folder in read_list(mouse / "all.txt")]


def test_views_look_at_an_animal_that_fills_the_box_but_stays_inside(mouse: Path) -> None:
    for sample in samples(mouse):
        assert [view.view_id for view in sample.views] == list(range(8))
        matrix = sample.world_from_model
        assert matrix is not None
        for view in sample.views:
            rgba = read_rgba(view.file)
            assert view.camera.project(np.zeros((1, 3)))[0] == pytest.approx(np.full((1, 2), 32.0))
            rows, columns = np.nonzero(rgba[..., 3] > 127)
            assert 100 < len(rows) < 0.4 * rgba.shape[0] * rgba.shape[1]
            assert abs(columns.mean() - 32) < 12 and abs(rows.mean() - 32) < 12
            assert (rgba[rgba[..., 3] == 0][:, :3] == 255).all()


def test_silhouettes_agree_in_space(mouse: Path) -> None:
    """The point that all cameras look at lies in, or next to, all silhouettes of some sample's hull."""
    for sample in samples(mouse):
        grid = np.stack(np.meshgrid(*[np.linspace(-0.9, 0.9, 41)] * 3, indexing="ij"), -1).reshape(-1, 3)
        inside = np.ones(len(grid), bool)
        for view in sample.views:
            pixels, _ = view.camera.project(grid)
            column, row = np.clip(np.floor(pixels), 0, 63).astype(int).T
            inside &= read_rgba(view.file)[row, column, 3] > 127
        # A few per cent of the box, as a mouse is; views that did not belong together would leave nothing.
        assert 0.003 < inside.mean() < 0.15


def test_same_seed_gives_the_same_bytes_and_other_mice_differ(mouse: Path, tmp_path: Path) -> None:
    _write_mouse(tmp_path / "again", 1, HERD)
    for folder in read_list(mouse / "all.txt"):
        for file in sorted(folder.rglob("*.png")):
            twin = tmp_path / "again" / file.relative_to(mouse)
            assert twin.read_bytes() == file.read_bytes()
    _write_mouse(tmp_path / "other", 0, HERD)
    first = "sample_000000/images/cam_000.png"
    assert (tmp_path / "other" / first).read_bytes() != (mouse / first).read_bytes()


def test_last_mice_are_for_validation_and_finished_ones_are_kept(tmp_path: Path) -> None:
    train, val = write_herd(tmp_path, Herd(mice=2, moments=1, size=64, held_out=1, seed=3), processes=1)
    assert [folder.parent.name for folder in read_list(train)] == ["mouse_0000"]
    assert [folder.parent.name for folder in read_list(val)] == ["mouse_0001"]
    picture = read_list(train)[0] / "images" / "cam_000.png"
    before = picture.stat().st_mtime_ns
    write_herd(tmp_path, Herd(mice=2, moments=1, size=64, held_out=1, seed=3), processes=1)
    assert picture.stat().st_mtime_ns == before


def test_diverse_shapes_are_wider_than_recordings() -> None:
    rng = np.random.default_rng(0)
    lengths = [MouseShape.diverse(rng).length_mm for _ in range(50)]
    assert min(lengths) < 70 and max(lengths) > 86
    backs = np.array([MouseShape.diverse(rng).back for _ in range(50)])
    assert backs.mean(1).min() < 0.15 and backs.mean(1).max() > 0.5


def test_record_knows_the_samples_that_are_drawn_again(mouse: Path, tmp_path: Path) -> None:
    """By the name of the animal, its frames and its cameras, though nothing of a picture is in it."""
    whole = training_data(Herd(mice=3, moments=2, size=64, extra_views=2, held_out=1, seed=3))
    assert [data.rig.recording for data in whole.sets] == ["herd 3, mouse 0000", "herd 3, mouse 0001"]
    whole.save(tmp_path)
    assert TrainingData.load(tmp_path) == whole
    guard, without = LeakGuard([whole]), LeakGuard([training_data(HERD)])
    for sample in samples(mouse):
        assert set(guard.verdicts(sample).values()) == {"seen frame"}
        assert set(without.verdicts(sample).values()) == {"clean"}


def test_demo_films_a_walk_and_cameras_that_no_herd_animal_has(train_demo: ModuleType) -> None:
    herd, recording = train_demo.HERD, DemoConfig().recording
    assert recording.rig_seed is not None and recording.seed < LEAST_WALK_SEED
    filmed = np.array([camera.center for camera in (*random_rig(recording.rig_seed), *held_out_rig())])
    animals = [draw_animal(herd, number)[0] for number in range(herd.mice)]
    assert min(animal.walk_seed for animal in animals) >= LEAST_WALK_SEED
    there = np.array([camera.center for animal in animals for camera in animal.rig])
    assert np.linalg.norm(filmed[:, None] - there, axis=-1).min() > SAME_PLACE_MM
    coat = MouseShape.random(np.random.default_rng((recording.seed, 0)))
    assert coat.coat_seed not in {animal.shape.coat_seed for animal in animals}
