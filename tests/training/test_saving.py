"""What stays on disk, and that no failing disk takes the last good checkpoint or ends the training."""

import errno
import io
import itertools
import logging
import os
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_tensors import assert_same_end
from forgetful_toy import Forgetful, steps, train
from safetensors import SafetensorError
from torch import nn

from mouse_facelift.errors import CheckpointError
from mouse_facelift.training import saving
from mouse_facelift.training import state as state_module
from mouse_facelift.training.checkpoints import (
    Checkpoint,
    checkpoint_folder,
    checkpoint_to_resume,
    list_checkpoints,
    verify_checkpoint,
    write_checkpoint,
)
from mouse_facelift.training.config import TrainingConfig
from mouse_facelift.training.saving import Checkpointer, kept_steps, rank_checkpoints
from mouse_facelift.training.state import TrainState, generator_state

Usage = namedtuple("Usage", "total used free")


def scored(scores: Mapping[int, float | None]) -> list[Checkpoint]:
    return [
        Checkpoint(Path(), step, {"metrics": {} if score is None else {"psnr": score, "note": "x"}})
        for step, score in scores.items()
    ]


def config(**settings: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"steps": 100, "checkpoint_every": 10} | settings)


def test_newest_best_and_every_so_manieth_are_kept() -> None:
    checkpoints = scored({10: 30.0, 20: 10.0, 25: None, 30: 12.0, 40: 11.0, 50: 13.0, 60: 5.0})
    training = config(keep_checkpoints=2, keep_best=2, keep_every=20)
    assert kept_steps(checkpoints, training, "psnr") == {50, 60} | {10, 50} | {20, 40, 60}
    assert kept_steps(checkpoints, training, "-psnr") == {50, 60} | {60, 20} | {20, 40, 60}
    assert kept_steps(checkpoints, training) == {50, 60} | {20, 40, 60}


def test_of_equally_good_checkpoints_the_newer_ranks_first() -> None:
    checkpoints = scored({10: 5.0, 20: 5.0, 30: 4.0, 40: None})
    assert [item.step for item in rank_checkpoints(checkpoints, "psnr")] == [20, 10, 30]
    assert rank_checkpoints(checkpoints, "note") == []


def test_best_are_sought_among_those_that_were_measured_as_the_newest_was() -> None:
    def measured(step: int, score: float, samples: int) -> Checkpoint:
        settings = {"validation": {"samples": samples}}
        return Checkpoint(Path(), step, {"metrics": {"psnr": score}, "config": settings})

    easy = [measured(10, 30.0, samples=4), measured(20, 29.0, samples=4)]
    hard = [measured(30, 21.0, samples=24), measured(40, 22.0, samples=24)]
    assert [item.step for item in rank_checkpoints(easy, "psnr")] == [10, 20]
    assert [item.step for item in rank_checkpoints(easy + hard, "psnr")] == [40, 30]
    assert kept_steps(
        [*easy, *hard, measured(50, 20.0, 24)], config(keep_checkpoints=1, keep_best=1), "psnr"
    ) == {
        40,
        50,
    }


class Writer:
    """Saves a tiny but complete state through the real writers."""

    def __init__(self, run: Path, **settings: Any) -> None:
        module = nn.Linear(2, 2)
        self.run = run
        self.state = TrainState(module, torch.optim.AdamW(module.parameters()))
        self.checkpointer = Checkpointer(run, config(**settings), {"command": "toy"}, "score")

    def save(self, step: int, final: bool = False, metrics: Mapping[str, float] | None = None) -> None:
        def write(folder: Path) -> None:
            (folder / "state").mkdir()
            self.state.capture().write(folder / "state", {"updates": step}, [generator_state()])

        self.checkpointer.save(step, write, self.state.size(), final)
        if metrics is not None:
            self.checkpointer.note(step, metrics)

    def read_newest(self) -> int:
        """What a resumed run would find, checked to the last byte."""
        checkpoint = checkpoint_to_resume(self.run, "auto")
        assert checkpoint is not None
        for each in list_checkpoints(self.run):
            verify_checkpoint(each)
        assert self.state.read(checkpoint.state) == {"updates": checkpoint.step}
        return checkpoint.step


