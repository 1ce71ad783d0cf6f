"""Prompt embeddings that cannot be right are refused; nothing is ever replaced by zeros."""

import os
from pathlib import Path

import pytest
import torch

from mouse_facelift.errors import CheckpointError
from mouse_facelift.mvdiffusion.prompts import (
    load_prompt_embeds,
    read_prompt_azimuths,
    save_prompt_embeds,
)


def test_written_embeddings_are_read_back(tmp_path: Path) -> None:
    embeds = torch.randn(6, 77, 8).half()
    save_prompt_embeds(tmp_path / "p.safetensors", embeds)
    torch.save(embeds, tmp_path / "p.pt")
    for name in ("p.safetensors", "p.pt"):
        assert torch.equal(load_prompt_embeds(tmp_path / name, 6, 8), embeds)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.randn(6, 77, 768), r"shape \(6, 77, 768\).*a last axis of 768 comes from CLIP ViT-L"),
        (torch.randn(6 * 77, 8), r"shape \(462, 8\)"),
        (torch.randn(6, 77, 6), r"shape \(6, 77, 6\), expected \(6, 77, 8\)"),
        (torch.randn(4, 77, 8), r"shape \(4, 77, 8\)"),
        (torch.zeros(6, 77, 8), "zero"),
        (torch.ones(6, 77, 8, dtype=torch.int64), "torch.int64"),
        (torch.full((6, 77, 8), torch.nan), "NaN"),
        (torch.full((6, 77, 8), -torch.inf, dtype=torch.float16), "infinity"),
        ([torch.randn(6, 77, 8)], "holds a list, expected one tensor"),
        ({"a": torch.ones(1), "b": torch.ones(1)}, "expected one tensor"),
    ],
)
def test_wrong_embeddings_are_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "p.pt")
    with pytest.raises(CheckpointError, match=message):
        load_prompt_embeds(tmp_path / "p.pt", 6, 8)


def test_one_empty_view_is_named(tmp_path: Path) -> None:
    embeds = torch.randn(6, 77, 8)
    embeds[3] = 0
    torch.save(embeds, tmp_path / "p.pt")
    with pytest.raises(CheckpointError, match=r"views \[3\]"):
        load_prompt_embeds(tmp_path / "p.pt", 6, 8)


def test_missing_file_is_an_error_not_zeros(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_prompt_embeds(tmp_path / "absent.pt", 6, 8)
    with pytest.raises(CheckpointError, match="no such file"):
        read_prompt_azimuths(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_precision_of_the_file_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    save_prompt_embeds(tmp_path / "p.safetensors", torch.randn(2, 77, 8).to(dtype))
    assert load_prompt_embeds(tmp_path / "p.safetensors", 2, 8).dtype == dtype


def test_tensor_under_any_name_is_read(tmp_path: Path) -> None:
    embeds = torch.randn(2, 77, 8)
    torch.save({"embeddings": embeds}, tmp_path / "p.pt")
    assert torch.equal(load_prompt_embeds(tmp_path / "p.pt", 2, 8), embeds)


def test_file_that_is_a_program_is_not_run(tmp_path: Path) -> None:
    class Program:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"embeddings": Program()}, tmp_path / "p.pt")
    with pytest.raises(CheckpointError, match="could run code and was not run"):
        load_prompt_embeds(tmp_path / "p.pt", 6, 8)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["p.safetensors", "p.pt"])
def test_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x08\0\0")
    with pytest.raises(CheckpointError, match="not readable as weights"):
        load_prompt_embeds(tmp_path / name, 6, 8)


def test_directions_of_the_rows_are_remembered(tmp_path: Path) -> None:
    embeds = torch.randn(3, 77, 8)
    save_prompt_embeds(tmp_path / "known.safetensors", embeds, {"azimuths_deg": [0, 120.5, 270]})
    save_prompt_embeds(tmp_path / "words.safetensors", embeds, {"azimuths_deg": [None, None, None]})
    save_prompt_embeds(tmp_path / "plain.safetensors", embeds)
    torch.save(embeds, tmp_path / "published.pt")
    assert read_prompt_azimuths(tmp_path / "known.safetensors") == (0, 120.5, 270)
    for name in ("words.safetensors", "plain.safetensors", "published.pt"):
        assert read_prompt_azimuths(tmp_path / name) is None


def test_directions_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    save_prompt_embeds(tmp_path / "p.safetensors", torch.randn(2, 77, 8), {"azimuths_deg": ["left", "right"]})
    with pytest.raises(CheckpointError, match="no readable record of its views"):
        read_prompt_azimuths(tmp_path / "p.safetensors")
