import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mouse_facelift.files import atomic_folder, atomic_path, make_folder, remove_leftovers, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_failed_folder_leaves_the_old_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with atomic_folder(folder) as temporary:
        (temporary / "x").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(folder) as temporary:
        (temporary / "x").write_text("half")
        raise RuntimeError
    assert (folder / "x").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    for name in ("first", "second"):
        with atomic_folder(folder) as temporary:
            (temporary / name).write_text(name)
    assert names(folder) == ["second"]
    assert names(tmp_path) == ["a"]


def test_written_files_have_usual_permissions(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {})
    (tmp_path / "b.json").write_text("{}")
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "b.json").stat().st_mode


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert names(tmp_path) == []
    write_json(tmp_path / "a.json", {"x": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_writing_does_not_touch_the_mask_that_other_threads_make_files_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = os.umask(0o022)
    os.umask(mask)
    with monkeypatch.context() as patch:
        patch.delattr(os, "umask")
        write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("place", [atomic_path, atomic_folder])
def test_write_that_fails_names_what_was_being_written(tmp_path: Path, place: Callable) -> None:
    with pytest.raises(OSError, match="No space left") as failure, place(tmp_path / "sample"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert failure.value.filename == str(tmp_path / "sample")


def test_everything_is_on_disk_before_the_folder_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    open_, fsync, replace = os.open, os.fsync, os.replace
    paths: dict[int, Path] = {}

    def watched_open(path: Path, flags: int, *args: int, **kwargs: int) -> int:
        descriptor = open_(path, flags, *args, **kwargs)
        paths[descriptor] = Path(path)
        return descriptor

    def watched_fsync(descriptor: int) -> None:
        order.append(paths[descriptor].name)
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        order.append(f"rename to {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "open", watched_open)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    with atomic_folder(tmp_path / "new" / "a") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text("x")
        name = temporary.name
    # The folder that names `new` first, then from the file outwards.
    assert order == [tmp_path.name, "file", "inner", name, "rename to a", "new"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_interruption_between_the_renames_leaves_one_of_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    folder = tmp_path / "a"
    with atomic_folder(folder) as temporary:
        (temporary / "x").write_text("old")
    replace = os.replace

    def interrupted(source: Path, target: Path) -> None:
        new = Path(target) == folder and (Path(source) / "x").read_text() == "new"
        if when == "after" or not new:
            replace(source, target)
        if new:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder) as temporary:
        (temporary / "x").write_text("new")
    assert (folder / "x").read_text() == {"before": "old", "after": "new"}[when]
    assert names(tmp_path) == ["a"]


def test_what_a_killed_writer_set_aside_is_put_back(tmp_path: Path) -> None:
    for name, killed_after in (("a", "the first rename"), ("b", "the second")):
        aside = tmp_path / f".{name}.old.abcd1234" / name
        aside.mkdir(parents=True)
        (aside / "x").write_text("old")
        if killed_after == "the second":
            (tmp_path / name).mkdir()
            (tmp_path / name / "x").write_text("new")
    (tmp_path / ".c.old.abcd1234").mkdir()
    remove_leftovers(tmp_path, "a|b|c")
    assert names(tmp_path) == ["a", "b"]
    assert [(tmp_path / name / "x").read_text() for name in "ab"] == ["old", "new"]


def test_old_folder_is_put_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    with atomic_folder(folder) as temporary:
        (temporary / "x").write_text("old")
    replace = os.replace

    def failing(source: Path, target: Path) -> None:
        if Path(target) == folder and (Path(source) / "x").read_text() == "new":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(os, "replace", failing)
        with atomic_folder(folder) as temporary:
            (temporary / "x").write_text("new")
    assert (folder / "x").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_cleaning_up_that_fails_does_not_hide_why_the_write_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("unlink", "rmdir"):
        monkeypatch.setattr(os, name, stuck)
    for place in (atomic_path, atomic_folder):
        with pytest.raises(OSError, match="No space left"), place(tmp_path / "a"):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [
        "run.json",
        "step_3",
        ".step_3",
        ".run.json",
        ".hidden",
        ".run.old.abcdefgh.json",
        ".other.abcdefgh",
    ]
    for name in [*kept, ".run.ab_defg8.json"]:
        (tmp_path / name).write_text("x")
    (tmp_path / ".step_4.abcdefgh" / "inner").mkdir(parents=True)
    (tmp_path / ".step_5.abcdefgh").symlink_to(tmp_path / "step_3")
    remove_leftovers(tmp_path, r"step_\d|run")
    assert names(tmp_path) == sorted(kept)
    remove_leftovers(tmp_path / "absent", "run")


def test_folders_are_made_with_those_above_them(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
