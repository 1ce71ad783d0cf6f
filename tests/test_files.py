import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mouse_facelift.files import atomic_folder, atomic_path, write_json


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
