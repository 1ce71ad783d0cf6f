import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mouse_facelift.errors import ConfigError, DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.samples import cache as cache_module
from mouse_facelift.samples.cache import SampleCache
from mouse_facelift.samples.datasets import SampleDataset
from mouse_facelift.samples.format import write_list, write_sample
from mouse_facelift.samples.keys import PictureKeys

SIZE = 24


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "SHARD_SAMPLES", 2)


@pytest.fixture
def data(tmp_path: Path) -> SampleDataset:
    """Five samples of two views: noise in a box on white."""
    rng = np.random.default_rng(0)
    folders = []
    for number in range(5):
        pictures = np.full((2, SIZE, SIZE, 4), (255, 255, 255, 0), np.uint8)
        pictures[:, 4:11, 6 : 9 + number] = rng.integers(0, 256, (2, 7, 3 + number, 4))
        cameras = [Camera.look_at((2.7, 0, 0.1 * view), (0, 0, 0), 30, SIZE) for view in range(2)]
        folders.append(write_sample(tmp_path / f"s{number}", list(pictures), cameras, [0, 1]).folder)
    write_list(tmp_path / "list.txt", folders)
    return SampleDataset.from_list(tmp_path / "list.txt", SIZE)


def cache_of(data: SampleDataset, folder: Path) -> SampleCache:
    return SampleCache(data, PictureKeys(data.samples, folder / "memo.json").keys, folder)


def rgba(data: SampleDataset) -> list[torch.Tensor]:
    return [data[index]["rgba"] for index in range(len(data))]


@pytest.mark.parametrize("size", [SIZE, 16])
def test_cached_pictures_are_the_decoded_ones_bit_for_bit(data: SampleDataset, size: int) -> None:
    data.image_size = size
    expected = rgba(data)
    cache = cache_of(data, data.samples[0].folder.parent / "cache")
    cache.build()
    data.source = cache
    for found, picture in zip(rgba(data), expected, strict=True):
        assert torch.equal(found, picture)


def test_files_hold_little_more_than_the_animal(data: SampleDataset, tmp_path: Path) -> None:
    cache = cache_of(data, tmp_path / "cache")
    cache.build()
    held = sum(shard.path.stat().st_size for shard in cache.shards)
    animals = sum(2 * 4 * 7 * (3 + number) for number in range(5))
    assert len(cache.shards) == 3
    assert held - animals < 3 * 700 < 5 * 2 * 4 * SIZE**2


def test_nothing_is_made_twice(data: SampleDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_of(data, tmp_path / "cache").build()
    monkeypatch.setattr(cache_module, "load_pictures", None)
    again = cache_of(data, tmp_path / "cache")
    assert again.pending() == {}
    again.build()
    # A list that goes on behind the same samples shares what is full.
    first = SampleDataset([sample.folder for sample in data.samples[:3]], SIZE)
    assert set(cache_of(first, tmp_path / "cache").pending()) == {1}


@pytest.mark.parametrize("change", ["picture", "size"])
def test_other_pictures_are_never_taken_for_these(data: SampleDataset, tmp_path: Path, change: str) -> None:
    cache_of(data, tmp_path / "cache").build()
    if change == "size":
        other = SampleDataset([sample.folder for sample in data.samples], 12)
        assert set(cache_of(other, tmp_path / "cache").pending()) == {0, 1, 2}
        return
    source, target = (data.samples[number].views[0].file for number in (0, 3))
    target.write_bytes(source.read_bytes())
    assert set(cache_of(data, tmp_path / "cache").pending()) == {1}


def test_processes_share_the_work(data: SampleDataset, tmp_path: Path) -> None:
    shares = [cache_of(data, tmp_path / "cache") for _ in range(2)]
    shares[1].build(rank=1, world=2)
    assert set(shares[0].pending()) == {0, 2}
    shares[0].build(rank=0, world=2)
    assert shares[0].pending() == {}


@pytest.mark.parametrize("damage", [b"", b"not safetensors", None])
def test_damaged_file_is_named_and_made_anew(
    data: SampleDataset, tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    cache = cache_of(data, tmp_path / "cache")
    cache.build()
    path = cache.shards[1].path
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    with pytest.raises(DataError, match=r"is unreadable .*Delete the file and start again"):
        cache.read(2)
    with caplog.at_level(logging.WARNING):
        cache.build()
    assert path.name in caplog.text and "made anew" in caplog.text
    assert cache.pending() == {}


def test_changed_number_is_noticed_on_reading(data: SampleDataset, tmp_path: Path) -> None:
    cache = cache_of(data, tmp_path / "cache")
    cache.build()
    path = cache.shards[0].path
    content = bytearray(path.read_bytes())
    place = content.index(data.eight_bit(1)["rgba"][1, :, 4:11, 6:10].numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    cache.read(0)
    with pytest.raises(DataError, match="a checksum does not fit"):
        cache.read(1)


def test_file_of_other_samples_is_refused(data: SampleDataset, tmp_path: Path) -> None:
    cache = cache_of(data, tmp_path / "cache")
    cache.build()
    cache.shards[0].path.write_bytes(cache.shards[1].path.read_bytes())
    assert "is labelled" in cache.pending()[0]


def test_full_disk_is_an_error_before_anything_is_made(
    data: SampleDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "free_bytes", lambda path: 100)
    cache = cache_of(data, tmp_path / "cache")
    with pytest.raises(ConfigError, match=r"pictures of 5 samples need about \d+ kB, 100 B are free"):
        cache.build()
    assert not (tmp_path / "cache").exists()


def test_sample_that_cannot_be_read_is_named(data: SampleDataset, tmp_path: Path) -> None:
    data.samples[3].views[1].file.write_bytes(b"no picture")
    cache = cache_of(data, tmp_path / "cache")
    with pytest.raises(DataError, match=r"s3/images/cam_001\.png: not a readable picture"):
        cache.build()


SLOW_BUILD = """
import sys, time
from pathlib import Path
from mouse_facelift.samples import cache
from mouse_facelift.samples.datasets import SampleDataset
from mouse_facelift.samples.keys import PictureKeys

cache.SHARD_SAMPLES = 1
decode = cache.load_pictures
cache.load_pictures = lambda *given: time.sleep(0.05) or decode(*given)
cache.worker_count = lambda asked: 1
folder = Path(sys.argv[1])
data = SampleDataset.from_list(folder / "list.txt", int(sys.argv[2]))
made = cache.SampleCache(data, PictureKeys(data.samples, folder / "memo.json").keys, folder / "cache")
print("begin", flush=True)
made.build()
"""


def test_build_killed_at_any_time_goes_on_where_it_was(
    data: SampleDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "SHARD_SAMPLES", 1)
    cache = cache_of(data, tmp_path / "cache")
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", SLOW_BUILD, str(tmp_path), str(SIZE)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None and child.stdout.readline() == "begin\n"
        before = len(cache.pending())
        until(lambda before=before: len(cache.pending()) < before)
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    assert 0 < len(cache.pending()) <= 3
    cache.build()
    data.source = cache
    assert all(torch.equal(a, b) for a, b in zip(rgba(data), rgba(reread(data)), strict=True))


def reread(data: SampleDataset) -> SampleDataset:
    return SampleDataset([sample.folder for sample in data.samples], data.image_size)


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)