class Faults:
    """Makes the n-th call into the file system fail, or all from the n-th on, while armed."""

    def __init__(self, patch: pytest.MonkeyPatch, failing: int = -1, stuck: bool = False) -> None:
        self.failing, self.stuck, self.armed, self.names = failing, stuck, False, list[str]()
        for module, name in [
            *itertools.product(
                [os], ["open", "fsync", "replace", "rename", "mkdir", "chmod", "unlink", "rmdir"]
            ),
            (shutil, "disk_usage"),
        ]:
            patch.setattr(module, name, self._before(name, getattr(module, name)))
        patch.setattr(io, "open", self._half_written(self._before("open", io.open)))
        patch.setattr(state_module, "save_file", self._within("save_file", state_module.save_file))
        patch.setattr(torch, "save", self._within("torch.save", torch.save))

    def fails_now(self, name: str) -> bool:
        if not self.armed:
            return False
        self.names.append(name)
        number = len(self.names) - 1
        return number >= self.failing if self.stuck else number == self.failing

    def error(self) -> OSError:
        number = (errno.ENOSPC, errno.EIO)[self.failing % 2]
        return OSError(number, os.strerror(number))

    def _before(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.fails_now(name):
                raise self.error()
            return function(*args, **kwargs)

        return call

    def _half_written(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Files that open, and take half of what is written to them."""

        def call(*args: Any, **kwargs: Any) -> Any:
            file = function(*args, **kwargs)
            write = file.write

            def half(content: Any) -> int:
                if not self.fails_now("write"):
                    return write(content)
                write(content[: len(content) // 2])
                file.flush()
                raise self.error()

            file.write = half
            return file

        return call

    def _within(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Half of the file is written, then the disk is full; told in the way of the library."""

        def call(content: Any, path: Path) -> None:
            fails = self.fails_now(name)
            function(content, path)
            if fails:
                os.truncate(path, path.stat().st_size // 2)
                raise RuntimeError("unexpected pos") if name == "torch.save" else SafetensorError("I/O error")

        return call


@pytest.mark.parametrize("stuck", [False, True], ids=["one call fails", "all calls from there on fail"])
def test_wherever_a_save_fails_a_valid_checkpoint_remains_and_a_later_save_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stuck: bool
) -> None:
    monkeypatch.setattr(logging.getLogger("mouse_facelift.training"), "disabled", True)
    # Nobody pulls the plug here; thousands of real ones would take most of the time.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    calls = attempt(tmp_path / "counted", -1, False)
    assert {"fsync", "open", "replace", "mkdir", "save_file", "torch.save"} <= set(calls) and len(calls) > 40
    assert calls.count("write") == 2, "the manifest, and again with its validation"
    for number, name in enumerate(calls):
        attempt(tmp_path / f"{number}_{name}", number, stuck)


def attempt(run: Path, failing: int, stuck: bool) -> list[str]:
    """Save thrice; the second time, with a validation noted, there is a fault. Returns its calls."""
    writer = Writer(run, keep_checkpoints=1, keep_best=0)
    writer.save(2)
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, failing, stuck)
        faults.armed = True
        writer.save(4, metrics={"score": 1.0})
        faults.armed = False
    assert writer.read_newest() in ({4} if failing < 0 else {2, 4})
    writer.save(5)
    assert writer.read_newest() == 5
    left = {path.name for path in (run / "checkpoints").iterdir()}
    # Deleting may have failed, but what is half written or half deleted is gone.
    assert left <= {"step_00000005", "step_00000004", "step_00000002"}, left
    writer.save(6)
    assert steps(run) == [6]
    return faults.names


def test_failed_save_is_told_and_training_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(tmp_path / "whole", steps=50, checkpoint_every=20)
    full = iter([False, True, True, False, False, False])

    def save_file(content: Any, path: Path) -> None:
        if "ema" in path.name and next(full):
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        real(content, path)

    real = state_module.save_file
    monkeypatch.setattr(state_module, "save_file", save_file)
    run = train(tmp_path / "run", steps=50, checkpoint_every=20)
    assert steps(run) == [20, 44, 50]
    assert "step 40 is NOT saved" in caplog.text and "No space left on device" in caplog.text
    assert "step_00000020, so 20 steps would be lost" in caplog.text
    assert "the next attempt to save is after step 42" in caplog.text
    assert_same_end(run, whole)


def test_too_little_space_is_noticed_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer(tmp_path)
    writer.save(2)
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 10**6))
    monkeypatch.setattr(saving, "write_checkpoint", lambda *args: pytest.fail("was written"))
    writer.save(4)
    assert "step 4 is NOT saved: [Errno 28] No space left on device" in caplog.text
    assert f"Needed: 67 MB, free: 1 MB, in {tmp_path / 'checkpoints'}" in caplog.text
    assert writer.checkpointer.due(5) and not writer.checkpointer.due(6)


