"""Interrupted runs: killed, sharded, repeated, or changed in between."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mouse_facelift.cli import app
from mouse_facelift.errors import ConfigError, DataError
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.run import merge, run
from mouse_facelift.preprocess.shard import Shard

KILLS = 20
SETTINGS = {"size": 64, "selection": {"mode": "interval", "step": 1}, "split": {"guard_s": 0.1}}


def config(recording, output, **settings):
    return PreprocessConfig.model_validate(
        {"input": {"recording": recording}, "output": output, **SETTINGS, **settings}
    )


def tree(folder: Path) -> dict[str, bytes]:
    """Every file's bytes; `run.json` holds times."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


@pytest.fixture(scope="module")
def undisturbed(recording_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    run(config(recording_folder, output))
    return output


def command(recording, output, *more):
    settings = [f"input.recording={recording}", f"output={output}", "size=64", "split.guard_s=0.1"]
    selection = ["selection.mode=interval", "selection.step=1"]
    return [sys.executable, "-m", "mouse_facelift", "preprocess", *settings, *selection, *more]


def test_finished_tree_has_no_work_left(undisturbed):
    assert not (undisturbed / ".work").exists()
    assert (undisturbed / "sample_000015/images/cam_003.png").is_file()


@pytest.mark.slow
def test_killed_at_twenty_moments_and_run_again_gives_identical_trees(
    recording_folder, undisturbed, tmp_path
):
    expected, numbers = tree(undisturbed), random.Random(3)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    subprocess.run(command(recording_folder, tmp_path / "timed"), env=environment, check=True, timeout=120)
    whole = time.monotonic() - started
    killed, output = 0, tmp_path / "out"
    for _ in range(10 * KILLS):
        process = subprocess.Popen(
            command(recording_folder, output), env=environment, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(numbers.uniform(0.1, 1.0) * whole)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        whole_samples = [name for name in tree(output) if name.endswith("cameras.json")]
        assert all(f".{name}".count("/.") == 0 for name in whole_samples if name.startswith("sample_"))
        if process.returncode == 0:
            assert tree(output) == expected
            shutil.rmtree(output)
        if killed >= KILLS:
            break
    assert killed >= KILLS
    subprocess.run(command(recording_folder, output), env=environment, check=True, timeout=120)
    assert tree(output) == expected


def test_finished_samples_are_not_written_again(recording_folder, undisturbed, tmp_path, monkeypatch):
    output = tmp_path / "out"
    shutil.copytree(undisturbed, output)
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    run(config(recording_folder, output))
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == times


def test_missing_samples_are_made_again_and_no_other(recording_folder, undisturbed, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(undisturbed, output)
    shutil.rmtree(output / "sample_000003")
    (output / "sample_000005/images/cam_001.png").unlink()
    cut_off = output / "sample_000007/images/cam_002.png"
    cut_off.write_bytes(cut_off.read_bytes()[:200])
    (output / "sample_000008/images/cam_000.png").write_bytes(b"")
    kept = output / "sample_000004/images/cam_001.png"
    before = kept.stat().st_mtime_ns
    run(config(recording_folder, output))
    assert tree(output) == tree(undisturbed)
    assert kept.stat().st_mtime_ns == before


def test_interrupt_during_the_samples_keeps_what_was_done(
    recording_folder, undisturbed, tmp_path, monkeypatch
):
    from mouse_facelift.preprocess import second_pass

    written = []

    def interrupted(folder, *arguments):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(folder.name)
        return original(folder, *arguments)

    original = second_pass.write_sample
    monkeypatch.setattr(second_pass, "write_sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(config(recording_folder, tmp_path / "out", workers=1))
    monkeypatch.setattr(second_pass, "write_sample", original)
    assert not (tmp_path / "out/manifest.json").exists()
    before = (tmp_path / "out" / written[0] / "opencv_cameras.json").stat().st_mtime_ns
    run(config(recording_folder, tmp_path / "out", workers=1))
    assert (tmp_path / "out" / written[0] / "opencv_cameras.json").stat().st_mtime_ns == before
    assert tree(tmp_path / "out") == tree(undisturbed)


def test_full_disk_leaves_no_half_sample_and_goes_on_later(
    recording_folder, undisturbed, tmp_path, monkeypatch
):
    saved = []
    original = Path.write_bytes

    def full(self, content):
        saved.append(self)
        if len(saved) > 10:
            raise OSError(28, "No space left on device", str(self))
        return original(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        run(config(recording_folder, tmp_path / "out"))
    monkeypatch.setattr(Path, "write_bytes", original)
    for folder in (tmp_path / "out").glob("sample_*"):
        assert len(list((folder / "images").iterdir())) == 4
    run(config(recording_folder, tmp_path / "out"))
    assert tree(tmp_path / "out") == tree(undisturbed)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_and_merge_give_the_same_tree(recording_folder, undisturbed, tmp_path, order):
    output = tmp_path / "out"
    for index in order:
        run(config(recording_folder, output), shard=Shard(index, 3))
        assert not (output / "manifest.json").exists()
    merge(config("anything", output))
    assert tree(output) == tree(undisturbed)
    settings = json.loads((output / "run.json").read_text())["config"]
    assert settings["input"]["recording"] == recording_folder.name
    assert settings["size"] == SETTINGS["size"]


def test_what_a_killed_process_left_half_written_is_removed(recording_folder, undisturbed, tmp_path):
    output = tmp_path / "out"
    run(config(recording_folder, output), shard=Shard(1, 2))
    for name in (".sample_000012.abc12_45", ".sample_000003.old.abcdefgh/sample_000003"):
        (output / name / "images").mkdir(parents=True)
        (output / name / "images/cam_000.png").write_bytes(b"half")
    (output / ".manifest.abcdefgh.json").write_bytes(b"{")
    run(config(recording_folder, output))
    assert tree(output) == tree(undisturbed)
    assert [path.name for path in output.iterdir() if path.name.startswith(".")] == []


def test_merging_takes_no_other_options(tmp_path):
    for option in (["--shard", "1/2"], ["--dry-run"]):
        result = CliRunner().invoke(app, ["preprocess", "merge", f"output={tmp_path}", *option])
        assert result.exit_code == 2
        assert "neither --shard nor --dry-run" in result.output


def test_shards_at_the_same_time_give_the_same_tree(recording_folder, undisturbed, tmp_path):
    output = tmp_path / "out"
    shards = [
        subprocess.Popen(command(recording_folder, output, "--shard", f"{index}/3")) for index in (1, 2, 3)
    ]
    assert [shard.wait(timeout=120) for shard in shards] == [0, 0, 0]
    merging = [sys.executable, "-m", "mouse_facelift", "preprocess", "merge", f"output={output}"]
    subprocess.run(merging, check=True, timeout=120)
    assert tree(output) == tree(undisturbed)


def test_merging_too_early_says_what_is_missing(recording_folder, tmp_path):
    run(config(recording_folder, tmp_path / "out"), shard=Shard(1, 2))
    with pytest.raises(DataError, match=r"8 of 16 samples are missing, sample_000008 first"):
        merge(config("anything", tmp_path / "out"))


def test_merging_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        merge(config("anything", tmp_path))


def test_merging_twice_changes_nothing(undisturbed):
    before = tree(undisturbed)
    assert merge(config("anything", undisturbed)) == undisturbed
    assert tree(undisturbed) == before


def test_changed_input_is_noticed(recording_folder, undisturbed, tmp_path):
    recording, output = tmp_path / recording_folder.name, tmp_path / "out"
    shutil.copytree(recording_folder, recording)
    shutil.copytree(undisturbed, output)
    run(config(recording, output))
    shutil.copy(recording / "videos_undist/1.mp4", recording / "videos_undist/0.mp4")
    with pytest.raises(ConfigError, match=r"inputs\.videos_undist/0\.mp4: the file changed"):
        run(config(recording, output))
    assert tree(output) == tree(undisturbed)
