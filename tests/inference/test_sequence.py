"""Samples put together in time, through `mfl infer`."""

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from mouse_facelift.errors import ConfigError, DataError
from mouse_facelift.gaussians import Gaussians
from mouse_facelift.gaussians.compact import CompactSequence
from mouse_facelift.geometry import Similarity
from mouse_facelift.inference.config import InferConfig
from mouse_facelift.inference.run import run
from mouse_facelift.samples.format import CAMERAS_FILE, write_list
from mouse_facelift.videos import VideoWriter

SMALL = ("sequence.enabled=true", "sequence.size=32", "turntable.frames=0", "named_views=false")

Config = Callable[..., InferConfig]


@pytest.fixture
def walk(tmp_path: Path, write_ball: Callable[..., Path]) -> Callable[..., Path]:
    """A list of samples of an animal that walks along x, not in the order of time."""

    def make(frames: Sequence[int] = (4, 0, 2), mm: Sequence[float] = (60, 60, 60)) -> Path:
        folders = []
        for number, (frame, scale) in enumerate(zip(frames, mm, strict=True)):
            folder = write_ball(tmp_path / "data" / f"sample_{number:06d}", shift=0.02 * frame)
            tell(folder, frame, scale)
            folders.append(folder)
        write_list(tmp_path / "data" / "walk.txt", folders)
        return tmp_path / "data" / "walk.txt"

    return make


def tell(folder: Path, frame: int | None, scale: float) -> None:
    path = folder / CAMERAS_FILE
    content = json.loads(path.read_text())
    center = np.array([5.0 * (frame or 0), 100.0, 20.0])
    matrix = Similarity(1 / scale, np.eye(3), center).world_from_model
    content |= {"frame_index": frame, "world_from_model": matrix.tolist()}
    path.write_text(json.dumps(content))


def video_frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def metrics(output: Path) -> dict:
    return json.loads((output / "sequence" / "metrics.json").read_text())


def test_everything_is_there_in_the_order_of_time(config: Config, walk: Callable[..., Path]) -> None:
    output = run(config(*SMALL, f"input={walk()}"))
    found = metrics(output)
    assert list(found["samples"].values()) == [0, 2, 4]
    assert (found["frames"], found["step"], found["gaps"]) == (3, 2, [])
    assert found["mm_per_unit"] == pytest.approx(60)
    assert found["flicker"]["triples"] == 1 and found["flicker"]["ratio"] > 0
    for name in ("fixed", "follow", "turntable"):
        frames = video_frames(output / "sequence" / f"{name}.mp4")
        assert len(frames) == 3 and frames[0].shape == (32, 32, 3)
    with CompactSequence(output / "sequence" / "gaussians.npz") as file:
        assert file.frame_indices == (0, 2, 4)
        assert file.world_from_model[:, 0, 3].tolist() == [0, 10, 20]
        first = Gaussians.load_ply(output / "sample_000001" / "gaussians.ply")
        assert np.allclose(file[0].means, first.means, atol=1e-3)


def test_the_fixed_camera_stands_still_and_the_other_one_walks(
    config: Config, walk: Callable[..., Path]
) -> None:
    output = run(config(*SMALL, f"input={walk()}", "sequence.smoothing_frames=0"))
    cameras = metrics(output)["cameras"]
    assert cameras["fixed"]["first_w2c"] == cameras["fixed"]["last_w2c"]
    moved = np.subtract(cameras["follow"]["last_w2c"], cameras["follow"]["first_w2c"])
    assert np.linalg.norm(moved[:3, 3]) == pytest.approx(20, abs=5)
    assert np.abs(moved[:3, :3]).max() < 1e-9


