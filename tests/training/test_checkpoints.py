import logging
from pathlib import Path

import pytest

from mouse_facelift.errors import CheckpointError
from mouse_facelift.training.checkpoints import (
    checkpoint_folder,
    find_checkpoint,
    list_checkpoints,
    prune_checkpoints,
    verify_checkpoint,
    write_checkpoint,
)


def fill(folder: Path) -> None:
    (folder / "weights").mkdir()
    (folder / "weights" / "w").write_bytes(b"1234")


def test_written_checkpoints_are_listed_in_order(tmp_path: Path) -> None:
    for step in (20, 3, 100):
        write_checkpoint(tmp_path, step, fill, {"command": "x"})
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [3, 20, 100]
    assert find_checkpoint(tmp_path).step == 100
    assert find_checkpoint(checkpoint_folder(tmp_path, 20)).step == 20


def test_failed_write_leaves_no_checkpoint(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(tmp_path, 1, fail, {})
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_folder_without_manifest_is_no_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_checkpoint(tmp_path, 1, fill, {})
    checkpoint_folder(tmp_path, 2).mkdir()
    fill(checkpoint_folder(tmp_path, 2))
    with caplog.at_level(logging.WARNING):
        assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [1]
    assert "step_00000002" in caplog.text


def test_cut_file_is_found_by_its_size_and_changed_content_by_its_hash(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 1, fill, {})
    (checkpoint.weights / "w").write_bytes(b"1235")
    with pytest.raises(CheckpointError, match="damaged"):
        verify_checkpoint(checkpoint)
    (checkpoint.weights / "w").write_bytes(b"12")
    with pytest.raises(CheckpointError, match="has 2 bytes, the manifest says 4"):
        find_checkpoint(checkpoint.folder)


def test_pruning_keeps_the_newest_and_checks_it_first(tmp_path: Path) -> None:
    for step in range(1, 5):
        write_checkpoint(tmp_path, step, fill, {})
    prune_checkpoints(tmp_path, keep=2)
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [3, 4]

    (checkpoint_folder(tmp_path, 4) / "weights" / "w").write_bytes(b"9999")
    with pytest.raises(CheckpointError):
        prune_checkpoints(tmp_path, keep=1)
    assert checkpoint_folder(tmp_path, 3).is_dir()


@pytest.mark.parametrize("make", [False, True])
def test_missing_checkpoint_is_an_error_and_says_where_it_was_expected(tmp_path: Path, make: bool) -> None:
    run = tmp_path / "run"
    if make:
        run.mkdir()
    with pytest.raises(CheckpointError, match="run"):
        find_checkpoint(run)


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, fill, {})
    half = tmp_path / "checkpoints" / ".step_00000002.abc"
    half.mkdir()
    (half / "weights").write_text("half")
    write_checkpoint(tmp_path, 2, fill, {})
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step_00000001",
        "step_00000002",
    ]
