"""Two trainers never write to one folder, and a killed one is never in the way."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mouse_facelift.errors import ConfigError
from mouse_facelift.training import lock
from mouse_facelift.training.lock import LOCK, locked, trainer_at_work

HOLDER = """
import os, sys, time
from pathlib import Path
from mouse_facelift.training.lock import locked

with locked(Path(sys.argv[1])):
    child = os.fork() if "fork" in sys.argv else -1
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


@contextmanager
def another_trainer(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds the lock, and the child that it has forked, if asked to."""
    command = [sys.executable, "-c", HOLDER, str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            process.kill()


def test_second_trainer_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with another_trainer(folder) as (process, _):
        assert trainer_at_work(folder)
        (tmp_path / "link").symlink_to(folder)
        for way in (folder, tmp_path / "link", tmp_path / "link" / ".." / "run"):
            with (
                pytest.raises(ConfigError, match=rf"is in use: process {process.pid} on \S+ \(since "),
                locked(way),
            ):
                pytest.fail("two trainers")
        assert trainer_at_work(folder), "the refused one took the lock away"


def test_lock_ends_with_a_killed_trainer_though_its_data_loaders_live_on(tmp_path: Path) -> None:
    with another_trainer(tmp_path, "fork") as (process, child):
        process.kill()
        process.wait()
        os.kill(child, 0)
        # As soon as the child, only just forked, has begun.
        deadline = time.monotonic() + 20
        while trainer_at_work(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not trainer_at_work(tmp_path) and (tmp_path / LOCK).is_file()
        with locked(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        os.kill(child, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_folder_made_for_a_run_that_does_not_begin_goes_again(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "deep" / "er" / "run"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "deep" / "run"):
        (tmp_path / "deep" / "run" / "log.jsonl").touch()
    assert [path.name for path in (tmp_path / "deep" / "run").iterdir()] == ["log.jsonl"]


def test_who_looks_at_the_lock_for_a_moment_turns_no_trainer_away(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / LOCK, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    timer = threading.Timer(0.15, os.close, [descriptor])
    timer.start()
    with locked(tmp_path):
        assert not timer.is_alive()


def test_lock_on_a_file_that_its_last_holder_has_just_deleted_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not calls:
            (tmp_path / LOCK).unlink()
        calls.append(operation)
        flock(descriptor, operation)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with locked(tmp_path):
        assert len(calls) == 2
        monkeypatch.undo()
        assert trainer_at_work(tmp_path)


def test_disk_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with locked(tmp_path):
        assert not trainer_at_work(tmp_path)
    assert "this disk knows no locks (No locks available)" in caplog.text


def test_garbled_lock_file_still_locks(tmp_path: Path) -> None:
    with another_trainer(tmp_path):
        (tmp_path / LOCK).write_text("[")
        with pytest.raises(ConfigError, match="is in use: another process trains there"), locked(tmp_path):
            pytest.fail("two trainers")
