"""Files of tensors that are damaged are told as such, whatever the bytes make the readers run into."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mouse_facelift.errors import CheckpointError
from mouse_facelift.training.tensors import read_tensors

CONTENT = {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.ones(3).half()}


def write_legacy(content: dict[str, Tensor], path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


WRITERS = {"a.safetensors": save_file, "a.pt": torch.save, "old.bin": write_legacy}


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_file_is_a_clear_error_or_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write: Callable[[dict[str, Tensor], Path], None] = WRITERS[name]
    write(CONTENT, path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng, refused = np.random.default_rng(0), 0
    for _ in range(200):
        changed = whole[: rng.integers(len(whole))] if rng.random() < 0.2 else whole.copy()
        if len(changed) == len(whole):
            where = rng.integers(len(whole), size=rng.choice([1, 3, 30]))
            changed[where] = rng.integers(256, size=len(where))
        path.write_bytes(changed.tobytes())
        try:
            read_tensors(path)
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: not readable as weights")
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("content", [b"junkjunk" * 10, b"\x80\x02", b"q" * 99, b"{}", b""])
def test_what_is_no_file_of_tensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not readable as weights"):
        read_tensors(path)


def test_pickle_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"weight": Evil()}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="could run code and was not run"):
        read_tensors(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()
