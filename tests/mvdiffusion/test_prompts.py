"""Prompt embeddings that cannot be right are refused; nothing is ever replaced by zeros."""

from pathlib import Path

import pytest
import torch

from mouse_facelift.errors import CheckpointError
from mouse_facelift.mvdiffusion.prompts import load_prompt_embeds, save_prompt_embeds


def test_written_embeddings_are_read_back(tmp_path: Path) -> None:
    embeds = torch.randn(6, 77, 8).half()
    save_prompt_embeds(tmp_path / "p.safetensors", embeds)
    torch.save(embeds, tmp_path / "p.pt")
    for name in ("p.safetensors", "p.pt"):
        assert torch.equal(load_prompt_embeds(tmp_path / name, 6, 8), embeds)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.randn(6, 77, 6), r"shape \(6, 77, 6\), expected \(6, 77, 8\)"),
        (torch.randn(4, 77, 8), r"shape \(4, 77, 8\)"),
        (torch.zeros(6, 77, 8), "zero"),
        (torch.ones(6, 77, 8, dtype=torch.int64), "torch.int64"),
        (torch.full((6, 77, 8), torch.nan), "NaN"),
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
