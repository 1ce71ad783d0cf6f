import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mouse_facelift.errors import CheckpointError, ConfigError
from mouse_facelift.training.checkpoints import (
    MANIFEST,
    amend_checkpoint,
    checkpoint_folder,
    checkpoint_to_resume,
    delete_checkpoint,
    find_checkpoint,
    list_checkpoints,
    verify_checkpoint,
    write_checkpoint,
)


def fill(folder: Path) -> None:
    (folder / "weights").mkdir()
    (folder / "weights" / "w").write_bytes(b"1234")


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


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
    assert names(tmp_path) == []


def test_tensors_that_do_not_fit_on_the_disk_fail_like_any_other_write(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        save_file({"x": torch.zeros(1)}, folder / "absent" / "x.safetensors")

    with pytest.raises(OSError, match=r"No such file.*step_00000001"):
        write_checkpoint(tmp_path, 1, fail, {})


def test_folder_without_manifest_is_no_checkpoint_and_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path, 1, fill, {})
    checkpoint_folder(tmp_path, 2).mkdir()
    fill(checkpoint_folder(tmp_path, 2))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [1]
    assert caplog.text.count("step_00000002: no manifest.json") == 1


@pytest.mark.parametrize(
    "manifest",
    ["", "[]", "{}", '{"step": 1}', '{"step": 1, "files": []}', '{"step": 1, "files": {"weights/w": 4}}'],
)
def test_garbled_manifest_is_no_manifest(tmp_path: Path, manifest: str) -> None:
    checkpoint = write_checkpoint(tmp_path, 1, fill, {})
    (checkpoint.folder / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError, match="not a checkpoint manifest"):
        find_checkpoint(checkpoint.folder)


@pytest.mark.parametrize("name", ["../../secret", "/secret"])
def test_manifest_that_names_files_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    checkpoint = write_checkpoint(tmp_path, 1, fill, {})
    content = {"step": 1, "files": {name: {"bytes": 4, "sha256": "x"}}}
    (checkpoint.folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="not inside the checkpoint"):
        find_checkpoint(checkpoint.folder)


def test_cut_file_is_found_by_its_size_and_changed_content_by_its_hash(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 1, fill, {})
    (checkpoint.weights / "w").write_bytes(b"1235")
    with pytest.raises(CheckpointError, match="damaged"):
        verify_checkpoint(checkpoint)
    (checkpoint.weights / "w").write_bytes(b"12")
    with pytest.raises(CheckpointError, match="has 2 bytes, the manifest says 4"):
        find_checkpoint(checkpoint.folder)


def test_checkpoint_whose_name_says_another_step_is_refused(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 1, fill, {})
    checkpoint.folder.rename(checkpoint_folder(tmp_path, 7))
    with pytest.raises(CheckpointError, match="is of step 1, the folder's name says 7"):
        find_checkpoint(checkpoint_folder(tmp_path, 7))


def test_copy_of_a_checkpoint_is_found_under_any_name(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 4, fill, {})
    checkpoint.folder.rename(tmp_path / "backup")
    assert find_checkpoint(tmp_path / "backup").step == 4


@pytest.mark.parametrize("make", [False, True])
def test_missing_checkpoint_is_an_error_and_says_where_it_was_expected(tmp_path: Path, make: bool) -> None:
    run = tmp_path / "run"
    if make:
        run.mkdir()
    with pytest.raises(CheckpointError, match="run"):
        find_checkpoint(run)


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, fill, {})
    half = tmp_path / "checkpoints" / ".step_00000002.abcd_123"
    half.mkdir()
    (half / "weights").write_text("half")
    write_checkpoint(tmp_path, 2, fill, {})
    assert names(tmp_path) == ["step_00000001", "step_00000002"]


def test_incomplete_checkpoint_in_the_way_is_moved_and_never_deleted(tmp_path: Path) -> None:
    fill_me = checkpoint_folder(tmp_path, 2)
    fill_me.mkdir(parents=True)
    fill(fill_me)
    write_checkpoint(tmp_path, 2, fill, {})
    (moved,) = (tmp_path / "checkpoints").glob("step_00000002.bad.*")
    assert (moved / "weights" / "w").read_bytes() == b"1234"
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [2]