def test_run_that_cannot_save_its_end_says_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(saving.time, "sleep", waited.append)
    writer = Writer(tmp_path)
    writer.save(2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(CheckpointError) as failure:
        patch.setattr(saving.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 0))
        writer.save(9, final=True)
    assert waited == list(saving.LAST_WAITS_S)
    assert "step 9 could not be saved" in str(failure.value)
    assert "step_00000002, so 7 steps would be lost" in str(failure.value)
    assert writer.read_newest() == 2


def test_disk_without_room_for_a_checkpoint_is_told_after_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = iter([10**6, 10**9, 10**9])
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda path: Usage(10**9, 0, next(free)))
    run = train(tmp_path / "run", steps=4, checkpoint_every=4)
    told = (
        f"a checkpoint needs 67 MB, and {run} has 1 MB free: NOTHING can be saved. Free space before step 4."
    )
    assert told in caplog.text and steps(run) == [4]


def test_space_that_comes_back_in_time_saves_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving.time, "sleep", lambda seconds: None)
    free = iter([0, 0, 0, 10**9])
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda path: Usage(10**9, 0, next(free)))
    run = train(tmp_path / "run", steps=2)
    assert steps(run) == [2]


def test_checkpoint_that_reads_back_otherwise_is_set_aside_and_nothing_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path, keep_checkpoints=1)
    writer.save(2)
    with monkeypatch.context() as patch:
        patch.setattr(saving, "write_checkpoint", damage)
        writer.save(4)
    assert steps(tmp_path) == [2]
    assert list((tmp_path / "checkpoints").glob("step_00000004.bad.*"))
    writer.save(5)
    assert writer.read_newest() == 5


def damage(*args: Any) -> Checkpoint:
    checkpoint = write_checkpoint(*args)
    file = checkpoint.state / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return checkpoint


def test_what_the_run_continues_from_is_never_deleted(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=2)
    train(run, steps=6, keep_checkpoints=1, keep_best=0)
    assert steps(run) == [2, 6]
    train(run, steps=8, keep_checkpoints=1, keep_best=0)
    assert steps(run) == [6, 8]


class Judged(Forgetful):
    """Validated with given scores in turn."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores: Iterator[float] = iter(scores)

    def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
        return {"score": next(self.scores)}


def test_best_is_the_one_validated_after_that_very_step(tmp_path: Path) -> None:
    # Validated after steps 3, 6, 9 and 12, saved after every second.
    task = Judged(100.0, 7.0, 100.0, 5.0)
    run = train(tmp_path / "run", task, steps=12, validate_every=3, keep_checkpoints=1)
    assert steps(run) == [6, 12]
    manifests = {item.step: item.manifest for item in list_checkpoints(run)}
    assert manifests[6]["metrics"] == {"score": 7.0}
    assert manifests[6]["best_metric"] == "score"


def test_score_that_is_no_number_ranks_nothing(tmp_path: Path) -> None:
    run = train(tmp_path / "run", Judged(float("nan"), 1.0), steps=4, validate_every=2)
    assert [item.manifest["metrics"] for item in list_checkpoints(run)] == [{}, {"score": 1.0}]


def test_steps_to_keep_for_good_are_saved_though_no_save_is_due(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=10, checkpoint_every=4, keep_every=3, keep_checkpoints=1, keep_best=0)
    assert steps(run) == [3, 6, 9, 10]


def test_links_out_of_the_run_are_not_followed_when_deleting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other, writer = Writer(tmp_path / "other"), Writer(tmp_path / "run", keep_checkpoints=1)
    other.save(1)
    writer.save(2)
    precious = checkpoint_folder(tmp_path / "other", 1)
    checkpoint_folder(tmp_path / "run", 1).symlink_to(precious)
    writer.save(3)
    assert steps(tmp_path / "other") == [1] and "an old checkpoint stays" in caplog.text
    assert steps(tmp_path / "run") == [1, 3]
