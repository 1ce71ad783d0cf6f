import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from mouse_facelift.geometry import Camera
from mouse_facelift.samples import keys
from mouse_facelift.samples.format import CAMERAS_FILE, Sample, read_sample, write_sample
from mouse_facelift.samples.keys import PictureKeys


def sample_of(folder: Path, level: int = 100) -> Sample:
    camera = Camera.look_at((2.7, 0, 0), (0, 0, 0), 30, 16)
    return write_sample(folder, [np.full((16, 16, 4), level, np.uint8)] * 2, [camera] * 2, [0, 1])


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written count as old."""
    monkeypatch.setattr(keys, "SETTLED_NS", -1)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What has been read."""
    paths: list[Path] = []
    real = keys.sha256
    monkeypatch.setattr(keys, "sha256", lambda path: paths.append(path) or real(path))
    return paths


def test_key_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    samples = [sample_of(tmp_path / "a"), sample_of(tmp_path / "b"), sample_of(tmp_path / "c", 101)]
    first, second, third = PictureKeys(samples, tmp_path / "memo.json").keys
    assert first == second != third


def test_key_changes_with_the_size_that_cameras_tell(tmp_path: Path) -> None:
    sample = sample_of(tmp_path / "a")
    before = PictureKeys([sample], tmp_path / "memo.json").keys
    file = tmp_path / "a" / CAMERAS_FILE
    content = json.loads(file.read_text())
    content["frames"][0]["w"] = content["frames"][0]["h"] = 17
    file.write_text(json.dumps(content))
    assert PictureKeys([read_sample(tmp_path / "a")], tmp_path / "memo.json").keys != before


@pytest.mark.usefixtures("settled")
def test_known_pictures_are_not_read_again(tmp_path: Path, hashed: list[Path]) -> None:
    samples, memo = [sample_of(tmp_path / "a"), sample_of(tmp_path / "b", 7)], tmp_path / "memo.json"
    first = PictureKeys(samples[:1], memo)
    first.save()
    assert len(hashed) == 2
    both = PictureKeys(samples, memo)
    both.save()
    assert len(hashed) == 4 and both.keys[0] == first.keys[0]
    assert PictureKeys(samples[::-1], memo).keys == both.keys[::-1]
    assert len(hashed) == 4


@pytest.mark.usefixtures("settled")
def test_changed_picture_is_read_again_even_with_its_old_time_and_length(
    tmp_path: Path, hashed: list[Path]
) -> None:
    sample, memo = sample_of(tmp_path / "a"), tmp_path / "memo.json"
    before = PictureKeys([sample], memo)
    before.save()
    file = sample.views[1].file
    content, state = bytearray(file.read_bytes()), file.stat()
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert PictureKeys([sample], memo).keys != before.keys
    assert len(hashed) == 4


def test_pictures_written_a_moment_ago_are_not_remembered(tmp_path: Path) -> None:
    keys_now = PictureKeys([sample_of(tmp_path / "a")], tmp_path / "memo.json")
    keys_now.save()
    assert not (tmp_path / "memo.json").exists()


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', "\x00"])
def test_damaged_memo_is_no_harm(tmp_path: Path, content: str) -> None:
    sample, memo = sample_of(tmp_path / "a"), tmp_path / "memo.json"
    good = PictureKeys([sample], memo).keys
    memo.write_text(content)
    again = PictureKeys([sample], memo)
    again.save()
    assert again.keys == good
    assert str((tmp_path / "a").resolve()) in json.loads(memo.read_text())


@pytest.mark.usefixtures("settled")
def test_moved_samples_keep_their_keys(tmp_path: Path) -> None:
    memo = tmp_path / "memo.json"
    before = PictureKeys([sample_of(tmp_path / "a")], memo)
    before.save()
    shutil.move(tmp_path / "a", tmp_path / "moved")
    assert cv2.imread(str(tmp_path / "moved/images/cam_000.png")) is not None
    assert PictureKeys([read_sample(tmp_path / "moved")], memo).keys == before.keys