def test_auto_does_not_start_anew_beside_broken_checkpoints(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 3, fill, {})
    (checkpoint.folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="holds step_00000003, none of them complete"):
        checkpoint_to_resume(tmp_path, "auto")
    write_checkpoint(tmp_path, 2, fill, {})
    older = checkpoint_to_resume(tmp_path, "auto")
    assert older is not None and older.step == 2


def test_newer_checkpoint_than_the_chosen_one_is_not_passed_over(tmp_path: Path) -> None:
    older = write_checkpoint(tmp_path, 1, fill, {}).folder
    write_checkpoint(tmp_path, 2, fill, {})
    for choice in ("never", str(older)):
        with pytest.raises(ConfigError, match="holds a checkpoint of step 2"):
            checkpoint_to_resume(tmp_path, choice)


def test_deleting_takes_one_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    first, second = (write_checkpoint(tmp_path, step, fill, {}) for step in (1, 2))
    delete_checkpoint(tmp_path, first)
    assert names(tmp_path) == [second.folder.name]


@pytest.mark.parametrize("linked", ["the checkpoint", "all checkpoints"])
def test_nothing_is_deleted_through_a_link_out_of_the_run(tmp_path: Path, linked: str) -> None:
    other, run = tmp_path / "other", tmp_path / "run"
    precious = write_checkpoint(other, 1, fill, {}).folder
    if linked == "the checkpoint":
        (run / "checkpoints").mkdir(parents=True)
        checkpoint_folder(run, 1).symlink_to(precious)
    else:
        run.mkdir()
        (run / "checkpoints").symlink_to(other / "checkpoints")
    (checkpoint,) = list_checkpoints(run)
    with pytest.raises(CheckpointError, match="it is not deleted"):
        delete_checkpoint(run, checkpoint)
    assert (precious / "weights" / "w").is_file()


def test_deleting_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "other", 1, fill, {})
    with pytest.raises(CheckpointError, match="it is not deleted"):
        delete_checkpoint(tmp_path / "run", checkpoint)


def test_killed_deletion_leaves_no_half_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = write_checkpoint(tmp_path, 1, fill, {})

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mouse_facelift.training.checkpoints.shutil.rmtree", killed)
        delete_checkpoint(tmp_path, checkpoint)
    assert list_checkpoints(tmp_path) == []
    write_checkpoint(tmp_path, 2, fill, {})
    assert names(tmp_path) == ["step_00000002"]


def test_files_that_somebody_keeps_in_a_checkpoint_are_not_deleted_with_it(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 1, fill, {})
    notes = checkpoint.folder / "evaluation" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("precious")
    with pytest.raises(CheckpointError, match=r"holds evaluation/notes\.txt, which is not part of it"):
        delete_checkpoint(tmp_path, checkpoint)
    assert notes.read_text() == "precious" and list_checkpoints(tmp_path)
    notes.unlink()
    delete_checkpoint(tmp_path, checkpoint)
    assert names(tmp_path) == []


def test_what_is_added_to_a_manifest_is_added_at_once_and_half_an_addition_is_in_nobodys_way(
    tmp_path: Path,
) -> None:
    write_checkpoint(tmp_path, 1, fill, {"metrics": None})
    folder = checkpoint_folder(tmp_path, 1)
    (folder / ".manifest.abcd1234.json").write_text('{"step"')
    amended = amend_checkpoint(tmp_path, 1, {"metrics": {"psnr": 3.0}})
    assert amended.manifest["metrics"] == {"psnr": 3.0}
    verify_checkpoint(amended)
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "weights"]
    (folder / ".manifest.abcd1234.json").write_text('{"step"')
    delete_checkpoint(tmp_path, amended)
    assert names(tmp_path) == []


def test_file_in_a_checkpoints_place_is_set_aside(tmp_path: Path) -> None:
    checkpoint_folder(tmp_path, 1).parent.mkdir()
    checkpoint_folder(tmp_path, 1).write_text("x")
    assert write_checkpoint(tmp_path, 1, fill, {}).step == 1
    assert [name[:17] for name in names(tmp_path)] == ["step_00000001", "step_00000001.bad"]


def test_home_of_nobody_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="~nobody-of-that-name/run: no such folder"):
        checkpoint_to_resume(tmp_path, "~nobody-of-that-name/run")