def test_a_finished_sequence_is_kept_until_a_setting_or_a_sample_changes(
    config: Config, walk: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    settings = (*SMALL, f"input={walk()}")
    output = run(config(*settings))
    sample, made = output / "sample_000000", output / "sequence" / "fixed.mp4"
    before = (sample.stat().st_mtime_ns, made.stat().st_mtime_ns)
    run(config(*settings))
    assert (sample.stat().st_mtime_ns, made.stat().st_mtime_ns) == before
    run(config(*settings, "sequence.fps=10", "sequence.turntable.enabled=false"))
    assert sample.stat().st_mtime_ns == before[0]
    assert made.stat().st_mtime_ns != before[1]
    assert not (output / "sequence" / "turntable.mp4").exists()
    digest = metrics(output)["made_from"]
    scene = Gaussians.load_ply(sample / "gaussians.ply")
    scene[: len(scene) // 2].save_ply(sample / "gaussians.ply")
    run(config(*settings, "sequence.fps=10", "sequence.turntable.enabled=false"))
    assert metrics(output)["made_from"] != digest


def test_a_sequence_can_be_asked_for_after_the_samples_are_done(
    config: Config, walk: Callable[..., Path]
) -> None:
    path = walk()
    output = run(config(*SMALL[1:], f"input={path}"))
    assert not (output / "sequence").exists()
    run(config(*SMALL, f"input={path}", "sequence.flicker=false", "sequence.compact=false"))
    assert metrics(output)["flicker"] is None
    assert not (output / "sequence" / "gaussians.npz").exists()


def test_plys_in_millimetres_give_the_same_sequence(
    config: Config, walk: Callable[..., Path], tmp_path: Path
) -> None:
    path = walk()
    outputs = [
        run(config(*SMALL, f"input={path}", f"output_frame={frame}", f"output={tmp_path / frame}"))
        for frame in ("model", "rig")
    ]
    videos = [video_frames(output / "sequence" / "follow.mp4") for output in outputs]
    assert np.abs(np.subtract(*np.array(videos, float))).mean() < 1
    with (
        CompactSequence(outputs[0] / "sequence" / "gaussians.npz") as a,
        CompactSequence(outputs[1] / "sequence" / "gaussians.npz") as b,
    ):
        assert np.allclose(a[2].means, b[2].means, atol=1e-3)


def test_gaps_are_told(config: Config, walk: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    output = run(config(*SMALL, f"input={walk((0, 1, 2, 9), (60,) * 4)}"))
    assert metrics(output)["gaps"] == [[2, 9]]
    assert "from 2 to 9" in caplog.text


def test_several_scales_are_refused_with_their_numbers(config: Config, walk: Callable[..., Path]) -> None:
    settings = config(*SMALL, f"input={walk(mm=(60, 60, 75))}")
    with pytest.raises(DataError, match=r"60 mm per unit in sample_000000, 75 in sample_000002"):
        run(settings, dry_run=True)
    assert not settings.output.exists()


def test_one_frame_twice_is_refused(config: Config, walk: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="sample_000000 and sample_000002 are both of frame 4"):
        run(config(*SMALL, f"input={walk((4, 0, 4))}"))


def test_one_sample_is_no_sequence(config: Config, walk: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="needs two"):
        run(config(*SMALL, f"input={walk()}", "limit=1"))


def test_samples_without_a_place_in_time_or_space_are_refused(config: Config, balls: Path) -> None:
    with pytest.raises(DataError, match="no frame_index or no world_from_model"):
        run(config(*SMALL, f"input={balls}"))


def test_a_sample_in_the_place_of_the_sequence_is_refused(
    config: Config, tmp_path: Path, write_ball: Callable[..., Path]
) -> None:
    folder = write_ball(tmp_path / "sequence")
    with pytest.raises(ConfigError, match="Rename it"):
        run(config(*SMALL, f"input={folder}"))


def test_a_killed_sequence_leaves_none(
    config: Config, walk: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = walk()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mouse_facelift.inference.sequence._second_pass", fail)
        with pytest.raises(KeyboardInterrupt):
            run(config(*SMALL, f"input={path}"))
    output = path.parent.parent / "out"
    assert not (output / "sequence").exists()
    assert not [item for item in output.iterdir() if item.name.startswith(".")]
    run(config(*SMALL, f"input={path}"))
    assert metrics(output)["frames"] == 3


def test_the_number_of_threads_changes_nothing(
    config: Config, walk: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures are compared as they go to the encoder: libx264 is not the same to the bit in every run."""
    path, found, pictures = walk((4, 0, 2, 6, 8), (60,) * 5), [], []
    write = VideoWriter.write

    def recorded(writer: VideoWriter, frame: np.ndarray) -> None:
        pictures.append(frame.tobytes())
        write(writer, frame)

    monkeypatch.setattr(VideoWriter, "write", recorded)
    for workers in (1, 4):
        settings = (*SMALL, f"input={path}", f"workers={workers}", f"output={tmp_path / str(workers)}")
        folder = run(config(*settings)) / "sequence"
        found.append([(folder / name).read_bytes() for name in ("gaussians.npz", "metrics.json")])
    assert found[0] == found[1]
    assert len(pictures) == 2 * 3 * 5
    assert pictures[:15] == pictures[15:]


def test_frame_that_cannot_be_read_any_more_is_named_and_no_thread_is_left(
    config: Config, walk: Callable[..., Path]
) -> None:
    path = walk((0, 1, 2, 3), (60,) * 4)
    output = run(config(*SMALL[1:], f"input={path}"))
    picture = path.parent / "sample_000002" / "images" / "cam_001.png"
    picture.write_bytes(picture.read_bytes()[:100])
    before = threading.active_count()
    with pytest.raises(DataError, match=r"sample_000002.*cam_001\.png: not a readable picture"):
        run(config(*SMALL, f"input={path}"))
    assert threading.active_count() == before
    assert {item.name for item in output.iterdir()} == {
        *(f"sample_{n:06d}" for n in range(4)),
        *("metrics.json", "run.json"),
    }


def test_sequence_of_results_that_are_made_again_goes_with_them(
    config: Config, walk: Callable[..., Path]
) -> None:
    path = walk()
    output = run(config(*SMALL, f"input={path}"))
    run(config(*SMALL[1:], f"input={path}"))
    assert (output / "sequence").is_dir()
    run(config(*SMALL[1:], f"input={path}", "overwrite=true"))
    assert not (output / "sequence").exists()
    (output / "sequence").mkdir()
    run(config(*SMALL[1:], f"input={path}", "overwrite=true"))
    assert (output / "sequence").is_dir(), "what nobody here made stays"
