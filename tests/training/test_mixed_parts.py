"""Training on several data sets by their shares: exact resume, and processes that share one order."""

from pathlib import Path

import pytest
import torch
from forks import run_in_two
from two_processes import Mixed, Plain, losses, tensors_of, train

TOLERANCE = {"rtol": 1e-5, "atol": 1e-7}
"""As in test_two_processes."""


def test_resumed_mix_ends_with_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", task=Mixed, steps=4, gradient_accumulation=2)
    for steps in (2, 4):
        parts = train(tmp_path / "parts", task=Mixed, steps=steps, gradient_accumulation=2)
    assert losses(parts) == losses(whole)
    expected, found = tensors_of(whole), tensors_of(parts)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_shares_decide_what_is_drawn(tmp_path: Path) -> None:
    assert losses(train(tmp_path / "a", task=Mixed, steps=4)) != losses(
        train(tmp_path / "b", task=Plain, steps=4)
    )


def test_two_processes_draw_the_mix_of_one_with_the_doubled_batch(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from two_processes import Mixed, train
for steps in (3, 6):
    train(Path(sys.argv[1]) / "two", task=Mixed, steps=steps)
"""
    run_in_two(program, tmp_path)
    one = train(tmp_path / "one", task=Mixed, steps=6, batch_size=4)
    assert losses(tmp_path / "two") == pytest.approx(losses(one), rel=1e-5)
    found = tensors_of(tmp_path / "two")
    for name, value in tensors_of(one).items():
        torch.testing.assert_close(found[name], value, **TOLERANCE)
