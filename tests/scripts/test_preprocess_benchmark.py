"""The preprocessing benchmark: what it records and which frames both programs get."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from PIL import Image
from script_modules import import_script

from mouse_facelift.config import load_config
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.run import run as preprocess
from mouse_facelift.samples.format import read_rgba, read_sample


@pytest.fixture(scope="module")
def scripts() -> dict[str, ModuleType]:
    names = ("generated_recording", "naive_preprocess", "preprocess")
    return {name: import_script("benchmarks", name) for name in names}


@pytest.fixture(scope="module")
def recording(scripts: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 small frames: a stretch of 12 three times, in which four rendered moments go there and back."""
    module = scripts["generated_recording"]
    plan = module.Plan(repeats=3, stretch=12, moments=4, width=288, height=256, fps=10, gop=6)
    folder = tmp_path_factory.mktemp("benchmark")
    made = module.generate(folder, plan)
    assert module.generate(folder, plan) == made
    assert module.generate(folder, replace(plan, noise=2.0)) != made
    return made


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def test_generated_recording_has_every_frame_once_with_b_frames_and_regular_keyframes(
    recording: Path,
) -> None:
    for folder in ("videos_undist", "simpleclick_undist"):
        for camera in range(6):
            frames = decode(recording / folder / f"{camera}.mp4")
            times = [round(10 * frame.time) for frame in frames]
            assert times == list(range(36)), (folder, camera)
            assert [i for i, frame in enumerate(frames) if frame.key_frame] == list(range(0, 36, 6))
            with av.open(str(recording / folder / f"{camera}.mp4")) as container:
                order = [packet.pts for packet in container.demux(video=0) if packet.size]
            assert order != sorted(order), "frames are not reordered, so there are no B-frames"


def test_generated_mouse_walks_there_and_back_under_fresh_noise(recording: Path) -> None:
    masks = [
        frame.to_ndarray(format="gray") > 127 for frame in decode(recording / "simpleclick_undist/1.mp4")
    ]
    differing = np.array([[np.mean(a != b) for b in masks[:7]] for a in masks[:7]])
    assert differing[0, 6] < 0.2 * differing[0, 3]
    assert differing[0, 1] < differing[0, 2] < differing[0, 3]
    pictures = [frame.to_ndarray(format="gray") for frame in decode(recording / "videos_undist/1.mp4")]
    assert (pictures[0] != pictures[6]).mean() > 0.01


def test_both_programs_write_the_same_frames(
    recording: Path, scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    frames = list(range(0, 36, 9))
    scripts["naive_preprocess"].preprocess(recording, tmp_path / "naive", frames, 128)
    settings = [f"input.recording={recording}", f"output={tmp_path / 'ours'}", "size=128"]
    preprocess(
        load_config(PreprocessConfig, None, [*settings, "selection.mode=interval", "selection.step=9"])
    )
    ours = sorted((tmp_path / "ours").glob("sample_*"))
    assert [read_sample(folder).frame_index for folder in ours] == frames

    masks = [
        frame.to_ndarray(format="bgr24")[..., 0] for frame in decode(recording / "simpleclick_undist/2.mp4")
    ]
    for folder, frame in zip(sorted((tmp_path / "naive").iterdir()), frames, strict=True):
        assert len(list((folder / "images").iterdir())) == 6
        alpha = read_rgba(folder / "images" / "cam_002.png")[..., 3]
        cut = Image.fromarray(masks[frame][:, 16:272]).resize((128, 128), Image.Resampling.NEAREST)
        assert np.array_equal(alpha > 0, np.asarray(cut) > 127)


def test_the_loop_gets_a_fair_share_of_easy_and_hard_frames(scripts: dict[str, ModuleType]) -> None:
    frames = range(0, 4500, 9)
    chosen = scripts["preprocess"].evenly_placed(frames, 25, 250)
    assert len(set(chosen)) == 25 and set(chosen) <= set(frames) and chosen == sorted(chosen)
    distances = np.sort(np.array(chosen) % 250)
    assert np.abs(distances - np.arange(5, 250, 10)).max() < 5
    assert scripts["preprocess"].evenly_placed(range(3), 25, 250) == [0, 1, 2]
